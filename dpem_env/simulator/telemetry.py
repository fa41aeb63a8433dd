"""What nodes learn about the rest of the network, and when: readings of their own routes, or telemetry.

Every `route_period` slots a look is taken after phase 6; what it shows is known `route_delay` slots later. The first is
taken before slot 0. With news (the field `news_period`) it is a *reading*: what a node hears that asks all others on
its candidate routes, of which the last few are kept. Without, it is a *snapshot* that telemetry brings: per (node,
peer), the current route (the first whose links are up), whether it is up and the load of its worst resource.

A reading is kept as what nodes answer: every open allocation with the links that ask for pairs and the relays whose
swap is still to come or could be made at once, free memory, and the links that are up. Loads, in 0..1 per resource:
incomplete links on a source over what it can emit in a time-to-live; open allocations relayed through a node over the
swaps it can do in a time-to-live; the share of a memory in use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dpem_env.simulator.segments import links_wanted, num_hops, relays_ready, swaps_awaited
from dpem_env.support.compiled import inlined, inner

UNSEEN = -2
REACH, SINCE = 0, 1  # of a segment in a reading of a chain
PEER, ROUTE, WANTED, AWAITED, READY = 0, 1, 2, 3, 4  # of an allocation in a reading


class Reading(NamedTuple):
    """What all nodes would answer, of one environment: see `State.read_allocations` and the fields after it."""

    allocations: Any
    free_memory: Any
    link_up: Any


@inner
def clear_telemetry(rules, world, state, work):
    """Before slot 0 a first look is taken; nothing has been seen before it is known."""
    state.seen_slot[0] = UNSEEN
    state.seen_route[:] = 0
    state.seen_up[:] = 0
    state.seen_load[:] = 0.0
    state.read_allocations[:] = -1
    state.read_memory[:] = 0
    state.read_link_up[:] = 0
    _look_around(rules, world, state, work, -1)
    publish(rules, state, 0)


@inner
def pass_telemetry(rules, world, state, work):
    """Between phase 6 of slot t and phase 0 of slot t + 1: look around if it is time, publish what is old enough."""
    slot = state.slot[0]
    if (slot + 1) % rules.route_period == 0:
        _look_around(rules, world, state, work, slot)
    publish(rules, state, slot + 1)


@inner
def _look_around(rules, world, state, work, slot):
    """Keep a reading, or take a snapshot."""
    if rules.news:
        keep_reading(rules, world, state, slot)
    else:
        take_snapshot(rules, world, state, work, slot)


@inner
def keep_reading(rules, world, state, slot):
    """Write down what all nodes would answer now, as the reading taken after `slot`."""
    place = _place_of(rules, state, slot)
    list_allocations(rules, world, state, state.read_allocations[place])
    for i in range(len(state.free_memory)):
        state.read_memory[place, i] = state.free_memory[i]
    for link in range(len(state.link_up)):
        state.read_link_up[place, link] = state.link_up[link]
    state.flying_slot[0] = slot


@inner
def _place_of(rules, state, slot):
    """Where the reading taken after `slot` is kept."""
    return (slot + 1) // rules.route_period % state.read_memory.shape[0]


@inner
def reading_known(rules, state):
    """The reading that nodes know."""
    place = _place_of(rules, state, max(state.seen_slot[0], np.int64(-1)))
    return Reading(state.read_allocations[place], state.read_memory[place], state.read_link_up[place])


@inner
def list_allocations(rules, world, state, allocations):
    """Write every open allocation down, with the links that ask for pairs and the relays that await a swap, or can."""
    allocations[:] = -1
    rows = state.alloc_peer.shape[1]
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = state.alloc_peer[i, row], state.alloc_route[i, row]
        hops = num_hops(world, i, d, r)
        allocations[i, row, PEER] = d
        allocations[i, row, ROUTE] = r
        allocations[i, row, WANTED] = links_wanted(rules, state, i, row, hops)
        allocations[i, row, AWAITED] = swaps_awaited(state, i, row, hops)
        allocations[i, row, READY] = relays_ready(rules, state, i, row, hops)


@inner
def read_chain(rules, state):
    """Where relays decide on swaps, after phase 3: write down what segments there are, if it is time and anybody asks.

    They are told of it `route_delay` - 1 slots later: one slot is what a message of milliseconds takes, which finds
    what there is now.
    """
    slot = state.slot[0]
    if state.read_chain.shape[0] > 0 and slot % rules.route_period == 0:
        place = slot // rules.route_period % state.read_chain.shape[0]
        for h in range(state.read_chain.shape[1]):
            state.read_chain[place, h, REACH] = state.link_hops[0, 0, h]
            state.read_chain[place, h, SINCE] = state.link_slot[0, 0, h]


@inner
def chain_known(rules, state):
    """The slot whose reading of the chain is known, negative if none is, and its place among the readings kept."""
    slot = (state.slot[0] - rules.route_delay + 1) // rules.route_period * rules.route_period
    return slot, slot // rules.route_period % max(state.read_chain.shape[0], 1)


@inner
def take_snapshot(rules, world, state, work, slot):
    """Remember the state of all routes after phase 6 of `slot`."""
    count_claims(rules, world, state, work)
    reading = Reading(work.allocations, state.free_memory, state.link_up)
    claims = work.source_claims, work.swap_claims
    survey(rules, world, reading, claims, work, state.flying_route, state.flying_up, state.flying_load)
    state.flying_slot[0] = slot


@inner
def publish(rules, state, slot):
    """Let what is old enough be known from `slot` on: the last reading that is, or the snapshot if it is."""
    if rules.news:
        taken = (slot - rules.route_delay + 1) // rules.route_period * rules.route_period - 1
        state.seen_slot[0] = max(taken, np.int64(UNSEEN))
    elif state.flying_slot[0] > state.seen_slot[0] and slot - state.flying_slot[0] >= rules.route_delay:
        state.seen_slot[0] = state.flying_slot[0]
        for i in range(state.seen_route.shape[0]):
            for d in range(state.seen_route.shape[1]):
                state.seen_route[i, d] = state.flying_route[i, d]
                state.seen_up[i, d] = state.flying_up[i, d]
                state.seen_load[i, d] = state.flying_load[i, d]


@inner
def count_claims(rules, world, state, work):
    """Links that want pairs on every source and open allocations relayed through every node, now."""
    work.source_claims[:] = 0
    work.swap_claims[:] = 0
    rows = state.alloc_peer.shape[1]
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = state.alloc_peer[i, row], state.alloc_route[i, row]
        hops = num_hops(world, i, d, r)
        wanted = links_wanted(rules, state, i, row, hops)
        for h in range(hops):
            if wanted >> h & 1:
                work.source_claims[world.link_emitter[world.route_links[i, d, r, h]]] += 1
            if h > 0:
                work.swap_claims[world.route_nodes[i, d, r, h]] += 1


@inner
def survey(rules, world, reading, claims, work, route, up, load):
    """Current route, up or down and worst load of every (node, peer) in a reading, into the (N, D) tables given.

    `claims` are those on every source and swap engine then: of `count_claims` or `claims_in`.
    """
    _measure_loads(rules, world, reading, claims, work)
    some_down = some_link_down(reading)
    for i in range(world.peers.shape[0]):
        for d in range(world.peers.shape[1]):
            first_up = first_route_up(world, reading, i, d) if some_down else min(world.route_hops[i, d, 0], 1) - 1
            r = max(first_up, 0)
            route[i, d] = r
            up[i, d] = first_up >= 0
            load[i, d] = _worst_load(world, work, i, d, r)


@inner
def some_link_down(reading):
    """Whether there is one."""
    down = 0
    for link in range(len(reading.link_up)):
        down += 1 - reading.link_up[link]
    return down > 0


@inner
def claims_in(world, reading, work):
    """Links that want pairs on every source and allocations relayed through every node, in a reading."""
    work.waiting[:] = 0
    work.relayed[:] = 0
    for i in range(reading.allocations.shape[0]):
        for row in range(reading.allocations.shape[1]):
            d, r = reading.allocations[i, row, PEER], reading.allocations[i, row, ROUTE]
            if d < 0:
                continue
            wanted = reading.allocations[i, row, WANTED]
            for h in range(world.route_hops[i, d, r]):
                if wanted >> h & 1:
                    work.waiting[world.link_emitter[world.route_links[i, d, r, h]]] += 1
                if h > 0:
                    work.relayed[world.route_nodes[i, d, r, h]] += 1
    return work.waiting, work.relayed


@inner
def _measure_loads(rules, world, reading, claims, work):
    """Load of every memory, of every relay (memory or swap engine) and of every link's source."""
    waiting, relayed = claims
    for i in range(len(work.memory_load)):
        work.memory_load[i] = 1.0 - reading.free_memory[i] / world.memory[i]
        swaps = _share(relayed[i], world.swap_rate[i] * rules.lifetime)
        work.relay_load[i] = max(work.memory_load[i], swaps)
    for link in range(len(work.link_load)):
        e = world.link_emitter[link]
        work.link_load[link] = _share(waiting[e], world.generation_rate[e] * rules.lifetime)


@inner
def first_route_up(world, known, i, d):
    """The number of node i's first route to place d whose links are up in a state or a reading, -1 if there is none."""
    for r in range(world.route_hops.shape[2]):
        if world.route_hops[i, d, r] > 0 and route_up(world, known, i, d, r):
            return r
    return -1


@inner
def route_up(world, known, i, d, r):
    """Whether every link of route r is up in a state or a reading."""
    up = True
    for h in range(world.route_hops[i, d, r]):
        up = up and known.link_up[world.route_links[i, d, r, h]] == 1
    return up


@inlined
def _worst_load(world, work, i, d, r):
    """Load of the worst resource of a route, 0 where there is none."""
    hops = np.uint32(world.route_hops[i, d, r])
    if hops == 0:
        return np.float32(0.0)
    links, nodes = world.route_links[i, d, r], world.route_nodes[i, d, r]
    of_links = work.link_load[np.uint32(links[0])]
    of_nodes = max(work.memory_load[i], work.memory_load[np.uint32(nodes[hops])])
    for h in range(np.uint32(1), hops):
        of_links = max(of_links, work.link_load[np.uint32(links[h])])
        of_nodes = max(of_nodes, work.relay_load[np.uint32(nodes[h])])
    return np.float32(min(max(of_links, of_nodes), 1.0))


@inner
def _share(claims, capacity):
    if claims == 0:
        return 0.0
    return claims / capacity if capacity > 0.0 else 1.0
