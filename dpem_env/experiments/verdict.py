"""The paper's claim as four tests of one policy: against central control that reacts, predicts, or is never late, and
against local rules.

Points and fronts are those of `dpem_env.experiments.fronts`. What must hold against several rivals is an
intersection-union test (Berger, Technometrics 1982): each is tested at full level, and the largest p counts. The four
are corrected for each other (Holm, Scand. J. Stat. 1979). All p are one-sided, of Student's t over the bootstrap's
standard error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from dpem_env.experiments.fronts import (
    Array,
    Means,
    Points,
    beside_rivals,
    heights,
    resampled,
    shares,
    standard_error,
)
from dpem_env.experiments.statistics import RESAMPLES, weights
from dpem_env.report.envelope import envelope

MORE_DELIVERED, LESS_CONTENDED = 1.25, 0.83  # the paper's 25 % more and 17 % less
MORE_THAN_PREDICTIVE = 1.12
INFERIOR = 0.01  # of delivery: what is less than so much lower is not inferior
LEVEL = 0.01  # of all four together


class Rivals(NamedTuple):
    """Labels of who is played against."""

    reactive: Sequence[str]  # central, late
    predictive: Sequence[str]  # central, late
    instantaneous: Sequence[str]  # central, never late
    local: Sequence[str]


class Part(NamedTuple):
    """One of the four: the estimate that is worst for the claim, against whom, and the p of all that must hold."""

    asked: str
    against: str
    estimate: str
    p: float
    adjusted: float

    @property
    def holds(self) -> bool:
        """Whether it does, at `LEVEL` for all four."""
        return self.adjusted < LEVEL


class _Test(NamedTuple):
    against: str
    estimate: str
    statistic: float  # Student's t


def verdict(
    points: Mapping[str, Points],
    ours: str,
    place: int,
    rivals: Rivals,
    levels: Sequence[float],
    rng: np.random.Generator,
) -> list[Part]:
    """Parts (a) to (d) of the policy `ours`, of which the point at `place` is played in (a); its front in the others.

    (a) More delivered and less contended than every point of reactive control that delivers nearly its best. (b) More
    delivered than the most that predictive control delivers, at its contention. (c) At every level of contention
    delivery not inferior to that of control that is never late. (d) More below the front, up to the last level, than
    below that of every local rule.
    """
    number = points[ours].delivery.shape[2]
    episodes = weights(number, RESAMPLES, rng)
    everybody = {ours, *(label for labels in rivals for label in labels)}
    means = {label: resampled(points[label], episodes, rng) for label in sorted(everybody)}
    at = np.asarray(levels, dtype=np.float64)
    tests = {
        f"≥ {MORE_DELIVERED:g} × delivered, ≤ {LESS_CONTENDED:g} × contended": [
            test for label in rivals.reactive for test in _beside(means[ours], place, label, means[label], number)
        ],
        f"≥ {MORE_THAN_PREDICTIVE:g} × delivered at no more contention": [
            _above(means[ours], label, means[label], number) for label in rivals.predictive
        ],
        f"delivery > −{INFERIOR:g} at equal contention": [
            test for label in rivals.instantaneous for test in _as_high(means[ours], label, means[label], at, number)
        ],
        "more below the front": [_more(means[ours], label, means[label], at[-1], number) for label in rivals.local],
    }
    worst = [min(of, key=lambda test: test.statistic) for of in tests.values()]
    chances = [float(stats.t.sf(test.statistic, number - 1)) for test in worst]
    return [
        Part(asked, test.against, test.estimate, p, adjusted)
        for asked, test, p, adjusted in zip(tests, worst, chances, holm(chances), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of tests that are made together."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate([(len(p) - rank) * p[place] for rank, place in enumerate(order)])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(each) for each in adjusted]


def _above_zero(estimates: Array, number: int) -> float:
    """Student's t of the first estimate being above 0, by all others, which were resampled from so many episodes."""
    with np.errstate(invalid="ignore"):
        error = float(standard_error(estimates[1:], number))
    if not math.isfinite(error):
        return -math.inf
    if error == 0.0:
        return math.inf if estimates[0] > 0.0 else -math.inf
    return float(estimates[0]) / error


def _beside(ours: Means, place: int, label: str, theirs: Means, number: int) -> list[_Test]:
    found = []
    for less, more in zip(*(ratios.T for ratios in beside_rivals(ours, place, theirs)), strict=True):
        worst = min(
            _above_zero(more - math.log(MORE_DELIVERED), number), _above_zero(math.log(LESS_CONTENDED) - less, number)
        )
        found.append(_Test(label, f"{np.exp(more[0]):.2f}, {np.exp(less[0]):.2f}", worst))
    return found


def _above(ours: Means, label: str, theirs: Means, number: int) -> _Test:
    contention, delivery = (mean[:, int(theirs[1][0].argmax())] for mean in theirs)
    reached = [np.interp(level, *envelope(x, y)) for x, y, level in zip(*ours, contention, strict=True)]
    with np.errstate(divide="ignore"):  # of a front that has nothing there
        more = np.log(np.array(reached) / delivery)
    return _Test(label, f"{np.exp(more[0]):.2f}", _above_zero(more - math.log(MORE_THAN_PREDICTIVE), number))


def _as_high(ours: Means, label: str, theirs: Means, levels: Array, number: int) -> list[_Test]:
    higher = heights(*ours, levels) - heights(*theirs, levels)
    return [
        _Test(f"{label} at {level:g}", f"{column[0]:+.3f}", _above_zero(column + INFERIOR, number))
        for level, column in zip(levels, higher.T, strict=True)
    ]


def _more(ours: Means, label: str, theirs: Means, limit: float, number: int) -> _Test:
    more = shares(*ours, limit) - shares(*theirs, limit)
    return _Test(label, f"{more[0]:+.4f}", _above_zero(more, number))
