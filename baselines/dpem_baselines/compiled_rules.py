"""The loops of rules that go over many routes one by one, compiled. N nodes, D peer places, R routes, C classes."""

from __future__ import annotations

import numpy as np

from dpem_env.support.compiled import cached, inlined

OVERDUE = np.finfo(np.float64).max  # comes after all that can still be served

compiled = cached(_nrt=False, nogil=True)


@compiled
def first_in_line(slack, wanted, place):
    """Fill (N,) `place` with the wanted peer of least slack, those of slack 0 last; -1 where none is wanted."""
    for i in range(len(place)):
        place[i], least = -1, np.inf
        for d in range(slack.shape[1]):
            wait = slack[i, d] if slack[i, d] > 0 else OVERDUE
            if wanted[i, d] and wait < least:
                place[i], least = d, wait


@compiled
def place_of_largest(weight, place):
    """Fill (N,) `place` with that of the largest of (N, D, R) weights, the lowest of equal ones; -1 if none is > 0."""
    for i in range(len(place)):
        place[i], most = -1, 0.0
        for d in range(weight.shape[1]):
            for r in range(weight.shape[2]):
                if weight[i, d, r] > most:
                    place[i], most = d, weight[i, d, r]


@compiled
def meet(pending, min_quality, best, needed):
    """Fill (n, R) `needed` with the smallest quality that meets the hardest of (n, C) pending, `best` if none does."""
    for i in range(needed.shape[0]):
        for r in range(needed.shape[1]):
            needed[i, r] = np.int64(_hardest(pending[i], min_quality[i, r], best))


@inlined
def _hardest(pending, min_quality, best):
    """The smallest quality that meets the hardest of (C,) pending over a route, `best` if none does."""
    quality = 1.0
    for c in range(len(pending)):
        if pending[c] > 0:
            met = min_quality[c]
            quality = max(quality, met if met > 0 else best)
    return quality


@compiled
def weigh(
    pending,
    open_allocations,
    stored_pairs,
    forecast,
    taken,
    hops,
    chance,
    load,
    min_quality,
    best_quality,
    link_price,
    load_price,
    forecast_weight,
    weight,
    quality,
):
    """Fill (N, D, R) `weight` and `quality` of `WeightRule.judge`; `forecast` has the slots that count."""
    nodes, places, routes = weight.shape
    for i in range(nodes):
        for d in range(places):
            requests, expected = pending[i, d, 0], forecast[i, d, 0]
            for c in range(1, pending.shape[2]):
                requests += pending[i, d, c]
            for h in range(1, forecast.shape[2]):
                expected += forecast[i, d, h]
            waiting = max(requests - open_allocations[i, d], 0.0)
            spare = stored_pairs[i, d] + max(open_allocations[i, d] - requests, 0.0)
            backlog = waiting + forecast_weight * max(expected - spare, 0.0)
            for r in range(routes):
                needed = max(min_quality[i, d, r, 0], 1.0)  # of stock, which is for the lowest class
                if waiting > 0.0:
                    needed = _hardest(pending[i, d], min_quality[i, d, r], best_quality)
                price = hops[i, d, r] * needed * (link_price + load_price * load[i, d, r])
                weight[i, d, r] = backlog * chance[i, d, r] - price if taken[i, d, r] else -np.inf
                quality[i, d, r] = np.int64(needed)


@compiled
def admit(node, place, hops, links, nodes, emitter, link_up, limit, claims, memory, route, rank):
    """One candidate after the other takes the first route that fits, unless its node has one already.

    What a route takes is added to `claims` on sources and taken off the free `memory`; (N,) `route` and `rank`, that of
    the candidate, are -1 for nodes without any. `limit` (N,) of claims stops no route that alone asks for more.
    """
    for candidate in range(len(node)):
        i, d = node[candidate], place[candidate]
        if route[i] >= 0:
            continue
        for r in range(hops.shape[2]):
            length = hops[i, d, r]
            if length == 0 or not _fits(
                links[i, d, r], nodes[i, d, r], length, emitter, link_up, limit, claims, memory
            ):
                continue
            route[i], rank[i] = r, candidate
            for h in range(length):
                claims[emitter[links[i, d, r, h]]] += 1
                memory[nodes[i, d, r, h]] -= 1
                memory[nodes[i, d, r, h + 1]] -= 1
            break


@inlined
def _fits(links, nodes, length, emitter, link_up, limit, claims, memory):
    """Whether a route's links are up, its nodes have memory and its sources stay within their limits."""
    fits = memory[nodes[0]] >= 1 and memory[nodes[length]] >= 1
    for h in range(1, length):
        fits = fits and memory[nodes[h]] >= 2
    for h in range(length):
        source, more = emitter[links[h]], 0
        for other in range(length):
            more += emitter[links[other]] == source
        fits = fits and link_up[links[h]] and claims[source] + more <= max(limit[source], more)
    return fits
