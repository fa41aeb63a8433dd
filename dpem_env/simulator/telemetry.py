"""Telemetry: what nodes learn about the rest of the network, and when.

Every `telemetry_period` a snapshot is taken after phase 6; it can be read `telemetry_delay` slots later. The first is
taken before slot 0. A snapshot holds, per (node, peer), the current route (the first whose links are up), whether it
is up and the load of its worst resource. Loads, in 0..1 per resource: incomplete links on a source over what it can
emit in a time-to-live; open allocations relayed through a node over the swaps it can do in a time-to-live; the share
of a memory in use.
"""

from __future__ import annotations

import numpy as np

from dpem_env.simulator.segments import links_wanted, num_hops
from dpem_env.support.compiled import inner

UNSEEN = -2


@inner
def clear_telemetry(rules, world, state, work):
    """Before slot 0 a first snapshot is taken; nothing has been seen before it can be read."""
    state.seen_slot[0] = UNSEEN
    state.seen_route[:] = 0
    state.seen_up[:] = 0
    state.seen_load[:] = 0.0
    take_snapshot(rules, world, state, work, -1)
    publish(rules, state, 0)


@inner
def pass_telemetry(rules, world, state, work):
    """Between phase 6 of slot t and phase 0 of slot t + 1: take a snapshot if one is due, publish one if it is time."""
    slot = state.slot[0]
    if (slot + 1) % rules.telemetry_period == 0:
        take_snapshot(rules, world, state, work, slot)
    publish(rules, state, slot + 1)


@inner
def take_snapshot(rules, world, state, work, slot):
    """Remember the state of all routes after phase 6 of `slot`."""
    survey(rules, world, state, work, state.flying_route, state.flying_up, state.flying_load)
    state.flying_slot[0] = slot


@inner
def publish(rules, state, slot):
    """Make the snapshot readable from `slot` on, if it is old enough."""
    if state.flying_slot[0] > state.seen_slot[0] and slot - state.flying_slot[0] >= rules.telemetry_delay:
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
def survey(rules, world, state, work, route, up, load):
    """Current route, up or down and worst load of every (node, peer), now, into the (N, D) tables given."""
    _measure_loads(rules, world, state, work)
    memory_load, relay_load, link_load = work.memory_load, work.relay_load, work.link_load
    some_down = _some_link_down(state)
    for i in range(world.peers.shape[0]):
        for d in range(world.peers.shape[1]):
            first_up = first_route_up(world, state, i, d) if some_down else min(world.route_hops[i, d, 0], 1) - 1
            r = max(first_up, 0)
            route[i, d] = r
            up[i, d] = first_up >= 0
            hops, links, nodes = world.route_hops[i, d, r], world.route_links[i, d, r], world.route_nodes[i, d, r]
            load[i, d] = _worst_load(i, hops, links, nodes, memory_load, relay_load, link_load) if hops > 0 else 0.0


@inner
def _some_link_down(state):
    down = 0
    for link in range(len(state.link_up)):
        down += 1 - state.link_up[link]
    return down > 0


@inner
def _measure_loads(rules, world, state, work):
    """Load of every memory, of every relay (memory or swap engine) and of every link's source."""
    count_claims(rules, world, state, work)
    for i in range(len(work.memory_load)):
        work.memory_load[i] = 1.0 - state.free_memory[i] / world.memory[i]
        swaps = _share(work.swap_claims[i], world.swap_rate[i] * rules.lifetime)
        work.relay_load[i] = max(work.memory_load[i], swaps)
    for link in range(len(work.link_load)):
        e = world.link_emitter[link]
        work.link_load[link] = _share(work.source_claims[e], world.generation_rate[e] * rules.lifetime)


@inner
def first_route_up(world, state, i, d):
    """The number of node i's first route to place d whose links are up, -1 if there is none."""
    for r in range(world.route_hops.shape[2]):
        if world.route_hops[i, d, r] > 0 and route_up(world, state, i, d, r):
            return r
    return -1


@inner
def route_up(world, state, i, d, r):
    """Whether every link of route r is up."""
    up = True
    for h in range(world.route_hops[i, d, r]):
        up = up and state.link_up[world.route_links[i, d, r, h]] == 1
    return up


@inner
def _worst_load(i, hops, links, nodes, memory_load, relay_load, link_load):
    worst = max(memory_load[i], memory_load[nodes[hops]])
    for h in range(hops):
        worst = max(worst, link_load[links[h]])
        if h > 0:
            worst = max(worst, relay_load[nodes[h]])
    return np.float32(min(worst, 1.0))


@inner
def _share(claims, capacity):
    if claims == 0:
        return 0.0
    return claims / capacity if capacity > 0.0 else 1.0
