"""The parts of a slot, each of which tests can play by itself: compiled together, once for all of them.

A file by itself, so that what was compiled from it is kept until it changes or the rules do.
"""

from __future__ import annotations

from enum import IntEnum

from dpem_env.simulator import kernel, telemetry
from dpem_env.support.compiled import cached

# In the order in which `kernel.step_one` names them, behind the first; between slots, telemetry passes.
step_one = getattr(kernel.step_one, "py_func", kernel.step_one)
*OTHERS, FIRST = (name for name in step_one.__code__.co_names if callable(getattr(kernel, name, None)))
Phase = IntEnum("Phase", [name.removeprefix("pass_").upper() for name in (FIRST, *OTHERS)], start=0)


class Look(IntEnum):
    """What telemetry does, without waiting for its time."""

    SNAPSHOT = 100  # take one
    READING = 101  # make what nodes know by now what is so now


@cached(_nrt=False)
def play_phase(phase, rules, world, state, work, actors, action, route, priority, condition, fallback):  # type: ignore[no-untyped-def]
    """Play one phase; `actors` is what deciding returned, and is returned."""
    if phase == Phase.ARRIVALS:
        kernel.arrivals(rules, world, state)
    elif phase == Phase.DECIDE:
        actors = kernel.decide(rules, world, state, work, action, route, priority, condition, fallback)
    elif phase == Phase.ADMIT:
        kernel.admit(rules, world, state, work, actors, action, condition)
    elif phase == Phase.GENERATE:
        kernel.generate(rules, world, state, work)
    elif phase == Phase.SWAP:
        kernel.swap(rules, world, state, work)
    elif phase == Phase.DELIVER:
        kernel.deliver(rules, world, state, work)
    elif phase == Phase.AGE:
        kernel.age(rules, world, state)
    elif phase == Phase.TELEMETRY:
        telemetry.pass_telemetry(rules, world, state, work)
        state.slot[0] += 1
    elif phase == Look.SNAPSHOT:
        telemetry.take_snapshot(rules, world, state, work, state.slot[0])
    elif phase == Look.READING:
        telemetry.keep_reading(rules, world, state, state.seen_slot[0])
    return actors
