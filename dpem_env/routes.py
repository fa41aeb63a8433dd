"""Candidate routes: the k cheapest loopless routes of bounded length, and which nodes can reach each other.

The cost of a route is Σ_links 1/(g_emitter·η) + Σ_relays 1/c seconds, independent of load; ties go by hops, then by a
random key fixed per topology. Costs are kept as whole nanoseconds, so that equal routes tie exactly whatever the order
of summation. Searches are bounded by the hop limit (a layered Bellman-Ford) and by k (Yen, Management Science 17, 712,
1971), so no topology makes them exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.scenarios import Scenario
from dpem_env.topology import Topology

Ints = NDArray[np.int32]

NANOSECONDS = 1e9
WORST = 1e6  # s; stands for the infinite cost of a source or repeater that does nothing
UNREACHED = np.int64(2**62)

_build_time = njit(physics.expected_build_time)


class Exclusion(IntEnum):
    """Why an ordered pair of nodes cannot be peers; 0 means it can."""

    REACHABLE = 0
    TOO_MANY_HOPS = 1
    WEAK_LINK = 2
    WEAK_RELAY = 3
    LITTLE_MEMORY = 4
    TOO_SLOW = 5
    LOW_FIDELITY = 6


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
    fresh = _fresh_werner(scenario).max(axis=0)
    lowest = physics.werner_from_fidelity(scenario.demand.fidelity_classes[0])
    verdict: NDArray[np.int8] = _judge_all(
        n,
        max_hops,
        *graph,
        link_rate,
        topology.swap_rate,
        topology.memory,
        scenario.routing.min_link_rate,
        scenario.routing.min_swap_rate,
        scenario.control.time_to_live,
        int(np.sum(fresh >= lowest)),
    )
    return verdict


def find_routes(topology: Topology, scenario: Scenario, peers: Ints) -> RouteTable:
    """The k cheapest loopless routes from every node to each of its `peers` (N, D), padded peers being -1."""
    k, max_hops = scenario.routing.routes_per_peer, scenario.routing.max_hops
    graph = _graph(topology)
    nodes = _all_routes(topology.num_nodes, max_hops, k, *graph, peers)
    hops = np.maximum((nodes >= 0).sum(axis=-1) - 1, 0).astype(np.int32)
    links = _links_between(nodes, topology)
    link_rate = topology.generation_rate[topology.emitter] * topology.transmission
    build_time = _build_times(link_rate, links, hops)
    classes = physics.werner_from_fidelity(np.array(scenario.demand.fidelity_classes))
    meets = _fresh_werner(scenario)[:, :, None] >= classes  # (Q, max_hops + 1, C)
    smallest = np.where(meets.any(axis=0), meets.argmax(axis=0) + 1, 0)
    smallest[0] = 0
    return RouteTable(hops, links, nodes, build_time, smallest[hops].astype(np.int32))


def _fresh_werner(scenario: Scenario) -> NDArray[np.float64]:
    """(Q, max_hops + 1) Werner parameter of a fresh pair at quality q over h hops."""
    hardware = scenario.hardware
    link = physics.werner_from_fidelity(hardware.link_fidelity)
    swap = physics.swap_factor(hardware.gate_fidelity, hardware.readout_fidelity)
    pumped = np.array([physics.pumped_werner(link, q + 1) for q in range(scenario.control.qualities)])
    hops = np.arange(scenario.routing.max_hops + 1)
    fresh: NDArray[np.float64] = pumped[:, None] ** hops * swap ** np.maximum(hops - 1, 0)
    return fresh


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


@njit(cache=True)
def _search(source, banned, first_banned, max_hops, start, neighbour, cost, key, relay_cost, best, best_key, parent):
    """Cheapest walks of exactly h = 0..max_hops hops from `source` to every node, into best, best_key, parent (h, N).

    Nodes with `banned` are never entered, those with `first_banned` not on the first hop. A caller that bans first hops
    bans the source too, so that no cheapest walk is a way round the ban.
    """
    best[: max_hops + 1] = UNREACHED
    best[0, source] = 0
    best_key[0, source] = 0
    for h in range(max_hops):
        for u in range(best.shape[1]):
            if best[h, u] >= UNREACHED:
                continue
            through = best[h, u] + (relay_cost[u] if h > 0 else 0)
            for e in range(start[u], start[u + 1]):
                v = neighbour[e]
                if banned[v] or (h == 0 and first_banned[v]):
                    continue
                total = through + cost[e]
                label = best_key[h, u] + key[e]
                if total < best[h + 1, v] or (total == best[h + 1, v] and label < best_key[h + 1, v]):
                    best[h + 1, v] = total
                    best_key[h + 1, v] = label
                    parent[h + 1, v] = u


@njit(cache=True)
def _cheapest_hops(target, max_hops, best):
    """Number of hops of the cheapest walk to `target` (fewest on ties), 0 if there is none.

    Costs are positive, so the cheapest walk never visits a node twice.
    """
    hops = 0
    lowest = UNREACHED
    for h in range(1, max_hops + 1):
        if best[h, target] < lowest:
            lowest = best[h, target]
            hops = h
    return hops


@njit(cache=True)
def _judge_all(
    n, max_hops, start, neighbour, cost, key, relay_cost, link, link_rate, swap_rate, memory,
    min_link_rate, min_swap_rate, time_to_live, hops_of_lowest_class,
):  # fmt: skip
    verdict = np.zeros((n, n), dtype=np.int8)
    best = np.empty((max_hops + 1, n), dtype=np.int64)
    best_key = np.empty((max_hops + 1, n), dtype=np.int64)
    parent = np.empty((max_hops + 1, n), dtype=np.int32)
    nobody = np.zeros(n, dtype=np.bool_)
    rates = np.empty(max_hops)
    for source in range(n):
        _search(source, nobody, nobody, max_hops, start, neighbour, cost, key, relay_cost, best, best_key, parent)
        for target in range(n):
            hops = _cheapest_hops(target, max_hops, best) if target != source else 0
            if hops == 0:
                verdict[source, target] = 1
                continue
            weak_link = weak_relay = False
            little_memory = memory[source] < 1 or memory[target] < 1
            v = target
            for h in range(hops, 0, -1):
                u = parent[h, v]
                for e in range(start[u], start[u + 1]):
                    if neighbour[e] == v:
                        rates[h - 1] = link_rate[link[e]]
                weak_link |= rates[h - 1] < min_link_rate or rates[h - 1] <= 0.0
                if h > 1:
                    weak_relay |= swap_rate[u] < min_swap_rate
                    little_memory |= memory[u] < 2
                v = u
            if weak_link:
                verdict[source, target] = 2
            elif weak_relay:
                verdict[source, target] = 3
            elif little_memory:
                verdict[source, target] = 4
            elif _build_time(rates[:hops]) > time_to_live:
                verdict[source, target] = 5
            elif hops >= hops_of_lowest_class:
                verdict[source, target] = 6
    return verdict


@njit(cache=True)
def _build_times(link_rate, links, hops):
    n, d, k = hops.shape
    times = np.zeros((n, d, k))
    rates = np.empty(links.shape[3])
    for i in range(n):
        for j in range(d):
            for r in range(k):
                for h in range(hops[i, j, r]):
                    rates[h] = link_rate[links[i, j, r, h]]
                times[i, j, r] = _build_time(rates[: hops[i, j, r]])
    return times


@njit(cache=True)
def _all_routes(n, max_hops, k, start, neighbour, cost, key, relay_cost, link, peers):
    """Yen's algorithm with a hop limit for every (node, peer): node sequences (N, D, k, max_hops + 1)."""
    routes = np.full((n, peers.shape[1], k, max_hops + 1), -1, dtype=np.int32)
    best = np.empty((max_hops + 1, n), dtype=np.int64)
    best_key = np.empty((max_hops + 1, n), dtype=np.int64)
    parent = np.empty((max_hops + 1, n), dtype=np.int32)
    banned = np.zeros(n, dtype=np.bool_)
    first_banned = np.zeros(n, dtype=np.bool_)
    candidate = np.empty((k * max_hops + 1, max_hops + 1), dtype=np.int32)
    label = np.empty((k * max_hops + 1, 3), dtype=np.int64)  # cost, hops, key
    for source in range(n):
        for d in range(peers.shape[1]):
            target = peers[source, d]
            if target < 0:
                continue
            found = 0
            count = 0
            spur_range = 1
            while found < k:
                for spur in range(spur_range):
                    # Deviate from the last accepted route at its `spur`-th node; before the first route: at the source.
                    root = routes[source, d, found - 1] if found > 0 else routes[source, d, 0]
                    at = root[spur] if found > 0 else source
                    banned[at] = True  # else a detour from `at` back to itself would get round `first_banned`
                    for before in range(spur):
                        banned[root[before]] = True
                    for other in range(found):
                        shared = True
                        for before in range(spur + 1):
                            shared &= routes[source, d, other, before] == root[before]
                        if shared:
                            first_banned[routes[source, d, other, spur + 1]] = True
                    left = max_hops - spur
                    _search(
                        at, banned, first_banned, left, start, neighbour, cost, key, relay_cost, best, best_key, parent
                    )
                    tail = _cheapest_hops(target, left, best)
                    if tail > 0:
                        candidate[count] = -1
                        v = target
                        for h in range(tail, 0, -1):
                            candidate[count, spur + h] = v
                            v = parent[h, v]
                        candidate[count, spur] = at
                        for before in range(spur):
                            candidate[count, before] = root[before]
                        if not _listed(candidate, count):
                            _measure(candidate[count], label[count], start, neighbour, cost, key, relay_cost)
                            count += 1
                    banned[:] = False
                    first_banned[:] = False
                chosen = -1
                for c in range(count):
                    if label[c, 0] < UNREACHED and (chosen < 0 or _before(label[c], label[chosen])):
                        chosen = c
                if chosen < 0:
                    break
                routes[source, d, found] = candidate[chosen]
                spur_range = label[chosen, 1]
                label[chosen, 0] = UNREACHED  # taken
                found += 1
    return routes


@njit(cache=True)
def _listed(candidate, count):
    for c in range(count):
        same = True
        for h in range(candidate.shape[1]):
            same &= candidate[c, h] == candidate[count, h]
        if same:
            return True
    return False


@njit(cache=True)
def _measure(route, label, start, neighbour, cost, key, relay_cost):
    label[:] = 0
    for h in range(len(route) - 1):
        u, v = route[h], route[h + 1]
        if v < 0:
            break
        for e in range(start[u], start[u + 1]):
            if neighbour[e] == v:
                label[0] += cost[e]
                label[2] += key[e]
        if h > 0:
            label[0] += relay_cost[u]
        label[1] += 1


@njit(cache=True)
def _before(a, b):
    for i in range(3):
        if a[i] != b[i]:
            return a[i] < b[i]
    return False
