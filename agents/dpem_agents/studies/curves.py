"""Learning curves of several training seeds together: mean and interval at every validation, and when they converge."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.checkpoint import Point
from dpem_agents.ppo.movement import MOVEMENT
from dpem_agents.ppo.training import CURVE
from dpem_env.experiments.statistics import mean_interval
from dpem_env.support.errors import DpemError, DpemWarning
from dpem_env.support.files import Part, checked, matching, read_json, reading
from dpem_env.support.provenance import UNKNOWN, joined
from dpem_env.support.seeding import generator

FORMAT = "dpem-learning-curves-1"
METRICS = ("reward", "delivery_rate", "contention")
FINAL = 0.25  # share of the validations, the last ones, whose mean is called final
WITHIN = 0.05  # of the final mean


class _Seed(Part):
    seed: int
    mode: str
    delay: float | None
    forecaster: str | None
    hyperparameters: dict[str, Any]
    start: dict[str, Any] | None = None


class _Curve(Part):
    stamp: str = UNKNOWN
    scenario: str
    settings: _Seed
    validation_episodes: int
    curve: list[Point]


class _Rules(Part):
    name: str
    contestants: list[dict[str, Any]]


class _Summary(Part):
    stamp: str = UNKNOWN
    split: str
    scenarios: list[_Rules]


def learning_curves(runs: dict[str, str]) -> dict[str, Any]:
    """What several trainings came to: by name, a pattern of the folders with its training seeds.

    Raises DpemError for folders without a curve, and for seeds that did not validate at the same timesteps.
    """
    found = {name: _read(name, pattern) for name, pattern in runs.items()}
    if len(scenarios := {curve["scenario"] for curves in found.values() for curve in curves}) > 1:
        raise DpemError(f"learning curves of {', '.join(sorted(scenarios))} do not belong in one picture")
    stamp = joined(curve.get("stamp", UNKNOWN) for curves in found.values() for curve in curves)
    if "+" in stamp:
        warnings.warn(DpemWarning("learning curves", f"they are of different code, stamps {stamp}"), stacklevel=2)
    return {
        "format": FORMAT,
        "stamp": stamp,
        "scenario": scenarios.pop(),
        "trainings": [_together(name, curves) for name, curves in found.items()],
    }


def convergence(returns: NDArray[np.float64]) -> int | None:
    """Number of the first validation after which all stay within 5 % of the final mean; None if the last does not."""
    final = returns[-max(math.ceil(FINAL * len(returns)), 1) :].mean()
    outside = np.flatnonzero(np.abs(returns - final) > WITHIN * abs(final))
    first = int(outside[-1]) + 1 if len(outside) else 0
    return first if first < len(returns) else None


def _together(name: str, curves: list[dict[str, Any]]) -> dict[str, Any]:
    """One row per training seed becomes mean and 95 % interval (Student's t over seeds) at every validation."""
    steps = [point["timesteps"] for point in curves[0]["curve"]]
    for curve in curves:
        if [point["timesteps"] for point in curve["curve"]] != steps:
            raise DpemError(f"the training seeds of {name!r} have validated at other timesteps: are all finished?")
    moved = all(curve["settings"].get("start") for curve in curves)
    metrics = (*METRICS, *MOVEMENT) if moved else METRICS
    rows = {metric: np.array([[p[metric] for p in c["curve"]] for c in curves], dtype=np.float64) for metric in metrics}
    draws = generator("learning curves", 0)
    together: dict[str, Any] = {"name": name, "training_seeds": [curve["settings"]["seed"] for curve in curves]}
    together |= {field: curves[0]["settings"][field] for field in ("mode", "delay", "forecaster", "hyperparameters")}
    if moved:
        together["starts"] = [curve["settings"]["start"]["name"] for curve in curves]
    together |= {"validation_episodes": curves[0]["validation_episodes"], "timesteps": steps}
    together["environment_steps"] = [point["environment_steps"] for point in curves[0]["curve"]]
    together["seconds"] = np.mean([[p["seconds"] for p in c["curve"]] for c in curves], axis=0).round(1).tolist()
    for metric, table in rows.items():
        intervals = [mean_interval(column[None], draws) for column in table.T]
        together[metric] = [[_plain(number) for number in interval] for interval in intervals]
    converged = [convergence(row) for row in rows["reward"]]
    together["converged_at"] = [None if at is None else steps[at] for at in converged]
    at = convergence(rows["reward"].mean(axis=0))
    together["mean_converged_at"] = None if at is None else steps[at]
    together["mean_converged_after_seconds"] = None if at is None else together["seconds"][at]
    return together


def _read(name: str, pattern: str) -> list[dict[str, Any]]:
    curves = []
    for folder in matching(pattern):
        path = Path(folder) / CURVE
        with reading("learning curve", path):
            curve = read_json(path)
            checked(_Curve, curve, "it")
            if not curve["curve"]:
                raise ValueError("it has no validation")
        curves.append(curve)
    if not curves:
        raise DpemError(f"{name}: no folder matches {pattern!r}; expected those that dpem train has written")
    return curves


def _plain(number: float) -> float | None:
    return round(float(number), 6) if math.isfinite(number) else None


def means_of(summary: Path, curves: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Mean metrics by label of what `dpem benchmark` has played on the scenario of learning curves."""
    scenario = curves["scenario"]
    with reading("summary of rules to draw beside", summary):
        found = read_json(summary)
        checked(_Summary, found, "it")
        if found["split"] != "validation":
            raise ValueError(f"it is of the {found['split']} split; learning curves are of validation episodes")
        if (stamp := found.get("stamp", UNKNOWN)) != curves["stamp"]:
            told = f"it is of other code (stamp {stamp}) than the learning curves (stamp {curves['stamp']})"
            warnings.warn(DpemWarning(str(summary), told), stacklevel=2)
        played = [each for each in found["scenarios"] if each["name"] == scenario]
        if len(played) != 1:
            raise ValueError(f"it has {len(played)} scenarios {scenario!r}; expected one")
        return {
            each["label"]: {metric: float(each["metrics"][metric]["mean"]["value"]) for metric in METRICS}
            for each in played[0]["contestants"]
        }
