"""What a controller can know without news: an old state brought forward by its own commands and the passing of time.

Allocations past their time-to-live are closed, whatever became of them; commands count as open from the slot they are
issued until news of them arrives, whether or not they were admitted. Requests stay as they were seen, the overdue ones
too: they may not be served any more, but they say where demand is.
"""

from __future__ import annotations

from dpem_env.simulator.kernel import can_name, free_row, qubits_needed
from dpem_env.simulator.state import state_of, world_of
from dpem_env.simulator.telemetry import first_route_up
from dpem_env.support.compiled import Entry, entry, inner


@entry
def _wait_until(rules, worlds, states, works, first, last, slot):
    """Let time pass in the picture of environment 0 until `slot`, without news."""
    one_world, one = world_of(worlds, 0), state_of(states, 0)
    rows = one.alloc_peer.shape[1]
    still_open = 0
    for place in range(one.num_open[0]):
        alloc = one.age_order[place]
        i, row = alloc // rows, alloc % rows
        if slot - one.alloc_slot[i, row] >= rules.time_to_live:
            _occupy(one_world, one, i, row, -1)
            one.alloc_peer[i, row] = -1
        else:
            one.age_order[still_open] = alloc
            still_open += 1
    one.num_open[0] = still_open
    one.slot[0] = slot


@entry
def _count_overdue(rules, worlds, states, works, first, last, overdue):
    """(N, D, C) requests of the picture of environment 0 whose last slot has passed."""
    one_world, one = world_of(worlds, 0), state_of(states, 0)
    overdue[:] = 0
    for i in range(overdue.shape[0]):
        for d in range(overdue.shape[1]):
            request = one.queue_head[i, d]
            while request >= 0:
                if one_world.request_last_slot[request] < one.slot[0]:
                    overdue[i, d, one_world.request_class[request]] += 1
                request = one.queue_next[request]


@entry
def _assume(rules, worlds, states, works, first, last, action, route):
    """Count one slot's commands as open allocations without links, in the picture of environment 0."""
    one_world, one = world_of(worlds, 0), state_of(states, 0)
    places = one_world.peers.shape[1]
    for i in range(len(action)):
        d = (action[i] - 1) // rules.qualities
        row = free_row(one, i)
        if action[i] <= 0 or d >= places or row < 0 or not can_name(one_world, i, d, route[i]):
            continue
        one.alloc_peer[i, row] = d
        one.alloc_quality[i, row] = (action[i] - 1) % rules.qualities + 1
        one.alloc_route[i, row] = route[i] if route[i] >= 0 else max(first_route_up(one_world, one, i, d), 0)
        one.alloc_slot[i, row] = one.slot[0]
        one.alloc_complete[i, row] = 0
        one.link_rounds[i, row, :] = -1
        _occupy(one_world, one, i, row, 1)
        one.age_order[one.num_open[0]] = i * one.alloc_peer.shape[1] + row
        one.num_open[0] += 1


@inner
def _occupy(world, state, i, row, sign):
    """Take (sign 1) or free (-1) an allocation's memory; the picture may be wrong, so within what a node has."""
    d, r = state.alloc_peer[i, row], state.alloc_route[i, row]
    hops = world.route_hops[i, d, r]
    for h in range(hops + 1):
        node = world.route_nodes[i, d, r, h]
        free = state.free_memory[node] - sign * qubits_needed(h, hops)
        state.free_memory[node] = min(max(free, 0), world.memory[node])


wait_until, assume, count_overdue = Entry(_wait_until), Entry(_assume), Entry(_count_overdue)
