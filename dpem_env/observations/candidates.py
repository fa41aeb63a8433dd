"""What a reading tells of a node's candidate routes: the features of block "news", compiled.

Claims are those that make contention: on a source, links that wait for it and are up; on a swap engine, allocations
that have still to swap there, ready or not, since what is ready is gone by the end of the slot. Those of the node
itself are left out of what others claim. Times and chances are those of an allocation of quality 1 opened now, which
shares every source with all that claims it, the node's own allocations included: a link of rate g·η, at whose source n
other links wait, comes after an exponential time of rate g·η/(1 + n), independently of others. Two links of the route
at one source wait for each other, too.

- `slowest_link`: the largest mean of these times, (1 + n)/(g·η). It is at most the expected build time, which is the
  expected maximum (Jensen's inequality), and equals it on one hop.
- `useful_in_time`: Π_links (1 - exp(-g·η·T/(1 + n))) · p^(hops - 1), with T the time-to-live and p the success of a
  swap; 0 if a link is down. Exact where nobody shares and swaps succeed; else within a few hundredths of the truth, in
  which complete links leave their source to others, older allocations come first and lost swaps are tried again.

What is not known counts as none: without an answer the network is taken to be idle.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dpem_env import physics
from dpem_env.observations.cells import ABSENT, scaled
from dpem_env.simulator.segments import num_hops
from dpem_env.simulator.telemetry import AWAITED, PEER, ROUTE, WANTED, route_up
from dpem_env.support.compiled import inlined, inner

_within = njit(physics.within)


@inlined
def claims_wanted(columns):
    """Whether a feature is wanted that tells of claims."""
    sources = columns.source_claims_worst != ABSENT or columns.source_claims_sum != ABSENT
    return sources or columns.swap_claims_worst != ABSENT or columns.swap_claims_sum != ABSENT


@inlined
def times_wanted(columns):
    """Whether a feature is wanted that tells of times or chances."""
    return columns.slowest_link != ABSENT or columns.useful_in_time != ABSENT


@inner
def survey_candidates(rules, world, reading, known, work, columns):
    """Claims on every source and swap engine, and from them every link's wait and chance, as far as they are wanted."""
    times = times_wanted(columns)
    work.source_claimed[:] = 0
    work.swap_claimed[:] = 0
    if known and (times or claims_wanted(columns)):
        for i in range(reading.allocations.shape[0]):
            _claim(world, reading, i, 1, work)
    if times:
        for link in range(len(reading.link_up)):
            _share_link(rules, world, work, link)


@inner
def _claim(world, reading, i, step, work):
    """Add what node i's allocations claim, `step` each, to the claims on sources and swap engines."""
    for row in range(reading.allocations.shape[1]):
        d, r = reading.allocations[i, row, PEER], reading.allocations[i, row, ROUTE]
        if d < 0:
            continue
        wanted, awaited = reading.allocations[i, row, WANTED], reading.allocations[i, row, AWAITED]
        for h in range(num_hops(world, i, d, r)):
            link = world.route_links[i, d, r, h]
            if wanted >> h & 1 and reading.link_up[link] == 1:
                work.source_claimed[world.link_emitter[link]] += step
            if awaited >> h & 1:
                work.swap_claimed[world.route_nodes[i, d, r, h]] += step


@inner
def _share_link(rules, world, work, link):
    """Mean wait for a link of quality 1, and chance that it comes in time, if one or two more claim its source."""
    source = world.link_emitter[link]
    arrival = world.link_transmission[0, link]
    for more in range(2):
        if rules.bernoulli:  # nobody shares
            slot = rules.lifetime / rules.time_to_live
            work.link_wait[link, more] = slot / max(arrival, physics.NEGLIGIBLE_RATE)
            work.link_chance[link, more] = 1.0 - (1.0 - arrival) ** rules.time_to_live
        else:
            rate = world.generation_rate[source] * arrival / (work.source_claimed[source] + 1 + more)
            work.link_wait[link, more] = 1.0 / max(rate, physics.NEGLIGIBLE_RATE)
            work.link_chance[link, more] = _within(rules.lifetime, rate)


@inner
def describe_candidates(rules, world, reading, known, some_down, work, i, divisor, columns, peers):
    """Write what changes about the candidate routes of node i, into the blocks of its peers: one walk along each."""
    of_claims, of_times = known and claims_wanted(columns), times_wanted(columns)
    of_room, of_links = known and columns.room != ABSENT, known and columns.candidate_up != ABSENT
    if not (of_claims or of_times or of_room or of_links):
        return
    if of_claims:
        _claim(world, reading, i, -1, work)  # what is left is claimed by others
    for d in range(world.route_hops.shape[1]):
        for r in range(world.route_hops.shape[2]):
            hops = np.uint32(world.route_hops[i, d, r])
            if hops == 0:
                continue
            sources, engines, wait, chance, room = _walk(
                rules, world, reading, work, i, d, r, hops, of_claims, of_times
            )
            up = not some_down or route_up(world, reading, i, d, r)
            place = d * len(divisor) + r
            if of_claims:
                _put(peers, place, divisor, columns.source_claims_worst, sources[0])
                _put(peers, place, divisor, columns.source_claims_sum, sources[1])
                _put(peers, place, divisor, columns.swap_claims_worst, engines[0])
                _put(peers, place, divisor, columns.swap_claims_sum, engines[1])
            if of_times:
                _put(peers, place, divisor, columns.slowest_link, wait)
                _put(peers, place, divisor, columns.useful_in_time, chance if up else 0.0)
            if of_room:
                _put(peers, place, divisor, columns.room, room)
            if of_links:
                peers[place + columns.candidate_up] = up
    if of_claims:
        _claim(world, reading, i, 1, work)


@inlined
def _walk(rules, world, reading, work, i, d, r, hops, of_claims, of_times):
    """Along a route: worst and sum of claims on sources and on swap engines, slowest link, chance in time, room."""
    links, nodes = world.route_links[i, d, r], world.route_nodes[i, d, r]
    claimed, relayed, free = work.source_claimed, work.swap_claimed, reading.free_memory
    worst = total = worst_swap = total_swap = np.int32(0)
    wait, chance, swaps = 0.0, 1.0, 1.0
    room = min(free[i], free[nodes[hops]])  # two qubits at a relay, one at an end
    shared = world.route_shared[i, d, r]
    for h in range(hops):
        link = np.uint32(links[h])
        if of_claims:
            claims = claimed[np.uint32(world.link_emitter[link])]
            worst, total = max(worst, claims), total + claims
        if of_times:
            more = np.uint32(shared >> h & 1)  # of a loopless route two at most draw on one source
            wait = max(wait, work.link_wait[link, more])
            chance *= work.link_chance[link, more]
        if h > 0:
            relay = np.uint32(nodes[h])
            claims = relayed[relay]
            worst_swap, total_swap = max(worst_swap, claims), total_swap + claims
            room = min(room, free[relay] >> 1)
            swaps *= rules.swap_success
    return (worst, total), (worst_swap, total_swap), wait, chance * swaps, room


@inner
def describe_lengths(world, i, d, divisor, columns, block):
    """Length and build time of all candidate routes to a peer, into its block."""
    for r in range(world.route_hops.shape[2]):
        _put(block, r, divisor, columns.candidate_hops, world.route_hops[i, d, r])
        _put(block, r, divisor, columns.candidate_build_time, world.route_build_time[i, d, r])


@inlined
def _put(peers, place, divisor, column, x):
    """A feature of a candidate route, if it is wanted; `place` is the route's in a column of its peer's block."""
    if column != ABSENT:
        peers[place + column] = scaled(x, divisor[column])
