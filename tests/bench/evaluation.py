"""What policies and forecasters add to an episode: CPU time per slot of evaluation, beside that of an idle policy.

Every contestant plays the same episode, in turn, some times over; its time is the least of them, and the ratio that to
the least of `idle`, which does nothing in the same environment. Central ones see the network half a second late.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dpem_agents.forecasters.cells import initial
from dpem_agents.forecasters.checkpoint import Checkpoint
from dpem_agents.forecasters.history import steps_ahead
from dpem_agents.forecasters.recurrent import CELLS, RecurrentForecaster
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario

SCENARIO, DELAY, IDLE = "mesh100-v0", 0.5, "idle"
SEEDS = EpisodeSeeds(topology=2000, demand=0)
POLICIES = (
    IDLE,
    "local-reactive",
    "local-predictive",
    "acp",
    "maxweight",
    "ppo:mesh100",
    "central-reactive",
    "central-predictive",
    "central-maxweight",
    "hybrid-maxweight",
    "central-lp",
    "q-cast",
    "reps",
)
FORECASTERS = ("moving-average", "bayes-filter")
UNITS = 8  # of a recurrent forecaster, as they are trained


def untrained(scenario: Scenario, cell: str) -> RecurrentForecaster:
    """One with drawn weights: what a cell takes does not depend on them."""
    peers, draws = build_network(scenario, SEEDS.topology).peers, np.random.default_rng(0)
    pairs = {name: np.ones(peers.shape, dtype=np.float32) for name in ("scale", "size")}
    steps = steps_ahead(scenario)
    weights = initial(cell, UNITS, steps, len(peers), draws)
    learned = {"peers": peers.copy(), **pairs, **weights}
    return RecurrentForecaster(Checkpoint(cell, scenario.name, scenario.hash, steps, UNITS, (learned,)))


def episode(scenario: Scenario, policy: str, forecaster: Any = None) -> Callable[[], float]:
    """CPU seconds per slot of an episode with a policy, which fills the forecast itself unless told otherwise."""
    played = get_policy(policy)

    def run() -> float:
        start = time.process_time()
        run_episode(scenario, played, SEEDS, delay=DELAY, forecaster=forecaster)
        return (time.process_time() - start) / scenario.episode.slots

    return run


def measure(repeats: int) -> dict[str, Any]:
    """The least of `repeats` rounds, every contestant once per round."""
    scenario = scenarios.get(SCENARIO)
    timed = {("policy", name): episode(scenario, name) for name in POLICIES}
    timed |= {("forecaster", name): episode(scenario, IDLE, name) for name in FORECASTERS}
    timed |= {("forecaster", cell): episode(scenario, IDLE, untrained(scenario, cell)) for cell in CELLS}
    least = dict.fromkeys(timed, float("inf"))
    for _ in track(range(repeats), "episodes", transient=True):
        for key, run in timed.items():
            least[key] = min(least[key], run())
    rows = [
        {"kind": kind, "name": name, "ms_per_slot": 1e3 * seconds, "ratio_to_idle": seconds / least["policy", IDLE]}
        for (kind, name), seconds in least.items()
    ]
    return {"scenario": SCENARIO, "delay": DELAY, "repeats": repeats, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    result = measure(arguments.repeats)
    table = Table("", "", "ms per slot", "of idle", title=f"{SCENARIO}, least of {arguments.repeats} episodes")
    for row in result["rows"]:
        table.add_row(row["kind"], row["name"], f"{row['ms_per_slot']:.2f}", f"{row['ratio_to_idle']:.1f}")
    Console().print(table)
    save(arguments.out, result)


if __name__ == "__main__":
    main()
