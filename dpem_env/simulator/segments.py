"""Segments: what an allocation holds along its route, links and what swaps made of them, by the hop of their left end.

A segment from hop h joins the h-th node of the route to the (h + `link_hops`)-th. A relay has one qubit on either side,
so no two segments of an allocation share a left end or a right end; one may lie inside another, where links are made
again inside a longer segment. Sets of hops or relays are integers: bit h stands for hop h or for the h-th node.
"""

from __future__ import annotations

import numpy as np

from dpem_env.simulator.randomness import SWAP, uniform
from dpem_env.simulator.state import TALLY
from dpem_env.support.compiled import inlined, inner


@inlined
def num_hops(world, i, d, r):
    """Links of a route, as a full-width integer (see `kernel.course`)."""
    return np.int64(world.route_hops[i, d, r])


@inlined
def is_complete(state, i, row, h):
    """Whether a segment starts at hop h that has had all its purification rounds."""
    return state.link_rounds[i, row, h] == state.alloc_quality[i, row] - 1


@inlined
def links_complete(state, i, row, hops):
    """Links that complete segments span, one inside another counted once."""
    links = 0
    h = 0
    while h < hops:
        if is_complete(state, i, row, h):
            links += state.link_hops[i, row, h]
            h += state.link_hops[i, row, h]
        else:
            h += 1
    return links


@inlined
def links_wanted(rules, state, i, row, hops):
    """The hops whose links ask for pairs: incomplete, and no complete segment holds their two qubits.

    Unless links are made again, they don't ask for any inside a longer segment either.
    """
    whole = (1 << hops) - 1
    if state.alloc_complete[i, row] == 0:
        return whole
    taken = 0
    for h in range(hops):
        if is_complete(state, i, row, h):
            span = state.link_hops[i, row, h] if rules.singly else 1
            taken |= 1 << h | 1 << (h + span - 1) if rules.regenerate else ((1 << span) - 1) << h
    return whole & ~taken


@inlined
def swaps_awaited(state, i, row, hops):
    """The relays whose swap is still to come: those inside no segment."""
    awaited = (1 << hops) - 2
    if state.alloc_complete[i, row] == 0:
        return awaited
    for h in range(hops):
        for inside in range(h + 1, h + state.link_hops[i, row, h]):
            awaited &= ~(1 << inside)
    return awaited


@inlined
def relays_ready(rules, state, i, row, hops):
    """The relays that can swap: a complete segment on either side; under `all` none before every link is complete.

    Nested, the middle one of three that could waits for the others. Bit 0 stands for a route of one link that is
    complete, where there is nothing to swap.
    """
    if state.alloc_complete[i, row] < (min(hops, 2) if rules.singly else hops):
        return 0
    if hops == 1:
        return 1
    starts = 0
    ends = 0
    for h in range(hops):
        if is_complete(state, i, row, h):
            starts |= 1 << h
            ends |= 1 << (h + state.link_hops[i, row, h])
    if rules.nested and starts & ends == 0b1110:
        return 0b1010
    return starts & ends


@inlined
def relays_holding(state, hops):
    """The relays of a chain at which a segment begins or ends."""
    holding = 0
    for h in range(hops):
        if state.link_hops[0, 0, h] > 0:
            holding |= 1 << h | 1 << (h + state.link_hops[0, 0, h])
    return holding & ((1 << hops) - 2)


@inner
def discard(state, h, hops):
    """The h-th node of a chain lets go of the segments that begin or end there."""
    for left in range(hops):
        span = state.link_hops[0, 0, left]
        if span > 0 and (left == h or left + span == h):
            state.tally[TALLY.CUT_OFF] += span
            empty(state, 0, 0, left)
    state.alloc_complete[0, 0] = links_complete(state, 0, 0, hops)


@inner
def join(rules, state, i, row, hops, swaps, outcome):
    """Swap at these relays, all at once: a run of adjacent swaps joins its segments if all succeed, else loses them.

    Returns w of the pair that spans the route, whose segments stay until the allocation closes; -1 if there is none.
    """
    for h in range(hops):
        if not is_complete(state, i, row, h) or swaps >> h & 1:
            continue  # no run starts here
        werner = state.link_werner[i, row, h]
        since = state.link_slot[i, row, h]
        success = True
        end = h + state.link_hops[i, row, h]
        while swaps >> end & 1:
            success &= uniform(outcome, SWAP, i, row, end, 0) < rules.swap_success
            werner *= state.link_werner[i, row, end] * rules.swap_factor
            since = min(since, state.link_slot[i, row, end])
            end += state.link_hops[i, row, end]
        if success and end - h == hops:
            return werner
        if end == h + state.link_hops[i, row, h]:
            continue  # no swap
        rounds = state.link_rounds[i, row, h]
        _lose(state, i, row, h, end)
        if success:
            state.link_rounds[i, row, h] = rounds
            state.link_hops[i, row, h] = end - h
            state.link_werner[i, row, h] = werner
            state.link_slot[i, row, h] = since
        else:
            state.tally[TALLY.SWAPPED_AWAY] += end - h
    state.alloc_complete[i, row] = links_complete(state, i, row, hops)
    return -1.0


@inner
def _lose(state, i, row, start, end):
    """Empty the segments of a run from one node of the route to another."""
    h = start
    while h < end:
        following = h + state.link_hops[i, row, h]
        empty(state, i, row, h)
        h = following


@inlined
def empty(state, i, row, h):
    """No segment starts at hop h."""
    state.link_rounds[i, row, h] = -1
    state.link_hops[i, row, h] = 0
    state.link_werner[i, row, h] = 0.0
    state.link_slot[i, row, h] = -1


@inner
def empty_all(state, i, row, hops):
    """The allocation holds nothing."""
    state.alloc_complete[i, row] = 0
    for h in range(hops):
        if state.link_hops[i, row, h] > 0:
            empty(state, i, row, h)


@inlined
def decay(rules, world, state, i, row, hops):
    """A slot passes: segments decay, those then older than the cutoff are lost. Returns the pairs still held."""
    d, r = state.alloc_peer[i, row], state.alloc_route[i, row]
    oldest = state.slot[0] + 1 - rules.cutoff
    held = 0
    lost = 0
    for h in range(hops):
        span = state.link_hops[i, row, h]
        if span == 0:
            continue
        if oldest > 0 and state.link_slot[i, row, h] < oldest:
            lost += span
            empty(state, i, row, h)
            continue
        held += span
        if span == 1:
            state.link_werner[i, row, h] *= world.link_decay[world.route_links[i, d, r, h]]
        else:
            left, right = world.route_nodes[i, d, r, h], world.route_nodes[i, d, r, h + span]
            state.link_werner[i, row, h] *= world.node_decay[left] * world.node_decay[right]
    if lost > 0:
        state.tally[TALLY.CUT_OFF] += lost
        state.alloc_complete[i, row] = links_complete(state, i, row, hops)
    return held


@inner
def pairs_held(state, i, row, hops):
    """Elementary pairs inside the segments of an allocation."""
    held = 0
    for h in range(hops):
        held += state.link_hops[i, row, h]
    return held
