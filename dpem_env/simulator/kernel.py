"""The rules of one slot, one compiled function per phase, played in the order that `step_one` says.

Where relays decide on swaps, `step_from_swaps` plays the same phases of the same slots, and only steps begin elsewhere.

Every phase takes the arrays of one environment (rules, world, state, work; see `state`) and allocates nothing. An agent
is always the node that owns an allocation, whoever decided.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dpem_env import physics
from dpem_env.simulator.actions import CHOICE, CONDITION, code_of, place_of, quality_of
from dpem_env.simulator.randomness import (
    EMISSION,
    ORDER,
    OUTAGE,
    PURIFICATION,
    SWAP,
    TRANSMISSION,
    bits,
    poisson,
    slot_key,
    uniform,
)
from dpem_env.simulator.segments import (
    decay,
    discard,
    empty,
    empty_all,
    is_complete,
    join,
    links_complete,
    links_wanted,
    num_hops,
    pairs_held,
    relays_holding,
    relays_ready,
)
from dpem_env.simulator.state import STATUS, TALLY, VERDICT, state_of, work_of, world_of
from dpem_env.simulator.telemetry import (
    PEER,
    READY,
    ROUTE,
    WANTED,
    clear_telemetry,
    pass_telemetry,
    read_chain,
    reading_known,
    route_up,
    some_link_down,
)
from dpem_env.support.compiled import entry, inlined, inner

_purification_success = njit(physics.purification_success)
_purified_werner = njit(physics.purified_werner)

SEVERAL = -2  # in place of an agent: more than one claims it
HUB = 0  # of a star


# ---------------------------------------------------------------------------------------------- phase 0: arrivals


@inner
def arrivals(rules, world, state):
    """This slot's requests join their queues; usable stored pairs serve at once, most urgent request first."""
    first = state.next_arrival[0]
    last = first
    while last < world.num_requests[0] and world.request_slot[last] == state.slot[0]:
        _enqueue(world, state, last)
        last += 1
    state.next_arrival[0] = last
    state.tally[TALLY.ARRIVED] += last - first
    served_i = served_d = -1
    for request in range(first, last):  # requests of a slot come in order of their pairs: each is looked at once
        i, d = _pair_of(world, request)
        if state.stock_count[i] > 0 and (i != served_i or d != served_d):
            _serve_from_stock(rules, world, state, i, d)
            served_i, served_d = i, d


@inner
def _pair_of(world, request):
    """The node that a request came to and the place of its destination, as full-width integers.

    One width of integers everywhere means one compiled version of what is called with them.
    """
    return np.int64(world.request_source[request]), np.int64(world.request_peer[request])


@inner
def _enqueue(world, state, request):
    """Insert a request behind those as urgent as itself."""
    i, d = _pair_of(world, request)
    state.request_status[request] = STATUS.PENDING
    state.pending[i, d, world.request_class[request]] += 1
    urgency = world.request_last_slot[request]
    tail = state.queue_tail[i, d]
    if tail < 0:
        state.queue_head[i, d] = request
        state.queue_tail[i, d] = request
        state.queue_next[request] = -1
    elif world.request_last_slot[tail] <= urgency:
        state.queue_next[tail] = request
        state.queue_next[request] = -1
        state.queue_tail[i, d] = request
    else:
        before = -1
        after = state.queue_head[i, d]
        while world.request_last_slot[after] <= urgency:
            before = after
            after = state.queue_next[after]
        state.queue_next[request] = after
        if before < 0:
            state.queue_head[i, d] = request
        else:
            state.queue_next[before] = request


@inner
def _dequeue(world, state, i, d, before, request):
    """Take a request out of its queue; `before` is the one ahead of it or -1."""
    after = state.queue_next[request]
    if before < 0:
        state.queue_head[i, d] = after
    else:
        state.queue_next[before] = after
    if after < 0:
        state.queue_tail[i, d] = before
    state.pending[i, d, world.request_class[request]] -= 1


@inner
def _serve(world, state, i, d, before, request, werner, hops):
    """A pair serves a pending request of node i."""
    _dequeue(world, state, i, d, before, request)
    state.request_status[request] = state.slot[0]
    state.request_werner[request] = werner
    state.delivered[i] += 1
    state.tally[TALLY.DELIVERED] += 1
    state.tally[TALLY.DELIVERED_ELEMENTARY] += hops


@inner
def _serve_from_stock(rules, world, state, i, d):
    """Each pending request, most urgent first, takes the weakest stored pair that is good enough."""
    before = -1
    request = state.queue_head[i, d]
    while request >= 0:
        after = state.queue_next[request]
        threshold = rules.class_werner[world.request_class[request]]
        weakest = -1
        for s in range(state.stock_count[i]):
            werner = state.stock_werner[i, s]
            fits = state.stock_peer[i, s] == d and werner >= threshold
            if fits and (weakest < 0 or werner < state.stock_werner[i, weakest]):
                weakest = s
        if weakest >= 0:
            _serve(world, state, i, d, before, request, state.stock_werner[i, weakest], state.stock_hops[i, weakest])
            state.request_from_stock[request] = 1
            state.tally[TALLY.FROM_STOCK] += 1
            _remove_stored(world, state, i, weakest)
        else:
            before = request
        request = after


@inner
def _remove_stored(world, state, i, place):
    """Free the two qubits of a stored pair; the last pair of the node takes its place."""
    state.free_memory[i] += 1
    state.free_memory[world.peers[i, state.stock_peer[i, place]]] += 1
    state.stock_count[i] -= 1
    last = state.stock_count[i]
    state.stock_peer[i, place] = state.stock_peer[i, last]
    state.stock_werner[i, place] = state.stock_werner[i, last]
    state.stock_hops[i, place] = state.stock_hops[i, last]


# --------------------------------------------------------------------------------------------- phase 1: decisions


@inner
def course(state, i, row):
    """Place of the peer and number of the route of an allocation, as full-width integers; -1, -1 if it is closed."""
    return np.int64(state.alloc_peer[i, row]), np.int64(state.alloc_route[i, row])


@inner
def free_row(state, i):
    """The lowest free row of node i's allocation table, -1 if there is none."""
    for row in range(state.alloc_peer.shape[1]):
        if state.alloc_peer[i, row] < 0:
            return row
    return -1


@inner
def can_name(world, i, d, route):
    """Whether node i has a peer at place d and, unless `route` is -1 (auto), a route of that number to it."""
    if world.peers[i, d] < 0:
        return False
    return route < 0 or (route < world.route_hops.shape[2] and world.route_hops[i, d, route] > 0)


@inner
def decide(rules, world, state, work, action, route, priority, condition, fallback):
    """List the nodes that submit an allocation, and the routes to try. Returns their number.

    An illegal action is a wait, and counted; so is a command that its node withholds.
    """
    beyond = code_of(world.peers.shape[1], 1, rules.qualities)  # the first number that is no action
    actors = 0
    frozen = False
    read = False
    for i in range(len(action)):
        state.delivered[i] = 0
        state.contended[i] = 0
        state.verdict[i] = VERDICT.WAIT
        if action[i] == 0:
            continue
        if (
            action[i] < 0
            or action[i] >= beyond
            or free_row(state, i) < 0
            or not list_routes(world, work, i, place_of(action[i], rules.qualities), route[i], fallback[i])
        ):
            state.verdict[i] = VERDICT.ILLEGAL
            state.tally[TALLY.ILLEGAL] += 1
            continue
        if condition[i] & CONDITION.FREE and not frozen:
            _freeze_claims(rules, world, state, work)
            frozen = True
        if condition[i] & (CONDITION.READ_FREE | CONDITION.READ_PENDING) and rules.news:
            if not read:
                _read_claims(rules, world, state, work)
                read = True
            if _withheld(rules, world, state, work, i, place_of(action[i], rules.qualities), condition[i]):
                state.verdict[i] = VERDICT.WITHHELD
                state.tally[TALLY.WITHHELD] += 1
                continue
        work.actor[actors] = i
        work.actor_priority[actors] = priority[i]
        actors += 1
    state.tally[TALLY.SUBMITTED] += actors
    return actors


@inner
def list_routes(world, work, i, d, route, fallback):
    """Write down the routes to try, in order: the one named and those to fall back to, with auto all there are.

    Returns whether node i can name them, each of them once.
    """
    if not can_name(world, i, d, route):
        return False
    tries = work.tries[i]
    tries[:] = -1
    if route < 0:
        listed = 0
        for r in range(len(tries)):
            if world.route_hops[i, d, r] > 0:
                tries[listed] = r
                listed += 1
        return True
    tries[0] = route
    for n in range(len(fallback)):
        if fallback[n] < 0:
            break
        if not can_name(world, i, d, fallback[n]):
            return False
        for earlier in range(n + 1):
            if tries[earlier] == fallback[n]:
                return False
        tries[n + 1] = fallback[n]
    return True


@inner
def _freeze_claims(rules, world, state, work):
    """Who claims which source and swap engine as the slot begins: what phases 3 and 4 of the slot will find at least.

    What the slot opens is not among it.
    """
    work.source_holder[:] = -1
    work.swap_holder[:] = -1
    rows = state.alloc_peer.shape[1]
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = course(state, i, row)
        hops = num_hops(world, i, d, r)
        wanted = links_wanted(rules, state, i, row, hops)
        ready = relays_ready(rules, state, i, row, hops)
        _hold_route(world, state.link_up, i, d, r, wanted, ready, work.source_holder, work.swap_holder)


@inner
def _read_claims(rules, world, state, work):
    """The same as far as nodes know by now."""
    reading = reading_known(rules, state)
    work.source_read[:] = -1
    work.swap_read[:] = -1
    work.stamp[:] = -1
    for i in range(reading.allocations.shape[0]):
        for row in range(reading.allocations.shape[1]):
            d, r = np.int64(reading.allocations[i, row, PEER]), np.int64(reading.allocations[i, row, ROUTE])
            if d >= 0:
                wanted, ready = reading.allocations[i, row, WANTED], reading.allocations[i, row, READY]
                _hold_route(world, reading.link_up, i, d, r, wanted, ready, work.source_read, work.swap_read)


@inner
def _hold_route(world, link_up, i, d, r, wanted, ready, source_holder, swap_holder):
    """What an allocation claims: sources of links it asks for that are up, swap engines of relays that are ready."""
    for h in range(num_hops(world, i, d, r)):
        link = world.route_links[i, d, r, h]
        if wanted >> h & 1 and link_up[link] == 1:
            _hold(source_holder, world.link_emitter[link], i)
        if h > 0 and ready >> h & 1:
            _hold(swap_holder, world.route_nodes[i, d, r, h], i)


@inner
def _hold(holder, node, agent):
    """One more claim."""
    holder[node] = agent if holder[node] == -1 or holder[node] == agent else SEVERAL


@inner
def _withheld(rules, world, state, work, i, d, condition):
    """Whether node i does not submit what it was ordered; routes that it reads and finds unfit are tried no more."""
    if condition & CONDITION.READ_PENDING and state.queue_head[i, d] < 0:
        return True
    if not condition & CONDITION.READ_FREE:
        return False
    tries = work.tries[i]
    kept = 0
    for n in range(len(tries)):
        r = np.int64(tries[n])
        if r < 0:
            break
        tries[n] = -1
        for h in range(1, world.route_hops[i, d, r] + 1):
            asked = world.route_nodes[i, d, r, h]
            if work.stamp[asked] != i:
                work.stamp[asked] = i
                state.tally[TALLY.COMMAND_MESSAGES] += 1
        if _reads_well(rules, world, state, work, i, d, r):
            tries[kept] = r
            kept += 1
    return kept == 0


@inner
def _reads_well(rules, world, state, work, i, d, r):
    """Whether nothing that node i knows of a route speaks against it: links, memory, its own as of now, and claims."""
    reading = reading_known(rules, state)
    fits = state.free_memory[i] > 0 and route_up(world, reading, i, d, r)
    hops = num_hops(world, i, d, r)
    for h in range(1, hops + 1):
        fits = fits and reading.free_memory[world.route_nodes[i, d, r, h]] >= qubits_needed(h, hops)
    return fits and claimed_by_others(world, work.source_read, work.swap_read, i, d, r) < 0


# Where relays decide on swaps there is one allocation at most, of node 0 in its only row, along all of the chain: its
# hops are numbered as the nodes.


@inner
def choices(rules, state, relay):
    """What a node may decide on swaps, `Choice` numbers as bits: ends only wait."""
    hops = len(state.free_memory) - 1
    allowed = 1 << CHOICE.WAIT
    if 0 < relay < hops:
        allowed |= (relays_ready(rules, state, 0, 0, hops) >> relay & 1) << CHOICE.SWAP
        if rules.discard:
            allowed |= (relays_holding(state, hops) >> relay & 1) << CHOICE.DISCARD
    return allowed


@inner
def choose(rules, state, work, action):
    """Phase 1 where relays decide on swaps: who swaps in phase 4 is noted, and what is discarded goes at once.

    An illegal action is a wait, and counted.
    """
    for i in range(len(action)):
        state.delivered[i] = 0
        state.contended[i] = 0
        state.verdict[i] = VERDICT.WAIT
        work.choice[i] = CHOICE.WAIT
        if 0 <= action[i] <= CHOICE.DISCARD and choices(rules, state, i) >> action[i] & 1:
            work.choice[i] = action[i]
        else:
            state.verdict[i] = VERDICT.ILLEGAL
            state.tally[TALLY.ILLEGAL] += 1
    for i in range(len(action)):
        if work.choice[i] == CHOICE.DISCARD:
            discard(state, i, len(action) - 1)


# --------------------------------------------------------------------------------------------- phase 2: admission


@inner
def admit(rules, world, state, work, actors, action, condition):
    """Admit new allocations in the slot's random order (a priority, if one is given, comes first)."""
    _order_actors(world, state, work, actors)
    work.first_refused[:] = -1
    work.source_refused[:] = 0
    work.swap_refused[:] = 0
    some_down = some_link_down(state)
    denied = 0
    for a in range(actors):
        i = np.int64(work.actor[a])
        work.refused_count[i] = 0
        d = place_of(action[i], rules.qualities)
        quality = quality_of(action[i], rules.qualities)
        only_if_free = condition[i] & CONDITION.FREE != 0
        admitted = False
        for n in range(work.tries.shape[1]):
            r = np.int64(work.tries[i, n])
            if admitted or r < 0:
                break
            admitted = _try_route(world, state, work, i, d, r, quality, only_if_free, some_down)
        if admitted:
            state.verdict[i] = VERDICT.ADMITTED
        else:
            state.verdict[i] = VERDICT.DENIED
            denied += 1
            _mark_refusals(work, i)
    state.tally[TALLY.DENIED] += denied
    if denied > 0:
        _memory_contention(world, state, work, actors)


@inner
def _order_actors(world, state, work, actors):
    """Shell sort by (priority, random key of the slot and node)."""
    key = slot_key(world.order_key[0], state.slot[0])
    for a in range(actors):
        work.actor_key[a] = bits(key, ORDER, work.actor[a], 0, 0, 0)
    gap = 1
    while gap < actors // 9:
        gap = 3 * gap + 1  # as Knuth has it
    while gap > 0:
        for a in range(gap, actors):
            i, first, own = work.actor[a], work.actor_priority[a], work.actor_key[a]
            b = a - gap
            while b >= 0 and (
                work.actor_priority[b] > first or (work.actor_priority[b] == first and work.actor_key[b] > own)
            ):
                work.actor[b + gap] = work.actor[b]
                work.actor_priority[b + gap] = work.actor_priority[b]
                work.actor_key[b + gap] = work.actor_key[b]
                b -= gap
            work.actor[b + gap] = i
            work.actor_priority[b + gap] = first
            work.actor_key[b + gap] = own
        gap //= 3


@inner
def qubits_needed(h, hops):
    """Memory a route holds at its h-th node: 1 qubit at each end, 2 at every relay."""
    return 1 if h == 0 or h == hops else 2


@inner
def claimed_by_others(world, source_holder, swap_holder, i, d, r):
    """The first source or swap engine of a route that another agent than i holds a claim on, -1 if there is none.

    A resource is a number: a node for its memory, N + node for its source, 2N + node for its swap engine.
    """
    nodes = len(source_holder)
    hops = num_hops(world, i, d, r)
    for h in range(hops):
        if h > 0:
            relay = np.int64(world.route_nodes[i, d, r, h])
            if swap_holder[relay] != -1 and swap_holder[relay] != i:
                return 2 * nodes + relay
        e = np.int64(world.link_emitter[world.route_links[i, d, r, h]])
        if source_holder[e] != -1 and source_holder[e] != i:
            return nodes + e
    return -1


@inner
def _refusing(world, state, work, i, d, r, only_if_free):
    """The first resource that refuses a route which is up, -1 if none does: memories, then what others claim."""
    hops = num_hops(world, i, d, r)
    for h in range(hops + 1):
        node = np.int64(world.route_nodes[i, d, r, h])
        if state.free_memory[node] < qubits_needed(h, hops):
            return node
    return claimed_by_others(world, work.source_holder, work.swap_holder, i, d, r) if only_if_free else -1


@inner
def _try_route(world, state, work, i, d, r, quality, only_if_free, some_down):
    """Open an allocation on route r if its links are up and no resource refuses it; remember which did."""
    if some_down and not route_up(world, state, i, d, r):
        return False
    resource = _refusing(world, state, work, i, d, r, only_if_free)
    if resource >= 0:
        work.refused_by[i, work.refused_count[i]] = resource
        work.refused_count[i] += 1
        if resource >= len(world.memory):
            state.tally[TALLY.REFUSED] += 1
        else:
            earlier = work.first_refused[resource]
            work.first_refused[resource] = i if earlier == -1 or earlier == i else SEVERAL
        return False
    hops = num_hops(world, i, d, r)
    for h in range(hops + 1):
        state.free_memory[world.route_nodes[i, d, r, h]] -= qubits_needed(h, hops)
    row = free_row(state, i)
    state.alloc_peer[i, row] = d
    state.alloc_quality[i, row] = quality
    state.alloc_route[i, row] = r
    state.alloc_slot[i, row] = state.slot[0]
    state.age_order[state.num_open[0]] = i * state.alloc_peer.shape[1] + row
    state.num_open[0] += 1
    return True


@inner
def ask(world, state, work):
    """Phase 2 where relays decide on swaps: the first node asks for a pair whenever it may and a request is pending."""
    if state.queue_head[0, 0] >= 0 and free_row(state, 0) >= 0:
        work.refused_count[0] = 0
        work.first_refused[:] = -1
        state.tally[TALLY.SUBMITTED] += 1
        if not _try_route(world, state, work, 0, 0, 0, 1, False, some_link_down(state)):
            state.tally[TALLY.DENIED] += 1


@inner
def _mark_refusals(work, i):
    """Node i's allocation is denied: sources and swap engines that refused it are contended in phases 3 and 4."""
    nodes = len(work.source_refused)
    for refusal in range(work.refused_count[i]):
        resource = work.refused_by[i, refusal]
        if resource >= 2 * nodes:
            work.swap_refused[resource - 2 * nodes] = 1
        elif resource >= nodes:
            work.source_refused[resource - nodes] = 1


@inner
def _memory_contention(world, state, work, actors):
    """A memory is contended if it refused a finally denied allocation while another agent has a claim there."""
    work.node_flag[:] = 0
    for a in range(actors):
        i = work.actor[a]
        if state.verdict[i] != VERDICT.DENIED:
            continue
        for refusal in range(work.refused_count[i]):
            node = work.refused_by[i, refusal]
            if node >= len(work.node_flag):
                continue
            refused_another = work.first_refused[node] != i
            held = world.memory[node] - state.free_memory[node]
            if work.node_flag[node] == 0 and (refused_another or held > _qubits_held(world, state, i, node)):
                work.node_flag[node] = 1
                state.tally[TALLY.CONTENDED_MEMORIES] += 1
    work.stamp[:] = -1
    for i in range(len(work.stamp)):
        for row in range(state.alloc_peer.shape[1]):
            d = state.alloc_peer[i, row]
            if d >= 0:
                r = state.alloc_route[i, row]
                for h in range(world.route_hops[i, d, r] + 1):
                    _charge(state, work, i, world.route_nodes[i, d, r, h])
        for s in range(state.stock_count[i]):
            _charge(state, work, i, i)
            _charge(state, work, i, world.peers[i, state.stock_peer[i, s]])
        if state.verdict[i] == VERDICT.DENIED or state.verdict[i] == VERDICT.ADMITTED:
            _charge_refusals(state, work, i, 0)


@inner
def _charge(state, work, agent, node):
    """Count a contended resource against an agent once; all calls for one agent come in a row."""
    if work.node_flag[node] == 1 and work.stamp[node] != agent:
        work.stamp[node] = agent
        state.contended[agent] += 1


@inner
def _charge_refusals(state, work, agent, first):
    """Charge an agent the contended ones among the resources that refused it, of the kind whose numbers begin there."""
    for refusal in range(work.refused_count[agent]):
        node = work.refused_by[agent, refusal] - first
        if 0 <= node < len(work.node_flag):
            _charge(state, work, agent, node)


@inner
def _qubits_held(world, state, i, node):
    """Qubits that node i's allocations and stored pairs hold at `node`."""
    held = 0
    for row in range(state.alloc_peer.shape[1]):
        d = state.alloc_peer[i, row]
        if d >= 0:
            r = state.alloc_route[i, row]
            hops = num_hops(world, i, d, r)
            for h in range(hops + 1):
                if world.route_nodes[i, d, r, h] == node:
                    held += qubits_needed(h, hops)
    for s in range(state.stock_count[i]):
        if node == i or node == world.peers[i, state.stock_peer[i, s]]:
            held += 1
    return held


# -------------------------------------------------------------------------------------------- phase 3: generation


@inner
def generate(rules, world, state, work):
    """Every source emits pairs and offers them in rounds to the links that claim it."""
    _claim_sources(rules, world, state, work)
    emission = slot_key(world.emission_key[0], state.slot[0])
    outcome = slot_key(world.outcome_key[0], state.slot[0])
    work.stamp[:] = -1
    for e in range(len(world.emission_mean)):
        if rules.bernoulli:
            emitted = work.claim_count[e]
        else:
            emitted = poisson(world.emission_mean[e], world.no_emission[e], uniform(emission, EMISSION, e, 0, 0, 0))
        state.tally[TALLY.EMITTED] += emitted
        if work.claim_count[e] == 0:
            state.tally[TALLY.UNCLAIMED] += emitted
            continue
        unserved = False
        if work.claimant[e] == SEVERAL:
            state.tally[TALLY.COLLIDED_SOURCES] += 1
            unserved = emitted < work.claim_count[e]
        if unserved or work.source_refused[e] == 1:
            _source_contention(state, work, e)
            if not unserved:
                state.tally[TALLY.CONTENDED_BY_REFUSAL] += 1
        state.tally[TALLY.UNCLAIMED] += _offer_pairs(rules, world, state, work, e, emitted, outcome)


@inner
def _claim_sources(rules, world, state, work):
    """Queue every link that wants pairs and is up at its emitter: oldest allocation first, links in hop order."""
    work.claim_count[:] = 0
    rows = state.alloc_peer.shape[1]
    claims = 0
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = course(state, i, row)
        hops = num_hops(world, i, d, r)
        wanted = links_wanted(rules, state, i, row, hops)
        for h in range(hops):
            if not wanted >> h & 1:
                continue
            link = world.route_links[i, d, r, h]
            if state.link_up[link] == 0:
                continue
            e = world.link_emitter[link]
            if work.claim_count[e] == 0:
                work.claim_head[e] = claims
                work.claimant[e] = i
            else:
                work.claim_next[work.claim_tail[e]] = claims
                if work.claimant[e] != i:
                    work.claimant[e] = SEVERAL
            work.claim_tail[e] = claims
            work.claim_count[e] += 1
            work.claim_alloc[claims] = alloc
            work.claim_hop[claims] = h
            work.claim_next[claims] = -1
            work.claim_offers[claims] = 0
            claims += 1


@inner
def _source_contention(state, work, e):
    """A source is contended: count it, once against each agent that claims it or was refused by it and denied."""
    state.tally[TALLY.CONTENDED_SOURCES] += 1
    rows = state.alloc_peer.shape[1]
    claim = work.claim_head[e]
    while claim >= 0:
        agent = work.claim_alloc[claim] // rows
        if work.stamp[agent] != e:
            work.stamp[agent] = e
            state.contended[agent] += 1
        claim = work.claim_next[claim]
    if work.source_refused[e] == 1:
        resource = len(work.stamp) + e
        for agent in range(len(work.stamp)):
            if state.verdict[agent] == VERDICT.DENIED and work.stamp[agent] != e:
                for refusal in range(work.refused_count[agent]):
                    if work.refused_by[agent, refusal] == resource and work.stamp[agent] != e:
                        work.stamp[agent] = e
                        state.contended[agent] += 1


@inner
def _offer_pairs(rules, world, state, work, e, pairs, outcome):
    """Offer pairs one by one to the claims of source e, round after round. Returns how many nobody wanted."""
    rows = state.alloc_peer.shape[1]
    incomplete = work.claim_count[e]
    claim = work.claim_head[e]
    while pairs > 0 and incomplete > 0:
        alloc, h = work.claim_alloc[claim], work.claim_hop[claim]
        i, row = alloc // rows, alloc % rows
        if not is_complete(state, i, row, h):
            pairs -= 1
            d, r = course(state, i, row)
            link = world.route_links[i, d, r, h]
            attempt = work.claim_offers[claim]
            work.claim_offers[claim] += 1
            asked = state.alloc_quality[i, row] - 1
            if uniform(outcome, TRANSMISSION, i, row, h, attempt) >= world.link_transmission[asked, link]:
                state.tally[TALLY.LOST_IN_FIBRE] += 1
            else:
                fresh = world.fresh_werner[asked, link]
                _receive(rules, state, i, row, h, fresh, uniform(outcome, PURIFICATION, i, row, h, attempt))
                if is_complete(state, i, row, h):
                    incomplete -= 1
                    state.alloc_complete[i, row] += 1
                    if rules.regenerate:  # it may lie in a longer segment
                        state.alloc_complete[i, row] = links_complete(state, i, row, num_hops(world, i, d, r))
        claim = work.claim_next[claim]
        if claim < 0:
            claim = work.claim_head[e]
    return pairs


@inlined
def _receive(rules, state, i, row, h, fresh, u):
    """A fresh pair arrives: it fills an empty link or is spent in one pumping round on the link's aged pair.

    Where the quality is that of the light, the link has all it asks for.
    """
    held = state.link_werner[i, row, h]
    if state.link_rounds[i, row, h] < 0:
        state.link_rounds[i, row, h] = 0 if rules.pumped else state.alloc_quality[i, row] - 1
        state.link_hops[i, row, h] = 1
        state.link_werner[i, row, h] = fresh
        state.link_slot[i, row, h] = state.slot[0]
    elif u < _purification_success(held, fresh, rules.purification_gate, rules.purification_readout):
        state.link_rounds[i, row, h] += 1
        state.link_werner[i, row, h] = _purified_werner(
            held, fresh, rules.purification_gate, rules.purification_readout
        )
        state.tally[TALLY.PURIFIED_AWAY] += 1
    else:
        empty(state, i, row, h)
        state.tally[TALLY.PURIFIED_AWAY] += 2


# ---------------------------------------------------------------------------------------------- phase 4: swapping


@inner
def swap(rules, world, state, work):
    """Relays that are ready swap, all at once, if they have a token to pay for the try: oldest allocation first.

    Under `all` an allocation swaps at every relay or at none.
    """
    for i in range(len(state.tokens)):
        state.tokens[i] = min(state.tokens[i] + world.token_gain[i], rules.token_cap)
    _claim_swap_engines(rules, world, state, work)
    outcome = slot_key(world.outcome_key[0], state.slot[0])
    rows = state.alloc_peer.shape[1]
    work.node_flag[:] = 0
    contended = 0
    for place in range(state.num_open[0]):
        work.finished_werner[place] = -1.0
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        ready = work.ready[i, row]
        if ready == 0:
            continue
        d, r = course(state, i, row)
        hops = num_hops(world, i, d, r)
        swaps = 0
        for h in range(1, hops):
            if ready >> h & 1:
                relay = world.route_nodes[i, d, r, h]
                if state.tokens[relay] >= 1.0:
                    swaps |= 1 << h
                elif work.claimant[relay] == SEVERAL and work.node_flag[relay] == 0:
                    work.node_flag[relay] = 1
                    contended += 1
        if rules.singly or swaps == ready & ~1:
            _pay(world, state, i, d, r, swaps)
            work.finished_werner[place] = join(rules, state, i, row, hops, swaps, outcome)
    for relay in range(len(work.swap_refused)):
        if work.swap_refused[relay] == 1 and work.node_flag[relay] == 0:
            work.node_flag[relay] = 1
            contended += 1
            state.tally[TALLY.CONTENDED_BY_REFUSAL] += 1
    if contended > 0:
        state.tally[TALLY.CONTENDED_SWAPS] += contended
        _charge_swap_claims(world, state, work)


@inner
def _claim_swap_engines(rules, world, state, work):
    """Every relay that is ready to swap is claimed by its allocation's owner."""
    rows = state.alloc_peer.shape[1]
    work.claimant[:] = -1
    work.ready[:] = 0
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = course(state, i, row)
        hops = num_hops(world, i, d, r)
        ready = relays_ready(rules, state, i, row, hops)
        if rules.agents:
            ready &= _choosing_to_swap(work, hops)
        work.ready[i, row] = ready
        if ready == 0:
            continue
        for h in range(1, hops):
            if not ready >> h & 1:
                continue
            relay = world.route_nodes[i, d, r, h]
            if work.claimant[relay] == -1:
                work.claimant[relay] = i
            elif work.claimant[relay] != i and work.claimant[relay] != SEVERAL:
                work.claimant[relay] = SEVERAL
                state.tally[TALLY.COLLIDED_SWAPS] += 1


@inlined
def _choosing_to_swap(work, hops):
    """The relays of a chain that decided to swap; bit 0, where there is nothing to swap, is none to decide on."""
    willing = 1
    for h in range(1, hops):
        if work.choice[h] == CHOICE.SWAP:
            willing |= 1 << h
    return willing


@inner
def _pay(world, state, i, d, r, swaps):
    """Spend a token for every try."""
    for h in range(1, world.route_hops[i, d, r]):
        if swaps >> h & 1:
            state.tokens[world.route_nodes[i, d, r, h]] -= 1.0
            state.tally[TALLY.SWAPS] += 1


@inner
def _charge_swap_claims(world, state, work):
    """Count each contended swap engine once against every agent that claimed it or was refused by it and denied."""
    work.stamp[:] = -1
    for i in range(work.ready.shape[0]):
        for row in range(work.ready.shape[1]):
            if work.ready[i, row] != 0:
                d, r = course(state, i, row)
                for h in range(1, world.route_hops[i, d, r]):
                    if work.ready[i, row] >> h & 1:
                        _charge(state, work, i, world.route_nodes[i, d, r, h])
        if state.verdict[i] == VERDICT.DENIED:
            _charge_refusals(state, work, i, 2 * len(work.node_flag))


# ---------------------------------------------------------------------------------------------- phase 5: delivery


@inner
def deliver(rules, world, state, work):
    """A finished pair serves the most urgent request it is good enough for, else is stored; its allocation closes.

    Then a switch swaps what is stored.
    """
    rows = state.alloc_peer.shape[1]
    for place in range(state.num_open[0]):
        werner = work.finished_werner[place]
        if werner < 0.0:
            continue
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = course(state, i, row)
        hops = num_hops(world, i, d, r)
        state.tally[TALLY.FINISHED] += 1
        state.tally[TALLY.LEFT_OVER] += pairs_held(state, i, row, hops) - hops
        _close(world, state, i, row)
        if werner < rules.class_werner[0]:
            state.tally[TALLY.DROPPED_PAIRS] += 1
            state.tally[TALLY.DROPPED_ELEMENTARY] += hops
        elif not _serve_most_urgent(rules, world, state, i, d, werner, hops):
            _store(world, state, i, d, werner, hops)
    if rules.switch:
        _switch(rules, world, state)


@inner
def _serve_most_urgent(rules, world, state, i, d, werner, hops):
    before = -1
    request = state.queue_head[i, d]
    while request >= 0:
        if werner >= rules.class_werner[world.request_class[request]]:
            _serve(world, state, i, d, before, request, werner, hops)
            return True
        before = request
        request = state.queue_next[request]
    return False


@inner
def _switch(rules, world, state):
    """The hub swaps pairs that two leaves have stored with it, as long as a request between them can use the outcome.

    The weakest outcome first, which of equal links is that of the oldest.
    """
    outcome = slot_key(world.outcome_key[0], state.slot[0])
    attempt = 0
    while state.tokens[HUB] >= 1.0:
        i, d, own, other, werner = _weakest_outcome(rules, world, state)
        if i < 0:
            break
        state.tokens[HUB] -= 1.0
        state.tally[TALLY.SWAPS] += 1
        hops = state.stock_hops[i, own] + state.stock_hops[world.peers[i, d], other]
        _remove_stored(world, state, i, own)
        _remove_stored(world, state, np.int64(world.peers[i, d]), other)
        if uniform(outcome, SWAP, HUB, 0, 0, attempt) < rules.swap_success:
            request = np.int64(state.queue_head[i, d])
            _serve(world, state, i, d, -1, request, werner, hops)
            state.request_from_stock[request] = 1
            state.tally[TALLY.FROM_STOCK] += 1
        else:
            state.tally[TALLY.SWAPPED_AWAY] += hops
        attempt += 1


@inner
def _weakest_outcome(rules, world, state):
    """The weakest pair good enough for the most urgent request of a leaf for another that a swap at the hub would make.

    Returns the leaf, the place of the other among its peers, the places of the pairs in their stocks, and w; -1 for the
    leaf if there is none.
    """
    leaf, peer, first, second, weakest = -1, -1, -1, -1, np.inf
    for i in range(len(state.stock_count)):
        for d in range(world.peers.shape[1]):
            j = world.peers[i, d]
            if j < 0 or state.queue_head[i, d] < 0:
                continue
            threshold = rules.class_werner[world.request_class[state.queue_head[i, d]]]
            for own in range(state.stock_count[i]):
                if world.peers[i, state.stock_peer[i, own]] != HUB:
                    continue
                for other in range(state.stock_count[j]):
                    if world.peers[j, state.stock_peer[j, other]] != HUB:
                        continue
                    werner = state.stock_werner[i, own] * state.stock_werner[j, other] * rules.swap_factor
                    if threshold <= werner < weakest:
                        leaf, peer, first, second, weakest = i, d, own, other, werner
    return leaf, peer, first, second, weakest


@inner
def _store(world, state, i, d, werner, hops):
    """Keep a pair in the two end qubits of its allocation."""
    place = state.stock_count[i]
    state.stock_peer[i, place] = d
    state.stock_werner[i, place] = werner
    state.stock_hops[i, place] = hops
    state.stock_count[i] += 1
    state.free_memory[i] -= 1
    state.free_memory[world.peers[i, d]] -= 1
    state.tally[TALLY.STORED] += 1


@inner
def _close(world, state, i, row):
    """Free an allocation's row and all its memory."""
    d, r = course(state, i, row)
    hops = num_hops(world, i, d, r)
    for h in range(hops + 1):
        state.free_memory[world.route_nodes[i, d, r, h]] += qubits_needed(h, hops)
    empty_all(state, i, row, hops)
    state.alloc_peer[i, row] = -1
    state.alloc_quality[i, row] = -1
    state.alloc_route[i, row] = -1
    state.alloc_slot[i, row] = -1


# ------------------------------------------------------------------------------------------------ phase 6: ageing


@inner
def age(rules, world, state):
    """Pairs decay, useless ones are dropped; requests and allocations in their last slot end; links fail, recover."""
    _decay_and_time_out(rules, world, state)
    for i in range(len(state.stock_count)):
        s = 0
        while s < state.stock_count[i]:
            peer = world.peers[i, state.stock_peer[i, s]]
            state.stock_werner[i, s] *= world.node_decay[i] * world.node_decay[peer]
            if state.stock_werner[i, s] < rules.class_werner[0]:
                state.tally[TALLY.DROPPED_PAIRS] += 1
                state.tally[TALLY.DROPPED_ELEMENTARY] += state.stock_hops[i, s]
                _remove_stored(world, state, i, s)
            else:
                s += 1
    expire_requests(world, state, state.slot[0])
    if rules.link_failure > 0.0:
        _toggle_links(rules, world, state)


@inner
def _decay_and_time_out(rules, world, state):
    rows = state.alloc_peer.shape[1]
    still_open = 0
    for place in range(state.num_open[0]):
        alloc = state.age_order[place]
        i, row = alloc // rows, alloc % rows
        d, r = course(state, i, row)
        if d < 0:
            continue
        held = decay(rules, world, state, i, row, num_hops(world, i, d, r))
        if state.slot[0] - state.alloc_slot[i, row] + 1 >= rules.time_to_live:
            state.tally[TALLY.EXPIRED_ALLOCATIONS] += 1
            state.tally[TALLY.TIMED_OUT] += held
            _close(world, state, i, row)
        else:
            state.age_order[still_open] = alloc
            still_open += 1
    state.num_open[0] = still_open


@inner
def expire_requests(world, state, last_slot):
    """Requests pending whose last slot is not after `last_slot` expire."""
    place = state.next_expiry[0]
    while place < world.num_requests[0]:
        request = world.request_by_expiry[place]
        if world.request_last_slot[request] > last_slot:
            break
        if state.request_status[request] == STATUS.PENDING:
            i, d = _pair_of(world, request)
            _dequeue(world, state, i, d, -1, request)  # queues have the order of expiry: it is at the head
            state.request_status[request] = STATUS.EXPIRED
            state.tally[TALLY.EXPIRED] += 1
        place += 1
    state.next_expiry[0] = place


@inner
def _toggle_links(rules, world, state):
    key = slot_key(world.outage_key[0], state.slot[0])
    for link in range(len(state.link_up)):
        u = uniform(key, OUTAGE, link, 0, 0, 0)
        if state.link_up[link] == 1:
            state.link_up[link] = u >= rules.link_failure
        else:
            state.link_up[link] = u < rules.link_repair


# ------------------------------------------------------------------------------------------------- whole episodes


@inner
def begin(rules, world, state, work):
    """Empty network before slot 0: full memories, no tokens, links up or down as in the long run; then arrivals."""
    for array in (state.alloc_peer, state.alloc_quality, state.alloc_route, state.alloc_slot, state.stock_peer):
        array[:] = -1
    for array in (state.queue_head, state.queue_tail):
        array[:] = -1
    state.link_rounds[:] = -1
    state.link_hops[:] = 0
    state.link_werner[:] = 0.0
    state.link_slot[:] = -1
    state.alloc_complete[:] = 0
    state.pending[:] = 0
    state.request_status[:] = STATUS.NOT_ARRIVED
    state.request_werner[:] = 0.0
    state.request_from_stock[:] = 0
    state.queue_next[:] = -1
    state.tokens[:] = 0.0
    for i in range(len(world.memory)):
        state.free_memory[i] = world.memory[i]
    state.age_order[:] = -1
    state.stock_count[:] = 0
    state.stock_werner[:] = 0.0
    state.stock_hops[:] = 0
    for counter in (state.slot, state.next_arrival, state.next_expiry, state.num_open, state.tally):
        counter[:] = 0
    for per_agent in (state.delivered, state.contended):
        per_agent[:] = 0
    state.verdict[:] = VERDICT.WAIT
    state.link_up[:] = 1
    if rules.link_failure > 0.0:
        key = slot_key(world.outage_key[0], -1)
        share_down = rules.link_failure / (rules.link_failure + rules.link_repair)
        for link in range(len(state.link_up)):
            state.link_up[link] = uniform(key, OUTAGE, link, 0, 0, 0) >= share_down
    clear_telemetry(rules, world, state, work)
    arrivals(rules, world, state)
    if rules.agents:
        state.read_chain[:] = 0
        _up_to_swaps(rules, world, state, work)


@inner
def step_one(rules, world, state, work, action, route, priority, condition, fallback):
    """Phases 1-6 of the current slot, telemetry, then phase 0 of the next slot unless the episode is over."""
    actors = decide(rules, world, state, work, action, route, priority, condition, fallback)
    admit(rules, world, state, work, actors, action, condition)
    generate(rules, world, state, work)
    swap(rules, world, state, work)
    deliver(rules, world, state, work)
    age(rules, world, state)
    pass_telemetry(rules, world, state, work)
    state.slot[0] += 1
    if state.slot[0] < world.horizon[0]:
        arrivals(rules, world, state)


@inner
def step_from_swaps(rules, world, state, work, action):
    """The same where relays decide on swaps, having seen what generation left: from phase 4 up to the next phase 4."""
    choose(rules, state, work, action)
    swap(rules, world, state, work)
    deliver(rules, world, state, work)
    age(rules, world, state)
    state.slot[0] += 1
    if state.slot[0] < world.horizon[0]:
        arrivals(rules, world, state)
        _up_to_swaps(rules, world, state, work)


@inner
def _up_to_swaps(rules, world, state, work):
    """Phases 2 and 3 where relays decide on swaps, and what they hear of the chain before they do."""
    ask(world, state, work)
    generate(rules, world, state, work)
    read_chain(rules, state)


@entry
def step_batch(rules, worlds, states, works, first, last, action, route, priority, condition, fallback):
    """Play one slot in environments `first` to `last` - 1."""
    for b in range(first, last):
        world, state, work = world_of(worlds, b), state_of(states, b), work_of(works, b)
        if rules.agents:
            step_from_swaps(rules, world, state, work, action[b])
        else:
            step_one(rules, world, state, work, action[b], route[b], priority[b], condition[b], fallback[b])


@entry
def begin_batch(rules, worlds, states, works, first, last, chosen):
    """Start an episode in the chosen ones of environments `first` to `last` - 1."""
    for b in range(first, last):
        if chosen[b]:
            begin(rules, world_of(worlds, b), state_of(states, b), work_of(works, b))
