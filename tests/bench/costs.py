"""What evaluating and training take on each scenario: the command itself in a process of its own, CPU time and memory.

What a command takes to begin and to end (import, reading compiled code, pictures) is measured by the shortest one of
its kind, and `each_s` is the rest: CPU-seconds of an episode, or of a million agent-steps. `budget_h` is for how many
hours a training of the default budget goes on at that pace, on one core. A first command may compile, and is not told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import save
from rich.progress import track

from dpem_env import scenarios
from dpem_env.envs.session import Session

BUDGET = 100_000  # slots: the default of `dpem train`
EVALUATED = [
    (name, policy, episodes)
    for name in ("star8-v0", "mesh20-v0", "surfnet-v0", "mesh100-v0")
    for policy, episodes in (("local-reactive", 20), ("central-lp", 4))
]
TRAINED = [  # agent-steps, enough for a pace
    ("mesh20-v0", ("--mode", "shared"), 102_400),
    ("mesh20-v0", ("--mode", "independent"), 10_240),
    ("mesh20-v0", ("--mode", "federated", "--federate.period", "2"), 10_240),
    ("mesh20-v0", ("--mode", "central", "--delay", "0.5"), 102_400),
    ("mesh100-v0", ("--mode", "shared"), 204_800),
    ("mesh100-v0", ("--mode", "federated", "--federate.period", "2"), 25_600),
]


def measured(*words: str) -> dict[str, float]:
    """CPU seconds and the most memory of a `dpem` command."""
    command = [sys.executable, "-m", "dpem_env", *words]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(words)} failed")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}


def evaluated(scenario: str, policy: str, episodes: int, out: str) -> dict[str, float]:
    """A comparison of one policy."""
    return measured("run", "--scenario", scenario, "--policy", policy, "--seeds", str(episodes), "--out", out)


def trained(scenario: str, options: Sequence[str], steps: int, out: str) -> dict[str, float]:
    """A training without validation."""
    brief = ("--validation-episodes", "0", "--timesteps", str(steps), "--out", out)
    return measured("train", "--scenario", scenario, *options, *brief)


def main() -> None:
    """Command line: write the result to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file to write (JSON)")
    out = parser.parse_args().out
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):  # the first may compile
            begun = evaluated("star8-v0", "idle", 1, f"{folder}/played")["cpu_s"]
        for scenario, policy, episodes in track(EVALUATED, "evaluating"):
            found = evaluated(scenario, policy, episodes, f"{folder}/played")
            told = {"scenario": scenario, "kind": f"dpem run, {policy}", "unit": "an episode"}
            rows.append(told | found | {"start_s": begun, "each_s": (found["cpu_s"] - begun) / episodes})
        begun = trained("star8-v0", ("--learn.networks", "1", "--learn.slots", "16"), 128, f"{folder}/begun")["cpu_s"]
        for place, (scenario, options, steps) in enumerate(track(TRAINED, "training")):
            found = trained(scenario, options, steps, f"{folder}/{place}")
            each = 1e6 * (found["cpu_s"] - begun) / steps
            hours = each * BUDGET * Session(scenarios.get(scenario)).num_nodes / 1e6 / 3600
            told = {"scenario": scenario, "kind": f"dpem train {' '.join(options)}", "unit": "10⁶ agent-steps"}
            rows.append(told | found | {"start_s": begun, "each_s": each, "budget_h": hours})
    save(out, {"rows": rows})


if __name__ == "__main__":
    main()
