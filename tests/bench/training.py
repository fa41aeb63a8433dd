"""How fast policies are trained: agent-steps per CPU-second, beside the same training in which every row decides.

A rollout and its update on mesh100-v0 with the preset of each mode, without validation. Arms take turns, so that all
meet the same noise of the machine.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from machine import save
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dpem_agents.federation import Federation
from dpem_agents.libraries import one_thread
from dpem_agents.ppo.hyperparameters import PRESETS
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.training import Settings
from dpem_env import scenarios

SCENARIO = "mesh100-v0"
MODES = ("shared", "independent", "federated")
ARMS = {"preset": {}, "never for stock": {"idle_forecast": 1e6}, "every row decides": {"idle_forecast": 0.0}}
REFERENCE = "every row decides"


def learner(mode: str, changes: dict[str, float], folder: Path) -> Learner:
    """One arm's, for a federated round."""
    scenario, chosen, federation = scenarios.get(SCENARIO), replace(PRESETS[mode], **changes), Federation()
    topology = None if mode == "shared" else 0
    together = federation if mode == "federated" else None
    settings = Settings(scenario.hash, mode, 0, "moving-average", None, topology, chosen, together)
    total = federation.period * chosen.slots * chosen.networks * scenario.network.nodes
    return Learner(scenario, settings, total, "cpu", folder)


def steps_per_s(arm: Learner) -> float:
    """Of one rollout and its update, per CPU-second."""
    total, before = arm.total, arm.timesteps
    arm.total, began = before + 1, time.process_time()
    arm.learn(lambda: None, lambda: None)
    seconds, arm.total = time.process_time() - began, total
    return (arm.timesteps - before) / seconds


def measure(rollouts: int) -> list[dict[str, Any]]:
    """Medians over rollouts; ratios are of rollouts that were timed one after the other."""
    rows = []
    for mode in MODES:
        with TemporaryDirectory() as folder, one_thread():
            arms = {name: learner(mode, changes, Path(folder, name)) for name, changes in ARMS.items()}
            speeds: dict[str, list[float]] = {name: [] for name in arms}
            for rollout in track(range(rollouts + 1), mode):
                for name, arm in arms.items():
                    speed = steps_per_s(arm)
                    if rollout > 0:  # the first one compiles
                        speeds[name].append(speed)
        for name, each in speeds.items():
            ratio = median(speed / other for speed, other in zip(each, speeds[REFERENCE], strict=True))
            told = {"mode": mode, "who_decides": name, "agent_steps_per_cpu_s": median(each)}
            rows.append(told | {"ratio": ratio})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=3, help="of each arm")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    rows = measure(arguments.rollouts)
    table = Table("mode", "who decides", "agent-steps per CPU-s", f"of {REFERENCE}")
    for row in rows:
        table.add_row(row["mode"], row["who_decides"], f"{row['agent_steps_per_cpu_s']:,.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    save(arguments.out, {"scenario": SCENARIO, "rollouts": arguments.rollouts, "rows": rows}, "torch", "sb3-contrib")


if __name__ == "__main__":
    main()
