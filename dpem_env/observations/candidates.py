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
    width = len(divisor)
    claims = known and claims_wanted(columns)
    times = times_wanted(columns)
    room = known and columns.room != ABSENT
    if claims:
        _claim(world, reading, i, -1, work)  # what is left is claimed by others
    for d in range(world.peers.shape[1]):
        if world.peers[i, d] < 0:
            continue
        block = peers[d * width : (d + 1) * width]
        if columns.candidate_hops != ABSENT:
            write_each(block, divisor, columns.candidate_hops, world.route_hops[i, d])
        if columns.candidate_build_time != ABSENT:
            write_each(block, divisor, columns.candidate_build_time, world.route_build_time[i, d])
        for r in range(world.route_hops.shape[2]):
            if world.route_hops[i, d, r] == 0:
                continue
            up = not some_down or route_up(world, reading, i, d, r)
            if known and columns.candidate_up != ABSENT:
                block[columns.candidate_up + r] = up
            if claims:
                _describe_claims(world, work, i, d, r, divisor, columns, block)
            if times:
                _describe_times(rules, world, work, i, d, r, up, divisor, columns, block)
            if room:
                _describe_room(world, reading, i, d, r, divisor, columns, block)
    if claims:
        _claim(world, reading, i, 1, work)


@inlined
def _describe_claims(world, work, i, d, r, divisor, columns, block):
    """Claims by others at the sources and at the swap engines of a route."""
    worst = total = worst_swap = total_swap = 0
    for h in range(world.route_hops[i, d, r]):
        others = work.source_claimed[np.uint32(world.link_emitter[np.uint32(world.route_links[i, d, r, h])])]
        worst = max(worst, others)
        total += others
        if h > 0:
            others = work.swap_claimed[np.uint32(world.route_nodes[i, d, r, h])]
            worst_swap = max(worst_swap, others)
            total_swap += others
    if columns.source_claims_worst != ABSENT:
        block[columns.source_claims_worst + r] = scaled(worst, divisor[columns.source_claims_worst])
    if columns.source_claims_sum != ABSENT:
        block[columns.source_claims_sum + r] = scaled(total, divisor[columns.source_claims_sum])
    if columns.swap_claims_worst != ABSENT:
        block[columns.swap_claims_worst + r] = scaled(worst_swap, divisor[columns.swap_claims_worst])
    if columns.swap_claims_sum != ABSENT:
        block[columns.swap_claims_sum + r] = scaled(total_swap, divisor[columns.swap_claims_sum])


@inlined
def _describe_times(rules, world, work, i, d, r, up, divisor, columns, block):
    """How long the slowest link of a route takes, and whether all of it may come in time."""
    wait, chance = 0.0, 1.0
    swaps = 1.0 if up else 0.0
    hops = world.route_hops[i, d, r]
    previous = np.int32(-1)
    link = np.uint32(world.route_links[i, d, r, 0])
    source = world.link_emitter[link]
    for h in range(hops):
        after = link if h + 1 == hops else np.uint32(world.route_links[i, d, r, h + 1])
        following = np.int32(-1) if h + 1 == hops else world.link_emitter[after]
        more = np.uint32(source == previous) | np.uint32(source == following)  # no more than two of a loopless route
        wait = max(wait, work.link_wait[link, more])
        chance *= work.link_chance[link, more]
        if h > 0:
            swaps *= rules.swap_success
        previous, source, link = source, following, after
    if columns.slowest_link != ABSENT:
        block[columns.slowest_link + r] = scaled(wait, divisor[columns.slowest_link])
    if columns.useful_in_time != ABSENT:
        block[columns.useful_in_time + r] = scaled(chance * swaps, divisor[columns.useful_in_time])


@inlined
def _describe_room(world, reading, i, d, r, divisor, columns, block):
    """For how many allocations every node of a route has memory: two qubits at a relay, one at an end."""
    hops = world.route_hops[i, d, r]
    room = min(reading.free_memory[i], reading.free_memory[np.uint32(world.route_nodes[i, d, r, hops])])
    for h in range(1, hops):
        room = min(room, reading.free_memory[np.uint32(world.route_nodes[i, d, r, h])] >> 1)
    block[columns.room + r] = scaled(room, divisor[columns.room])
