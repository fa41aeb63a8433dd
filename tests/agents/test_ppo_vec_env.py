"""Networks for Stable-Baselines3: the same game, truncation as PPO needs it, and nothing stored that changes later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from dpem_agents.ppo.vec_env import NodeVecEnv
from dpem_baselines.local import LocalReactive
from dpem_env import make_vec, scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.support.errors import ActionError

NETWORKS, SLOTS = 2, 10
SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}


def small_env(slots: int = SLOTS, **arguments: Any) -> NodeVecEnv:
    return NodeVecEnv("star8-v0", NETWORKS, max_cycles=slots, **arguments)


def legal(masks: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int64]:
    return (rng.random(masks.shape) * masks).argmax(axis=1)


def play(env: NodeVecEnv, slots: int, seed: int = 3) -> list[tuple[Any, ...]]:
    """What the slots returned, and the masks of the first ones."""
    rng = np.random.default_rng(seed)
    env.seed(seed)
    returned: list[tuple[Any, ...]] = [(env.reset(),)]
    for _ in range(slots):
        returned.append((*env.step(legal(env.action_masks(), rng)), env.action_masks()))
    return returned


def test_it_is_the_game_of_the_vector_environment() -> None:
    env, plain = small_env(), make_vec("star8-v0", NETWORKS, max_cycles=SLOTS)
    rng = np.random.default_rng(3)
    observations, infos = plain.reset(seed=3)
    (first,), *slots = play(env, 25)
    assert np.array_equal(first, observations)
    for seen, rewards, over, told, masks in slots:
        observations, expected, _, truncated, infos = plain.step(legal(infos["action_mask"], rng))
        assert np.array_equal(seen, observations)
        assert np.array_equal(masks, infos["action_mask"])
        assert np.array_equal(over, truncated)
        np.testing.assert_allclose(rewards, expected, rtol=1e-6)
        if truncated.all():
            assert np.array_equal([info["terminal_observation"] for info in told], infos["final_obs"])


def test_the_contention_penalty_can_be_set_while_episodes_run() -> None:
    with_none, heavy = small_env(), small_env()
    with_none.set_attr("contention_penalty", 0.0)
    heavy.contention_penalty = 2.0
    whole, less = (np.concatenate([rewards for _, rewards, *_ in play(env, 30)[1:]]) for env in (with_none, heavy))
    assert np.array_equal(whole, np.rint(whole))
    contended = (whole - less) / 2.0
    assert np.array_equal(contended, np.rint(contended))
    assert (contended > 0).any()


def test_half_of_a_penalty_is_half_as_much() -> None:
    whole, half = small_env(), small_env()
    whole.contention_penalty, half.contention_penalty = 1.0, 2.0
    half.set_attr("penalty_share", 0.5)
    for (_, ours, *_), (_, theirs, *_) in zip(play(whole, 15)[1:], play(half, 15)[1:], strict=True):
        assert np.array_equal(ours, theirs)


def test_scaled_rewards_are_divided_by_one_and_the_penalty_and_told_as_they_were() -> None:
    scaled, plain = small_env(scaled=True), small_env()
    for env in (scaled, plain):
        env.contention_penalty = 3.0
        env.set_attr("penalty_share", 0.5)
    for (_, ours, *_), (_, theirs, *_) in zip(play(scaled, 2 * SLOTS)[1:], play(plain, 2 * SLOTS)[1:], strict=True):
        np.testing.assert_allclose(ours, theirs / 2.5, rtol=1e-6)
    assert scaled.finished["reward"] == plain.finished["reward"] != 0.0


def test_every_network_of_every_episode_may_have_a_penalty_of_its_own_and_tells_it() -> None:
    env, plain, (smaller, larger) = small_env(penalties=(0.1, 1.6)), small_env(), (0.1, 1.6)
    nodes, seen = env.num_envs // NETWORKS, []
    (ours, *after), (theirs, *usual) = play(env, 2 * SLOTS + 3), play(plain, 2 * SLOTS + 3)
    told_before = ours[0][:, -1]
    assert env.observation_space.shape == (ours[0].shape[1],)
    assert np.array_equal(ours[0][:, :-1], theirs[0])
    for (rows, rewards, over, infos, _), (expected, earned, _, final, _) in zip(after, usual, strict=True):
        assert np.array_equal(rows[:, :-1], expected)
        penalty = smaller * (larger / smaller) ** told_before.astype(np.float64)
        contended = (rewards - earned) / (0.05 - penalty)
        np.testing.assert_allclose(contended, np.rint(contended), atol=1e-4)
        if over.all():
            last = np.array([info["terminal_observation"] for info in infos])
            assert np.array_equal(last[:, -1], told_before)
            assert np.array_equal(last[:, :-1], [info["terminal_observation"] for info in final])
            seen.append(told_before.reshape(NETWORKS, nodes))
            told_before = rows[:, -1]
        assert np.array_equal(rows[:, -1], told_before)
    seen.append(told_before.reshape(NETWORKS, nodes))
    for of_episode in seen:
        assert np.ptp(of_episode, axis=1).max() == 0.0  # the same for all nodes of a network
        assert np.sort((of_episode[:, 0] * NETWORKS).astype(int)).tolist() == list(range(NETWORKS))  # one in each part
    assert len({float(of_episode[0, 0]) for of_episode in seen}) == len(seen)
    position, now = env.position(), rows
    there = small_env(penalties=(0.1, 1.6)).go_to(3, position)
    assert np.array_equal(there, now)


def test_all_nodes_are_truncated_together_and_other_infos_cost_nothing() -> None:
    env = small_env()
    returned = play(env, 2 * SLOTS)
    for slot, (_, _, over, infos, _) in enumerate(returned[1:], start=1):
        assert len(infos) == env.num_envs
        if slot % SLOTS:
            assert not over.any()
            assert all(info is infos[0] for info in infos)
            assert infos[0] == {}
        else:
            assert over.all()
            assert all(info["TimeLimit.truncated"] for info in infos)
            earned = sum(rewards for _, rewards, *_ in returned[slot - SLOTS + 1 : slot + 1])
            np.testing.assert_allclose([info["episode"]["r"] for info in infos], earned, rtol=1e-5)
            assert {info["episode"]["l"] for info in infos} == {SLOTS}


def test_ppo_bootstraps_from_the_last_observation_of_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    # A reward of 1 in every slot is worth 1 / (1 - γ) for ever. With a critic that says so no action has an advantage,
    # in the last slot of an episode neither: to the task, episodes have no end.
    env = small_env(slots=5)
    usual = env.envs._infos

    def one_delivered(*played: Any) -> dict[str, Any]:
        ones = np.ones(env.num_envs, dtype=np.int32)
        return usual(*played) | {"earned": 1.0 * ones, "contended": 0 * ones}

    monkeypatch.setattr(env.envs, "_infos", one_delivered)
    model = PPO("MlpPolicy", env, gamma=0.9, gae_lambda=0.9, **SMALL | {"n_steps": 12})
    head = model.policy.value_net
    head.weight.data.zero_()
    head.bias.data.fill_(10.0)
    ends: list[Any] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            ends.append(self.locals["dones"].all())
            return True

        def _on_rollout_end(self) -> None:
            self.advantages = model.rollout_buffer.advantages.copy()

    watch = Watch()
    model.learn(12 * env.num_envs, watch)
    assert np.flatnonzero(ends).tolist() == [4, 9]
    np.testing.assert_allclose(watch.advantages, 0.0, atol=1e-5)


def test_stored_observations_never_change() -> None:
    env = small_env()
    kept, copies = [], []
    rng = np.random.default_rng(0)
    env.seed(0)
    env.reset()
    for _ in range(2 * SLOTS + 3):
        masks = env.action_masks()
        observations, rewards, over, infos = env.step(legal(masks, rng))
        arrays = [observations, rewards, over, masks, *(info.get("terminal_observation", over) for info in infos)]
        kept.append(arrays)
        copies.append([array.copy() for array in arrays])
    for arrays, before in zip(kept, copies, strict=True):
        for array, copy in zip(arrays, before, strict=True):
            assert np.array_equal(array, copy)


def test_every_reset_plays_another_episode_of_the_training_split() -> None:
    env = small_env(slots=3)
    env.seed(7)
    env.reset()
    seeds = []
    for _ in range(6):
        for _ in range(3):
            seeds += [episode.seed for episode in env.envs.simulator.episodes]
            env.step(np.zeros(env.num_envs, dtype=np.int64))
    assert seeds[:2] == [7, 8]
    assert len(set(seeds)) == 6 * NETWORKS
    assert {env.envs.scenario.split_of(seed) for seed in seeds} == {"train"}


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_models_train_on_it_and_do_the_same_after_saving_and_loading(algorithm: Any, tmp_path: Path) -> None:
    env = small_env()
    model = algorithm("MlpPolicy", env, **SMALL).learn(2 * 8 * env.num_envs)
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", env=env)
    observations = env.reset()
    assert np.array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))
    loaded.learn(8 * env.num_envs)


def test_a_masked_learner_never_takes_an_illegal_action() -> None:
    env = small_env(slots=100, rows=1)  # nothing but waiting is legal while an allocation is open
    assert is_masking_supported(env)
    env.seed(0)
    env.reset()
    assert np.array_equal(get_action_masks(env), env.action_masks())
    assert np.array_equal(env.env_method("action_masks", indices=[3])[0], env.action_masks()[3])
    taken = {}
    for algorithm in (MaskablePPO, PPO):
        algorithm("MlpPolicy", env, **SMALL).learn(5 * 8 * env.num_envs)
        taken[algorithm] = env.envs._illegal.sum()
    assert taken[MaskablePPO] == 0 < taken[PPO]


def test_it_reports_the_metrics_of_episodes_as_evaluation_does() -> None:
    scenario = scenarios.get("star8-v0", slots=60)
    env, rule = NodeVecEnv(scenario, NETWORKS), LocalReactive()
    env.seed(4)
    observations = env.reset()
    for _ in range(60):
        seen = env.envs.observer.table.read(observations)
        observations = env.step(rule.act(seen, env.action_masks()).action)[0]
    played = [run_episode(scenario, rule, episode_seeds(scenario, "train", 4 + e))[0] for e in range(NETWORKS)]
    assert env.contention / 60 == pytest.approx(env.finished["contention"], rel=1e-9)
    assert env.finished["contention"] > 0.0
    for name, mean in env.finished.items():
        assert mean == pytest.approx(np.mean([getattr(metrics, name) for metrics in played])), name
    assert set(env.finished) == {"delivery_rate", "contention", "reward"}


@pytest.mark.parametrize("slots", [0, 7, SLOTS, 2 * SLOTS + 4])
def test_another_one_can_go_to_the_same_position(slots: int) -> None:
    env, other = small_env(), small_env()
    last = play(env, slots)[-1][0]
    assert np.array_equal(other.go_to(3, env.position()), last)
    assert np.array_equal(other.action_masks(), env.action_masks())
    waiting = np.zeros(env.num_envs, dtype=np.int64)
    for _ in range(SLOTS + 1):  # on into the next episode
        ours, theirs = env.step(waiting), other.step(waiting)
        assert all(np.array_equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))


def test_attributes_belong_to_all_sub_environments() -> None:
    env = small_env()
    assert env.get_attr("max_cycles", indices=[0, 1]) == [SLOTS, SLOTS]
    assert env.env_is_wrapped(VecMonitor) == [False] * env.num_envs
    with pytest.raises(ActionError, match="contention_penalty can be set for all sub-environments only"):
        env.set_attr("contention_penalty", 1.0, indices=[0])
    with pytest.raises(AttributeError):
        env.get_attr("no_such_thing")


def test_without_stable_baselines_one_line_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['stable_baselines3'] = None; import dpem_agents.ppo.vec_env"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("dpem_env.support.errors.DpemError: learning needs more than is installed")
    assert last.endswith("pip install 'dpem-env[agents]'")


def test_before_the_first_reset_there_is_nothing_to_see_or_play() -> None:
    env = NodeVecEnv("chain3-v0")
    for call in (
        env.action_masks,
        lambda: env.env_method("action_masks"),
        lambda: env.step(np.zeros(3, dtype=np.int64)),
    ):
        with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
            call()


@pytest.mark.parametrize("delay", [None, 0.5])
def test_bools_are_no_actions(delay: float | None) -> None:
    env = NodeVecEnv("chain3-v0", delay=delay)
    env.reset()
    for bad in ([True, 0, 0], [True] * 3, np.ones(3, dtype=bool), [1.0, 0.0, 0.0]):
        with pytest.raises(ActionError, match=r"expected \(3,\) integers$"):
            env.step(bad)
