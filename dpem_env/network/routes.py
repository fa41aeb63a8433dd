"""Candidate routes: the k cheapest loopless routes of bounded length, and which nodes can reach each other.

The cost of a route is Σ_links 1/(g_emitter·η) + Σ_relays 1/c seconds, independent of load; ties go by hops, then by a
random key fixed per topology. Costs are kept as whole nanoseconds, so that equal routes tie exactly whatever the order
of summation. Searches are bounded by the hop limit (a layered Bellman-Ford) and by k (Yen, Management Science 17, 712,
1971), so no topology makes them exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.network.route_search import all_routes, build_times, judge_all
from dpem_env.network.topology import Topology
from dpem_env.scenarios import Scenario

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

NANOSECONDS = 1e9
WORST = 1e6  # s; stands for the infinite cost of a source or repeater that does nothing


@dataclass(frozen=True, eq=False)
class RouteTable:
    """Up to k routes for each of N·D (node, peer) pairs, in hop order from the node; padded with -1."""

    hops: Ints  # (N, D, k), 0 where there is no route
    links: Ints  # (N, D, k, max_hops)
    nodes: Ints  # (N, D, k, max_hops + 1)
    build_time: NDArray[np.float64]  # (N, D, k) s, expected maximum over links
    quality: Ints  # (N, D, k, C) smallest quality that meets each class fresh, 0 if none does


def reachability(topology: Topology, scenario: Scenario) -> NDArray[np.int8]:
    """(N, N) Exclusion of each ordered pair, judged on its cheapest route; the diagonal is TOO_MANY_HOPS."""
    graph = _graph(topology)
    n, max_hops = topology.num_nodes, scenario.routing.max_hops
    link_rate = topology.generation_rate[topology.emitter] * topology.transmission
    lowest = physics.werner_from_fidelity(scenario.demand.fidelity_classes[0])
    verdict: NDArray[np.int8] = judge_all(
        n,
        max_hops,
        *graph,
        link_rate,
        topology.swap_rate,
        topology.memory,
        scenario.routing.min_link_rate,
        scenario.routing.min_swap_rate,
        scenario.control.time_to_live,
        pumped_werner(topology, scenario),
        swap_factor(scenario),
        lowest,
    )
    return verdict


def find_routes(topology: Topology, scenario: Scenario, peers: Ints) -> RouteTable:
    """The k cheapest loopless routes from every node to each of its `peers` (N, D), padded peers being -1."""
    k, max_hops = scenario.routing.routes_per_peer, scenario.routing.max_hops
    graph = _graph(topology)
    nodes = all_routes(topology.num_nodes, max_hops, k, graph[:-1], peers)
    hops = np.maximum((nodes >= 0).sum(axis=-1) - 1, 0).astype(np.int32)
    links = _links_between(nodes, topology)
    link_rate = topology.generation_rate[topology.emitter] * topology.transmission
    build_time = build_times(link_rate, links, hops)
    classes = physics.werner_from_fidelity(np.array(scenario.demand.fidelity_classes))
    smallest = np.zeros((*hops.shape, len(classes)), dtype=np.int32)
    for quality, pumped in reversed([*enumerate(pumped_werner(topology, scenario), start=1)]):
        fresh = fresh_werner(scenario, pumped, links, hops)
        smallest[(fresh[..., None] >= classes) & (hops[..., None] > 0)] = quality
    return RouteTable(hops, links, nodes, build_time, smallest)


def light_of_quality(scenario: Scenario) -> tuple[Floats, Floats]:
    """(Q,) each: by what the success of a link's attempts, and its fidelity, differ from those of quality 1.

    Not at all, unless allocations choose how bright their links are: success goes with α, fidelity with 1 - α.
    """
    bright = np.broadcast_to(scenario.hardware.bright_states, scenario.control.qualities)
    return bright / bright[0], (1.0 - bright) / (1.0 - bright[0])


def link_werner(topology: Topology, scenario: Scenario) -> Floats:
    """(Q, L) Werner parameter of a pair that has just arrived for a link of every quality."""
    _, purity = light_of_quality(scenario)
    arrived: Floats = physics.werner_from_fidelity(topology.link_fidelity * purity[:, None])
    return arrived


def rounds_of_quality(scenario: Scenario) -> range:
    """The rounds of purification that links of each quality take, from none on; empty where light is chosen."""
    return range(0 if scenario.hardware.light_is_chosen else scenario.control.qualities)


def pumped_werner(topology: Topology, scenario: Scenario) -> Floats:
    """(Q, L) Werner parameter of a fresh link at every quality."""
    noise, pumped = scenario.hardware.purification_fidelities, link_werner(topology, scenario)
    for rounds in rounds_of_quality(scenario):
        pumped[rounds] = physics.pumped_werner(pumped[rounds], rounds + 1, *noise)
    return pumped


def pairs_per_link(topology: Topology, scenario: Scenario) -> Floats:
    """(Q, L) pairs of quality 1 that would have to arrive on average to complete a link at every quality.

    If nothing decays meanwhile. Where the light is chosen one arrives, later than one of quality 1 by what is darker.
    """
    success, _ = light_of_quality(scenario)
    noise, arrived = scenario.hardware.purification_fidelities, link_werner(topology, scenario)
    pairs = np.repeat(1.0 / success[:, None], arrived.shape[1], axis=1)
    for rounds in rounds_of_quality(scenario):
        pairs[rounds] = physics.pairs_per_link(arrived[rounds], rounds + 1, *noise)
    return pairs


def fresh_werner(
    scenario: Scenario, link_werner: Floats, links: NDArray[np.integer[Any]], hops: NDArray[np.integer[Any]]
) -> Floats:
    """(…) Werner parameters of fresh pairs over routes of `links` (…, H), which are as `link_werner` (L,) says."""
    of_links = np.append(link_werner, 1.0)[links].prod(axis=-1)  # the last is for padding
    fresh: Floats = of_links * swap_factor(scenario) ** np.maximum(hops - 1, 0)
    return fresh


def swap_factor(scenario: Scenario) -> float:
    """By what a swap multiplies the Werner parameter, with the scenario's gates and readouts."""
    return physics.swap_factor(scenario.hardware.gate_fidelity, scenario.hardware.readout_fidelity)


def _graph(topology: Topology) -> tuple[Any, ...]:
    """Neighbour lists (start, neighbour), costs and keys along them, and relay costs: what the searches read."""
    u, v = topology.links.T
    ends, others = np.concatenate((u, v)), np.concatenate((v, u))
    order = np.lexsort((others, ends))
    start = np.searchsorted(ends[order], np.arange(topology.num_nodes + 1)).astype(np.int32)
    rate = topology.generation_rate[topology.emitter] * topology.transmission
    cost = np.tile(_nanoseconds(rate), 2)[order]
    key = np.tile(topology.link_key, 2)[order]
    return start, others[order], cost, key, _nanoseconds(topology.swap_rate), np.tile(np.arange(len(u)), 2)[order]


def _nanoseconds(rate: NDArray[np.float64]) -> NDArray[np.int64]:
    seconds = 1.0 / np.maximum(rate, 1.0 / WORST)
    return np.maximum(np.rint(seconds * NANOSECONDS), 1.0).astype(np.int64)


def _links_between(nodes: Ints, topology: Topology) -> Ints:
    """Link indices between consecutive nodes of padded routes."""
    n = topology.num_nodes
    code = topology.links[:, 0].astype(np.int64) * n + topology.links[:, 1]
    order = np.argsort(code)
    a, b = nodes[..., :-1].astype(np.int64), nodes[..., 1:].astype(np.int64)
    wanted = np.minimum(a, b) * n + np.maximum(a, b)
    position = np.searchsorted(code[order], np.where(b >= 0, wanted, code[order[0]]))
    return np.where(b >= 0, order[position], -1).astype(np.int32)
