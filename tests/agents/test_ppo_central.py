"""Learned central control: the game of `CentralEnv`, with its delay, for a policy of all nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ppo_models import checkpoint_of, draw_weights, drawn_checkpoint, learner

from dpem_agents.ppo.policy import CentralPpoPolicy, PpoPolicy
from dpem_agents.ppo.vec_env import NodeVecEnv
from dpem_baselines.central import CentralReactive
from dpem_env import scenarios
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import CentralPolicy, NetworkView, get_policy
from dpem_env.support.errors import PolicyError
from support.rollouts import view_of

STAR = scenarios.get("star8-v0", slots=40, news_period=None)  # with news, nodes know what a controller knows
NETWORKS, SLOTS = 2, 12


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_sub_environments_are_the_nodes_of_central_networks(delay: float) -> None:
    together = NodeVecEnv(STAR, NETWORKS, delay=delay, forecaster="moving-average", max_cycles=SLOTS)
    alone = [CentralEnv(STAR, delay=delay, forecaster="moving-average", max_cycles=SLOTS) for _ in range(NETWORKS)]
    rng, nodes = np.random.default_rng(0), together.num_envs // NETWORKS
    together.seed(7)
    observations = together.reset()
    seen = [env.reset(seed=7 + e) for e, env in enumerate(alone)]
    earned = np.zeros(NETWORKS)
    for slot in range(1, 2 * SLOTS + 6):
        assert np.array_equal(observations, np.concatenate([observation for observation, _ in seen]))
        assert np.array_equal(together.action_masks(), np.concatenate([info["action_mask"] for _, info in seen]))
        actions = (rng.random(together.action_masks().shape) * together.action_masks()).argmax(axis=1)
        observations, rewards, over, infos = together.step(actions)
        played = [env.step(row) for env, row in zip(alone, actions.reshape(NETWORKS, -1), strict=True)]
        expected = [reward for _, reward, *_ in played]
        np.testing.assert_allclose(rewards.reshape(NETWORKS, nodes).sum(axis=1), expected, rtol=1e-5, atol=1e-6)
        earned += expected
        assert over.all() == over.any() == (slot % SLOTS == 0)
        seen = [(observation, info) for observation, *_, info in played]
        if over.all():
            last = np.concatenate([observation for observation, _ in seen])
            assert np.array_equal([info["terminal_observation"] for info in infos], last)
            assert together.finished["contention"] == np.mean([info["metrics"]["contention"] for _, info in seen])
            seen = [env.reset() for env in alone]
    assert earned.any()


def viewed(slots: int = 25) -> NetworkView:
    """What a controller sees after some slots of the reactive rule."""
    session, rule = Session(STAR, delay=0.0, forecaster="moving-average"), CentralReactive()
    session.begin(EpisodeSeeds(5, 3))
    rule.reset(STAR, session.network, 0)
    for _ in range(slots):
        session.step(*rule.act(view_of(session)))
    return view_of(session)


def test_the_controller_commands_what_was_learned_for_each_row_of_its_view(tmp_path: Path) -> None:
    made = learner(STAR, "central", tmp_path)
    draw_weights(made)
    policy, view = CentralPpoPolicy(checkpoint_of(made)), viewed()
    rows = view.observations.matrix
    assert not np.array_equal(rows, view.local_observations.matrix)
    learned = made.model.predict(rows, deterministic=True, action_masks=view.masks)[0]
    assert np.array_equal(policy.act(view).action, learned)
    assert policy.act(view).action.any()


def test_it_starts_at_the_reactive_rule_and_leaves_overdue_requests_alone(tmp_path: Path) -> None:
    made = learner(STAR, "central", tmp_path)
    for weight in made.model.policy.mlp_extractor.actor.parameters():
        weight.data *= 0.0
    policy = CentralPpoPolicy(checkpoint_of(made))
    view = viewed()
    wanted = view.observations.pending.sum(axis=2) > view.observations.open_allocations
    assert np.array_equal(policy.act(view).action > 0, (wanted & (view.masks[:, 1::3] == 1)).any(axis=1))
    rows = view.observations.matrix.copy()
    blocks = rows[:, 8:].reshape(len(rows), STAR.demand.peers, -1)
    blocks[:, :, view.observations.table.offset["slack"]] = 0.0
    overdue = replace(view, observations=view.observations.table.read(rows))
    assert not policy.act(overdue).action.any()


def test_it_plays_under_central_control_and_is_told_apart_from_local_policies(tmp_path: Path) -> None:
    drawn_checkpoint(STAR, "central", tmp_path).save(tmp_path / "checkpoint.npz")
    policy = get_policy(f"central-ppo:{tmp_path}")
    assert isinstance(policy, CentralPolicy)
    metrics, _ = run_episode(STAR, policy, EpisodeSeeds(5, 3), delay=0.5)
    assert metrics.submitted > 0
    with pytest.raises(PolicyError, match="trained with mode 'central': play it as 'central-ppo:PATH'"):
        PpoPolicy(tmp_path)
    drawn_checkpoint(STAR, "shared", tmp_path).save(tmp_path / "checkpoint.npz")
    with pytest.raises(PolicyError, match="trained with mode 'shared': play it as 'ppo:PATH'"):
        CentralPpoPolicy(tmp_path)
