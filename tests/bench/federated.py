"""What averaging costs in training: CPU seconds of a rollout and its update, with and without, side by side.

A node stack of mesh100-v0 learns alone, sharing heads and sharing whole policies, all with the networks of mode
"federated" and a round after every rollout: the most that rounds can cost. Arms take turns, so that all meet the same
noise of the machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from machine import save
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dpem_agents.federation import Federation, federation
from dpem_agents.libraries import one_thread
from dpem_agents.ppo.hyperparameters import PRESETS
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.training import Settings
from dpem_env import scenarios

SCENARIO = "mesh100-v0"
ARMS: dict[str, Federation | None] = {
    "alone": None,
    "head": federation(share="head", period=1),
    "whole": federation(share="whole", period=1),
}


def learner(chosen: Federation | None, rollouts: int, folder: Path) -> Learner:
    """One arm's, for so many rollouts."""
    scenario, hyperparameters = scenarios.get(SCENARIO), PRESETS["federated"]
    mode = "independent" if chosen is None else "federated"
    settings = Settings(scenario.hash, mode, 0, "moving-average", None, 0, hyperparameters, chosen)
    total = rollouts * hyperparameters.slots * hyperparameters.networks * scenario.network.nodes
    return Learner(scenario, settings, total, "cpu", folder)


def measure(rollouts: int) -> dict[str, float]:
    """Median CPU seconds of a rollout, its update and what rounds there are, by arm."""
    with TemporaryDirectory() as folder, one_thread():
        made = {name: learner(chosen, rollouts + 1, Path(folder, name)) for name, chosen in ARMS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for rollout in track(range(rollouts + 1), "rollouts"):
            for name, arm in made.items():
                total, arm.total = arm.total, arm.timesteps + arm.total // (rollouts + 1)
                began = time.process_time()
                arm.learn(arm.average_if_due, lambda: None)
                arm.total = total
                if rollout > 0:  # the first one compiles
                    seconds[name].append(time.process_time() - began)
    return {name: median(each) for name, each in seconds.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the result")
    parser.add_argument("--rollouts", type=int, default=15, help="of every arm (default: 15)")
    arguments = parser.parse_args()
    measured = measure(arguments.rollouts)
    table = Table("nodes share", "CPU s per rollout and update", "of learning alone")
    for name, value in measured.items():
        table.add_row("nothing" if name == "alone" else name, f"{value:.3f}", f"{value / measured['alone']:.2f}")
    Console().print(table)
    save(arguments.out, {"scenario": SCENARIO, "rollouts": arguments.rollouts, "cpu_seconds": measured}, "torch")


if __name__ == "__main__":
    main()
