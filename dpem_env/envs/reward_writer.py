"""Compiled writers of rewards, and of notes on the agents that a slot brought anything."""

from __future__ import annotations

from dpem_env.simulator.kernel import free_row
from dpem_env.simulator.state import state_of, world_of
from dpem_env.support.compiled import Entry, entry, inner


@entry
def _outcome_batch(rules, worlds, states, works, first, last, penalty, class_values, earned, reward, notes, num_notes):
    for b in range(first, last):
        world, state = world_of(worlds, b), state_of(states, b)
        _earn(world, state, class_values, earned[b])
        if rules.agents:
            _share(earned[b])
        for i in range(reward.shape[1]):
            reward[b, i] = earned[b, i] - penalty * state.contended[i]
        _note(state, notes[b], num_notes[b])


@inner
def _earn(world, state, class_values, earned):
    """What the pairs are worth that served requests in the last step."""
    for i in range(len(earned)):
        earned[i] = state.delivered[i] if len(class_values) == 0 else 0.0
    if len(class_values) > 0:
        for request in range(world.num_requests[0]):
            # In phases 1-6 of the slot before no stored pair has served, in phase 0 of the present one nothing else.
            played = state.slot[0] - 1 + state.request_from_stock[request]
            if state.request_status[request] == played and played >= 0:
                earned[world.request_source[request]] += class_values[world.request_class[request]]


@inner
def _share(earned):
    """Where relays decide on swaps, every node has an equal share in what the chain delivers."""
    worth = 0.0
    for i in range(len(earned)):
        worth += earned[i]
    for i in range(len(earned)):
        earned[i] = worth / len(earned)


@inner
def _note(state, notes, number):
    """Write down the agents of `Outcome.noted`, and how many there are of each kind."""
    number[:] = 0
    for i in range(len(state.delivered)):
        if state.delivered[i] > 0:
            notes[0, number[0]], notes[1, number[0]] = i, state.delivered[i]
            number[0] += 1
        if state.contended[i] > 0:
            notes[2, number[1]], notes[3, number[1]] = i, state.contended[i]
            number[1] += 1
        if free_row(state, i) < 0:
            notes[4, number[2]] = i
            number[2] += 1


write_outcome = Entry(_outcome_batch)
