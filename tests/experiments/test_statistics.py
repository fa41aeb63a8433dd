"""Statistics: known values, textbook examples, and intervals that cover what they should as often as they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dpem_env.experiments.anova import friedman_p, one_way_anova, regression, two_way_anova
from dpem_env.experiments.statistics import (
    Interval,
    cohens_d_paired,
    crossed_bootstrap,
    interquartile_mean,
    mean,
    mean_interval,
    normalized_score,
    paired_difference,
    probability_of_improvement,
    relative_difference,
    stratified_bootstrap,
    wilcoxon_p,
)
from dpem_env.support.errors import DpemError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 3.0, 2.0, 4.0, 5.0, 6.0, -50.0])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([9.0, 1.0, 2.0])) == 4.0  # ⌊3/4⌋ = 0: nothing is cut
    rows = np.array([[0.0, 1.0, 2.0, 9.0], [1.0, 1.0, 3.0, 3.0]])
    assert interquartile_mean(rows).tolist() == [1.5, 2.0]


def test_an_interval_is_clear_of_zero_on_either_side_only() -> None:
    assert Interval(1.0, 0.5, 1.5).clear_of_zero
    assert Interval(-1.0, -1.5, -0.5).clear_of_zero
    assert not Interval(0.2, -0.1, 0.5).clear_of_zero
    assert not Interval(0.0, 0.0, 0.0).clear_of_zero
    assert not Interval(1.0, math.nan, math.nan).clear_of_zero


def test_one_checkpoints_mean_has_students_interval(rng: np.random.Generator) -> None:
    # Student's t for 2 degrees of freedom at 97.5 %: 4.302653 (any table).
    value, low, high = mean_interval([[1.0, 2.0, 3.0]], rng)
    assert value == 2.0
    assert (high - value, value - low) == pytest.approx([4.302653 / math.sqrt(3)] * 2, rel=1e-6)


def test_one_value_has_no_interval(rng: np.random.Generator) -> None:
    one = np.array([[0.5]])
    for interval in (
        mean_interval(one, rng),
        crossed_bootstrap(one, interquartile_mean, rng),
        paired_difference(one, one, rng),
        probability_of_improvement(one, one, rng),
    ):
        assert math.isfinite(interval.value)
        assert math.isnan(interval.low)
        assert not interval.clear_of_zero


@pytest.mark.parametrize("values", [[1.0, 2.0], [[1.0, math.nan]], np.empty((0, 3))])
def test_what_is_no_table_of_finite_values_is_refused(rng: np.random.Generator, values: Any) -> None:
    with pytest.raises(ValueError, match="expected a table of finite values"):
        crossed_bootstrap(values, mean, rng)


def test_pairs_need_the_same_evaluation_seeds(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="expected the same evaluation seeds, given 3 and 2"):
        paired_difference(np.ones((2, 3)), np.ones((2, 2)), rng)


def test_a_seed_resampled_takes_all_its_values_along(rng: np.random.Generator) -> None:
    """Values that depend on the training seed alone vary with the number of training seeds, not of episodes."""
    by_checkpoint = np.repeat([[0.0], [1.0], [2.0], [3.0]], 50, axis=1)
    _, low, high = crossed_bootstrap(by_checkpoint, mean, rng, resamples=20_000)
    spread = 1.96 * np.std([0, 1, 2, 3]) / math.sqrt(4)
    assert (low, high) == pytest.approx((1.5 - spread, 1.5 + spread), abs=0.15)
    _, low, high = crossed_bootstrap(by_checkpoint.T, mean, rng, resamples=20_000)
    assert (low, high) == pytest.approx((1.5 - spread, 1.5 + spread), abs=0.15)


def test_strata_played_with_the_same_seeds_are_kept_together(rng: np.random.Generator) -> None:
    # A stratum and its mirror image: every episode adds up to 1, so the mean cannot vary.
    values = rng.random(20)
    _, low, high = crossed_bootstrap(np.stack([values, 1 - values], axis=-1)[None], mean, rng)
    assert (low, high) == pytest.approx((0.5, 0.5), abs=1e-12)
    _, low, high = stratified_bootstrap(np.stack([values, 1 - values], axis=-1), mean, rng)
    assert high - low > 0.05


def test_strata_are_never_mixed(rng: np.random.Generator) -> None:
    strata = np.repeat([[0.0, 10.0, 20.0]], 5, axis=0)
    assert stratified_bootstrap(strata, mean, rng) == (10.0, 10.0, 10.0)


def _crossed(rng: np.random.Generator, training: int, evaluation: int) -> np.ndarray:
    """Values of mean 0 with a random effect of either seed and noise."""
    checkpoint, episode = rng.normal(size=(training, 1)), rng.normal(size=(1, evaluation))
    return checkpoint + episode + rng.normal(size=(training, evaluation))


def _coverage(interval_of: Any, draw: Any, truth: float = 0.0, repeats: int = 300) -> float:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(repeats):
        _, low, high = interval_of(draw(rng), rng)
        hits += low <= truth <= high
    return hits / repeats


def test_crossed_intervals_cover_the_mean_and_naive_ones_do_not() -> None:
    def crossed(values: np.ndarray, rng: np.random.Generator) -> Interval:
        return crossed_bootstrap(values, mean, rng, resamples=400)

    def naive(values: np.ndarray, rng: np.random.Generator) -> Interval:
        return crossed_bootstrap(values.reshape(1, -1), mean, rng, resamples=400)  # every episode an independent draw

    def draw(rng: np.random.Generator) -> np.ndarray:
        return _crossed(rng, 15, 30)

    assert 0.88 <= _coverage(crossed, draw) <= 0.99
    assert _coverage(naive, draw) < 0.6


def test_intervals_of_the_interquartile_mean_cover_it() -> None:
    def interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
        return crossed_bootstrap(values, interquartile_mean, rng, resamples=400)

    assert 0.88 <= _coverage(interval, lambda rng: _crossed(rng, 15, 30)) <= 0.99


def test_stratified_intervals_cover_the_mean_of_independent_runs() -> None:
    def interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
        return stratified_bootstrap(values, mean, rng, resamples=400)

    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal([0.0, 5.0, -5.0], [1.0, 2.0, 0.5], size=(20, 3))

    assert 0.9 <= _coverage(interval, draw) <= 0.98


def test_paired_intervals_cover_the_difference_of_two_trained_policies() -> None:
    def interval(values: Any, rng: np.random.Generator) -> Interval:
        return paired_difference(*values, rng, resamples=400)

    def draw(rng: np.random.Generator) -> Any:
        episodes = 10 * rng.normal(size=(1, 30))
        ours, theirs = (_crossed(rng, seeds, 30) + episodes for seeds in (15, 12))
        return ours + 1.0, theirs

    assert 0.88 <= _coverage(interval, draw, truth=1.0) <= 0.99


def test_paired_intervals_cover_the_difference_of_two_rules() -> None:
    def draw(rng: np.random.Generator) -> Any:
        episodes = 10 * rng.normal(size=(1, 5))
        return episodes + rng.normal(1.0, 1.0, size=(1, 5)), episodes

    assert 0.92 <= _coverage(lambda values, rng: paired_difference(*values, rng), draw, truth=1.0) <= 0.98


def test_pairing_takes_out_what_episodes_share(rng: np.random.Generator) -> None:
    episodes = 100 * rng.normal(size=(1, 40))
    ours = episodes + 0.5 + 0.1 * rng.normal(size=(1, 40))
    assert paired_difference(ours, episodes, rng).clear_of_zero
    several = np.repeat(episodes, 3, axis=0)
    value, low, high = paired_difference(several + 0.5, several, rng)
    assert (value, low, high) == pytest.approx((0.5, 0.5, 0.5))


def test_training_seeds_of_two_policies_are_not_pairs(rng: np.random.Generator) -> None:
    """A lucky numbering of the training seeds must not make a difference look certain."""
    checkpoints = np.repeat(rng.normal(size=(10, 1)), 20, axis=1)
    value, low, high = paired_difference(checkpoints + 0.1, checkpoints, rng)
    assert value == pytest.approx(0.1)
    assert low < 0 < high


def test_a_relative_difference_is_one_of_means(rng: np.random.Generator) -> None:
    ours, theirs = np.array([[5.0, 1.0, 4.0]]), np.array([[4.0, 1.0, 3.0]])
    value, low, high = relative_difference(ours, theirs, rng)
    assert value == pytest.approx(10 / 8 - 1)
    assert 0.0 <= low < value < high <= 4 / 3 - 1 + 1e-12
    assert all(math.isnan(x) for x in relative_difference(ours, np.zeros((1, 3)), rng))


def test_the_probability_of_improvement_counts_episodes_and_halves_ties(rng: np.random.Generator) -> None:
    ours, theirs = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 2.0, 5.0, 1.0]])
    assert probability_of_improvement(ours, theirs, rng).value == (1 + 0.5 + 0 + 1) / 4
    assert probability_of_improvement(ours + 9, theirs, rng) == (1.0, 1.0, 1.0)


def test_the_probability_of_improvement_compares_every_checkpoint_with_every_other(rng: np.random.Generator) -> None:
    ours, theirs = np.array([[1.0], [3.0]]), np.array([[0.0], [2.0], [4.0]])
    by_hand = stats.mannwhitneyu(ours[:, 0], theirs[:, 0]).statistic / 6
    assert probability_of_improvement(ours, theirs, rng).value == pytest.approx(by_hand) == 0.5


def test_effect_and_rank_test_of_paired_differences() -> None:
    theirs = np.zeros((1, 5))
    ours = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert cohens_d_paired(ours, theirs) == pytest.approx(3.0 / math.sqrt(2.5))
    assert wilcoxon_p(ours, theirs) == pytest.approx(2 / 2**5)  # exact: both all-positive and all-negative ranks
    assert math.isnan(cohens_d_paired(theirs, theirs))
    assert wilcoxon_p(theirs, theirs) == 1.0


def test_scores_are_between_acting_at_random_and_the_bound() -> None:
    assert normalized_score([0.2, 0.6, 0.5], 0.2, [1.0, 1.0, 0.8]) == pytest.approx([0.0, 0.5, 0.5])
    assert math.isnan(normalized_score([0.5], [0.3], [0.3])[0])


# Montgomery, Design and Analysis of Experiments, 8th ed., Table 3.1 (plasma etching) and Table 3.4.
ETCHING = (
    [575, 542, 530, 539, 570],
    [565, 593, 590, 579, 610],
    [600, 651, 610, 637, 629],
    [725, 700, 715, 685, 710],
)


def test_one_way_analysis_of_a_textbook_example() -> None:
    result = one_way_anova(ETCHING)
    assert result.f == pytest.approx(66.80, abs=0.005)
    assert result.df == (3, 16)
    assert result.eta_squared == pytest.approx(66870.55 / 72209.75, abs=1e-6)
    assert result.p < 1e-8
    assert result.shapiro_p > 0.1
    assert result.levene_p > 0.1
    # Example 3.11 of the book: H = 16.91.
    assert result.kruskal_h == pytest.approx(16.91, abs=0.005)


def test_tukey_compares_all_pairs_of_a_textbook_example() -> None:
    comparisons = one_way_anova(ETCHING).tukey
    assert [(pair.first, pair.second) for pair in comparisons] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    # Montgomery, Example 3.7: critical difference 33.09; means 551.2, 587.4, 625.4, 707.0.
    means = np.mean(ETCHING, axis=1)
    for first, second, difference, p in comparisons:
        assert difference.value == pytest.approx(means[second] - means[first])
        assert (difference.high - difference.low) / 2 == pytest.approx(33.09, abs=0.05)
        assert difference.clear_of_zero
        assert p < 0.05
    alike = one_way_anova([ETCHING[0], [*ETCHING[0][1:], 580]]).tukey[0]
    assert not alike.difference.clear_of_zero
    assert alike.p > 0.05


# Montgomery, Table 5.1: life of batteries, 3 materials at 15, 70 and 125 °F, 4 of each.
BATTERIES = np.array(
    [
        [[130, 155, 74, 180], [34, 40, 80, 75], [20, 70, 82, 58]],
        [[150, 188, 159, 126], [136, 122, 106, 115], [25, 70, 58, 45]],
        [[138, 110, 168, 160], [174, 120, 150, 139], [96, 104, 82, 60]],
    ],
    dtype=float,
)


def test_two_way_analysis_of_a_textbook_example() -> None:
    pytest.importorskip("statsmodels", reason="needs the extra statistics")
    result = two_way_anova(BATTERIES)
    assert result.first.sum_of_squares == pytest.approx(10_683.72, abs=0.005)
    assert result.second.sum_of_squares == pytest.approx(39_118.72, abs=0.005)
    assert result.interaction.sum_of_squares == pytest.approx(9_613.78, abs=0.005)
    assert (result.first.f, result.second.f, result.interaction.f) == pytest.approx((7.91, 28.97, 3.56), abs=0.005)
    assert (result.first.df, result.second.df, result.interaction.df, result.residual_df) == (2, 2, 4, 27)
    assert result.interaction.p == pytest.approx(0.0186, abs=0.00005)
    assert result.second.eta_squared == pytest.approx(39_118.72 / 77_646.97, abs=1e-6)
    assert result.shapiro_p > 0.1
    assert result.levene_p > 0.1


def test_a_two_way_analysis_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "statsmodels", None)
    with pytest.raises(DpemError, match=r"pip install 'dpem-env\[statistics\]'"):
        two_way_anova(BATTERIES)


@pytest.mark.parametrize("groups", [[[1.0, 2.0]], [[1.0, 2.0], [3.0]], [[0.1] * 3, [0.3] * 3]])
def test_groups_that_cannot_be_analysed_are_refused(groups: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        one_way_anova(groups)


def test_assumptions_that_do_not_hold_are_seen(rng: np.random.Generator) -> None:
    skewed = one_way_anova([rng.exponential(size=50), rng.exponential(size=50)])
    assert skewed.shapiro_p < 0.001
    uneven = one_way_anova([rng.normal(0, 1, 50), rng.normal(0, 5, 50)])
    assert uneven.levene_p < 0.001


def test_friedmans_test_ranks_within_episodes() -> None:
    # Every episode ranks three arms alike: chi² = 12·n·Σ(R - 2)²/(3·4) = 2n; p = exp(-n) for 2 degrees of freedom.
    values = np.array([10.0, -5.0, 3.0, 80.0])[:, None] + [0.0, 0.1, 0.2]
    assert friedman_p(values) == pytest.approx(math.exp(-4))
    assert friedman_p(np.ones((4, 3))) == 1.0


def test_a_line_is_fitted_and_its_assumptions_checked() -> None:
    # Anscombe's first set (American Statistician 27, 1973): y = 3.00 + 0.500 x, R² = 0.667, se of slope 0.118.
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    line = regression(x * 3, [v + shift for shift in (-0.01, 0.0, 0.01) for v in y])
    assert line.slope.value == pytest.approx(0.500, abs=0.001)
    assert line.intercept == pytest.approx(3.00, abs=0.01)
    assert line.r_squared == pytest.approx(0.667, abs=0.001)
    assert line.slope.low == pytest.approx(0.500 - 2.0395 * 0.118 * math.sqrt(9 / 31), abs=0.001)
    assert line.spearman == pytest.approx(0.818, abs=0.02)
    assert line.levene_p == pytest.approx(1.0)  # the same spread at every x
