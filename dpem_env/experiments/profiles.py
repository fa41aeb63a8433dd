"""Performance profiles: which share of all runs comes to more than a score (Agarwal et al., NeurIPS 2021, §4.2).

A run is an episode of a policy, or of one of its training seeds, on a scenario. Scores are normalised, 0 for
random-legal and 1 for a bound, where results have them, and delivery rates where not. Intervals resample training and
evaluation seeds, crossed; scenarios are strata, as all were played with the same seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.metric_labels import QUANTITIES
from dpem_env.experiments.results import Measured, Results, records
from dpem_env.experiments.statistics import (
    RESAMPLES,
    crossed_bootstrap,
    interquartile_mean,
    percentiles,
    resampled_means,
    weights,
)
from dpem_env.report.labels import Estimate, Quantity

THRESHOLDS = 51
Array = NDArray[np.float64]


class Profile(NamedTuple):
    """Of a contestant on all scenarios."""

    label: str
    quantity: Quantity
    thresholds: Array  # (K,) scores
    share: Array  # (3, K) of the runs above each, and the interval of that
    iqm: Estimate  # interquartile mean of all runs


def profiles(results: Results) -> list[Profile]:
    """Of everybody who has played all scenarios alike, the largest interquartile mean first; none without values."""
    told = [each for each in records(results) if not each["policy"].startswith("bound:")]
    scored = all(_values(each, "score") is not None for each in told)
    quantity = QUANTITIES["score" if scored else "delivery_rate"]
    found: dict[str, list[Array]] = {}
    for each in told:
        values = _values(each, quantity.name)
        if values is not None:
            found.setdefault(each["label"], []).append(values)
    scenarios = len(results.summary["scenarios"])
    alike = {
        label: np.stack(parts, axis=2)
        for label, parts in found.items()
        if len(parts) == scenarios and len({part.shape for part in parts}) == 1
    }
    if not alike:
        return []
    every = np.concatenate([values.ravel() for values in alike.values()])
    thresholds = np.linspace(min(float(every.min()), 0.0), float(every.max()), THRESHOLDS)
    return sorted((_profile(*each, quantity, thresholds) for each in alike.items()), key=lambda one: -one.iqm.value)


def _values(record: dict[str, object], metric: str) -> Array | None:
    """(T, E) of an episode each; None unless all are there."""
    measured = record.get(metric)
    values = measured.values if isinstance(measured, Measured) else None
    return values if values is not None and np.isfinite(values).all() else None


def _profile(label: str, values: Array, quantity: Quantity, thresholds: Array) -> Profile:
    rng = np.random.default_rng(0)  # the same draws for all, so that they are compared on the same resamples
    iqm = crossed_bootstrap(values, interquartile_mean, rng)
    seeds, episodes = (weights(size, RESAMPLES, rng) for size in values.shape[:2])
    above = (values > thresholds[:, None, None, None]).mean(axis=3)  # (K, T, E), over scenarios
    found = resampled_means(above, seeds, episodes).T
    shares = [percentiles(float(of_one[0]), of_one[1:], values.size) for of_one in found]
    return Profile(label, quantity, thresholds, np.array(shares, dtype=np.float64).T, Estimate(quantity, *iqm))
