"""Compiled writers of observations and masks, in the order that `features` declares.

A row is the node block, then one block per peer. What is not written is 0: nothing, or unknown.
"""

from __future__ import annotations

import numpy as np

from dpem_env.simulator.actions import code_of
from dpem_env.simulator.kernel import can_name, free_row
from dpem_env.simulator.state import state_of, work_of, world_of
from dpem_env.simulator.telemetry import UNSEEN, count_claims, survey
from dpem_env.support.compiled import Entry, entry, inlined, inner


@entry
def _observe_batch(
    rules, worlds, states, works, first, last, forecast, fresh, node_divisor, peer_divisor, horizon, out
):
    for b in range(first, last):
        _observe(
            rules,
            world_of(worlds, b),
            state_of(states, b),
            work_of(works, b),
            forecast[b % forecast.shape[0]],
            fresh,
            node_divisor,
            peer_divisor,
            horizon,
            out[b],
        )


@inner
def _observe(rules, world, state, work, forecast, fresh, node_divisor, peer_divisor, horizon, out):
    """One environment's rows, in the declared order of features; what is not written is 0: nothing or unknown."""
    if fresh:
        route, up, load = work.survey_route, work.survey_up, work.survey_load
        survey(rules, world, state, work, route, up, load)
    else:
        count_claims(world, state, work)
        route, up, load = state.seen_route, state.seen_up, state.seen_load
    known = fresh or state.seen_slot[0] > UNSEEN
    out[:] = 0.0
    nodes, places = world.peers.shape
    node_width, width = len(node_divisor), len(peer_divisor)
    for i in range(nodes):
        row = out[i]
        row[0] = _scaled(state.free_memory[i], node_divisor[0])
        row[1] = _scaled(world.generation_rate[i], node_divisor[1])
        row[2] = _scaled(world.swap_rate[i], node_divisor[2])
        row[3] = _scaled(world.coherence_time[i], node_divisor[3])
        row[4] = _scaled(state.tokens[i], node_divisor[4])
        row[6] = _scaled(work.source_claims[i], node_divisor[6])
        if known and not fresh:
            row[7] = _scaled(state.slot[0] - state.seen_slot[0] - 1, node_divisor[7])
        for d in range(places):
            if world.peers[i, d] >= 0:
                block = row[node_width + d * width : node_width + (d + 1) * width]
                _describe_demand(world, state, i, d, peer_divisor, block)
                if known:
                    _describe_route(world, i, d, route[i, d], up[i, d], load[i, d], peer_divisor, block)
                if forecast.shape[2] > 0:
                    for h in range(horizon):
                        block[width - horizon + h] = _scaled(forecast[i, d, h], peer_divisor[width - 1])
        _describe_own(state, i, row, node_divisor, peer_divisor)


@inlined
def _scaled(x, divisor):
    return min(max(np.float32(x) * divisor, np.float32(0.0)), np.float32(1.0))


@inlined
def _describe_demand(world, state, i, d, divisor, block):
    """Requests pending for a peer."""
    classes = state.pending.shape[2]
    head = state.queue_head[i, d]
    if head >= 0:
        for c in range(classes):
            block[c] = _scaled(state.pending[i, d, c], divisor[c])
        while head >= 0 and world.request_last_slot[head] < state.slot[0]:  # overdue in a delayed view
            head = state.queue_next[head]
        if head >= 0:
            block[classes] = _scaled(world.request_last_slot[head] - state.slot[0] + 1, divisor[classes])


@inlined
def _describe_route(world, i, d, route, up, load, divisor, block):
    """The current route to a peer."""
    classes = world.route_quality.shape[3]
    block[classes + 5] = _scaled(world.route_hops[i, d, route], divisor[classes + 5])
    block[classes + 6] = _scaled(world.route_build_time[i, d, route], divisor[classes + 6])
    block[classes + 7] = up
    block[classes + 8] = load
    for c in range(classes):
        block[classes + 9 + c] = _scaled(world.route_quality[i, d, route, c], divisor[classes + 9])


@inlined
def _describe_own(state, i, row, node_divisor, peer_divisor):
    """Progress of the node's own allocations, and its stock."""
    classes, width = state.pending.shape[2], len(peer_divisor)
    peers = row[len(node_divisor) :]
    for k in range(state.alloc_peer.shape[1]):
        d = state.alloc_peer[i, k]
        if d >= 0:
            start = d * width + classes
            row[5] = min(row[5] + node_divisor[5], np.float32(1.0))
            peers[start + 1] = min(peers[start + 1] + peer_divisor[classes + 1], np.float32(1.0))
            complete = _scaled(state.alloc_complete[i, k], peer_divisor[classes + 2])
            peers[start + 2] = max(peers[start + 2], complete)
    for s in range(state.stock_count[i]):
        start = state.stock_peer[i, s] * width + classes
        peers[start + 3] = min(peers[start + 3] + peer_divisor[classes + 3], np.float32(1.0))
        peers[start + 4] = max(peers[start + 4], np.float32(state.stock_werner[i, s]))


@entry
def _mask_batch(rules, worlds, states, works, first, last, routes, out):
    for b in range(first, last):
        _mask(rules, world_of(worlds, b), state_of(states, b), routes, out[b])


@inner
def _mask(rules, world, state, routes, out):
    """1 for waiting, and for every allocation the simulator would take up while a row is free."""
    choices = world.route_hops.shape[2] if routes else 1
    for i in range(world.peers.shape[0]):
        out[i, 0] = 1
        if free_row(state, i) < 0:
            continue
        for d in range(world.peers.shape[1]):
            for r in range(choices):
                if can_name(world, i, d, r if routes else -1):
                    for q in range(rules.qualities):
                        out[i, code_of(d, q + 1, r, rules.qualities, choices)] = 1


write_observations, write_masks = Entry(_observe_batch), Entry(_mask_batch)
