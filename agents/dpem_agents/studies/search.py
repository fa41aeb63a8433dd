"""Searches over PPO's hyperparameters: one thing changed at a time, as many trials as a baseline's search has; and then
who has something to decide.

Every trial trains one policy on the training split and is scored on the validation episodes that baselines are tuned
on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dpem_agents.ppo.hyperparameters import SHARED, Hyperparameters, changed
from dpem_agents.ppo.training import CURVE, train
from dpem_env.experiments.tuning import EPISODES, TRIALS
from dpem_env.experiments.workers import played
from dpem_env.scenarios import Scenario
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.files import read_json, reading, write_json
from dpem_env.support.provenance import joined

FORMAT = "dpem-ppo-search-1"
CHANGES: dict[str, dict[str, Any]] = {
    "start of the search": {},
    "plain network of the whole observation": {"encoder": "plain"},
    "starts by waiting": {"warm_start": "waiting"},
    "starts at random": {"warm_start": "none"},
    "starts at random, whole penalty at once": {"warm_start": "none", "first_penalty": 1.0},
    "whole penalty at once": {"first_penalty": 1.0},
    "does not see forecasts": {"hidden_blocks": ["forecast"]},
    "does not see the topology": {"hidden_blocks": ["topology"]},
    "discount 0.9": {"discount": 0.9},
    "discount 0.99": {"discount": 0.99},
    "no entropy bonus": {"entropy_weight": 0.0},
    "entropy bonus 0.01": {"entropy_weight": 0.01},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "learning rate falls to 0": {"annealed": True},
    "32 networks, 32 slots each": {"networks": 32, "slots": 32},
    "32 networks, 32 slots each, learning rate falls to 0": {"networks": 32, "slots": 32, "annealed": True},
}
assert len(CHANGES) == TRIALS
# From the preset on, in as many minibatches as trainings on 100 nodes have: how many requests a node with nobody to
# serve must expect of a peer, over its forecast, to decide whether it stocks.
IDLE: dict[str, dict[str, Any]] = {
    f"{forecast:g} requests expected": {"idle_forecast": forecast} for forecast in (0.5, 1.0, 2.0, 4.0)
} | {"never for stock": {"idle_forecast": 1e6}}
SEARCHES = {"all": (Hyperparameters(), CHANGES), "idle": (replace(SHARED, minibatches=60, idle_forecast=0.0), IDLE)}


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    scenario: Scenario
    timesteps: int
    forecaster: str | None
    seed: int
    folder: Path
    hyperparameters: Hyperparameters


def search(
    scenario: Scenario,
    timesteps: int,
    file: Path,
    folder: Path,
    *,
    over: str = "all",
    forecaster: str | None = None,
    seed: int = 0,
    workers: int = 1,
    on_trial: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Train and score every trial of a search of `SEARCHES`; returns them, best first, and writes them to `file`.

    Each trains in a folder of its own below `folder`, where it goes on if it was interrupted.
    """
    start, changes = SEARCHES[over]
    trials = [
        Trial(
            name,
            scenario,
            timesteps,
            forecaster,
            seed,
            folder / name.replace(" ", "-").replace(",", ""),
            changed(start, **changes[name]),
        )
        for name in changes
    ]
    found = []
    for trial, score in played(_score, trials, workers):
        about: dict[str, Any] = {"name": trial.name, "changes": changes[trial.name]}
        found.append(about | score | {"learned_with": asdict(trial.hyperparameters)})
        on_trial()
    found.sort(key=lambda each: -each["reward"])
    told: dict[str, Any] = {
        "format": FORMAT,
        "stamp": joined(each["stamp"] for each in found),
        "scenario": scenario.name,
        "scenario_hash": scenario.hash,
        "rules": RULES_VERSION,
        "timesteps": timesteps,
        "forecaster": forecaster,
        "training_seed": seed,
        "validation_episodes": EPISODES,
    }
    write_json(file, told | {"trials": found})
    return found


def _score(trial: Trial) -> dict[str, Any]:
    train(
        trial.scenario,
        "shared",
        trial.timesteps,
        trial.folder,
        seed=trial.seed,
        hyperparameters=trial.hyperparameters,
        forecaster=trial.forecaster,
        validation_episodes=EPISODES,
        validations=4,
        show_progress=False,
    )
    with reading("learning curve", trial.folder / CURVE):
        found = read_json(trial.folder / CURVE)
        curve, last = found["curve"], found["curve"][-1]
        scores = {name: last[name] for name in ("reward", "delivery_rate", "contention", "seconds")}
        rewards = [float(np.round(point["reward"], 4)) for point in curve]
        return scores | {"rewards_on_the_way": rewards, "stamp": found["stamp"]}
