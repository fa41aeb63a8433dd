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
from dpem_env.observations.cells import ABSENT, scaled, write_each
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
    """Mean wait for a link, and chance that it comes in time, if one or two more claim its source."""
    source = world.link_emitter[link]
    arrival = world.link_transmission[link]
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
    """Write the block of all candidate routes of node i, into the blocks of its peers."""
    _describe_fixed(world, i, divisor, columns, peers)
    if times_wanted(columns):
        _describe_times(rules, world, reading, some_down, work, i, divisor, columns, peers)
    if not known:
        return
    if claims_wanted(columns):
        _claim(world, reading, i, -1, work)  # what is left is claimed by others
        _describe_claims(world, work, i, divisor, columns, peers)
        _claim(world, reading, i, 1, work)
    if columns.candidate_up != ABSENT:
        _describe_links(world, reading, some_down, i, divisor, columns, peers)
    if columns.room != ABSENT:
        _describe_room(world, reading, i, divisor, columns, peers)


@inner
def _describe_fixed(world, i, divisor, columns, peers):
    """Length and build time of every route."""
    width = len(divisor)
    for d in range(world.peers.shape[1]):
        block = peers[d * width : (d + 1) * width]
        if world.peers[i, d] >= 0 and columns.candidate_hops != ABSENT:
            write_each(block, divisor, columns.candidate_hops, world.route_hops[i, d])
        if world.peers[i, d] >= 0 and columns.candidate_build_time != ABSENT:
            write_each(block, divisor, columns.candidate_build_time, world.route_build_time[i, d])


@inner
def _describe_links(world, reading, some_down, i, divisor, columns, peers):
    """Whether all links of every route are up."""
    for d in range(world.peers.shape[1]):
        for r in range(world.route_hops.shape[2]):
            if world.route_hops[i, d, r] > 0:
                up = not some_down or route_up(world, reading, i, d, r)
                peers[d * len(divisor) + columns.candidate_up + r] = up


@inner
def _describe_claims(world, work, i, divisor, columns, peers):
    """Claims by others at the sources and at the swap engines of every route."""
    sources, engines, emitter = work.source_claimed, work.swap_claimed, world.link_emitter
    all_hops, all_links, all_nodes = world.route_hops[i], world.route_links[i], world.route_nodes[i]
    for d in range(all_hops.shape[0]):
        for r in range(all_hops.shape[1]):
            hops = all_hops[d, r]
            worst = total = worst_swap = total_swap = 0
            for h in range(hops):
                others = sources[np.uint32(emitter[np.uint32(all_links[d, r, h])])]
                worst = max(worst, others)
                total += others
            for h in range(1, hops):
                others = engines[np.uint32(all_nodes[d, r, h])]
                worst_swap = max(worst_swap, others)
                total_swap += others
            place = d * len(divisor) + r
            if columns.source_claims_worst != ABSENT:
                peers[place + columns.source_claims_worst] = scaled(worst, divisor[columns.source_claims_worst])
            if columns.source_claims_sum != ABSENT:
                peers[place + columns.source_claims_sum] = scaled(total, divisor[columns.source_claims_sum])
            if columns.swap_claims_worst != ABSENT:
                peers[place + columns.swap_claims_worst] = scaled(worst_swap, divisor[columns.swap_claims_worst])
            if columns.swap_claims_sum != ABSENT:
                peers[place + columns.swap_claims_sum] = scaled(total_swap, divisor[columns.swap_claims_sum])


@inner
def _describe_times(rules, world, reading, some_down, work, i, divisor, columns, peers):
    """How long the slowest link of every route takes, and whether all of it may come in time."""
    waits, chances, emitter = work.link_wait, work.link_chance, world.link_emitter
    all_hops, all_links = world.route_hops[i], world.route_links[i]
    for d in range(all_hops.shape[0]):
        for r in range(all_hops.shape[1]):
            hops = all_hops[d, r]
            if hops == 0:
                continue
            wait, chance, swaps = 0.0, 1.0, 1.0
            previous = np.int32(-1)
            link = np.uint32(all_links[d, r, 0])
            source = emitter[link]
            for h in range(1, hops + 1):
                after = link if h == hops else np.uint32(all_links[d, r, h])
                following = np.int32(-1) if h == hops else emitter[after]
                more = np.uint32(source == previous) | np.uint32(source == following)  # of a loopless route two at most
                wait = max(wait, waits[link, more])
                chance *= chances[link, more]
                if h > 1:
                    swaps *= rules.swap_success
                previous, source, link = source, following, after
            if some_down and not route_up(world, reading, i, d, r):
                chance = 0.0
            place = d * len(divisor) + r
            if columns.slowest_link != ABSENT:
                peers[place + columns.slowest_link] = scaled(wait, divisor[columns.slowest_link])
            if columns.useful_in_time != ABSENT:
                peers[place + columns.useful_in_time] = scaled(chance * swaps, divisor[columns.useful_in_time])


@inner
def _describe_room(world, reading, i, divisor, columns, peers):
    """For how many allocations every node of every route has memory: two qubits at a relay, one at an end."""
    free, all_hops, all_nodes = reading.free_memory, world.route_hops[i], world.route_nodes[i]
    for d in range(all_hops.shape[0]):
        for r in range(all_hops.shape[1]):
            hops = all_hops[d, r]
            if hops == 0:
                continue
            room = min(free[i], free[np.uint32(all_nodes[d, r, hops])])
            for h in range(1, hops):
                room = min(room, free[np.uint32(all_nodes[d, r, h])] >> 1)
            peers[d * len(divisor) + columns.room + r] = scaled(room, divisor[columns.room])
