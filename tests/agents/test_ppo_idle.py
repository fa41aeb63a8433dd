"""Rows that decide nothing: who they are, what is learned without them, and that nothing else is learned otherwise."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ppo_models import checkpoint_of, draw_weights, drawn_checkpoint, learner, masked_ppo
from stable_baselines3.common.callbacks import BaseCallback

from dpem_agents.ppo.checkpoint import Checkpoint
from dpem_agents.ppo.decision_ppo import normalised
from dpem_agents.ppo.idle import deciding
from dpem_agents.ppo.layout import OWN
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.rollout import Batch
from dpem_agents.ppo.stacked import StackedPolicy
from dpem_env import scenarios
from dpem_env.observations.features import FeatureTable
from dpem_env.simulator.actions import ActionCode

CHAIN = scenarios.get("chain3-v0", slots=24)
STAR = scenarios.get("star8-v0", slots=40)
NEVER = 1e6  # requests that nobody expects


class Nobody(BaseCallback):
    def _on_step(self) -> bool:
        return True


def collected(folder: Path, **changed: Any) -> Learner:
    """A learner with random weights that has played a rollout across the end of an episode."""
    made = learner(CHAIN, "shared", folder, forecaster="moving-average", **{"slots": 40} | changed)
    draw_weights(made, 0.3)
    _, callback = made.model._setup_learn(10_000, Nobody())
    made.model.collect_rollouts(made.env, callback, made.model.rollout_buffer, made.model.n_steps)
    return made


def row(**features: float) -> NDArray[np.float32]:
    """What a node sees that sees nothing but this of its second peer, in natural units."""
    table = FeatureTable(STAR)
    seen = np.zeros((1, table.width), dtype=np.float32)
    block = seen[0, OWN + table.peer_width : OWN + 2 * table.peer_width]
    for name, value in features.items():
        block[table.offset[name]] = value / table.scale[name]
    return seen


@pytest.mark.parametrize(
    ("idle_forecast", "features", "expected"),
    [
        (1.0, {}, False),
        (1.0, {"pending": 1, "slack": 4}, True),
        (1.0, {"pending": 1, "slack": 4, "open_allocations": 1}, False),
        (1.0, {"pending": 2, "slack": 4, "open_allocations": 1}, True),
        (1.0, {"pending": 1}, False),  # overdue, in the old view of a controller
        (1.0, {"forecast": 1.5}, True),
        (2.0, {"forecast": 1.5}, False),
        (NEVER, {"forecast": 4.0}, False),
        (NEVER, {"pending": 1, "slack": 4}, True),
        (0.0, {}, True),
    ],
)
def test_a_node_decides_if_it_has_somebody_to_serve_or_expects_enough(
    idle_forecast: float, features: dict[str, float], expected: bool
) -> None:
    seen = FeatureTable(STAR).read(row(**features))
    masks = np.ones((1, ActionCode.of(STAR).num_actions), dtype=np.int8)
    assert deciding(idle_forecast, seen, masks).tolist() == [expected]
    masks[:, 1:] = 0  # nothing but waiting is legal
    assert deciding(idle_forecast, seen, masks).tolist() == [idle_forecast == 0.0]


def test_idle_rows_wait_in_training_in_the_library_and_in_play(tmp_path: Path) -> None:
    made = collected(tmp_path, idle_forecast=NEVER, warm_start="none")
    table, masks = FeatureTable(CHAIN), made.env.action_masks()
    policy, waited = PpoPolicy(checkpoint_of(made)), 0
    for _ in range(12):
        rows = made.model._last_obs
        decides = deciding(NEVER, table.read(rows), masks)
        action = made.model.predict(rows, deterministic=True, action_masks=masks)[0]
        assert not action[~decides].any()
        assert np.array_equal(policy.act(table.read(rows), masks).action, action)
        waited += int((masks[~decides, 1:] == 1).any(axis=1).sum())
        made.model._last_obs = made.env.step(action)[0]
        masks = made.env.action_masks()
    assert waited > 0


@pytest.mark.parametrize("idle_forecast", [0.0, 0.3, NEVER])
def test_returns_of_decisions_are_those_of_their_rows(idle_forecast: float, tmp_path: Path) -> None:
    made = collected(tmp_path, idle_forecast=idle_forecast)
    buffer, model = made.model.rollout_buffer, made.model
    last = model._values(model._last_obs)
    for env_row in range(made.env.num_envs):
        expected = advantages_of_a_row(buffer, env_row, float(last[env_row]))
        places = np.flatnonzero(buffer.rows == env_row)
        np.testing.assert_allclose(buffer.advantages[places], expected, atol=1e-5)
    np.testing.assert_allclose(buffer.returns, buffer.advantages + buffer.values)
    assert len(buffer.ends) == 1


def advantages_of_a_row(buffer: Any, env_row: int, last: float) -> list[float]:
    """By the definition, one decision after the other."""
    gamma, trace, slots = buffer.gamma, buffer.gae_lambda, buffer.pos
    of_slot = np.repeat(np.arange(slots), np.diff(buffer.began))
    here = np.flatnonzero(buffer.rows == env_row)
    deltas, factors = [], []
    for number, place in enumerate(here):
        start = int(of_slot[place])
        end = next((t for t in sorted(buffer.ends) if t >= start), slots)  # the last slot of the episode
        following = int(of_slot[here[number + 1]]) if number + 1 < len(here) else slots
        until, ahead, linked = following, last, 0.0
        if end < following:
            until, ahead = end + 1, float(buffer.ends[end][env_row])
        elif number + 1 < len(here):
            ahead, linked = float(buffer.values[here[number + 1]]), (gamma * trace) ** (following - start)
        reward = sum(gamma ** (t - start) * float(buffer.rewards[t, env_row]) for t in range(start, until))
        deltas.append(reward + gamma ** (until - start) * ahead - float(buffer.values[place]))
        factors.append(linked)
    advantages, later = [0.0] * len(here), 0.0
    for number in reversed(range(len(here))):
        later = advantages[number] = deltas[number] + factors[number] * later
    return advantages


def test_where_every_row_decides_it_is_masked_ppo_itself(tmp_path: Path) -> None:
    made = collected(tmp_path, minibatches=3, epochs=4, entropy_weight=0.01)
    chosen, buffer = made.settings.hyperparameters, made.model.rollout_buffer
    policy = {"table": FeatureTable(CHAIN), "hyperparameters": chosen}
    plain = masked_ppo(
        StackedPolicy, made.env, chosen, chosen.slots, max_grad_norm=chosen.gradient_norm, policy_kwargs=policy
    )
    plain.policy.load_state_dict(made.model.policy.state_dict())
    theirs, shape = plain.rollout_buffer, (chosen.slots, made.env.num_envs)
    theirs.reset()
    for slot in range(chosen.slots):
        here = slice(buffer.began[slot], buffer.began[slot + 1])
        assert np.array_equal(buffer.rows[here], np.arange(made.env.num_envs))
        final = buffer.ends.get(slot, np.zeros(made.env.num_envs, dtype=np.float32))
        theirs.add(
            buffer.seen[here].numpy(),
            buffer.actions[here].numpy()[:, None],
            buffer.rewards[slot] + chosen.discount * final,
            np.full(made.env.num_envs, slot - 1 in buffer.ends),
            torch.from_numpy(buffer.values[here]),
            torch.from_numpy(buffer.log_probs[here]),
            action_masks=buffer.legal[here].numpy(),
        )
    last = torch.from_numpy(made.model._values(made.model._last_obs))
    theirs.compute_returns_and_advantage(last, np.zeros(made.env.num_envs))
    np.testing.assert_allclose(buffer.advantages.reshape(shape), theirs.advantages, atol=1e-6)
    before = [weight.detach().clone() for weight in plain.policy.parameters()]
    for model in (made.model, plain):
        np.random.seed(7)  # noqa: NPY002 - the order of minibatches
        model.train()
    for ours, other, old in zip(made.model.policy.parameters(), plain.policy.parameters(), before, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=0.0)
        assert not torch.equal(ours, old)


def test_the_critic_learns_of_the_rows_that_returns_are_bootstrapped_from(tmp_path: Path) -> None:
    made = collected(tmp_path, idle_forecast=NEVER, minibatches=2, epochs=200, learning_rate=0.01)
    buffer, model = made.model.rollout_buffer, made.model
    assert buffer.idle.any()

    def error() -> float:
        return float(np.abs(model._values(buffer.first.numpy()) - buffer.first_returns)[buffer.idle].mean())

    before = error()
    model.train()
    assert error() < 0.5 * before


def test_a_rollout_in_which_nobody_decides_changes_nothing(tmp_path: Path) -> None:
    quiet = CHAIN.override(request_rate=1e-9)
    made = learner(quiet, "shared", tmp_path, idle_forecast=1.0)
    _, callback = made.model._setup_learn(10_000, Nobody())
    made.model.collect_rollouts(made.env, callback, made.model.rollout_buffer, made.model.n_steps)
    before = [weight.detach().clone() for weight in made.model.policy.parameters()]
    made.model.train()
    assert len(made.model.rollout_buffer.rows) == 0
    assert all(map(torch.equal, made.model.policy.parameters(), before))
    assert made.timesteps == 16 * made.env.num_envs


def test_the_only_decision_of_a_minibatch_has_no_advantage_over_others() -> None:
    third = 1 / 3
    weight = torch.tensor([[1.0, 0.0], [third, third], [0.0, 0.0], [third, 0.0]])  # the last piece is the second node's
    batch = Batch(torch.zeros_like(weight, dtype=torch.int64), weight, torch.tensor([1]))
    found = normalised(torch.tensor([[3.0, 9.0], [1.0, 3.0], [5.0, 6.0], [2.0, 7.0]]), batch) * (weight > 0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [-1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))


def test_a_checkpoint_of_before_decides_in_every_row(tmp_path: Path) -> None:
    kept = drawn_checkpoint(STAR, "shared", tmp_path)
    settings = kept.about["settings"]
    chosen = {name: value for name, value in settings["hyperparameters"].items() if name != "idle_forecast"}
    old = Checkpoint(kept.about | {"settings": settings | {"hyperparameters": chosen}}, kept.arrays)
    assert asdict(old.hyperparameters) == asdict(kept.hyperparameters)
    assert old.hyperparameters.idle_forecast == 0.0
    assert PpoPolicy("mesh20").actor.hyperparameters.idle_forecast == 0.0  # as it is shipped
