"""The path LP: its optimum, and its rounding."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from planners import choice, limits_of

from dpem_baselines.linear_program import CentralLP, solve


def best_vertex(worth: NDArray[Any], limits: NDArray[Any], capacity: NDArray[Any]) -> float:
    """The optimum by brute force: it lies where as many constraints as there are variables hold with equality."""
    size = len(worth)
    rows = np.vstack((limits, np.eye(size), -np.eye(size)))
    whole = (limits <= capacity[:, None]).all(axis=0)  # what does not fit whole is not made in part
    most = np.concatenate((capacity, whole, np.zeros(size)))
    best = 0.0
    for chosen in combinations(range(len(rows)), size):
        corner = rows[list(chosen)]
        if abs(np.linalg.det(corner)) > 1e-9:
            point = np.linalg.solve(corner, most[list(chosen)])
            if (rows @ point <= most + 1e-9).all():
                best = max(best, float(worth @ point))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_objective_is_the_brute_force_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth, limits, capacity = rng.random(4), rng.random((3, 4)) * (rng.random((3, 4)) < 0.7), 0.5 + rng.random(3)
    share = solve(worth, limits_of(limits, capacity))
    assert (limits @ share <= capacity + 1e-9).all()
    assert worth @ share == pytest.approx(best_vertex(worth, limits, capacity))


def test_two_that_fit_together_beat_the_best_one() -> None:
    assert sorted(choice(CentralLP(), [0.9, 0.6, 0.6], [[1, 1, 0], [1, 0, 1]], [1.0, 1.0])) == [1, 2]


def test_the_largest_share_is_rounded_up_first_and_nothing_beyond_capacity() -> None:
    # The optimum is (1, 2/3, 0): the second does not fit whole, and the third has no share.
    assert choice(CentralLP(), [1.0, 0.8, 0.1], [[1.0, 1.5, 1.0]], [2.0]) == [0]
    # The optimum is (1/2, 1): the second has the larger share.
    assert choice(CentralLP(), [1.0, 0.9], [[2.0, 1.0]], [2.0]) == [1]


def test_what_does_not_fit_whole_takes_no_share_from_what_does() -> None:
    # With shares of it, the optimum would be (5/8, 0), and nothing would be made.
    assert choice(CentralLP(), [9.0, 1.0], [[4.0, 2.0]], [2.5]) == [1]


def test_no_candidates_make_an_empty_plan() -> None:
    assert choice(CentralLP(), [], np.zeros((3, 0)).tolist(), [1.0, 1.0, 1.0]) == []
