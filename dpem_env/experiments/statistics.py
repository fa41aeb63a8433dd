"""Statistics to compare policies with: intervals, paired differences, effect sizes, scores.

Values of a policy come as an array (T, E): T training seeds (checkpoints; 1 for a rule) by E evaluation seeds
(episodes). Both are random, and crossed: every checkpoint plays every episode. So episodes of one checkpoint are not
independent draws of the learner, and intervals resample training seeds and evaluation seeds, each as a whole. With
T = 1 an interval speaks of that one checkpoint. Arrays are finite; intervals are 95 %; randomness is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95

Array = NDArray[np.float64]
Statistic = Callable[[Array], Any]  # (…, n) to (…)


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def clear_of_zero(self) -> bool:
        """Whether 0 lies outside (never for an unknown interval)."""
        return self.low > 0 or self.high < 0


def mean(values: Array) -> Any:
    """(…, n) to (…): the mean."""
    return values.mean(axis=-1)


def interquartile_mean(values: Array) -> Any:
    """(…, n) to (…): mean of the middle half, ⌊n/4⌋ values cut off at each end (Agarwal et al., NeurIPS 2021, §4.3)."""
    return stats.trim_mean(values, 0.25, axis=-1)


def crossed_bootstrap(
    values: ArrayLike, statistic: Statistic, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of a statistic of all (T, E) values, training and evaluation seeds crossed.

    Each resample draws T training seeds and E evaluation seeds, independently and with replacement, and takes every
    value where they meet: the pigeonhole bootstrap (Owen, Ann. Appl. Stat. 1, 2007; McCullagh, Bernoulli 6, 2000). It
    assumes exchangeable seeds; it errs on the wide side for noise within cells and on the narrow side below some ten
    seeds of a kind. Values may be (T, E, S): S strata that the same seeds were played in, kept as they are.
    """
    table = _table(values)
    rows, columns = (rng.integers(size, size=(resamples, size)) for size in table.shape[:2])
    drawn = table[rows[:, :, None], columns[:, None, :]].reshape(resamples, -1)
    return percentiles(float(statistic(table.ravel())), statistic(drawn), table.size)


def stratified_bootstrap(
    scores: ArrayLike, statistic: Statistic, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of a statistic of all (R, S) scores, R independent runs in each of S strata (tasks).

    Runs are resampled within their stratum, strata are kept (Agarwal et al., NeurIPS 2021, §4.1). It assumes that runs
    are independent, also between strata: for strata played with the same seeds use `crossed_bootstrap`.
    """
    table = _table(scores)
    runs = rng.integers(len(table), size=(resamples, *table.shape))
    drawn = np.take_along_axis(table[None], runs, axis=1).reshape(resamples, -1)
    return percentiles(float(statistic(table.ravel())), statistic(drawn), table.size)


def mean_interval(values: ArrayLike, rng: np.random.Generator) -> Interval:
    """Mean of (T, E) values; Student's t over evaluation seeds for one training seed, else the crossed bootstrap.

    Student's interval assumes normal means; it is exact for few episodes, where a bootstrap is too narrow.
    """
    table = _table(values)
    return _student(table[0]) if len(table) == 1 else crossed_bootstrap(table, mean, rng)


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Mean of ours (T, E) - theirs (U, E), which played the same E evaluation seeds.

    Evaluation seeds are resampled for both at once, training seeds for each by itself: theirs are other draws than
    ours, whatever their numbers. Student's t over the differences where both have one training seed.
    """
    a, b = _pair(ours, theirs)
    if len(a) == len(b) == 1:
        return _student(a[0] - b[0])
    our_means, their_means = _resampled_means(a, b, rng, resamples)
    return percentiles(float(a.mean() - b.mean()), our_means - their_means, a.size * b.size)


def relative_difference(
    ours: ArrayLike, theirs: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Mean of ours (T, E) over the mean of theirs (U, E), minus 1: how much more, resampled as `paired_difference`.

    Assumes that theirs are positive in the mean; unknown where a resampled mean of theirs is not.
    """
    a, b = _pair(ours, theirs)
    our_means, their_means = _resampled_means(a, b, rng, resamples)
    if min(b.mean(), their_means.min()) <= 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    return percentiles(float(a.mean() / b.mean()) - 1, our_means / their_means - 1, a.size * b.size)


def probability_of_improvement(
    ours: ArrayLike, theirs: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """P(ours > theirs) on the same episode, ties one half, of (T, E) and (U, E).

    Mean over episodes of the Mann-Whitney statistic of their training seeds (Agarwal et al., NeurIPS 2021, §4.3, with
    episodes as tasks), by the crossed bootstrap.
    """
    a, b = _pair(ours, theirs)
    difference = a[:, None, :] - b[None, :, :]
    wins = (difference > 0) + 0.5 * (difference == 0)  # (T, U, E)
    drawn = [weights(size, resamples, rng) for size in wins.shape]
    return percentiles(float(wins.mean()), np.einsum("tue,rt,ru,re->r", wins, *drawn, optimize=True), wins.size)


def cohens_d_paired(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Mean of the paired differences over their standard deviation, d_z (Lakens, Front. Psychol. 4, 2013, eq. 6).

    Differences are those of the E evaluation seeds, training seeds averaged. NaN where they do not vary.
    """
    a, b = _pair(ours, theirs)
    differences = a.mean(axis=0) - b.mean(axis=0)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else float("nan")


def wilcoxon_p(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test: the non-parametric counterpart of the paired difference.

    Over the E evaluation seeds, training seeds averaged; it assumes differences symmetric about their median. 1 where
    all are zero.
    """
    a, b = _pair(ours, theirs)
    differences = a.mean(axis=0) - b.mean(axis=0)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def normalized_score(policy: ArrayLike, random: ArrayLike, bound: ArrayLike) -> Array:
    """(policy - random) / (bound - random), elementwise: 0 is acting at random, 1 the bound; NaN where both agree.

    Arrays broadcast: a bound per episode, (E,), or one number. (Human-normalized score, Mnih et al., Nature 518, 2015.)
    """
    floor = np.asarray(random, dtype=np.float64)
    room = np.asarray(bound, dtype=np.float64) - floor
    return (np.asarray(policy, dtype=np.float64) - floor) / np.where(room == 0, np.nan, room)


def _table(values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim < 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"expected a table of finite values, given shape {table.shape}")
    return table


def _pair(ours: ArrayLike, theirs: ArrayLike) -> tuple[Array, Array]:
    a, b = _table(ours), _table(theirs)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"expected the same evaluation seeds, given {a.shape[1]} and {b.shape[1]}")
    return a, b


def _student(values: Array) -> Interval:
    error = float(stats.sem(values)) if len(values) > 1 else float("nan")
    return student(float(values.mean()), error, len(values))


def student(value: float, error: float, size: int) -> Interval:
    """Student's interval of an estimate with this standard error, from so many values; unknown for one."""
    if size < 2:
        return Interval(value, float("nan"), float("nan"))
    width = float(stats.t.ppf(0.5 + LEVEL / 2, size - 1) * error)
    return Interval(value, value - width, value + width)


def _resampled_means(a: Array, b: Array, rng: np.random.Generator, resamples: int) -> tuple[Array, Array]:
    """Means (resamples,) of a (T, E) and b (U, E) under common evaluation seeds and training seeds of their own."""
    seeds = weights(a.shape[1], resamples, rng)
    ours, theirs = (
        np.einsum("rt,te,re->r", weights(len(table), resamples, rng), table, seeds, optimize=True) for table in (a, b)
    )
    return ours, theirs


def weights(size: int, resamples: int, rng: np.random.Generator) -> Array:
    """(resamples, size) how often each seed is drawn, over size."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size


def resampled_means(values: Array, seeds: Array, episodes: Array) -> Array:
    """(1 + R, P) means of each of P tables (P, T, E): as they are, then under R `weights` of T seeds and E episodes."""
    drawn = np.einsum("rt,pte,re->rp", seeds, values, episodes, optimize=True)
    return np.concatenate([values.mean(axis=(1, 2))[None], drawn])


def percentiles(value: float, estimates: Any, drawn_from: int) -> Interval:
    """The estimates' percentiles; unknown where there was but one value to draw from."""
    if drawn_from == 1:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(estimates, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(value, float(low), float(high))
