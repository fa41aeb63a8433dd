"""Requests of one episode: exogenous, drawn before it starts, the same whatever any policy does.

Every kind of demand yields the same two things: a table of requests ordered by slot, and the true rates behind it.
Rates are constant within pieces of an episode (a session's on or off time, a traffic matrix), so counts are drawn per
piece, not per slot: a Poisson number of requests at slots uniform within the piece is the same process. Periodic
requests are pieces, too: each the time in which one of them comes.

A request for n pairs is n rows of the table, each for one pair; it is delivered when all of them are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.network.network import REMEDIES, Network, in_words, peers_in_words
from dpem_env.network.route_search import Exclusion
from dpem_env.network.routes import reachability
from dpem_env.scenarios import Scenario, traces
from dpem_env.scenarios.schema import MAX_SLOTS, ReplayDemand, SaturatedDemand, SessionDemand, TraceDemand
from dpem_env.support.errors import DataError, DpemWarning, ScenarioError
from dpem_env.support.seeding import generator, require_seed

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


LATEST_NEWS = 4.0  # s; no control delay that is swept is longer


class RequestTable(NamedTuple):
    """R requests in order of arrival; one for n pairs is n rows, which lie together."""

    slot: Ints  # (R,) slot of arrival
    source: Ints  # (R,) node
    peer: Ints  # (R,) place of the destination among the source's peers
    wanted: Ints  # (R,) index of the fidelity class
    last_slot: Ints  # (R,) last slot in which it can be served
    by_expiry: Ints  # (R,) request indices in order of last_slot


class Pieces(NamedTuple):
    """P pieces of constant rate; overlapping pieces of a pair add up."""

    node: Ints  # (P,)
    peer: Ints  # (P,) place among the node's peers
    start: Ints  # (P,) first slot
    stop: Ints  # (P,) last slot + 1
    rate: NDArray[np.float64]  # (P,) requests per slot


_NONE = np.zeros(0, dtype=np.int32)
NO_PIECES = Pieces(_NONE, _NONE, _NONE, _NONE, np.zeros(0))


@dataclass(frozen=True, eq=False)
class Demand:
    """The requests of one episode and the true rates behind them."""

    requests: RequestTable
    pieces: Pieces
    shape: tuple[int, int]  # (N, D)
    excluded_requests: int = 0  # requests of a file, within the episode, whose destination is no reachable peer
    left_out: dict[str, int] = field(default_factory=dict)  # requests of a file that do not count, by reason

    def rates(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, N, D) true expected requests in each slot: known to no policy but a clairvoyant one."""
        table = np.zeros((stop - start + 1, *self.shape))
        node, peer, first, last, rate = self.pieces
        first, last = np.clip(first, start, stop) - start, np.clip(last, start, stop) - start
        np.add.at(table, (first, node, peer), rate)
        np.add.at(table, (last, node, peer), -rate)
        rates: NDArray[np.float64] = np.maximum(np.cumsum(table[:-1], axis=0), 0.0)
        return rates


def mean_rates(scenario: Scenario, network: Network) -> NDArray[np.float64]:
    """(N, D) long-run mean of the pairs requested per slot, n·Λ·a_id·dt: the climatology."""
    return network.weights * scenario.requests_per_slot * scenario.demand.pairs_per_request


def draw_demand(
    scenario: Scenario,
    network: Network,
    demand_seed: int,
    slots: int,
) -> Demand:
    """The demand of an episode of `slots` slots.

    Sessions and traces are drawn from `demand_seed`; a request file is replayed as it is. Warns of requests in it that
    do not count; raises DataError if none does, and ScenarioError if no node has a peer.
    """
    require_seed("demand seed", demand_seed)
    config = scenario.demand
    if isinstance(config, ReplayDemand):
        return _replayed(scenario, config, network, slots)
    if network.num_connected == 0:
        raise ScenarioError(f"{scenario.name}: {peers_in_words(network)}")
    pairs = config.pairs_per_request
    mean = mean_rates(scenario, network) / pairs
    # The true rates go on past the end: a clairvoyant forecast made in the last slot looks there.
    horizon = slots + scenario.observation.forecast_horizon + scenario.in_slots(LATEST_NEWS)
    requests_of = generator("requests", demand_seed)
    if isinstance(config, SaturatedDemand):
        beats = _one_per_slot(mean, horizon)
        requests = _draw_requests(scenario, network, NO_PIECES, beats, requests_of, slots)
        return Demand(requests, beats._replace(rate=beats.rate * pairs), mean.shape)
    sessions = generator("sessions", demand_seed)
    by_rate, beats, rest = [], NO_PIECES, mean
    if isinstance(config, TraceDemand):
        by_rate.append(_trace_pieces(scenario, config, network, demand_seed, slots, horizon))
        rest = mean * (1.0 - config.trace_share)
    steady, on = _session_pieces(scenario, config, rest, sessions, horizon)
    by_rate.append(steady)
    if config.arrivals == "periodic":
        beats = _beats(on, config.jitter, sessions)
    else:
        by_rate.append(on)
    requests = _draw_requests(scenario, network, _joined(by_rate), beats, requests_of, slots)
    pieces = _joined([*by_rate, beats])
    return Demand(requests, pieces._replace(rate=pieces.rate * pairs), mean.shape)


def _joined(parts: Sequence[Pieces]) -> Pieces:
    return Pieces(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _session_pieces(
    scenario: Scenario, config: SessionDemand, mean: NDArray[np.float64], rng: np.random.Generator, slots: int
) -> tuple[Pieces, Pieces]:
    """Constant part (1 - φ) and on-times carrying φ/p of the mean rate; times on and off are geometric, stationary."""
    node, peer = (index.astype(np.int32) for index in np.nonzero(mean > 0))
    rate = mean[node, peer]
    phi, share = config.predictability, config.session_share
    end = np.full_like(node, slots)
    steady = Pieces(node, peer, np.zeros_like(node), end, rate * (1.0 - phi))
    leave_on = scenario.control.slot_duration / config.session_duration
    leave_off = leave_on * share / (1.0 - share)
    parts = [NO_PIECES]
    on = rng.random(len(node)) < share
    clock = np.zeros(len(node), dtype=np.int64)
    while phi > 0 and np.any(clock < slots):
        spell = rng.geometric(np.where(on, leave_on, leave_off))
        stop = np.minimum(clock + spell, slots)
        live = on & (clock < slots)
        parts.append(
            Pieces(
                node[live],
                peer[live],
                clock[live].astype(np.int32),
                stop[live].astype(np.int32),
                rate[live] * phi / share,
            )
        )
        clock, on = clock + spell, ~on
    return steady, _joined(parts)


def _one_per_slot(mean: NDArray[np.float64], slots: int) -> Pieces:
    """A request in every slot of each pair that asks."""
    node, peer = (np.tile(index, slots).astype(np.int32) for index in np.nonzero(mean))
    start = np.repeat(np.arange(slots, dtype=np.int32), len(node) // slots)
    return Pieces(node, peer, start, start + 1, np.ones(len(node)))


def _beats(on: Pieces, jitter: float, rng: np.random.Generator) -> Pieces:
    """One request each: a period apart within every on-time, from a random phase; late by up to `jitter` periods."""
    phase = rng.random(len(on.rate))
    count = np.maximum(np.ceil((on.stop - on.start) * on.rate - phase), 0).astype(np.int64)
    piece = np.repeat(np.arange(len(count)), count)
    beat = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    time = on.start[piece] + (phase[piece] + beat) / on.rate[piece]
    start, stop = (np.floor(time + late / on.rate[piece]).astype(np.int32) for late in (0.0, jitter))
    return Pieces(on.node[piece], on.peer[piece], start, stop + 1, 1.0 / (stop + 1 - start))


def _trace_pieces(
    scenario: Scenario,
    config: TraceDemand,
    network: Network,
    demand_seed: int,
    slots: int,
    horizon: int,
) -> Pieces:
    """Rates proportional to consecutive matrices from a random start inside the split's days of the trace.

    The scale is fixed by the mean over the whole trace: the peers' traffic averages trace_share · request_rate. Past
    the end of the split's days, the trace goes on with their beginning.
    """
    matrices = traces.load_abilene(scenario)
    low, high = matrices.window(scenario.split_of(demand_seed) or "train")
    per_matrix = scenario.in_slots(config.matrix_duration)
    needed, count = -(-slots // per_matrix), -(-horizon // per_matrix)
    first = int(generator("trace window", demand_seed).integers(max(high - low - needed, 0) + 1))
    node, place = np.nonzero(network.peers >= 0)
    peer = network.peers[node, place]
    scale = max(matrices.mean_matrix()[node, peer].sum(), np.finfo(float).tiny)
    per_slot = config.trace_share * config.request_rate * scenario.control.slot_duration / scale
    steps = np.arange(count)
    rate = matrices.mbps[low + (first + steps) % (high - low)][:, node, peer] * per_slot  # (count, pairs)
    start = np.repeat(steps * per_matrix, len(node))
    return Pieces(
        np.tile(node, count).astype(np.int32),
        np.tile(place, count).astype(np.int32),
        start.astype(np.int32),
        np.minimum(start + per_matrix, horizon).astype(np.int32),
        rate.ravel(),
    )


def _draw_requests(
    scenario: Scenario, network: Network, by_rate: Pieces, beats: Pieces, rng: np.random.Generator, slots: int
) -> RequestTable:
    """A Poisson number of requests for every piece of `by_rate`, one for every beat; at uniform slots of theirs."""
    length = np.clip(slots - by_rate.start, 0, by_rate.stop - by_rate.start)
    piece = np.repeat(np.arange(len(length)), rng.poisson(by_rate.rate * length))
    drawn = by_rate.start[piece] + np.floor(rng.random(len(piece)) * length[piece]).astype(np.int32)
    of_beat = beats.start + np.floor(rng.random(len(beats.start)) * (beats.stop - beats.start)).astype(np.int32)
    kept = of_beat < slots
    slot = np.concatenate((drawn, of_beat[kept]))
    node, peer = (np.concatenate((a[piece], b[kept])) for a, b in zip(by_rate[:2], beats[:2], strict=True))
    wanted = _draw_classes(scenario, network, node, peer, rng.random(len(slot)))
    deadline = np.array([scenario.in_slots(each) for each in scenario.demand.deadlines], dtype=np.int32)[wanted]
    return tabulate(slot, node, peer, wanted, slot + deadline - 1, scenario.demand.pairs_per_request)


def _draw_classes(scenario: Scenario, network: Network, node: Ints, peer: Ints, uniform: NDArray[np.float64]) -> Ints:
    """Classes by weight, renormalised over those the pair's cheapest route meets at the best quality, fresh."""
    possible = network.routes.quality[node, peer, 0] > 0  # (R, C)
    weight = np.cumsum(possible * np.array(scenario.demand.class_weights), axis=1)
    # A pair that meets only classes of weight 0 asks for the lowest it meets.
    return np.where(
        weight[:, -1] > 0,
        (uniform[:, None] * weight[:, -1:] >= weight).sum(axis=1),
        possible.argmax(axis=1) if len(possible) else 0,
    ).astype(np.int32)


def tabulate(slot: Ints, source: Ints, peer: Ints, wanted: Ints, last_slot: Ints, pairs: int = 1) -> RequestTable:
    """A RequestTable from unordered columns; equal slots are ordered by source, peer, class and deadline.

    Every row of the columns becomes `pairs` rows of the table.
    """
    order = np.repeat(np.lexsort((last_slot, wanted, peer, source, slot)), pairs)
    ordered = [np.ascontiguousarray(c[order], dtype=np.int32) for c in (slot, source, peer, wanted, last_slot)]
    return RequestTable._make([*ordered, np.argsort(ordered[-1], kind="stable").astype(np.int32)])


def _replayed(scenario: Scenario, config: ReplayDemand, network: Network, slots: int) -> Demand:
    recorded = traces.read_requests(config, network.topology.names)
    duration = scenario.control.slot_duration
    slot = np.floor(np.minimum(recorded.time, (slots + 1) * duration) / duration + 1e-9).astype(np.int64)
    matches = network.peers[recorded.source] == recorded.destination[:, None]  # (R, D)
    inside, known = slot < slots, matches.any(axis=1)
    kept = inside & known
    lifetime = np.rint(np.clip(recorded.deadline, duration, MAX_SLOTS * duration) / duration).astype(np.int64)
    left_out = _left_out(scenario, network, recorded, inside, known, slot + lifetime <= slots)
    classes = np.array(scenario.demand.fidelity_classes)
    columns = (slot, recorded.source, matches.argmax(axis=1), np.searchsorted(classes, recorded.fidelity))
    slot, source, peer, wanted = (column[kept].astype(np.int32) for column in columns)
    _account(scenario, config, len(kept), left_out, out_of_reach(network, source, peer, wanted))
    last_slot = slot + lifetime[kept].astype(np.int32) - 1
    table = tabulate(slot, source, peer, wanted, last_slot, config.pairs_per_request)
    pieces = Pieces(table.source, table.peer, table.slot, table.slot + 1, np.ones(len(table.slot)))
    return Demand(table, pieces, network.peers.shape, int(np.sum(inside & ~kept)), left_out)


LATE, OPEN = "after the episode's end", "whose deadline is after the episode's end"
CROWDED = "to more destinations of a node than demand.peers allows"
HELP = {LATE: "raise episode.slots", OPEN: "raise episode.slots", CROWDED: "raise demand.peers"}
HELP |= {f"unreachable ({reason})": remedy for reason, remedy in REMEDIES.items()}


def _left_out(
    scenario: Scenario, network: Network, recorded: traces.RequestFile, inside: Flags, known: Flags, ended: Flags
) -> dict[str, int]:
    """How many requests of a file do not count, by the first reason that applies; the most frequent first."""
    reasons = Counter({LATE: int(np.sum(~inside)), OPEN: int(np.sum(inside & known & ~ended))})
    strangers = inside & ~known
    if strangers.any():
        verdict = reachability(network.topology, scenario)[recorded.source, recorded.destination]
        for exclusion, number in Counter(verdict[strangers].tolist()).items():
            reason = CROWDED if exclusion == Exclusion.REACHABLE else f"unreachable ({in_words(exclusion)})"
            reasons[reason] = number
    return {reason: number for reason, number in reasons.most_common() if number}


def out_of_reach(network: Network, source: Ints, peer: Ints, wanted: Ints) -> int:
    """How many requests ask for a fidelity class that no route of theirs meets, fresh at the best quality."""
    return int((network.routes.quality[source, peer, :, wanted] <= 0).all(axis=1).sum())


def _account(scenario: Scenario, config: ReplayDemand, requests: int, left_out: dict[str, int], beyond: int) -> None:
    """Every request of the file counts, or it is said why not; that none does is an error.

    Of those that count it is said how many nobody could deliver, as their fidelity is `beyond` their routes.
    """
    file = f"request file {config.requests_file!r}"
    if not requests:
        raise DataError(f"{scenario.name}: {file} holds no requests")
    if not left_out and not beyond:
        return
    counted = requests - sum(left_out.values())
    parts = [f"{file}: {counted} of {requests} requests count"]
    if left_out:
        parts.append("left out: " + ", ".join(f"{number} {reason}" for reason, number in left_out.items()))
    if beyond:
        parts.append(f"{beyond} ask for a fidelity that no route of theirs meets, and count as not delivered")
    remedies = [*map(HELP.__getitem__, left_out), *([REMEDIES["low fidelity"]] * bool(beyond))]
    said = "; ".join([*parts, *dict.fromkeys(remedies)])
    if not counted:
        raise DataError(f"{scenario.name}: {said}")
    warnings.warn(DpemWarning(scenario.name, said), stacklevel=4)
