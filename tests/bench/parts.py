"""Where a slot's time goes: every part of `EntanglementEnv.step`, and every phase of the kernel, timed on its own.

A part is repeated on the state in the middle of an episode of mesh100-v0 under local-reactive; the least of many means
is taken, since everything else that runs on a machine only ever adds.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from numba import njit
from rich.console import Console
from rich.progress import track
from rich.table import Table
from speed import SEED, EmptyEnv, record_actions

from dpem_env import parallel_env
from dpem_env.observations import feature_writer
from dpem_env.simulator import kernel, telemetry
from dpem_env.simulator.state import state_of, work_of, world_of

SLOT, ROUNDS, REPEATS = 200, 50, 40

PHASES = {
    "admission (nobody acts)": "kernel.decide(rules, world, state, work, action, route, priority, condition, fallback)",
    "generation": "kernel.generate(rules, world, state, work)",
    "swapping": "kernel.swap(rules, world, state, work)",
    "delivery": "kernel.deliver(rules, world, state, work)",
    "ageing": "kernel.age(rules, world, state)",
    "telemetry, when a snapshot is due": "telemetry.take_snapshot(rules, world, state, work, 0)",
    "writing observations": "writer._observe("
    "rules, world, state, work, forecast, False, node, peer, columns, places, fixed, rows)",
    "writing masks": "writer._mask(state, allowed, mask)",
}
LOOP = f"""
def loop(rules, worlds, states, works, commands, forecast, node, peer, columns, places, fixed, allowed, rows, mask):
    action, route, priority, condition, fallback = commands
    world, state, work = world_of(worlds, 0), state_of(states, 0), work_of(works, 0)
    for _ in range({REPEATS}):
        CALL
"""


def microseconds(part: Callable[[], Any]) -> float:
    """The least mean time of a part."""
    means = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(REPEATS):
            part()
        means.append((time.perf_counter() - start) / REPEATS)
    return 1e6 * min(means)


def compiled_loop(call: str) -> Any:
    """A compiled function that runs a phase REPEATS times, so that no call from Python is timed."""
    names: dict[str, Any] = {"kernel": kernel, "telemetry": telemetry, "writer": feature_writer}
    names |= {"world_of": world_of, "state_of": state_of, "work_of": work_of}
    exec(LOOP.replace("CALL", call), names)
    return njit(_nrt=False)(names["loop"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    env = parallel_env("mesh100-v0")
    recorded = record_actions(env, "local-reactive")
    env.reset(seed=SEED)
    for actions in recorded[:SLOT]:
        env.step(actions)
    session = env.session
    floor = EmptyEnv(env)
    floor.reset()
    idle = np.zeros(len(env.possible_agents), dtype=np.int64)
    (matrix, masks), played = session.look(), session.played()
    auto, unranked = np.full_like(idle, -1), np.zeros((len(idle), 0), dtype=np.int64)
    none = np.zeros((1, 1, 0), dtype=np.float32)
    (places, fixed), allowed = session.observer._of_networks()
    parts: dict[str, Callable[[], Any]] = {
        "actions from the dictionary": lambda: env._as_array(recorded[SLOT]),
        "observations": session.observations,
        "rewards": session.outcome,
        "dictionaries of observations and infos": lambda: env._shown(played),
        "all of the empty ParallelEnv": lambda: floor.step(recorded[SLOT]),
    }
    floor.max_cycles = 10**9
    measured = {name: microseconds(part) for name, part in track(parts.items(), "parts of a step", transient=True)}
    phases = {}
    for name, call in track(PHASES.items(), "phases", transient=True):
        loop = compiled_loop(call)
        simulator = copy.deepcopy(session.simulator)
        simulator.work.finished_werner[:] = -1.0  # what was finished has been delivered
        features = session.observer.table
        given = ((idle, auto, idle, idle, unranked), none, *features.divisors, features.columns)
        given += (places, fixed[0], allowed[0], matrix[0], masks[0])
        phases[name] = (
            microseconds(lambda loop=loop, sim=simulator, given=given: loop(sim.rules, *sim._tables, *given)) / REPEATS
        )
    table = Table("part", "µs")
    for name, value in (*measured.items(), *phases.items()):
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    save(arguments.out, {"scenario": "mesh100-v0", "parts": measured, "phases": phases})


if __name__ == "__main__":
    main()
