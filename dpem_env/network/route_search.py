"""Compiled searches for `routes`: reachability of all pairs, and the k cheapest routes of chosen ones.

A graph is given as neighbour lists: those of node u are entries start[u] to start[u + 1] of neighbour, cost (whole
nanoseconds), key (random tie-break) and link (index). Passing through a relay costs relay_cost.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.support.compiled import cached, entry, inner

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


@inner
def _search(source, banned, first_banned, max_hops, start, neighbour, cost, key, relay_cost, best, best_key, parent):
    """Cheapest walks of exactly h = 0..max_hops hops from `source` to every node, into best, best_key, parent (h, N).

    Nodes with `banned` are never entered, those with `first_banned` not on the first hop. A caller that bans first hops
    bans the source too, so that no cheapest walk is a way round the ban.
    """
    for h in range(max_hops + 1):
        for u in range(best.shape[1]):
            best[h, u] = UNREACHED
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


@inner
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


@cached()
def judge_all(
    n, max_hops, start, neighbour, cost, key, relay_cost, link, link_rate, swap_rate, memory,
    min_link_rate, min_swap_rate, time_to_live, pumped_werner, swap_factor, lowest_werner,
):  # fmt: skip
    """(N, N) Exclusion of each ordered pair, judged on its cheapest route; (Q, L) `pumped_werner` of fresh links."""
    verdict = np.zeros((n, n), dtype=np.int8)
    best = np.empty((max_hops + 1, n), dtype=np.int64)
    best_key = np.empty((max_hops + 1, n), dtype=np.int64)
    parent = np.empty((max_hops + 1, n), dtype=np.int32)
    nobody = np.zeros(n, dtype=np.bool_)
    rates = np.empty(max_hops)
    fresh = np.empty(pumped_werner.shape[0])  # of the route, at every quality
    for source in range(n):
        _search(source, nobody, nobody, max_hops, start, neighbour, cost, key, relay_cost, best, best_key, parent)
        for target in range(n):
            hops = _cheapest_hops(target, max_hops, best) if target != source else 0
            if hops == 0:
                verdict[source, target] = Exclusion.TOO_MANY_HOPS
                continue
            weak_link = weak_relay = False
            little_memory = memory[source] < 1 or memory[target] < 1
            fresh[:] = 1.0
            v = target
            for h in range(hops, 0, -1):
                u = parent[h, v]
                for e in range(start[u], start[u + 1]):
                    if neighbour[e] == v:
                        rates[h - 1] = link_rate[link[e]]
                        for q in range(len(fresh)):
                            fresh[q] *= pumped_werner[q, link[e]] * (swap_factor if h > 1 else 1.0)
                weak_link |= rates[h - 1] < min_link_rate or rates[h - 1] <= 0.0
                if h > 1:
                    weak_relay |= swap_rate[u] < min_swap_rate
                    little_memory |= memory[u] < 2
                v = u
            if weak_link:
                verdict[source, target] = Exclusion.WEAK_LINK
            elif weak_relay:
                verdict[source, target] = Exclusion.WEAK_RELAY
            elif little_memory:
                verdict[source, target] = Exclusion.LITTLE_MEMORY
            elif _build_time(rates[:hops]) > time_to_live:
                verdict[source, target] = Exclusion.TOO_SLOW
            elif fresh.max() < lowest_werner:
                verdict[source, target] = Exclusion.LOW_FIDELITY
    return verdict


@cached()
def build_times(link_rate, links, hops):
    """(N, D, k) s, expected build time of each route from the rates of its links."""
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


def all_routes(n: int, max_hops: int, k: int, graph: tuple[Any, ...], peers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Yen's algorithm with a hop limit for every (node, peer): node sequences (N, D, k, max_hops + 1), -1 past ends."""
    routes = np.full((n, peers.shape[1], k, max_hops + 1), -1, dtype=np.int32)
    layers, candidates = (max_hops + 1, n), k * max_hops + 1
    _yen(
        n,
        max_hops,
        k,
        *graph,
        peers,
        np.empty(layers, dtype=np.int64),
        np.empty(layers, dtype=np.int64),
        np.empty(layers, dtype=np.int32),
        np.zeros(n, dtype=np.bool_),
        np.zeros(n, dtype=np.bool_),
        np.empty((candidates, max_hops + 1), dtype=np.int32),
        np.empty((candidates, 3), dtype=np.int64),
        routes,
    )
    return routes


@entry
def _yen(
    n, max_hops, k, start, neighbour, cost, key, relay_cost, peers,
    best, best_key, parent, banned, first_banned, candidate, label, routes,
):  # fmt: skip
    """Fill `routes`; label holds cost, hops and key of each candidate, the other arrays are scratch."""
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
                        for h in range(max_hops + 1):
                            candidate[count, h] = -1
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
                    for u in range(n):
                        banned[u] = first_banned[u] = False
                chosen = -1
                for c in range(count):
                    if label[c, 0] < UNREACHED and (chosen < 0 or _before(label[c], label[chosen])):
                        chosen = c
                if chosen < 0:
                    break
                for h in range(max_hops + 1):
                    routes[source, d, found, h] = candidate[chosen, h]
                spur_range = label[chosen, 1]
                label[chosen, 0] = UNREACHED  # taken
                found += 1
    return routes


@inner
def _listed(candidate, count):
    for c in range(count):
        same = True
        for h in range(candidate.shape[1]):
            same &= candidate[c, h] == candidate[count, h]
        if same:
            return True
    return False


@inner
def _measure(route, label, start, neighbour, cost, key, relay_cost):
    for part in range(3):
        label[part] = 0
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


@inner
def _before(a, b):
    for i in range(3):
        if a[i] != b[i]:
            return a[i] < b[i]
    return False
