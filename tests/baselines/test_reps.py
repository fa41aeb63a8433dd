"""REPS: progressive rounding."""

from __future__ import annotations

import numpy as np
import pytest
from planners import choice

from dpem_baselines import reps
from dpem_baselines.linear_program import CentralLP, solve
from dpem_baselines.reps import Reps

# Any two of the first three share a resource, so that half of each is the relaxed optimum; the fourth asks only for
# what the first leaves, and has no share in that optimum.
WORTH = [1.01, 1.0, 1.0, 0.2]
LIMITS = [[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]
CAPACITY = [1.0, 1.0, 1.0]


def test_what_a_rounded_share_leaves_is_planned_anew() -> None:
    assert choice(CentralLP(), WORTH, LIMITS, CAPACITY) == [0]
    assert choice(Reps(), WORTH, LIMITS, CAPACITY) == [0, 3]


def test_one_program_is_rounded_as_by_central_lp() -> None:
    assert choice(Reps(solves=1), WORTH, LIMITS, CAPACITY) == [0]


def test_no_more_programs_are_solved_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(reps, "solve", lambda worth, *rest: calls.append(1) or np.full(len(worth), 0.5))
    # Ten allocations one after the other would take ten programs.
    assert choice(Reps(solves=4), [1.0] * 10, [[1.0] * 10], [6.0]) == [0, 1, 2, 3, 4, 5]
    assert len(calls) == 4


def test_an_optimum_in_whole_shares_is_not_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    monkeypatch.setattr(reps, "solve", lambda worth, limits: solved.append(solve(worth, limits)) or solved[-1])
    assert sorted(choice(Reps(), [0.9, 0.6, 0.6, 0.1], [[1, 1, 0, 1], [1, 0, 1, 0]], [1.0, 1.0])) == [1, 2]
    assert len(solved) == 1
    choice(Reps(), WORTH, LIMITS, CAPACITY)
    assert len(solved) == 3


@pytest.mark.parametrize("seed", range(6))
def test_progressive_rounding_keeps_to_capacity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth, limits, capacity = rng.random(12), rng.random((4, 12)), 1.0 + 2.0 * rng.random(4)
    chosen = choice(Reps(), worth.tolist(), limits.tolist(), capacity.tolist())
    assert len(set(chosen)) == len(chosen) > 0
    assert (limits[:, chosen].sum(axis=1) <= capacity + 1e-9).all()
