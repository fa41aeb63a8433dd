"""The vector environment: arrays instead of dictionaries, the same game."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import time
from inspect import signature
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import (
    ClipReward,
    DictInfoToList,
    NormalizeReward,
    RecordEpisodeStatistics,
    TransformReward,
)
from numpy.typing import NDArray

from dpem_baselines.local import LocalReactive
from dpem_env import make_vec, parallel_env, scenarios
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import episode_seeds
from dpem_env.envs.vector import EntanglementVectorEnv
from dpem_env.experiments.evaluation import run_episode
from dpem_env.support.errors import ActionError, PolicyError, ScenarioError
from support.rollouts import BAD_OPTIONS

NETWORKS, SLOTS = 3, 12
VARIANTS: list[dict[str, Any]] = [
    {},
    {"routes": True},
    {"conditional": True},
    {"forecaster": "moving-average"},
    {"threads": 2},
]


def legal(masks: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int64]:
    """Random legal actions; half of the agents wait."""
    chosen = (rng.random(masks.shape) * masks).argmax(axis=1)
    return np.where(rng.random(len(masks)) < 0.5, chosen, 0)


def play(envs: EntanglementVectorEnv, slots: int, seed: int = 0) -> list[Any]:
    """Everything returned in `slots` slots of random legal actions, the reset first."""
    rng = np.random.default_rng(seed)
    observations, infos = envs.reset(seed=seed)
    seen: list[Any] = [observations, *infos.values()]
    for _ in range(slots):
        observations, *rest, infos = envs.step(legal(infos["action_mask"], rng))
        seen += [observations, *rest, *infos.pop("final_info", {}).values(), *infos.values()]
    return seen


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def rows(envs: list[EntanglementEnv], by_agent: list[dict[str, Any]]) -> NDArray[Any]:
    """One row per sub-environment from what each environment returned by agent."""
    return np.array([found[agent] for env, found in zip(envs, by_agent, strict=True) for agent in env.possible_agents])


@pytest.mark.parametrize("arguments", VARIANTS)
def test_it_plays_the_episodes_of_single_environments(arguments: dict[str, Any]) -> None:
    envs = make_vec("mesh20-v0", NETWORKS, max_cycles=SLOTS, **arguments)
    single = {name: value for name, value in arguments.items() if name != "threads"}
    alone = [parallel_env("mesh20-v0", max_cycles=SLOTS, **single) for _ in range(NETWORKS)]
    observations, infos = envs.reset(seed=5)
    began = [env.reset(seed=5 + e) for e, env in enumerate(alone)]
    rng = np.random.default_rng(0)
    for slot in range(1, 2 * SLOTS + 1):
        assert np.array_equal(observations, rows(alone, [first for first, _ in began]))
        masks = [{agent: info["action_mask"] for agent, info in found.items()} for *_, found in began]
        assert np.array_equal(infos["action_mask"], rows(alone, masks))
        actions = legal(infos["action_mask"], rng)
        actions[0] = -1
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        agents = [agent for env in alone for agent in env.possible_agents]
        split = np.split(np.arange(len(agents)), NETWORKS)
        played = [
            env.step({agents[row]: int(actions[row]) for row in of_one})
            for env, of_one in zip(alone, split, strict=True)
        ]
        assert np.array_equal(rewards, rows(alone, [step[1] for step in played]))
        assert not terminations.any()
        assert truncations.all() == (slot % SLOTS == 0) == truncations.any()
        if truncations.all():
            assert np.array_equal(infos["final_obs"], rows(alone, [step[0] for step in played]))
            last = [{agent: info["action_mask"] for agent, info in step[4].items()} for step in played]
            assert np.array_equal(infos["final_info"]["action_mask"], rows(alone, last))
            assert infos["final_info"]["illegal_actions"][0] == SLOTS
            assert infos["_final_obs"].all()
            assert infos["_final_info"].all()
            began = [env.reset() for env in alone]
        else:
            assert "final_obs" not in infos
            began = [(step[0], step[4]) for step in played]
            assert infos["illegal_actions"][0] == slot % SLOTS


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"delay": 0.0},
        {"delay": 0.5, "conditional": True},
        {"delay": 0.5, "threads": 2, "routes": True},
        {"delay": 5.0},
    ],
)
def test_under_central_control_it_plays_the_episodes_of_controllers(arguments: dict[str, Any]) -> None:
    together = {"forecaster": "moving-average", "max_cycles": SLOTS}
    envs = make_vec("mesh20-v0", NETWORKS, control="central", **together, **arguments)
    single = {name: value for name, value in arguments.items() if name != "threads"}
    alone = [CentralEnv("mesh20-v0", **together, **single) for _ in range(NETWORKS)]
    observations, infos = envs.reset(seed=5)
    began = [env.reset(seed=5 + e) for e, env in enumerate(alone)]
    rng = np.random.default_rng(0)
    for slot in range(1, 2 * SLOTS + 1):
        assert np.array_equal(observations, np.concatenate([seen for seen, _ in began]))
        for name in ("action_mask", "delivered", "contended"):
            assert np.array_equal(infos[name], np.concatenate([info[name] for _, info in began]))
        actions = legal(infos["action_mask"], rng)
        actions[0] = -1
        observations, rewards, _, truncations, infos = envs.step(actions)
        played = [env.step(own) for env, own in zip(alone, actions.reshape(NETWORKS, -1), strict=True)]
        assert rewards.reshape(NETWORKS, -1).sum(axis=1) == pytest.approx([step[1] for step in played])
        began = [(step[0], step[4]) for step in played]
        assert truncations.all() == (slot % SLOTS == 0)
        if truncations.all():
            assert np.array_equal(infos["final_obs"], np.concatenate([seen for seen, _ in began]))
            for name in ("delivery_rate", "contention"):
                expected = [info["metrics"][name] for _, info in began]
                assert infos["final_info"][name].tolist() == np.repeat(expected, 20).tolist()
            began = [env.reset() for env in alone]


def test_a_delay_is_of_central_control() -> None:
    with pytest.raises(ScenarioError, match=r'^delay is 0.5, but nodes decide for themselves; add control="central"$'):
        make_vec("chain3-v0", delay=0.5)
    with pytest.raises(ScenarioError, match="delay is of central control: CentralEnv"):
        parallel_env("chain3-v0", delay=0.5)


def test_the_signature_of_every_facade_tells_what_it_passes_on() -> None:
    passed_on = {"split", "routes", "conditional", "forecaster", "max_cycles"}
    for facade in (EntanglementEnv, CentralEnv, EntanglementVectorEnv):
        assert signature(facade).parameters.keys() >= passed_on


def test_infos_tell_what_rewards_are_made_of_and_what_an_episode_came_to() -> None:
    scenario = scenarios.get("mesh20-v0", slots=80)
    envs, rule = make_vec(scenario, NETWORKS, split="evaluation"), LocalReactive()
    observations, infos = envs.reset(seed=0)
    total = np.zeros(envs.num_envs)
    for _ in range(80):
        action = rule.act(envs.observer.table.read(observations), infos["action_mask"]).action
        observations, rewards, _, _, infos = envs.step(action)
        made_of = infos.get("final_info", infos)
        assert np.array_equal(rewards, made_of["delivered"] - 0.05 * made_of["contended"])
        total += rewards
    played = [run_episode(scenario, rule, episode_seeds(scenario, "evaluation", e))[0] for e in range(NETWORKS)]
    assert total.reshape(NETWORKS, -1).mean(axis=1) == pytest.approx([metrics.reward for metrics in played])
    for name in ("delivery_rate", "contention"):
        of_networks = [getattr(metrics, name) for metrics in played]
        assert infos["final_info"][name].tolist() == np.repeat(of_networks, 20).tolist()
        assert name not in infos


def test_spaces_and_autoreset_are_declared_as_gymnasium_expects() -> None:
    envs = make_vec("mesh20-v0", NETWORKS)
    assert envs.num_envs == NETWORKS * 20
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.observation_space == gymnasium.vector.utils.batch_space(envs.single_observation_space, envs.num_envs)
    assert envs.action_space == gymnasium.vector.utils.batch_space(envs.single_action_space, envs.num_envs)
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space
    assert envs.unwrapped is envs


def test_gymnasiums_record_of_episodes_works_on_it() -> None:
    envs = RecordEpisodeStatistics(make_vec("mesh20-v0", 2, max_cycles=SLOTS))
    envs.action_space.seed(0)
    envs.reset(seed=0)
    total = np.zeros(envs.num_envs)
    for _ in range(SLOTS):
        _, rewards, _, _, infos = envs.step(envs.action_space.sample())
        total += rewards
    assert np.allclose(infos["episode"]["r"], total)
    assert (infos["episode"]["l"] == SLOTS).all()


def test_infos_are_listed_by_sub_environment_where_a_wrapper_wants_them_so() -> None:
    plain, wrapped = make_vec("mesh20-v0", 2, max_cycles=SLOTS), make_vec("mesh20-v0", 2, max_cycles=SLOTS)
    listed = DictInfoToList(RecordEpisodeStatistics(wrapped))
    plain.reset(seed=0)
    listed.reset(seed=0)
    plain.action_space.seed(0)
    for slot in range(1, 2 * SLOTS + 1):
        actions = plain.action_space.sample()
        *_, infos = plain.step(actions)
        *_, by_agent = listed.step(actions)
        assert len(by_agent) == plain.num_envs
        for row, info in enumerate(by_agent):
            assert np.array_equal(info["action_mask"], infos["action_mask"][row])
            assert ("final_info" in info) == ("final_obs" in info) == ("episode" in info) == (slot % SLOTS == 0)
            for name, value in info.get("final_info", {}).items():
                assert np.array_equal(value, infos["final_info"][name][row])
    assert by_agent[-1]["final_info"].keys() >= {"delivery_rate", "contention", "delivered", "action_mask"}


def test_every_info_has_one_entry_per_sub_environment() -> None:
    envs = make_vec("chain3-v0", 4, max_cycles=1)
    envs.reset(seed=0)
    *_, infos = envs.step(np.zeros(12, dtype=int))
    final = infos.pop("final_info")
    assert {len(value) for value in (*infos.values(), *final.values())} == {12}


@pytest.mark.parametrize(
    "wrap",
    [
        NormalizeReward,
        lambda envs: ClipReward(envs, -1.0, 1.0),
        lambda envs: TransformReward(envs, lambda rewards: 2.0 * rewards),
    ],
)
def test_gymnasiums_wrappers_of_rewards_work_on_it(wrap: Any) -> None:
    envs = RecordEpisodeStatistics(wrap(make_vec("chain3-v0", 2, max_cycles=SLOTS)))
    envs.action_space.seed(0)
    observations, _ = envs.reset(seed=0)
    for _ in range(2 * SLOTS):
        assert observations in envs.observation_space
        observations, rewards, _, over, infos = envs.step(envs.action_space.sample())
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        if over.all():
            assert len(infos["final_obs"]) == len(infos["episode"]["r"]) == envs.num_envs


def test_the_number_of_threads_changes_nothing() -> None:
    one, several = (play(make_vec("mesh20-v0", 5, max_cycles=SLOTS, threads=t), 2 * SLOTS) for t in (1, 3))
    assert same(one, several)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda envs: pickle.loads(pickle.dumps(envs))])
def test_a_copy_continues_on_its_own(threads: int, duplicate: Any) -> None:
    envs = make_vec("mesh20-v0", NETWORKS, max_cycles=SLOTS, threads=threads, forecaster="moving-average")
    play(envs, 5)
    twin = duplicate(envs)
    actions = np.tile(np.arange(20) % 5, NETWORKS)
    mine = [envs.step(actions) for _ in range(3)]
    other = [twin.step(actions) for _ in range(3)]
    for a, b in zip(mine, other, strict=True):
        assert same(list(a[:4]) + list(a[4].values()), list(b[:4]) + list(b[4].values()))
    assert envs.simulator.digest(0) == twin.simulator.digest(0)
    twin.step(np.zeros_like(actions))
    assert envs.simulator.digest(0) != twin.simulator.digest(0)


def test_successive_arrays_share_no_memory() -> None:
    seen = play(make_vec("mesh20-v0", 2, max_cycles=4), 6)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize(
    "actions",
    [
        np.zeros(39, dtype=int),
        np.zeros(40),
        np.zeros((2, 20), dtype=int),
        ["wait"] * 40,
        None,
        np.zeros(40, dtype=bool),
        [True, *[0] * 39],
        [0, np.True_, *[0] * 38],
        [np.array(True), *[0] * 39],
        (False,) * 40,
        [*[0] * 39, 2**70],
    ],
)
def test_actions_of_the_wrong_shape_or_type_are_refused_in_one_line(actions: Any) -> None:
    envs = make_vec("mesh20-v0", 2)
    envs.reset(seed=0)
    with pytest.raises(ActionError, match=r"expected \(40,\) integers$"):
        envs.step(actions)


def test_a_step_before_the_first_reset_says_so() -> None:
    with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
        make_vec("chain3-v0").step(np.zeros(3, dtype=int))


def test_seeds_and_options_are_those_of_the_single_environment() -> None:
    envs = make_vec("chain3-v0", 3)
    envs.reset(seed=np.uint8(254))
    assert [episode.seed for episode in envs.simulator.episodes] == [254, 255, 256]
    envs.reset(seed=5, options={"demand_seed": np.int64(9)})
    assert [episode.seed for episode in envs.simulator.episodes] == [9, 9, 9]


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_reset_options_are_told_and_nothing_begins(options: Any) -> None:
    envs, untouched = (make_vec("chain3-v0", 2, max_cycles=5) for _ in range(2))
    for each in (envs, untouched):
        each.reset(seed=3)
    with pytest.raises(ScenarioError, match="reset option"):
        envs.reset(options=options)
    assert envs.simulator.digest(1) == untouched.simulator.digest(1)
    assert same([envs.reset()[0]], [untouched.reset()[0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_envs": 1.5}, "num_envs is 1.5"),
        ({"threads": True}, "threads is True"),
        ({"max_cycles": 0}, "max_cycles is 0"),
        ({"split": "test"}, "split is 'test'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        make_vec("chain3-v0", **arguments)


def test_bad_seeds_and_forecasters_are_named() -> None:
    with pytest.raises(ScenarioError, match="expected an int >= 0"):
        make_vec("chain3-v0").reset(seed=-1)
    with pytest.raises(PolicyError, match="moving-averages"):
        make_vec("chain3-v0", forecaster="moving-averages")


def test_a_forked_process_starts_threads_of_its_own() -> None:
    envs = make_vec("chain3-v0", 4, threads=2, max_cycles=SLOTS)
    envs.reset(seed=0)
    envs.step(np.zeros(envs.num_envs, dtype=int))
    child = os.fork()
    if child == 0:
        envs.step(np.zeros(envs.num_envs, dtype=int))  # with the parent's threads it would wait for ever
        os._exit(0)
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (done, status) == (child, 0)
