"""What no policy can exceed in one episode, even one that knows all its requests and emissions beforehand.

A linear program over time bins (1 s by default) whose data are the episode's own: every request with its slot,
deadline and class, and every source's emissions. Its variables are expected numbers, given those data:

    y_kvb >= 0   requests k served in way v = (node, peer, route, class) by a pair finished in bin b
    u_nab >= 0   pairs that source n emits in bin a for tries to swap in bin b >= a
    w_nb  >= 0   swap tokens of node n at the start of bin b, none at first, at most the cap

    maximise    Σ y
    subject to  Σ_vb y_kvb  <=  1                                                              for every request k
                Σ_kv y_kvb · (pairs of n that v takes)  <=  Σ_a u_nab,  Σ_b u_nab  <=  emitted in a
                Σ_kv y_kvb · (swaps at n that v takes)  +  w_n,b+1  <=  w_nb + gain of a bin

with the costs of a way from `bound`. A pair finished in slot f can serve request k only if f is not after k's last slot
and the pair, as fresh as the best quality makes it, is still good enough when k arrives. A pair emitted in slot e is
of use to tries in slots e … e + time-to-live - 1. Bins are rounded outwards. Requests whose last slot lies outside the
episode are left out, as in `EpisodeMetrics.delivery_rate`.

**What is bounded.** The mean over the outcomes of transmissions, purifications and swaps, given arrivals and emissions,
for every policy that cannot foresee these outcomes, causal in all else or not. A lucky episode may exceed it; the mean
over many episodes may not, but for chance. Outcomes enter by their means because their draws are keyed by row and
attempt: which of them come up is the policy's doing. Tries are charged in the bin in which they are made, whether they
succeed or not, and each succeeds with the same probability whenever it is made. The pairs of a complete link arrived
within the time-to-live of the allocation that tries; those that purification used up before count with them, each pair
emitted being worth η/E_q complete links at most. Memory, rows, outages and the decay of links are left out: each could
only lower the optimum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_array, csr_array, eye_array, kron

from dpem_baselines.bound import Ways, maximum, ways_of
from dpem_env import physics
from dpem_env.demand.requests import RequestTable, draw_demand
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator.randomness import EMISSION, poisson, slot_key, uniform
from dpem_env.simulator.simulator import rules_of
from dpem_env.simulator.state import probability_of_none
from dpem_env.support.compiled import entry
from dpem_env.support.seeding import stream_key

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

ROUNDING = 1e-9


class EpisodeBound(NamedTuple):
    """Requests of one episode whose last slot lies in it."""

    requests: int
    delivered: float  # at most, by any policy, in the mean over outcomes

    @property
    def share(self) -> float:
        """The bound on `EpisodeMetrics.delivery_rate`; NaN if there is no request."""
        return self.delivered / self.requests if self.requests else float("nan")


def clairvoyant_bounds(
    scenario: Scenario,
    seeds: Iterable[EpisodeSeeds],
    *,
    bin_duration: float = 1.0,
    losses: bool = False,
) -> list[EpisodeBound]:
    """The bound on each episode; `bin_duration` in seconds: shorter bins are tighter and take longer to solve.

    With `losses` links count that are lost at either end, as in `tight_bound`: tighter; scores are measured without.
    """
    found = []
    for topology_seed, demand_seed in seeds:
        slots = scenario.episode.slots
        network = build_network(scenario, topology_seed)
        requests = draw_demand(scenario, network, demand_seed, slots).requests
        pairs = emissions(scenario, network, demand_seed, slots)
        found.append(episode_bound(scenario, network, requests, pairs, bin_duration, losses=losses))
    return found


def delivery_bound(scenario: Scenario, seeds: EpisodeSeeds) -> float:
    """The bound on the delivery rate of one episode."""
    [found] = clairvoyant_bounds(scenario, [seeds])
    return found.share


def emissions(scenario: Scenario, network: Network, demand_seed: int, slots: int) -> NDArray[np.int64]:
    """(slots, N) pairs each source emits: the simulator's own draws, which no policy can change."""
    pairs = np.zeros((slots, network.num_nodes), dtype=np.int64)
    mean = network.topology.generation_rate * scenario.control.slot_duration
    _draw_emissions(mean, probability_of_none(mean), stream_key("emission", demand_seed), pairs)
    return pairs


@entry
def _draw_emissions(mean, none, key, pairs):  # type: ignore[no-untyped-def]
    for slot in range(pairs.shape[0]):
        of_slot = slot_key(key, slot)
        for node in range(pairs.shape[1]):
            pairs[slot, node] = poisson(mean[node], none[node], uniform(of_slot, EMISSION, node, 0, 0, 0))


def episode_bound(
    scenario: Scenario,
    network: Network,
    requests: RequestTable,
    emitted: NDArray[np.int64],
    bin_duration: float = 1.0,
    *,
    losses: bool = False,
) -> EpisodeBound:
    """The bound on an episode with these requests, columns of (R,), and these emissions, (slots, N)."""
    slots, rules = len(emitted), rules_of(scenario)
    per_bin = max(round(bin_duration / scenario.control.slot_duration), 1)
    first_slots = np.arange(0, slots, per_bin)
    bins = len(first_slots)
    counted = np.flatnonzero(requests.last_slot < slots)
    ways = ways_of(scenario, network)
    request, way, finish = _services(ways, requests, counted, per_bin)
    if len(request) == 0:
        return EpisodeBound(len(counted), 0.0)

    once = _selection(request, len(requests.slot))
    wait = -(-(rules.time_to_live - 1) // per_bin)  # bins from emission to try, at most
    tried, stocked = _emission_flows(network.num_nodes, bins, wait)
    saved = _token_flows(network.num_nodes, bins)
    rows = block_array(
        [
            [once, None, None],
            [_at_bins(ways.pairs_with_losses if losses else ways.pairs, way, finish, bins), -tried, None],
            [None, stocked, None],
            [_at_bins(ways.swaps, way, finish, bins), None, saved],
        ],
        format="csr",
    )
    swap_gain = np.minimum(network.topology.swap_rate * scenario.control.slot_duration, np.floor(rules.token_cap))
    limits = np.concatenate(
        (
            np.ones(once.shape[0]),
            np.zeros(tried.shape[0]),
            np.add.reduceat(emitted, first_slots).T.ravel(),
            np.outer(swap_gain, np.diff(np.append(first_slots, slots))).ravel(),
        )
    )
    gain = np.zeros(rows.shape[1])
    gain[: len(request)] = 1.0
    largest = np.full(rows.shape[1], np.inf)
    largest[-saved.shape[1] :] = np.tile(np.where(np.arange(bins) > 0, rules.token_cap, 0.0), network.num_nodes)
    return EpisodeBound(len(counted), maximum(gain, rows, limits, largest))


def _services(ways: Ways, requests: RequestTable, counted: Ints, per_bin: int) -> tuple[Ints, Ints, Ints]:
    """Every (request, way, bin in which the pair may be finished), as three columns; counted requests only."""
    shape = (*ways.network.peers.shape, len(ways.scenario.demand.fidelity_classes))
    kind = np.ravel_multi_index((ways.node, ways.peer, ways.wanted), shape)
    by_kind = np.argsort(kind, kind="stable")
    asked = np.ravel_multi_index((requests.source[counted], requests.peer[counted], requests.wanted[counted]), shape)
    start, stop = (np.searchsorted(kind[by_kind], asked, side=side) for side in ("left", "right"))
    which, place = _ranges(start, stop)
    request, way = counted[which], by_kind[place]
    earliest = np.maximum(requests.slot[request] - storage_life(ways)[way], 0)
    which, finish = _ranges(earliest // per_bin, requests.last_slot[request] // per_bin + 1)
    return request[which], way[which], finish


def storage_life(ways: Ways) -> Ints:
    """(V,) slots after the one it is finished in for which the freshest pair is good enough."""
    coherence_time = ways.network.topology.coherence_time
    ends = (coherence_time[ways.node], coherence_time[ways.network.peers[ways.node, ways.peer]])
    threshold = rules_of(ways.scenario).class_werner[ways.wanted]
    life = physics.cutoff_age(np.maximum(ways.freshest, physics.TINY), np.maximum(threshold, physics.TINY), *ends)
    slots = np.floor(life / ways.scenario.control.slot_duration + ROUNDING).astype(np.int64)
    return np.where(threshold > 0, slots, MAX_SLOTS)  # a class of fidelity 1/4 accepts anything, so for ever


def _ranges(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """The numbers start[j] … stop[j] - 1 for each j in turn: as columns of j and number."""
    length = stop - start
    which = np.repeat(np.arange(len(start)), length)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(length) - length - start, length)


def _selection(row: Ints, height: int) -> csr_array:
    """A 1 in every column, in the given row."""
    return csr_array((np.ones(len(row)), (row, np.arange(len(row)))), (height, len(row)))


def _at_bins(cost: csr_array, way: Ints, in_bin: Ints, bins: int) -> csr_array:
    """(N·bins, columns) the costs (N, V) of each column's way, in the rows of its bin."""
    of_column = cost.tocsc()[:, way].tocoo()
    row = of_column.row * bins + in_bin[of_column.col]
    return csr_array((of_column.data, (row, of_column.col)), (cost.shape[0] * bins, len(way)))


def _emission_flows(nodes: int, bins: int, wait: int) -> tuple[csr_array, csr_array]:
    """(N·bins, flows) twice: the bin in which each flow's pairs are used, and the one in which they are emitted."""
    node, emitted, waited = np.indices((nodes, bins, wait + 1)).reshape(3, -1)
    possible = emitted + waited < bins
    row = (node * bins + emitted)[possible]
    return _selection(row + waited[possible], nodes * bins), _selection(row, nodes * bins)


def _token_flows(nodes: int, bins: int) -> csr_array:
    """(N·bins, N·bins) what the tokens held at the start of each bin take from the bin before and give to their own."""
    own = eye_array(bins)
    return kron(eye_array(nodes), eye_array(bins, k=1) - own, "csr")
