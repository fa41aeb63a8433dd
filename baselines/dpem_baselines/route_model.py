"""Chance of success of an allocation, and its use of sources, swap engines and memories, for every candidate route."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from dpem_baselines.limits import Floats, Ints
from dpem_env.network.network import Network
from dpem_env.network.routes import pairs_per_link
from dpem_env.policies import NetworkView
from dpem_env.scenarios import Scenario

SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Candidates:
    """M allocations that would serve some demand; a group shares one demand of one pair."""

    node: Ints  # (M,)
    place: Ints  # (M,) of the peer
    route: Ints  # (M,) number
    quality: Ints  # (M,)
    slack: Ints  # (M,) slots left for the request it would serve, 0: none is waiting
    worth_in_time: Floats  # (M,) requests served, expected of a pair finished within the slack
    worth_late: Floats  # (M,) the same of one finished later
    group: Ints  # (M,) demand it belongs to
    wanted: Ints  # (M,) pairs its group wants

    def __len__(self) -> int:
        return len(self.node)

    def take(self, chosen: Any) -> Candidates:
        """The candidates of these numbers or this mask."""
        return Candidates(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @staticmethod
    def joined(parts: list[Candidates]) -> Candidates:
        """All candidates of several lists."""
        return Candidates(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Candidates)))


@dataclass(frozen=True)
class Load:
    """What open allocations ask of the network. N nodes."""

    source_claims: Floats | NDArray[np.int32]  # (N,) incomplete links
    swap_claims: Floats | NDArray[np.int32]  # (N,) allocations relayed
    swap_tokens: Floats  # (N,)


class RouteModel:
    """Chance of success and use of resources of an allocation, for every route of a network."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        topology, routes, hardware = network.topology, network.routes, scenario.hardware
        self.scenario, self.routes = scenario, routes
        self.generation_rate, self.swap_rate = topology.generation_rate, topology.swap_rate
        self.time_to_live = scenario.control.time_to_live
        used = routes.links >= 0  # (N, D, k, H)
        self.emitter = np.where(used, topology.emitter[routes.links], -1)
        transmission = np.where(used, topology.transmission[routes.links], 1.0)
        self.arriving = self.generation_rate[self.emitter] * transmission  # pairs/s, of a source that feeds one link
        same = (self.emitter[..., :, None] == self.emitter[..., None, :]) & used[..., None, :]
        self.sharers = same.sum(axis=-1)  # links of the route that its own emitter feeds
        self.relays = np.where(np.arange(1, used.shape[-1]) < routes.hops[..., None], routes.nodes[..., 1:-1], -1)
        self.swapped = hardware.swap_success ** np.maximum(routes.hops - 1, 0)
        self.pairs_per_link = pairs_per_link(topology, scenario)
        weights = np.array(scenario.demand.class_weights) / sum(scenario.demand.class_weights)
        best = np.arange(1, scenario.control.qualities + 1)[:, None]
        met = (routes.quality[..., None, :] > 0) & (routes.quality[..., None, :] <= best)
        self.share_served = (met * weights).sum(axis=-1)  # (N, D, k, Q) of the requests, by quality
        fed = np.bincount(topology.emitter, minlength=topology.num_nodes)
        arriving = np.bincount(topology.emitter, topology.transmission, minlength=topology.num_nodes)
        self.emissions_per_claim = fed / np.maximum(arriving, SMALLEST)  # at the mean η of the links it feeds
        self.resource, self.need = self._usage(same, transmission)

    def success(self, candidates: Candidates, seconds: Floats, load: Load) -> Floats:
        """(..., M) probability that a new allocation swaps successfully at its first try, within (..., M) `seconds`.

        Each source is shared evenly among the links that claim it, so that a link of quality q completes after an
        Erlang time of q stages; a relay has the swaps left by the allocations that are open.
        """
        c = candidates
        at = (c.node, c.place, c.route)
        emitter, relays = self.emitter[at], self.relays[at]
        share = self.arriving[at] / (self.sharers[at] + load.source_claims[emitter]).clip(1.0)
        pairs = self.pairs_per_link[c.quality[:, None] - 1, self.routes.links[at]]
        stages = share * (c.quality[:, None] / pairs) * seconds[..., None]
        candidate, hop = np.nonzero(emitter >= 0)
        complete = np.ones(stages.shape)
        complete[..., candidate, hop] = gammainc(c.quality[candidate], stages[..., candidate, hop])
        swaps = load.swap_tokens[relays] + self.swap_rate[relays] * seconds[..., None] - load.swap_claims[relays]
        relayed: Floats = np.where(relays >= 0, swaps.clip(0.0, 1.0), 1.0).prod(axis=-1)
        success: Floats = complete.prod(axis=-1) * relayed * self.swapped[at]
        return success

    def worth(self, candidates: Candidates, load: Load) -> Floats:
        """(M,) requests each candidate is expected to serve."""
        slack = candidates.slack * self.scenario.control.slot_duration
        seconds = np.minimum((slack, np.full(len(slack), np.inf)), self.time_to_live)
        in_time, at_all = self.success(candidates, seconds, load)
        worth: Floats = in_time * candidates.worth_in_time + (at_all - in_time) * candidates.worth_late
        return worth

    def with_allocation(self, load: Load, candidate: Candidates) -> Load:
        """The load with one more open allocation."""
        at = (candidate.node, candidate.place, candidate.route)
        emitter, relays, n = self.emitter[at], self.relays[at], len(self.generation_rate)
        return Load(
            load.source_claims + np.bincount(emitter[emitter >= 0], minlength=n),
            load.swap_claims + np.bincount(relays[relays >= 0], minlength=n),
            load.swap_tokens,
        )

    def needs(self, candidates: Candidates) -> tuple[Ints, Floats]:
        """(M, W) expected use of resources by each candidate, and which they are; 4N where there is none.

        The N sources (emitted pairs) come first, then swap engines (swaps), memories (qubits) and commands.
        """
        c = candidates
        at = (c.node, c.place, c.route)
        need = self.need[at]
        need[:, : self.emitter.shape[-1]] *= self.pairs_per_link[c.quality[:, None] - 1, self.routes.links[at]]
        return self.resource[at], need

    def capacity(self, view: NetworkView, utilisation: float, slots: int, resource: Ints, need: Floats) -> Floats:
        """(4N,) what new allocations may use of each resource, beside those that are open.

        `utilisation` is the share of a time-to-live's emissions and swaps that may be planned. A source or swap engine
        that nobody claims takes one allocation, however much it asks for: up to the largest of the (M, W) needs.
        """
        open_rows = view.observations.open_rows
        budget = np.concatenate(
            (
                utilisation * self.generation_rate * self.time_to_live - view.source_claims * self.emissions_per_claim,
                view.swap_tokens + utilisation * self.swap_rate * self.time_to_live - view.swap_claims,
                view.free_memory,
                np.minimum(self.scenario.control.rows - open_rows, slots),
            )
        )
        n = len(self.generation_rate)
        idle = np.concatenate(
            (
                (view.source_claims == 0) & (self.generation_rate > 0),
                (view.swap_claims == 0) & (self.swap_rate > 0),
                np.zeros(2 * n, dtype=bool),
            )
        )
        largest = np.zeros(4 * n + 1)
        np.maximum.at(largest, resource, need)
        return np.maximum(np.where(idle, np.maximum(budget, largest[:-1]), budget), 0.0)

    def _usage(self, same: NDArray[np.bool_], transmission: Floats) -> tuple[Ints, Floats]:
        """(N, D, k, W) resources of a pair of quality 1 over every route, and its expected use of them.

        A pair takes 1/p_swap^(hops - 1) tries; in each, a link of transmission η takes 1/η emissions per arriving pair.
        A source that feeds several links of a route, as (N, D, k, H, H) `same` tells, is listed at the first of them.
        """
        n, nodes, hops = len(self.generation_rate), self.routes.nodes, self.routes.hops[..., None]
        tries = 1.0 / self.swapped[..., None]
        emissions = tries * (same / transmission[..., None, :]).sum(axis=-1)
        listed = (self.emitter >= 0) & ~np.tril(same, -1).any(axis=-1)
        qubits = np.where((np.arange(nodes.shape[-1]) % np.maximum(hops, 1)) == 0, 1.0, 2.0)
        node = np.arange(n)[:, None, None, None]
        resource, need = zip(
            (np.where(listed, self.emitter, 4 * n), emissions),
            (np.where(self.relays >= 0, n + self.relays, 4 * n), np.broadcast_to(tries, self.relays.shape)),
            (np.where(nodes >= 0, 2 * n + nodes, 4 * n), qubits),
            (np.broadcast_to(3 * n + node, hops.shape), np.ones(hops.shape)),
            strict=True,
        )
        return np.concatenate(resource, axis=-1), np.concatenate(need, axis=-1)
