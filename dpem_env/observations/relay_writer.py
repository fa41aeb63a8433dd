"""Compiled writers of observations and masks where relays decide on swaps; `columns` are those `features` declares.

Ages are what they are by now. What would be older than the cutoff by now is gone for certain, and not told of.
"""

from __future__ import annotations

from dpem_env.observations.cells import write
from dpem_env.simulator.kernel import choices
from dpem_env.simulator.state import state_of
from dpem_env.simulator.telemetry import REACH, SINCE, chain_known
from dpem_env.support.compiled import Entry, entry, inlined, inner


@entry
def _observe_relays_batch(rules, worlds, states, works, first, last, fresh, divisor, columns, out):
    for b in range(first, last):
        _observe_relays(rules, state_of(states, b), fresh, divisor, columns, out[b])


@inner
def _observe_relays(rules, state, fresh, divisor, columns, out):
    """One environment's rows: every node's own segments now, and all segments as far as it knows by news."""
    out[:] = 0.0
    nodes = out.shape[0]
    read, place = chain_known(rules, state)
    known = state.read_chain.shape[0] > 0 and read >= 0
    for i in range(nodes):
        write(out[i], divisor, columns.position, i)
        if known and not fresh:
            write(out[i], divisor, columns.telemetry_age, state.slot[0] - read)
    for h in range(nodes - 1):
        reach, age = _told(rules, state, state.link_hops[0, 0, h], state.link_slot[0, 0, h])
        if reach > 0:
            right, left = out[h], out[h + reach]
            write(right, divisor, columns.right_reach, reach)
            write(right, divisor, columns.right_age, age)
            write(left, divisor, columns.left_reach, reach)
            write(left, divisor, columns.left_age, age)
        if known and not fresh:
            reach, age = _told(rules, state, state.read_chain[place, h, REACH], state.read_chain[place, h, SINCE])
        if reach > 0 and (known or fresh):
            for i in range(nodes):
                write(out[i], divisor, columns.chain_reach + h, reach)
                write(out[i], divisor, columns.chain_age + h, age)


@inlined
def _told(rules, state, reach, since):
    """Links and age by now of a segment, 0 links if there is none any more."""
    age = state.slot[0] - since
    return (reach if age <= rules.cutoff else 0), age


@entry
def _mask_relays_batch(rules, worlds, states, works, first, last, out):
    for b in range(first, last):
        _mask_relays(rules, state_of(states, b), out[b])


@inner
def _mask_relays(rules, state, out):
    for i in range(out.shape[0]):
        allowed = choices(rules, state, i)
        for action in range(out.shape[1]):
            out[i, action] = allowed >> action & 1


write_relays, write_choices = Entry(_observe_relays_batch), Entry(_mask_relays_batch)
