"""What evaluating and training take on each scenario: the command itself in a process of its own, CPU time and memory.

Times count everything, import and reading of compiled code among it; a first command alone, which comes before and
counts for nothing, compiles. `per_s` is episodes or agent-steps per CPU-second, and `budget_h` the hours that the
default budget of a training takes at that pace, on one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import save
from rich.progress import track

from dpem_env import scenarios
from dpem_env.envs.session import Session

EPISODES, BUDGET = 3, 100_000  # slots: the default of `dpem train`
EVALUATED = [
    (name, policy)
    for name in ("star8-v0", "mesh20-v0", "surfnet-v0", "mesh100-v0")
    for policy in ("local-reactive", "central-lp")
]
TRAINED = [  # agent-steps, enough for a pace
    ("mesh20-v0", ("--mode", "shared"), 102_400),
    ("mesh20-v0", ("--mode", "independent"), 10_240),
    ("mesh20-v0", ("--mode", "federated"), 10_240),
    ("mesh20-v0", ("--mode", "central", "--delay", "0.5"), 102_400),
    ("mesh100-v0", ("--mode", "shared"), 204_800),
    ("mesh100-v0", ("--mode", "federated"), 25_600),
]


def measured(*words: str) -> dict[str, float]:
    """CPU seconds and the most memory of a `dpem` command."""
    command = [sys.executable, "-m", "dpem_env", *words]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(words)} failed")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}


def row(scenario: str, kind: str, done: int, unit: str, found: dict[str, float]) -> dict[str, Any]:
    """A command as a record."""
    nodes = Session(scenarios.get(scenario)).num_nodes
    per_s = done / found["cpu_s"]
    budget = {"budget_h": BUDGET * nodes / per_s / 3600} if unit == "agent-steps" else {}
    return (
        {"scenario": scenario, "nodes": nodes, "kind": kind, "done": done, "unit": unit, "per_s": per_s}
        | found
        | budget
    )


def main() -> None:
    """Command line: write the result to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file to write (JSON)")
    out = parser.parse_args().out
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        play = ("--seeds", str(EPISODES), "--out", f"{folder}/played")
        for scenario, policy in track([("chain3-v0", "central-lp"), *EVALUATED], "evaluating"):
            found = measured("run", "--scenario", scenario, "--policy", policy, *play)
            rows.append(row(scenario, f"dpem run, {policy}", EPISODES, "episodes", found))
        for place, (scenario, options, steps) in enumerate(track(TRAINED, "training")):
            more = ("--validation-episodes", "0", "--timesteps", str(steps), "--out", f"{folder}/{place}")
            found = measured("train", "--scenario", scenario, *options, *more)
            rows.append(row(scenario, f"dpem train {' '.join(options)}", steps, "agent-steps", found))
    save(out, {"rows": rows[1:]})


if __name__ == "__main__":
    main()
