"""Compiled writers of observations and masks; `columns` are those that `features` declares.

A row is the node block, then one block per peer. It begins as a copy of what never changes in a network; what is not
written at all is 0: nothing, or unknown. Columns are unsigned: of others compiled code asks at every index whether it
counts from the end.
"""

from __future__ import annotations

import numpy as np

from dpem_env.observations.candidates import describe_candidates, describe_lengths, survey_candidates
from dpem_env.observations.cells import scaled, write, write_each
from dpem_env.simulator.actions import code_of, with_route
from dpem_env.simulator.kernel import can_name, free_row
from dpem_env.simulator.state import state_of, work_of, world_of
from dpem_env.simulator.telemetry import (
    UNSEEN,
    Reading,
    claims_in,
    count_claims,
    list_allocations,
    reading_known,
    some_link_down,
    survey,
)
from dpem_env.support.compiled import Entry, entry, inlined, inner


@entry
def _describe_fixed_batch(rules, worlds, states, works, first, last, node_divisor, peer_divisor, columns, out):
    for b in range(first, last):
        _describe_fixed(world_of(worlds, b), node_divisor, peer_divisor, columns, out[b])


@inner
def _describe_fixed(world, node_divisor, peer_divisor, columns, out):
    """What every row of a network begins with: the node's hardware, each peer's first route, all candidate routes."""
    out[:] = 0.0
    node_width, width = len(node_divisor), len(peer_divisor)
    for i in range(world.peers.shape[0]):
        row = out[i]
        write(row, node_divisor, columns.generation_rate, world.generation_rate[i])
        write(row, node_divisor, columns.swap_rate, world.swap_rate[i])
        write(row, node_divisor, columns.coherence_time, world.coherence_time[i])
        for d in range(world.peers.shape[1]):
            if world.peers[i, d] >= 0:
                block = row[node_width + d * width : node_width + (d + 1) * width]
                _describe_route(world, i, d, 0, peer_divisor, columns, block)
                describe_lengths(world, i, d, peer_divisor, columns, block)


@entry
def _observe_batch(
    rules,
    worlds,
    states,
    works,
    first,
    last,
    forecast,
    fresh,
    node_divisor,
    peer_divisor,
    columns,
    fixed_columns,
    fixed,
    out,
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
            columns,
            fixed_columns,
            fixed[b],
            out[b],
        )


@inner
def _observe(
    rules, world, state, work, forecast, fresh, node_divisor, peer_divisor, columns, fixed_columns, fixed, out
):
    """One environment's rows, onto what is fixed of them."""
    known = fresh or state.seen_slot[0] > UNSEEN
    read = fresh or (rules.news and known)
    count_claims(rules, world, state, work)
    if rules.news and not fresh:
        reading = reading_known(rules, state)
    else:
        if fresh:
            list_allocations(rules, world, state, work.allocations)
        reading = Reading(work.allocations, state.free_memory, state.link_up)
    if read:
        route, up, load = work.survey_route, work.survey_up, work.survey_load
        claims = (work.source_claims, work.swap_claims) if fresh else claims_in(world, reading, work)
        survey(rules, world, reading, claims, work, route, up, load)
    else:
        route, up, load = state.seen_route, state.seen_up, state.seen_load
    some_down = read and some_link_down(reading)
    if columns.any_news:
        survey_candidates(rules, world, reading, read, work, columns)
    nodes, places = world.peers.shape
    node_width, width = len(node_divisor), len(peer_divisor)
    for i in range(nodes):
        row = out[i]
        row[:] = 0.0
        for place in range(fixed.shape[1]):
            row[fixed_columns[place]] = fixed[i, place]
        write(row, node_divisor, columns.free_memory, state.free_memory[i])
        write(row, node_divisor, columns.swap_tokens, state.tokens[i])
        write(row, node_divisor, columns.source_backlog, work.source_claims[i])
        if known and not fresh:
            write(row, node_divisor, columns.telemetry_age, state.slot[0] - state.seen_slot[0] - 1)
        for d in range(places):
            if world.peers[i, d] >= 0:
                block = row[node_width + d * width : node_width + (d + 1) * width]
                _describe_demand(world, state, i, d, peer_divisor, columns, block)
                if route[i, d] > 0:
                    _describe_route(world, i, d, route[i, d], peer_divisor, columns, block)
                if known:
                    block[columns.route_up] = up[i, d]
                    block[columns.route_load] = load[i, d]
                if forecast.shape[2] > 0:  # compiled code would not notice an index beyond the end
                    write_each(block, peer_divisor, columns.forecast, forecast[i, d])
        _describe_own(state, i, node_divisor, peer_divisor, columns, row)
        if columns.any_news:
            describe_candidates(
                rules, world, reading, read, some_down, work, i, peer_divisor, columns, row[node_width:]
            )


@inlined
def _count(row, start, divisor, column):
    """One more of what the column counts."""
    row[start + column] = min(row[start + column] + divisor[column], np.float32(1.0))


@inlined
def _describe_demand(world, state, i, d, divisor, columns, block):
    """Requests pending for a peer."""
    head = state.queue_head[i, d]
    if head >= 0:
        write_each(block, divisor, columns.pending, state.pending[i, d])
        while head >= 0 and world.request_last_slot[head] < state.slot[0]:  # overdue in a delayed view
            head = state.queue_next[head]
        if head >= 0:
            write(block, divisor, columns.slack, world.request_last_slot[head] - state.slot[0] + 1)


@inlined
def _describe_route(world, i, d, route, divisor, columns, block):
    """Length, build time and qualities of the current route to a peer: the first until there is news of links."""
    write(block, divisor, columns.hops, world.route_hops[i, d, route])
    write(block, divisor, columns.build_time, world.route_build_time[i, d, route])
    write_each(block, divisor, columns.min_quality, world.route_quality[i, d, route])


@inlined
def _describe_own(state, i, node_divisor, peer_divisor, columns, row):
    """Progress of the node's own allocations, and its stock."""
    width = len(peer_divisor)
    peers = row[len(node_divisor) :]
    for k in range(state.alloc_peer.shape[1]):
        d = state.alloc_peer[i, k]
        if d >= 0:
            _count(row, 0, node_divisor, columns.open_rows)
            _count(peers, d * width, peer_divisor, columns.open_allocations)
            complete = scaled(state.alloc_complete[i, k], peer_divisor[columns.links_complete])
            furthest = d * width + columns.links_complete
            peers[furthest] = max(peers[furthest], complete)
    for s in range(state.stock_count[i]):
        start = state.stock_peer[i, s] * width
        _count(peers, start, peer_divisor, columns.stored_pairs)
        best = start + columns.best_werner
        peers[best] = max(peers[best], np.float32(state.stock_werner[i, s]))


@entry
def _allow_batch(rules, worlds, states, works, first, last, routes, conditional, out):
    for b in range(first, last):
        _allow(rules, world_of(worlds, b), routes, conditional, out[b])


@inner
def _allow(rules, world, routes, conditional, out):
    """1 for waiting, and for every allocation the simulator would take up from a node with a free row."""
    out[:] = 0
    choices = world.route_hops.shape[2] if routes else 1
    for i in range(world.peers.shape[0]):
        out[i, 0] = 1
        for d in range(world.peers.shape[1]):
            for r in range(choices):
                if can_name(world, i, d, r if routes else -1):
                    for q in range(rules.qualities):
                        action = with_route(code_of(d, q + 1, rules.qualities), r, choices)
                        out[i, action] = 1
                        if conditional:
                            out[i, action + (out.shape[1] - 1) // 2] = 1


@entry
def _mask_batch(rules, worlds, states, works, first, last, allowed, out):
    for b in range(first, last):
        _mask(state_of(states, b), allowed[b], out[b])


@inner
def _mask(state, allowed, out):
    """What a node may ever do while it has a free row, else waiting."""
    for i in range(out.shape[0]):
        if free_row(state, i) >= 0:
            for action in range(out.shape[1]):
                out[i, action] = allowed[i, action]
        else:
            out[i, :] = 0
            out[i, 0] = 1


write_fixed, write_allowed = Entry(_describe_fixed_batch), Entry(_allow_batch)
write_observations, write_masks = Entry(_observe_batch), Entry(_mask_batch)
