"""What must hold whoever wins: comparisons on paired validation episodes, decided by 95 % confidence intervals."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.statistics import Interval, paired_difference

# As found by dpem tune on mesh100-v0.
LOCAL = PolicySpec("maxweight", options=(("link_price", 0.06), ("load_price", 0.4), ("lookahead", 4)))
CENTRAL = PolicySpec(
    "central-maxweight", 0.0, options=(("link_price", 0.05), ("load_price", 0.6), ("utilisation_limit", 0.1))
)


@cache
def played(policy: PolicySpec, episodes: int = 8, *, forecaster: Any = None, **overrides: Any) -> list[EpisodeMetrics]:
    """Metrics of mesh100's first validation episodes."""
    scenario = scenarios.get("mesh100-v0", **overrides)
    return [
        run_episode(
            scenario,
            policy.make(),
            episode_seeds(scenario, "validation", index),
            delay=policy.delay or 0.0,
            forecaster=forecaster or policy.forecaster,
        )[0]
        for index in range(episodes)
    ]


def difference(ours: list[EpisodeMetrics], theirs: list[EpisodeMetrics], metric: str = "delivery_rate") -> Interval:
    """Mean paired difference with its interval."""
    rows = [[getattr(episode, metric) for episode in each] for each in (ours, theirs)]
    return paired_difference(rows[:1], rows[1:], np.random.default_rng(0))


@pytest.mark.slow
def test_without_delay_the_best_central_policy_is_not_below_the_best_local_one() -> None:
    assert difference(played(CENTRAL), played(LOCAL)).low > -0.02


@pytest.mark.slow
def test_delay_costs_the_central_scheduler() -> None:
    at_once, later, latest = (played(PolicySpec("central-reactive", delay)) for delay in (0.0, 0.5, 2.0))
    assert difference(later, at_once).high < 0
    assert difference(latest, later).high < 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["local-predictive", "maxweight"])
@pytest.mark.parametrize("forecaster", ["persistence", "moving-average"])
def test_on_unpredictable_demand_no_forecaster_beats_the_true_mean_rates(rule: str, forecaster: Any) -> None:
    scores = [played(PolicySpec(rule), forecaster=each, predictability=0.0) for each in (forecaster, "mean-rates")]
    assert difference(*scores, "reward").low <= 0


@pytest.mark.slow
def test_on_predictable_demand_the_true_rates_do_beat_them() -> None:
    scores = [played(PolicySpec("local-predictive"), forecaster=each) for each in ("oracle", "mean-rates")]
    assert difference(*scores).low > 0


@pytest.mark.slow
def test_with_load_deliveries_and_contention_rise_while_the_delivery_rate_falls() -> None:
    for lighter, heavier in ((3.125, 6.25), (6.25, 12.5)):
        few, many = (played(PolicySpec("local-reactive"), request_rate=rate) for rate in (lighter, heavier))
        assert difference(many, few, "delivered").low > 0
        assert difference(many, few, "contention").low > 0
        assert difference(many, few).high < 0
