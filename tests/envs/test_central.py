"""The Gymnasium façade: one controller, δ late, by the rules of the nodes."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence
from numpy.typing import NDArray

from dpem_env import CentralEnv, parallel_env, scenarios
from dpem_env.simulator import Verdict
from dpem_env.support.errors import ActionError, DpemError, DpemWarning, ScenarioError
from support.rollouts import BAD_OPTIONS

# Gymnasium expects images or vectors; ours is one row of features per node, as documented.
MATRIX = "A Box observation space has an unconventional shape"


def one_line(error: pytest.ExceptionInfo[DpemError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def legal(info: dict[str, Any], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.array([int(rng.choice(np.flatnonzero(mask))) for mask in info["action_mask"]])


@pytest.mark.parametrize(
    "arguments",
    [{}, {"delay": 0.5}, {"routes": True}, {"forecaster": "moving-average"}, {"observation": "graph"}],
)
def test_it_passes_gymnasiums_check(arguments: dict[str, Any], windows: list[Any]) -> None:
    env = gymnasium.make("dpem/mesh20-central-v0", **arguments).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=f".*{MATRIX}")
        check_env(env)


def test_every_scenario_is_registered_with_gymnasium() -> None:
    for name in scenarios.SCENARIOS:
        stem, version = name.rsplit("-", 1)
        assert f"dpem/{stem}-central-{version}" in gymnasium.registry
    env = gymnasium.make("dpem/mesh20-central-v0", delay=0.5, max_cycles=5)
    assert isinstance(env.unwrapped, CentralEnv)
    assert env.unwrapped.scenario == scenarios.get("mesh20-v0")
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


@pytest.mark.parametrize("arguments", [{}, {"delay": 0.5}, {"delay": 1.0, "routes": True, "forecaster": "oracle"}])
def test_everything_lies_in_its_space_over_a_whole_episode(arguments: dict[str, Any]) -> None:
    env = CentralEnv("mesh20-v0", **arguments)
    assert isinstance(env.observation_space, spaces.Box)
    assert env.observation_space.shape == (20, 432)
    assert env.action_space == spaces.MultiDiscrete([1 + 8 * 3 * (3 if "routes" in arguments else 1)] * 20)
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    for step in range(1, 401):
        assert env.observation_space.contains(observation)
        assert info["action_mask"].dtype == np.int8
        assert (info["action_mask"][:, 0] == 1).all()
        observation, reward, terminated, truncated, info = env.step(legal(info, rng))
        assert type(reward) is float
        assert (terminated, truncated) == (False, step == 400)
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("routes", [False, True])
def test_at_no_delay_it_is_the_nodes_environment_with_the_global_view(routes: bool) -> None:
    nodes = parallel_env("star8-v0", routes=routes, forecaster="persistence", max_cycles=50)
    central = CentralEnv("star8-v0", routes=routes, forecaster="persistence", max_cycles=50)
    rng = np.random.default_rng(0)
    nodes.reset(seed=4)
    observation, info = central.reset(seed=4)
    while nodes.agents:
        assert np.array_equal(observation.ravel(), nodes.state())
        assert np.array_equal(info["action_mask"], nodes.session.masks())
        action = legal(info, rng)
        _, rewards, _, truncated, _ = nodes.step(dict(zip(nodes.agents, action.tolist(), strict=True)))
        observation, reward, _, over, info = central.step(action)
        assert reward == pytest.approx(sum(rewards.values()))
        assert over == truncated["agent_0"]
        assert central.session.simulator.digest() == nodes.session.simulator.digest()
    assert np.array_equal(observation.ravel(), nodes.state())  # a learner bootstraps from it


def test_a_node_withholds_a_conditional_command_and_admits_the_same_without_condition() -> None:
    env = CentralEnv("chain3-v0", conditional=True)
    code, simulator = env.session.observer.code, env.session.simulator
    env.reset(seed=0)
    simulator.world.emit(0.0)  # links wait for the source between the ends
    env.step(np.array([code.encode(1, 1), 0, 0]))
    *_, info = env.step(np.array([code.encode(1, 1), 0, code.encode(1, 1, conditional=True)]))
    assert simulator.state.verdict[0].tolist() == [Verdict.ADMITTED, Verdict.WAIT, Verdict.WITHHELD]
    assert not info["contended"].any()
    assert info["illegal_actions"] == 0


def test_nothing_is_known_for_the_first_slots_of_the_delay() -> None:
    env = CentralEnv("star8-v0", delay=0.5)
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    known = []
    for _ in range(4):
        known.append(bool(observation.any()))
        assert info["action_mask"][:, 1:].any() == known[-1]
        observation, *_, info = env.step(legal(info, rng))
    assert known == [False, False, True, True]


def test_the_delayed_observation_is_the_undelayed_one_of_before_where_nothing_can_be_inferred() -> None:
    now, late = CentralEnv("mesh20-v0"), CentralEnv("mesh20-v0", delay=0.5)
    nobody = np.zeros(20, dtype=np.int64)
    seen = [now.reset(seed=2)[0]]
    late.reset(seed=2)
    names = ("swap_tokens", "route_up", "hops", "free_memory", "open_rows", "min_quality")
    read = now.session.observer.table.read
    for slot in range(1, 40):
        seen.append(now.step(nobody)[0])
        observation = late.step(nobody)[0]
        for name in names:
            if slot >= 2:
                assert np.array_equal(getattr(read(observation), name), getattr(read(seen[slot - 2]), name))


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_illegal_commands_are_waits_and_counted(delay: float) -> None:
    env, waiting = CentralEnv("star8-v0", delay=delay), CentralEnv("star8-v0", delay=delay)
    for each in (env, waiting):
        _, info = each.reset(seed=0)
        assert info["illegal_actions"] == 0
    nobody = np.zeros(8, dtype=np.int64)
    wrong = nobody.copy()
    wrong[[0, 3]] = [999, -1]
    for total in (2, 4, 6):
        observation, *_, info = env.step(wrong)
        expected, *_ = waiting.step(nobody)
        assert info["illegal_actions"] == total
        assert np.array_equal(observation, expected)
    assert env.reset(seed=0)[1]["illegal_actions"] == 0


@pytest.mark.parametrize(
    "bad",
    [
        *(np.zeros(7, dtype=int), np.zeros(8), np.zeros((8, 1), dtype=int), 0, None, [1.0] * 8, ["1"] * 8),
        *(np.zeros(8, dtype=bool), [True] * 8, [0] * 7 + [True], [np.False_] + [0] * 7, [np.array(True)] + [0] * 7),
    ],
)
def test_an_action_of_the_wrong_shape_or_type_is_refused_in_one_line(bad: Any) -> None:
    env = CentralEnv("star8-v0")
    env.reset(seed=0)
    before = env.session.simulator.digest()
    with pytest.raises(ActionError, match=r"expected \(8,\) integers") as error:
        env.step(bad)
    one_line(error)
    assert env.session.simulator.digest() == before


@pytest.mark.parametrize("bad", [-0.25, float("nan"), float("inf"), "0.5", None])
def test_a_bad_delay_is_refused_in_one_line(bad: Any) -> None:
    with pytest.raises(ScenarioError, match="delay is") as error:
        CentralEnv("chain3-v0", delay=bad)
    one_line(error)


def test_before_the_first_and_after_the_last_slot_there_is_nothing_to_step() -> None:
    env = CentralEnv("chain3-v0", max_cycles=1)
    nobody = np.zeros(3, dtype=np.int64)
    for call in (lambda: env.step(nobody), env.render, env.session.masks, env.session.observations):
        with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
            call()
    env.reset(seed=0)
    assert env.step(nobody)[3]
    with pytest.raises(ActionError, match="call reset") as error:
        env.step(nobody)
    one_line(error)


def test_seeds_options_and_split_are_those_of_the_nodes_environment() -> None:
    env = CentralEnv("chain3-v0", split="validation")
    env.reset(seed=3)
    assert env.session.seeds == (1003, 1_000_003)
    env.reset(seed=3, options={"topology_seed": 5, "demand_seed": 6})
    assert env.session.seeds == (5, 6)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, int])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_seed_is_an_integer_of_any_kind(kind: Any, wrapped: bool) -> None:
    env = gymnasium.make("dpem/chain3-central-v0") if wrapped else CentralEnv("chain3-v0")
    env.reset(seed=kind(1))
    seeds, drawn = env.unwrapped.session.seeds, env.np_random.random()  # type: ignore[attr-defined]
    env.reset(seed=1)
    assert env.unwrapped.session.seeds == seeds  # type: ignore[attr-defined]
    assert env.np_random.random() == drawn


@pytest.mark.parametrize("bad", [-1, 1.5, "3", True, np.True_, [3]])
def test_a_bad_seed_is_told(bad: Any) -> None:
    with pytest.raises(ScenarioError, match=r"^reset\(seed=\.\.\.\) is ") as error:
        CentralEnv("chain3-v0").reset(seed=bad)
    one_line(error)


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_reset_options_are_told_and_nothing_begins(options: Any) -> None:
    env = CentralEnv("chain3-v0")
    env.reset(seed=3)
    before = env.session.simulator.digest()
    with pytest.raises(ScenarioError, match="reset option") as error:
        env.reset(seed=4, options=options)
    one_line(error)
    assert env.session.simulator.digest() == before
    env.step(np.zeros(3, dtype=np.int64))


def episode(env: CentralEnv, seed: int) -> list[Any]:
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=seed)
    played: list[Any] = [(observation, info)]
    for _ in range(40):
        played.append(env.step(legal(played[-1][-1], rng)))
    return played


def test_equal_seeds_give_equal_episodes_and_what_was_returned_stays() -> None:
    env = CentralEnv("star8-v0", delay=0.5, forecaster="moving-average")
    first = episode(env, 1)
    kept = copy.deepcopy(first)
    assert not data_equivalence(episode(env, 2), kept, exact=True)
    assert data_equivalence(first, kept, exact=True)
    assert data_equivalence(episode(env, 1), kept, exact=True)
    assert data_equivalence(
        episode(CentralEnv("star8-v0", delay=0.5, forecaster="moving-average"), 1), kept, exact=True
    )


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_made_mid_episode_continues_identically(copy_of: Any) -> None:
    env = CentralEnv("star8-v0", delay=0.5, forecaster="moving-average")
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=1)
    for _ in range(10):
        *_, info = env.step(legal(info, rng))
    other = copy_of(env)
    for _ in range(20):
        action = legal(info, rng)
        mine, theirs = env.step(action), other.step(action)
        assert data_equivalence(mine, theirs, exact=True)
        info = mine[-1]


def test_infos_tell_what_rewards_are_made_of_and_what_the_episode_came_to() -> None:
    env = CentralEnv("star8-v0", delay=0.25, max_cycles=40)
    _, info = env.reset(seed=3)
    rng, delivered, total = np.random.default_rng(0), 0, 0.0
    for slot in range(1, 41):
        _, reward, _, _, info = env.step(legal(info, rng))
        total += reward
        assert reward == pytest.approx((info["delivered"] - 0.05 * info["contended"]).sum())
        assert ("metrics" in info) == (slot == 40)
        delivered += info["delivered"].sum()
    metrics = info["metrics"]
    assert delivered == metrics["delivered"] > 0
    assert metrics["reward"] == pytest.approx(total / 8)
    assert metrics["contention"] > 0


def test_a_delay_that_is_no_whole_slots_is_played_as_the_nearest_with_a_warning() -> None:
    with pytest.warns(DpemWarning, match=r"control delay of 0\.1 s: played as 0 s, since slots last 0\.25 s"):
        env = CentralEnv("chain3-v0", delay=0.1)
    assert env.session.control.delay == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", DpemWarning)
        for delay, slots in ((0.0, 0), (0.25, 1), (0.75, 3)):
            assert CentralEnv("chain3-v0", delay=delay).session.control.delay == slots
        tenths = {"slot_duration": 0.1, "telemetry_period": 1.0, "news_period": 0.1}
        assert CentralEnv("chain3-v0", delay=0.3, **tenths).session.control.delay == 3  # 3 × 0.1 is not quite 0.3
