"""Analysis of variance and regression: assumptions checked, a non-parametric counterpart beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dpem_env.experiments.statistics import LEVEL, Array, Interval
from dpem_env.support.errors import DpemError


class Comparison(NamedTuple):
    """Two groups by their numbers: mean of the second minus mean of the first, and Tukey's p."""

    first: int
    second: int
    difference: Interval
    p: float


@dataclass(frozen=True)
class OneWay:
    """A one-way analysis of variance, what it assumes, checked, and Kruskal-Wallis beside it."""

    f: float
    p: float
    df: tuple[int, int]  # between, within
    eta_squared: float  # share of the variance between groups
    shapiro_p: float  # of normal residuals
    levene_p: float  # of equal variances
    kruskal_h: float
    kruskal_p: float
    tukey: tuple[Comparison, ...]  # all pairs, family-wise 95 %


def one_way_anova(groups: Sequence[ArrayLike], pairs: bool = True) -> OneWay:
    """Do the means of k groups, arrays (n_i,), differ? F test and Tukey's honestly significant differences.

    Assumes independent, normal values of equal variance; checked by Shapiro-Wilk on residuals and Levene about
    medians (Brown & Forsythe, 1974). Contestants share episodes and are positively dependent: the test is cautious:
    read `friedman_p` and paired differences beside it. η² = SS_between / SS_total (Fisher, 1925). ValueError without
    variance within groups, or fewer than 2 groups of 2. Without `pairs`, none of which are then compared, it takes
    milliseconds in place of seconds.
    """
    samples = [np.asarray(group, dtype=np.float64) for group in groups]
    residuals = _residuals(samples)
    f, p = stats.f_oneway(*samples)
    between, within = len(samples) - 1, len(residuals) - len(samples)
    kruskal = stats.kruskal(*samples)
    return OneWay(
        f=float(f),
        p=float(p),
        df=(between, within),
        eta_squared=float(f * between / (f * between + within)),
        shapiro_p=_shapiro_p(residuals),
        levene_p=_levene_p(samples),
        kruskal_h=float(kruskal.statistic),
        kruskal_p=float(kruskal.pvalue),
        tukey=_tukey(samples, residuals) if pairs else (),
    )


def _tukey(samples: Sequence[Array], residuals: Array) -> tuple[Comparison, ...]:
    """Honestly significant differences of all pairs, with Kramer's errors (Kramer, Biometrics 12, 1956).

    As `scipy.stats.tukey_hsd`, which works out every pair twice: minutes for fifty contestants.
    """
    first, second = np.triu_indices(len(samples), k=1)
    sizes, means = (np.array([statistic(sample) for sample in samples]) for statistic in (len, np.mean))
    freedom = len(residuals) - len(samples)
    variance = (residuals**2).sum() / freedom
    error = np.sqrt(variance / 2 * (1 / sizes[first] + 1 / sizes[second]))
    difference = means[second] - means[first]
    p = stats.studentized_range.sf(np.abs(difference) / error, len(samples), freedom)
    width = stats.studentized_range.ppf(LEVEL, len(samples), freedom) * error
    columns = (first, second, difference, difference - width, difference + width, p)
    return tuple(
        Comparison(int(i), int(j), Interval(value, low, high), chance)
        for i, j, value, low, high, chance in np.transpose(columns).tolist()
    )


def friedman_p(values: ArrayLike) -> float:
    """p of Friedman's test on (E, k): k >= 3 contestants on the same E episodes. 1 where no episode tells them apart.

    The rank test for paired groups; it assumes independent episodes.
    """
    table = np.asarray(values, dtype=np.float64)
    if (table == table[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*table.T).pvalue)


class Effect(NamedTuple):
    """A row of an analysis of variance."""

    sum_of_squares: float
    df: int
    f: float
    p: float
    eta_squared: float


@dataclass(frozen=True)
class TwoWay:
    """A two-way analysis of variance with interaction, its assumptions, and Kruskal-Wallis over all cells."""

    first: Effect
    second: Effect
    interaction: Effect
    residual_df: int
    shapiro_p: float
    levene_p: float
    kruskal_p: float


def two_way_anova(values: ArrayLike) -> TwoWay:
    """Do two factors act, and does one change what the other does? Values (A, B, n): n >= 2 for each pair of levels.

    E.g. architecture by prediction. Balanced, so all types of sums of squares agree (Montgomery, Design and Analysis of
    Experiments, §5.3). Assumes what `one_way_anova` does of the A·B cells. Needs statsmodels (extra ``statistics``).
    """
    require_statsmodels()
    from pandas import DataFrame
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    table = np.asarray(values, dtype=np.float64)
    cells = list(table.reshape(-1, table.shape[2]))
    residuals = _residuals(cells)
    a, b, _ = (axis.ravel() for axis in np.indices(table.shape))
    model = ols("value ~ C(a) * C(b)", DataFrame({"value": table.ravel(), "a": a, "b": b})).fit()
    rows = anova_lm(model, typ=2)
    total = float(rows["sum_sq"].sum())
    effects = rows.loc[["C(a)", "C(b)", "C(a):C(b)"], ["sum_sq", "df", "F", "PR(>F)"]].to_numpy(dtype=np.float64)
    first, second, interaction = (
        Effect(squares, int(df), f, p, squares / total) for squares, df, f, p in effects.tolist()
    )
    return TwoWay(
        first,
        second,
        interaction,
        residual_df=int(model.df_resid),
        shapiro_p=_shapiro_p(residuals),
        levene_p=_levene_p(cells),
        kruskal_p=float(stats.kruskal(*cells).pvalue),
    )


def require_statsmodels() -> None:
    """Raise DpemError unless the library for two-way analyses is installed."""
    try:
        import statsmodels  # noqa: F401
    except ImportError:
        raise DpemError("two-way ANOVA needs statsmodels: pip install 'dpem-env[statistics]'") from None


class Regression(NamedTuple):
    """A fitted line, what it assumes, checked, and Spearman's rank correlation beside it."""

    slope: Interval
    intercept: float
    r_squared: float
    p: float  # of slope 0
    shapiro_p: float
    levene_p: float
    spearman: float
    spearman_p: float


def regression(x: ArrayLike, y: ArrayLike) -> Regression:
    """Least-squares line of y (n,) on x (n,), e.g. delivery on network size: n independent episodes, several at each x.

    Assumes normal residuals of equal variance; Levene compares the groups of equal x. Slope: Student's t, n - 2.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    line = stats.linregress(x, y)
    width = stats.t.ppf(0.5 + LEVEL / 2, len(x) - 2) * line.stderr
    ranks = stats.spearmanr(x, y)
    groups = [y[x == level] for level in np.unique(x)]
    return Regression(
        slope=Interval(float(line.slope), float(line.slope - width), float(line.slope + width)),
        intercept=float(line.intercept),
        r_squared=float(line.rvalue**2),
        p=float(line.pvalue),
        shapiro_p=_shapiro_p(y - line.slope * x - line.intercept),
        levene_p=_levene_p([group for group in groups if len(group) > 1]),
        spearman=float(ranks.statistic),
        spearman_p=float(ranks.pvalue),
    )


def _residuals(groups: Sequence[Array]) -> Array:
    if len(groups) < 2 or min(len(group) for group in groups) < 2:
        raise ValueError("expected at least 2 groups of at least 2 values")
    residuals = np.concatenate([group - group.mean() for group in groups])
    if np.ptp(residuals) <= 1e-12 * np.abs(np.concatenate(groups)).max():
        raise ValueError("expected groups that vary within")
    return residuals


def _shapiro_p(residuals: Array) -> float:
    return float(stats.shapiro(residuals).pvalue)


def _levene_p(groups: Sequence[Array]) -> float:
    return float(stats.levene(*groups, center="median").pvalue)
