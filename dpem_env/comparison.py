"""What the episodes of several arms come to, as plain data: each arm, each against the reference, all together.

A table holds, for each metric, (arms, episodes) values; column j is the same episode for every arm. NaN is a value that
does not exist, such as the fidelity of no pairs; what is compared is compared on episodes where it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from dpem_env import anova, statistics
from dpem_env.evaluation import Arm
from dpem_env.seeding import generator
from dpem_env.statistics import Array

Table = dict[str, Array]
HEADLINE = ("delivery_rate", "contention", "reward")  # analysed further


def compare(arms: Sequence[Arm], reference: Arm, table: Table) -> dict[str, Any]:
    """One scenario: every arm by itself, every other against the reference, analyses of variance of all."""
    rng = generator("benchmark intervals")
    first = arms.index(reference)
    return {
        "arms": [
            {"label": arm.label, **vars(arm)}
            | {"metrics": {metric: _alone(values[place], rng) for metric, values in table.items()}}
            | {"episodes": {metric: _plain(table[metric][place].tolist()) for metric in HEADLINE}}
            for place, arm in enumerate(arms)
        ],
        "differences": [
            {"label": arm.label}
            | {"metrics": {metric: _against(values[place], values[first], rng) for metric, values in table.items()}}
            for place, arm in enumerate(arms)
            if place != first
        ],
        "analysis": {metric: _analysis(arms, table[metric]) for metric in HEADLINE},
    }


def on_network_size(arms: Sequence[Arm], tables: Sequence[tuple[int, Table]]) -> list[dict[str, Any]] | None:
    """Each arm's metrics regressed on the number of nodes, given with each table; None where it is always the same."""
    if len({nodes for nodes, _ in tables}) < 2:
        return None
    return [
        {"label": arm.label}
        | {metric: _line([(nodes, values[metric][place]) for nodes, values in tables]) for metric in HEADLINE}
        for place, arm in enumerate(arms)
    ]


def _alone(values: Array, rng: np.random.Generator) -> Any:
    known = values[np.isfinite(values)][None]
    if not known.size:
        return None
    return _plain(
        {
            "mean": statistics.mean_interval(known, rng),
            "iqm": statistics.crossed_bootstrap(known, statistics.interquartile_mean, rng),
            "episodes": known.size,
        }
    )


def _against(ours: Array, theirs: Array, rng: np.random.Generator) -> Any:
    known = np.isfinite(ours) & np.isfinite(theirs)
    if not known.any():
        return None
    a, b = ours[known][None], theirs[known][None]
    difference = statistics.paired_difference(a, b, rng)
    return _plain(
        {
            "difference": difference,
            "clear_of_zero": difference.clear_of_zero,
            "relative": statistics.relative_difference(a, b, rng),
            "probability_of_improvement": statistics.probability_of_improvement(a, b, rng),
            "cohens_d": statistics.cohens_d_paired(a, b),
            "wilcoxon_p": statistics.wilcoxon_p(a, b),
            "episodes": a.size,
        }
    )


def _analysis(arms: Sequence[Arm], values: Array) -> Any:
    """None where there is nothing to analyse: one arm, fewer than three episodes, no variance within arms."""
    values = values[:, np.isfinite(values).all(axis=0)]
    if len(arms) < 2 or values.shape[1] < 3 or not np.ptp(values, axis=1).any():
        return None
    forecasters = list(dict.fromkeys(arm.forecaster for arm in arms))
    policies = dict.fromkeys((arm.policy, arm.delay) for arm in arms)
    crossed = [(*policy, forecaster) for forecaster in forecasters for policy in policies]
    two_factors = min(len(forecasters), len(policies)) > 1 and crossed == [
        (arm.policy, arm.delay, arm.forecaster) for arm in arms
    ]
    return _plain(
        {
            "one_way": _one_way(values),
            "friedman_p": anova.friedman_p(values.T) if len(arms) > 2 else None,
            "architecture_by_prediction": _two_way(values, len(forecasters)) if two_factors else None,
        }
    )


def _one_way(values: Array) -> dict[str, Any]:
    """Of (arms, episodes); Tukey's comparisons as columns, a row for every pair of arms, by their places."""
    found = anova.one_way_anova(list(values))
    pairs = found.tukey
    columns = {
        "first": [pair.first for pair in pairs],
        "second": [pair.second for pair in pairs],
        "difference": [pair.difference.value for pair in pairs],
        "low": [pair.difference.low for pair in pairs],
        "high": [pair.difference.high for pair in pairs],
        "p": [pair.p for pair in pairs],
    }
    return vars(found) | {"tukey": columns}


def _two_way(values: Array, forecasters: int) -> anova.TwoWay:
    """Of (arms, episodes), arms forecaster by forecaster."""
    return anova.two_way_anova(values.reshape(forecasters, -1, values.shape[1]).swapaxes(0, 1))


def _line(samples: Sequence[tuple[int, Array]]) -> Any:
    known = [(nodes, values[np.isfinite(values)]) for nodes, values in samples]
    x = np.concatenate([np.full(len(values), nodes) for nodes, values in known])
    y = np.concatenate([values for _, values in known])
    if min(len(values) for _, values in known) < 2 or not np.ptp(y):
        return None
    return _plain(anova.regression(x, y))


def _plain(value: Any) -> Any:
    """As JSON has it: records by the names of their fields, seven digits, NaN and infinities as None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
