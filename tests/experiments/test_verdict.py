"""The paper's claim as four tests: they hold where the claim is built in, and fail, for the right rival, where not."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_env.experiments.fronts import Points
from dpem_env.experiments.verdict import Rivals, holm, verdict

LEVELS = (0.001, 0.002, 0.003)
RIVALS = Rivals(["late"], ["late, predictive"], ["at once"], ["rule"])
EPISODES = 30


def front(*points: tuple[float, float], noise: int = 0) -> Points:
    """Points of (contention, delivery), alike on 30 networks but for a little noise."""
    rng = np.random.default_rng(noise)
    contention = np.array([[[c] * EPISODES] for c, _ in points]) * rng.normal(1.0, 0.02, EPISODES)
    delivery = np.array([[[d] * EPISODES] for _, d in points]) * rng.normal(1.0, 0.005, EPISODES)
    return Points(contention, delivery)


def played(**changed: Points) -> dict[str, Points]:
    held = {
        "ours": front((0.001, 0.48), (0.003, 0.50), noise=1),
        "late": front((0.002, 0.36), (0.004, 0.37), noise=2),
        "late, predictive": front((0.003, 0.42), noise=3),
        "at once": front((0.001, 0.48), (0.003, 0.50), noise=4),
        "rule": front((0.001, 0.45), (0.003, 0.47), noise=5),
    }
    return held | changed


def test_all_four_hold_where_they_are_built_in() -> None:
    parts = verdict(played(), "ours", 0, RIVALS, LEVELS, np.random.default_rng(0))
    assert [part.holds for part in parts] == [True] * 4
    assert parts[0].against == "late"
    assert parts[0].estimate.startswith("1.30, 0.")  # beside (0.004, 0.37), or (0.002, 0.36): 1.33, 0.50
    assert max(part.p for part in parts) <= max(part.adjusted for part in parts) < 0.01


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({"late": front((0.0005, 0.36), (0.004, 0.37))}, 0),  # one point contends for less
        ({"late": front((0.002, 0.36), (0.004, 0.40))}, 0),  # one point delivers more
        ({"late, predictive": front((0.003, 0.46))}, 1),
        ({"at once": front((0.001, 0.48), (0.003, 0.53))}, 2),
        ({"rule": front((0.001, 0.481), (0.003, 0.501), noise=1)}, 3),
    ],
)
def test_one_of_them_fails_where_a_rival_is_too_good(change: dict[str, Points], fails: int) -> None:
    parts = verdict(played(**change), "ours", 0, RIVALS, LEVELS, np.random.default_rng(0))
    assert [part.holds for part in parts] == [place != fails for place in range(4)]
    assert parts[fails].adjusted > 0.5


def test_points_that_deliver_little_are_no_rivals() -> None:
    hardly = played(late=front((0.0001, 0.30), (0.004, 0.37)))
    assert verdict(hardly, "ours", 0, RIVALS, LEVELS, np.random.default_rng(0))[0].holds


def test_a_rival_without_contention_cannot_be_undercut() -> None:
    never = played(late=front((0.0, 0.37)))
    assert not verdict(never, "ours", 0, RIVALS, LEVELS, np.random.default_rng(0))[0].holds


@pytest.mark.filterwarnings("error")
def test_predictive_control_without_contention_cannot_be_surpassed() -> None:
    never = verdict(
        played(**{"late, predictive": front((0.0, 0.30))}), "ours", 0, RIVALS, LEVELS, np.random.default_rng(0)
    )
    assert never[1].p == 1.0


def test_holm_adjusts_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
