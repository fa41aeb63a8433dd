"""What the episodes of contestants come to, as plain data: each, each against the reference, all together.

A table holds, for each metric, a (T, E) array of every contestant: T training seeds (1 for a rule) by E episodes,
column j the same episode for all. NaN is a value that does not exist, such as the fidelity of no pairs; what is
compared is compared on episodes where it does. Episodes of one checkpoint are never independent draws of its learner:
`dpem_env.experiments.statistics` resamples both, and the analyses of variance are of means over training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from dpem_env.envs.metric_labels import HEADLINE
from dpem_env.experiments import anova, statistics
from dpem_env.experiments.contestants import Contestant
from dpem_env.experiments.statistics import Array
from dpem_env.support.seeding import generator

Table = dict[str, list[Array]]


def compare(contestants: Sequence[Contestant], reference: Contestant, table: Table) -> dict[str, Any]:
    """One scenario: every contestant by itself, every other against the reference, analyses of variance of all."""
    rng = generator("benchmark intervals")
    first = contestants.index(reference)
    return {
        "contestants": [
            {
                "label": each.label,
                "policy": each.policy,
                "delay": each.delay,
                "forecaster": each.forecaster,
                "training_seeds": len(each.policies),
                "metrics": {metric: _alone(values[place], rng) for metric, values in table.items()},
            }
            for place, each in enumerate(contestants)
        ],
        "differences": [
            {"label": each.label}
            | {"metrics": {metric: _against(values[place], values[first], rng) for metric, values in table.items()}}
            for place, each in enumerate(contestants)
            if place != first
        ],
        "analysis": {metric: _analysis(contestants, table[metric]) for metric in HEADLINE},
    }


def on_network_size(
    contestants: Sequence[Contestant], tables: Sequence[tuple[int, Table]]
) -> list[dict[str, Any]] | None:
    """Each contestant's metrics regressed on the number of nodes, given with each table; None if it never differs."""
    if len({nodes for nodes, _ in tables}) < 2:
        return None
    return [
        {"label": each.label}
        | {
            metric: _line([(nodes, table[metric][place].mean(axis=0)) for nodes, table in tables])
            for metric in HEADLINE
        }
        for place, each in enumerate(contestants)
    ]


def _alone(values: Array, rng: np.random.Generator) -> Any:
    known = values[:, np.isfinite(values).all(axis=0)]
    if not known.size:
        return None
    return _plain(
        {
            "mean": statistics.mean_interval(known, rng),
            "iqm": statistics.crossed_bootstrap(known, statistics.interquartile_mean, rng),
            "episodes": known.shape[1],
        }
    )


def _against(ours: Array, theirs: Array, rng: np.random.Generator) -> Any:
    known = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
    if not known.any():
        return None
    a, b = ours[:, known], theirs[:, known]
    difference = statistics.paired_difference(a, b, rng)
    return _plain(
        {
            "difference": difference,
            "clear_of_zero": difference.clear_of_zero,
            "relative": statistics.relative_difference(a, b, rng),
            "probability_of_improvement": statistics.probability_of_improvement(a, b, rng),
            "cohens_d": statistics.cohens_d_paired(a, b),
            "wilcoxon_p": statistics.wilcoxon_p(a, b),
            "episodes": a.shape[1],
        }
    )


def _analysis(contestants: Sequence[Contestant], table: Sequence[Array]) -> Any:
    """None where there is nothing to analyse: one contestant, fewer than three episodes, no variance within any."""
    values = np.array([of_one.mean(axis=0) for of_one in table])
    values = values[:, np.isfinite(values).all(axis=0)]
    if len(contestants) < 2 or values.shape[1] < 3 or not np.ptp(values, axis=1).any():
        return None
    forecasters = list(dict.fromkeys(each.forecaster for each in contestants))
    policies = dict.fromkeys((each.policy, each.delay) for each in contestants)
    crossed = [(*policy, forecaster) for forecaster in forecasters for policy in policies]
    two_factors = min(len(forecasters), len(policies)) > 1 and crossed == [
        (each.policy, each.delay, each.forecaster) for each in contestants
    ]
    return _plain(
        {
            "one_way": _one_way(values),
            "friedman_p": anova.friedman_p(values.T) if len(contestants) > 2 else None,
            "architecture_by_prediction": _two_way(values, len(forecasters)) if two_factors else None,
        }
    )


def _one_way(values: Array) -> dict[str, Any]:
    """Of (contestants, episodes); Tukey's comparisons as columns, a row for every pair, by their places."""
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
    """Of (contestants, episodes), contestants forecaster by forecaster."""
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
