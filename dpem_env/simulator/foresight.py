"""What a controller can know without news: an old state brought forward by its own commands and the passing of time.

Allocations past their time-to-live are closed, whatever became of them; commands count as open from the slot they are
issued until news of them arrives, whether or not they were admitted. Requests stay as they were seen, the overdue ones
too: they may not be served any more, but they say where demand is.
"""

from __future__ import annotations

import numpy as np

from dpem_env.simulator.actions import place_of, quality_of
from dpem_env.simulator.kernel import free_row, list_routes, qubits_needed
from dpem_env.simulator.segments import empty_all
from dpem_env.simulator.state import state_of, work_of, world_of
from dpem_env.simulator.telemetry import route_up
from dpem_env.support.compiled import Entry, entry, inner


@entry
def _wait_until_batch(rules, worlds, states, works, first, last, slot):
    for b in range(first, last):
        _wait_until(rules, world_of(worlds, b), state_of(states, b), slot)


@inner
def _wait_until(rules, world, state, slot):
    """Let time pass in the picture until `slot`, without news."""
    rows = state.alloc_peer.shape[1]
    still_open = 0
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        if slot - state.alloc_slot[i, row] >= rules.time_to_live:
            _occupy(world, state, i, row, -1)
            state.alloc_peer[i, row] = -1
        else:
            state.age_order[still_open] = alloc
            still_open += 1
    state.num_open[0] = still_open
    state.slot[0] = slot


@entry
def _count_overdue_batch(rules, worlds, states, works, first, last, overdue):
    for b in range(first, last):
        _count_overdue(world_of(worlds, b), state_of(states, b), overdue[b])


@inner
def _count_overdue(world, state, overdue):
    """(N, D, C) requests of the picture whose last slot has passed."""
    overdue[:] = 0
    for i in range(overdue.shape[0]):
        for d in range(overdue.shape[1]):
            request = state.queue_head[i, d]
            while request >= 0:
                if world.request_last_slot[request] < state.slot[0]:
                    overdue[i, d, world.request_class[request]] += 1
                request = state.queue_next[request]


@entry
def _assume_batch(rules, worlds, states, works, first, last, action, route, fallback):
    for b in range(first, last):
        _assume(rules, world_of(worlds, b), state_of(states, b), work_of(works, b), action[b], route[b], fallback[b])


@inner
def _assume(rules, world, state, work, action, route, fallback):
    """Count one slot's commands as open allocations without links, in the picture: on the first route that is up.

    Where relays decide on swaps nothing is assumed: what came of them is told by news alone.
    """
    if rules.agents:
        return
    places = world.peers.shape[1]
    for i in range(len(action)):
        d = place_of(action[i], rules.qualities)
        row = free_row(state, i)
        if action[i] <= 0 or d >= places or row < 0 or not list_routes(world, work, i, d, route[i], fallback[i]):
            continue
        state.alloc_peer[i, row] = d
        state.alloc_quality[i, row] = quality_of(action[i], rules.qualities)
        state.alloc_route[i, row] = _first_up(world, state, work, i, d)
        state.alloc_slot[i, row] = state.slot[0]
        empty_all(state, i, row, state.link_rounds.shape[2])
        _occupy(world, state, i, row, 1)
        state.age_order[state.num_open[0]] = i * state.alloc_peer.shape[1] + row
        state.num_open[0] += 1


@inner
def _first_up(world, state, work, i, d):
    """The first of the routes to try whose links are up, without any the first of them."""
    for n in range(work.tries.shape[1]):
        r = np.int64(work.tries[i, n])
        if r >= 0 and route_up(world, state, i, d, r):
            return r
    return max(np.int64(work.tries[i, 0]), 0)


@inner
def _occupy(world, state, i, row, sign):
    """Take (sign 1) or free (-1) an allocation's memory; the picture may be wrong, so within what a node has."""
    d, r = state.alloc_peer[i, row], state.alloc_route[i, row]
    hops = world.route_hops[i, d, r]
    for h in range(hops + 1):
        node = world.route_nodes[i, d, r, h]
        free = state.free_memory[node] - sign * qubits_needed(h, hops)
        state.free_memory[node] = min(max(free, 0), world.memory[node])


wait_until, assume, count_overdue = Entry(_wait_until_batch), Entry(_assume_batch), Entry(_count_overdue_batch)
