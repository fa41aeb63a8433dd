"""A budget of contention: the penalty that training charges follows it, also over an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ppo_models import settings

from dpem_agents.federation import Federation
from dpem_agents.ppo.budget import LARGEST, STEP, next_multiplier
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.training import train
from dpem_agents.ppo.vec_env import NodeVecEnv
from dpem_env import scenarios
from dpem_env.support.errors import DpemError

STAR = scenarios.get("star8-v0", slots=40)
NEVER, ALWAYS = 1e-9, 1.0  # contention of a training is above the one, and below the other
QUICK = Hyperparameters(networks=2, slots=32, minibatches=3, epochs=1, hidden=8)
ROLLOUT = 2 * 32 * 8


def trained(out: Path, budget: float, rollouts: int = 4, **arguments: Any) -> Checkpoint:
    chosen = replace(QUICK, contention_budget=budget)
    known = {"hyperparameters": chosen, "validation_episodes": 0, "show_progress": False}
    return load(train(STAR, "shared", rollouts * ROLLOUT, out, **known | arguments), training=True)


def test_steps_are_relative_to_the_budget_and_bounded() -> None:
    assert next_multiplier(3.0, 0.002, 0.002) == 3.0
    assert next_multiplier(3.0, 0.003, 0.002) == pytest.approx(3.0 * np.exp(STEP / 2))
    assert next_multiplier(3.0, 0.001, 0.002) == pytest.approx(3.0 * np.exp(-STEP / 2))
    assert next_multiplier(3.0, 1.0, 0.002) == pytest.approx(3.0 * np.exp(STEP))
    assert next_multiplier(LARGEST, 1.0, 0.002) == LARGEST
    assert next_multiplier(1.0 / LARGEST, 0.0, 0.002) == 1.0 / LARGEST


@pytest.mark.parametrize(("budget", "way"), [(NEVER, 1), (ALWAYS, -1)], ids=["above", "below"])
def test_the_penalty_rises_above_the_budget_and_falls_below(
    budget: float, way: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = []
    usual = NodeVecEnv.step_wait
    monkeypatch.setattr(NodeVecEnv, "step_wait", lambda self: charged.append(self.penalty_share) or usual(self))
    last = trained(tmp_path, budget).about["penalty_multiplier"]
    multipliers = [*np.array(charged[::32]) / [QUICK.penalty_share(done / 4) for done in range(4)], last]
    assert multipliers[0] == 1.0
    assert (way * np.diff(multipliers) > 0).all()
    assert "penalty_multiplier" not in trained(tmp_path / "none", 0.0).about


def test_the_contention_of_a_rollout_is_that_of_all_its_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 rollouts of 32 slots are 4 episodes of 40.
    seen, finished = [], []
    monkeypatch.setattr(
        "dpem_agents.ppo.learner.next_multiplier", lambda _, contention, __: seen.append(contention) or 1
    )
    usual = NodeVecEnv.step_wait

    def step_wait(self: NodeVecEnv) -> Any:
        returned = usual(self)
        if returned[2].all():
            finished.append(self.finished["contention"])
        return returned

    monkeypatch.setattr(NodeVecEnv, "step_wait", step_wait)
    trained(tmp_path, NEVER, rollouts=5)
    assert (len(seen), len(finished)) == (5, 4)
    assert np.mean(seen) == pytest.approx(np.mean(finished), rel=1e-9)
    assert min(seen) > 0.0


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = trained(tmp_path / "straight", 0.02, rollouts=5)
    usual, played = NodeVecEnv.step_wait, [0]

    def interrupted(self: NodeVecEnv) -> Any:
        played[0] += 1
        if played[0] == 3 * 32 + 17:
            raise KeyboardInterrupt
        return usual(self)

    monkeypatch.setattr(NodeVecEnv, "step_wait", interrupted)
    with pytest.raises(KeyboardInterrupt, match="interrupted after"):
        trained(tmp_path / "stopped", 0.02, rollouts=5)
    monkeypatch.setattr(NodeVecEnv, "step_wait", usual)
    assert load(tmp_path / "stopped").about["penalty_multiplier"] not in (1.0, straight.about["penalty_multiplier"])
    resumed = trained(tmp_path / "stopped", 0.02, rollouts=5)
    assert resumed.about["penalty_multiplier"] == straight.about["penalty_multiplier"]
    for name, array in straight.arrays.items():
        assert np.array_equal(array, resumed.arrays[name]), name


def test_what_a_budget_contradicts_is_told_in_one_line(tmp_path: Path) -> None:
    told = r"contention_budget is 0\.001, and penalties are \[0\.1, 1\.0\]: .* give one of the two$"
    with pytest.raises(DpemError, match=told):
        Hyperparameters(contention_budget=0.001, penalties=(0.1, 1.0))
    with pytest.raises(DpemError, match=r"contention_budget is 1\.5; expected a number from 0 to 1$"):
        Hyperparameters(contention_budget=1.5)
    with pytest.raises(DpemError, match=r"of mode .federated. share .*: leave contention_budget out$"):
        replace(settings(STAR, "shared", contention_budget=0.1), mode="federated", federation=Federation())
    free = scenarios.get("star8-v0", contention_penalty=0.0)
    with pytest.raises(DpemError, match=r"which is 0 in star8-v0.*: set contention_penalty to where training"):
        train(free, "shared", 100, tmp_path / "new", hyperparameters=replace(QUICK, contention_budget=0.1))
    assert not (tmp_path / "new").exists()
