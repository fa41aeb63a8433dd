"""The PettingZoo façade: its conventions, its randomness, and what it says to wrong actions."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)

import dpem_env
from dpem_env import scenarios
from dpem_env.demand.forecast import MovingAverage
from dpem_env.envs.parallel import EntanglementEnv, parallel_env
from dpem_env.support.errors import ActionError, DpemError, PolicyError, ScenarioError
from support.rollouts import BAD_OPTIONS, legal_actions, masked, named_rollout_digest, rollout_digest

VARIANTS: list[dict[str, Any]] = [
    {},
    {"observation": "dict"},
    {"routes": True, "conditional": True},
    {"forecaster": "moving-average"},
]


def one_line(error: pytest.ExceptionInfo[DpemError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def waits(env: EntanglementEnv) -> dict[str, Any]:
    return dict.fromkeys(env.agents, 0)


@pytest.mark.parametrize("arguments", VARIANTS)
def test_it_passes_pettingzoos_parallel_test(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(parallel_env("mesh20-v0", **arguments), num_cycles=60)


@pytest.mark.parametrize("arguments", VARIANTS)
def test_it_passes_pettingzoos_aec_test(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Observation ")  # neither array nor Box: a dict
        api_test(dpem_env.env("chain3-v0", max_cycles=40, **arguments), num_cycles=200)


@pytest.mark.parametrize("arguments", VARIANTS)
def test_it_passes_pettingzoos_seed_tests(arguments: dict[str, Any]) -> None:
    parallel_seed_test(lambda: parallel_env("mesh20-v0", **arguments), num_cycles=20)
    seed_test(lambda: dpem_env.env("chain3-v0", max_cycles=40, **arguments), num_cycles=50)


def test_the_package_passes_pettingzoos_tests_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    max_cycles_test(dpem_env)
    seed_test(dpem_env.env, num_cycles=2)
    parallel_seed_test(dpem_env.parallel_env, num_cycles=2)
    state_test(dpem_env.env("chain3-v0"), dpem_env.parallel_env("chain3-v0"))


def test_it_passes_pettingzoos_render_test(windows: list[Any]) -> None:
    render_test(lambda render_mode: dpem_env.env("chain3-v0", render_mode=render_mode))
    assert windows


def test_agents_that_act_in_turn_play_the_game_of_those_that_act_at_once() -> None:
    at_once, in_turn = parallel_env("star8-v0", max_cycles=30), dpem_env.env("star8-v0", max_cycles=30)
    rng = np.random.default_rng(0)
    observations, infos = at_once.reset(seed=5)
    in_turn.reset(seed=5)
    while at_once.agents:
        actions = legal_actions(infos, rng) | {"agent_3": 99, "agent_5": -1}  # illegal ones are waits here, too
        for agent in at_once.agents:
            observation, *_, info = in_turn.last()
            assert in_turn.agent_selection == agent
            assert np.array_equal(observation, observations[agent])
            assert info["illegal_actions"] == infos[agent]["illegal_actions"]
            in_turn.step(actions[agent])
        observations, rewards, _, truncated, infos = at_once.step(actions)
        assert (in_turn.rewards, in_turn.truncations) == (rewards, truncated)
    assert infos["agent_3"]["illegal_actions"] == 30


@pytest.mark.parametrize("build", [dpem_env.env, dpem_env.raw_env])
def test_the_constructors_of_turns_take_the_same_arguments(build: Callable[..., Any]) -> None:
    env = build("mesh20-v0", observation="dict", max_cycles=7, request_rate=3.0)
    assert env.unwrapped.max_cycles == 7
    assert env.unwrapped.scenario == scenarios.get("mesh20-v0", request_rate=3.0)
    assert env.observation_space("agent_1") is env.unwrapped.observation_space("agent_1")
    with pytest.raises(ScenarioError, match="did you mean 'deadline'"):
        build("chain3-v0", deadlin=2.0)


@pytest.mark.skipif(not hasattr(pettingzoo, "register"), reason="this PettingZoo has no registry")
def test_every_scenario_is_registered_with_pettingzoo() -> None:
    assert {f"dpem/{name}" for name in scenarios.SCENARIOS} <= set(pettingzoo.parallel_registry)
    env = pettingzoo.make("parallel", "dpem/mesh100-v0")
    assert env.unwrapped.scenario == scenarios.get("mesh100-v0")
    assert len(env.possible_agents) == 100
    observations, _ = env.reset(seed=0)
    assert observations["agent_99"].shape == (432,)
    assert {f"dpem/{name}" for name in scenarios.SCENARIOS} <= set(pettingzoo.aec_registry)
    for kind in ("parallel", "aec"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = pettingzoo.make(kind, "dpem/star8-v0", observation="dict", max_cycles=7)
        assert made.unwrapped.max_cycles == 7


def test_spaces_and_agents_follow_the_convention_of_the_libraries() -> None:
    env = parallel_env("mesh20-v0", request_rate=3.0)
    assert env.possible_agents == [f"agent_{i}" for i in range(20)]
    assert env.agents == []
    assert env.metadata["name"] == "mesh20-v0+request_rate=3.0"
    assert env.metadata["is_parallelizable"]
    assert EntanglementEnv.metadata["name"] == "dpem_env"
    assert env.render_mode is None
    for agent in env.possible_agents:
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) is env.action_space(agent)
        assert env.observation_space(agent) == spaces.Box(0.0, 1.0, (432,), np.float32)
        assert env.action_space(agent) == spaces.Discrete(1 + 8 * 3)
    assert parallel_env("mesh20-v0", routes=True).action_space("agent_3") == spaces.Discrete(1 + 8 * 3 * 3)
    assert parallel_env("mesh20-v0", conditional=True).action_space("agent_3") == spaces.Discrete(1 + 2 * 8 * 3)
    both = parallel_env("mesh20-v0", routes=True, conditional=True)
    assert both.action_space("agent_3") == spaces.Discrete(1 + 2 * 8 * 3 * 3)


@pytest.mark.parametrize("observation", ["flat", "dict"])
@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
def test_spaces_of_agents_and_copies_are_sampled_apart(observation: Any, kind: str) -> None:
    env = parallel_env("chain3-v0", observation=observation)
    first, second = (getattr(env, kind)(agent) for agent in ("agent_0", "agent_1"))
    copied = getattr(copy.deepcopy(env), kind)("agent_1")
    for space in (first, second, copied):
        space.seed(3)
    samples = [[space.sample() for _ in range(4)] for space in (first, second, copied)]
    for other in samples[1:]:
        assert gymnasium.utils.env_checker.data_equivalence(samples[0], other, exact=True)
    assert not gymnasium.utils.env_checker.data_equivalence(samples[0][:2], samples[0][2:], exact=True)


@pytest.mark.parametrize("scenario", ["mesh20-v0", "chain3-v0", "star8-v0"])
@pytest.mark.parametrize("arguments", VARIANTS)
def test_everything_lies_in_its_space_over_whole_episodes(scenario: str, arguments: dict[str, Any]) -> None:
    env = parallel_env(scenario, **arguments)
    rng = np.random.default_rng(7)
    observations, infos = env.reset(seed=11)
    agents, steps = env.possible_agents[:], 0
    while True:
        assert list(observations) == list(infos) == agents
        for agent in agents:
            assert env.observation_space(agent).contains(observations[agent])
            mask = masked(observations, infos)[agent]["action_mask"]
            assert mask.dtype == np.int8
            assert mask.shape == (env.action_space(agent).n,)
            assert mask[0] == 1
            assert set(mask.tolist()) <= {0, 1}
            assert infos[agent]["illegal_actions"] == 0
        assert env.state_space.contains(env.state())
        if not env.agents:
            break
        observations, rewards, terminated, truncated, infos = env.step(
            legal_actions(masked(observations, infos), rng, 0.5)
        )
        steps += 1
        assert list(rewards) == list(terminated) == list(truncated) == agents
        assert all(type(reward) is float for reward in rewards.values())
        assert terminated == dict.fromkeys(agents, False)
        assert truncated == dict.fromkeys(agents, steps == 400)
        assert env.agents == ([] if steps == 400 else agents)
    assert steps == 400


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_what_a_step_returned_is_never_touched_again(observation: Any) -> None:
    env = parallel_env("star8-v0", observation=observation, forecaster="persistence", max_cycles=30)
    rng = np.random.default_rng(0)
    observations, infos = env.reset(seed=0)
    kept: list[Any] = []
    while env.agents:
        kept.append(((observations, infos, env.state()), copy.deepcopy((observations, infos, env.state()))))
        observations, *_, infos = env.step(legal_actions(masked(observations, infos), rng))
    env.reset(seed=1)
    for returned, then in kept:
        assert gymnasium.utils.env_checker.data_equivalence(returned, then, exact=True)


def test_a_changed_observation_changes_nothing_in_the_environment() -> None:
    env, untouched = (parallel_env("star8-v0", observation="dict") for _ in range(2))
    observations, infos = env.reset(seed=0)
    untouched.reset(seed=0)
    for agent in env.agents:
        observations[agent]["observation"][:] = 0.5
        with pytest.raises(ValueError, match="read-only"):  # of masks no copies are taken
            observations[agent]["action_mask"][:] = 0
        infos[agent]["illegal_actions"] = 7
    env.state()[:] = 0.5
    after, expected = env.step(waits(env)), untouched.step(waits(untouched))
    assert gymnasium.utils.env_checker.data_equivalence(after, expected, exact=True)


def test_dict_observations_hold_the_flat_ones_and_the_masks() -> None:
    flat, both = parallel_env("star8-v0"), parallel_env("star8-v0", observation="dict")
    rng = np.random.default_rng(0)
    (rows, infos), (dicts, others) = flat.reset(seed=3), both.reset(seed=3)
    assert isinstance(both.observation_space("agent_0"), spaces.Dict)
    for _ in range(30):
        for agent in flat.agents:
            assert list(dicts[agent]) == ["observation", "action_mask"]
            assert np.array_equal(dicts[agent]["observation"], rows[agent])
            assert np.array_equal(dicts[agent]["action_mask"], infos[agent]["action_mask"])
            assert dicts[agent]["action_mask"].dtype == np.int8
            # Libraries take the mask out of one of the two, and some stop at a second one.
            assert others[agent] == {name: told for name, told in infos[agent].items() if name != "action_mask"}
        actions = legal_actions(infos, rng)
        rows, *_, infos = flat.step(actions)
        dicts, *_, others = both.step(actions)


def test_max_cycles_can_be_written_and_holds_from_the_next_reset() -> None:
    env = parallel_env("chain3-v0")
    assert env.max_cycles == 400
    for slots in (3, 1, 5):
        env.max_cycles = slots
        env.reset(seed=0)
        played = 0
        while env.agents:
            env.step(waits(env))
            played += 1
        assert played == slots
    assert parallel_env("chain3-v0", max_cycles=9).max_cycles == 9
    assert parallel_env("chain3-v0", slots=12).max_cycles == 12


@pytest.mark.parametrize("bad", [0, -3, 2.5, "10"])
def test_a_max_cycles_that_is_no_number_of_slots_is_refused(bad: Any) -> None:
    with pytest.raises(ScenarioError, match="max_cycles") as error:
        parallel_env("chain3-v0", max_cycles=bad)
    one_line(error)
    env = parallel_env("chain3-v0")
    env.max_cycles = bad
    with pytest.raises(ScenarioError, match="max_cycles"):
        env.reset()


def pickled(env: EntanglementEnv) -> EntanglementEnv:
    copied = pickle.loads(pickle.dumps(env))
    assert isinstance(copied, EntanglementEnv)
    return copied


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled])
@pytest.mark.parametrize("arguments", [*VARIANTS, {"forecaster": "oracle"}, {"render_mode": "rgb_array"}])
def test_a_copy_made_mid_episode_continues_identically(
    copy_of: Callable[[EntanglementEnv], EntanglementEnv], arguments: dict[str, Any]
) -> None:
    env = parallel_env("star8-v0", max_cycles=40, **arguments)
    rng = np.random.default_rng(0)
    observations, infos = env.reset(seed=5)
    for _ in range(15):
        observations, *_, infos = env.step(legal_actions(masked(observations, infos), rng))
    other = copy_of(env)
    while env.agents:
        actions = legal_actions(masked(observations, infos), rng)
        mine, theirs = env.step(actions), other.step(actions)
        assert gymnasium.utils.env_checker.data_equivalence(mine, theirs, exact=True)
        assert env.session.simulator.digest() == other.session.simulator.digest()
        observations, *_, infos = mine
    assert other.agents == []
    again = env.reset(), other.reset()
    assert gymnasium.utils.env_checker.data_equivalence(*again, exact=True)


def test_a_copy_is_its_own() -> None:
    env = parallel_env("star8-v0")
    env.reset(seed=0)
    other = copy.deepcopy(env)
    before = other.session.simulator.digest()
    env.step(dict.fromkeys(env.agents, 1))
    assert other.session.simulator.digest() == before
    *_, infos = other.step(waits(other))
    assert not any(info["action_mask"].flags.writeable for info in infos.values())


@pytest.mark.parametrize("scenario", ["mesh20-v0", "chain3-v0"])
def test_equal_seeds_give_equal_rollouts_whatever_was_played_before(scenario: str) -> None:
    env = parallel_env(scenario, max_cycles=150)
    digest = rollout_digest(env, 4)
    assert rollout_digest(parallel_env(scenario, max_cycles=150), 4) == digest
    other = rollout_digest(env, 5)
    assert other != digest
    rollout_digest(env, None)
    env.reset()
    env.step(waits(env))  # left in the middle
    assert rollout_digest(env, 4) == digest
    assert rollout_digest(env, 5) == other


def test_a_rollout_is_the_same_in_another_process_with_other_hashes() -> None:
    here = [named_rollout_digest(name, 4) for name in ("mesh20-v0", "mesh100-outages-v0")]
    code = (
        "from support.rollouts import named_rollout_digest as d; print(d('mesh20-v0', 4), d('mesh100-outages-v0', 4))"
    )
    seed = "12345" if os.environ.get("PYTHONHASHSEED") != "12345" else "54321"
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_resets_without_a_seed_follow_from_the_last_one() -> None:
    def digests() -> list[str]:
        env = parallel_env("chain3-v0", max_cycles=60, predictability=0.0)
        return [rollout_digest(env, 8), *(rollout_digest(env, None) for _ in range(3))]

    first = digests()
    assert first == digests()
    assert len(set(first)) == 4


def test_unseeded_environments_differ() -> None:
    seeds = set()
    for _ in range(4):
        env = parallel_env("chain3-v0")
        env.reset()
        seeds.add(env.session.seeds)
    assert len(seeds) > 1


def test_the_split_decides_the_seeds() -> None:
    for split, topology, demand in (("train", 3, 3), ("validation", 1003, 1_000_003), ("evaluation", 2003, 2_000_003)):
        env = parallel_env("chain3-v0", split=split)  # type: ignore[arg-type]
        env.reset(seed=3)
        assert env.session.seeds == (topology, demand)


def test_options_name_topology_and_demand() -> None:
    env = parallel_env("mesh20-v0")
    env.reset(seed=3, options={"topology_seed": 17})
    assert env.session.seeds == (17, 3)
    env.reset(seed=3, options={"demand_seed": np.int64(21)})
    assert env.session.seeds == (3, 21)
    env.reset(options={"topology_seed": 17, "demand_seed": 21})
    assert env.session.seeds == (17, 21)
    first = env.session.network
    env.reset(options={"topology_seed": 18, "demand_seed": 21})
    assert not np.array_equal(env.session.network.peers, first.peers)


@pytest.mark.parametrize("bad", [-1, 1.5, "3", None, True, np.True_, np.int8(-3), [3], np.array([3])])
@pytest.mark.parametrize("name", ["topology_seed", "demand_seed"])
def test_a_bad_option_is_told_by_its_name(name: str, bad: Any) -> None:
    with pytest.raises(ScenarioError, match=name) as error:
        parallel_env("chain3-v0").reset(options={name: bad})
    one_line(error)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"topology": 5}, "unknown reset option 'topology'; did you mean 'topology_seed'?"),
        ({"demand_sed": 5}, "unknown reset option 'demand_sed'; did you mean 'demand_seed'?"),
        ({"topology_seed": 5, "split": "train"}, "unknown reset option 'split'; known: demand_seed, topology_seed"),
        ({5: 5}, "unknown reset option 5; known: demand_seed, topology_seed"),
        ([], "reset options is list; expected a dict or None"),
    ],
)
def test_an_option_of_another_name_is_refused_with_the_nearest(options: Any, told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parallel_env("chain3-v0").reset(seed=1, options=options)
    assert one_line(error) == told


@pytest.mark.parametrize("options", BAD_OPTIONS)
@pytest.mark.parametrize("build", [parallel_env, dpem_env.env])
def test_refused_options_leave_the_episode_and_the_draws_to_come(build: Callable[..., Any], options: Any) -> None:
    env, untouched = (build("chain3-v0", max_cycles=5) for _ in range(2))
    for each in (env, untouched):
        each.reset(seed=3)
    with pytest.raises(ScenarioError, match="reset option"):
        env.reset(seed=9, options=options)
    for each in (env, untouched):
        each.reset()
    assert env.unwrapped.session.seeds == untouched.unwrapped.session.seeds


@pytest.mark.parametrize("bad", [-1, 1.5, "3", True, [3]])
def test_a_bad_seed_is_told(bad: Any) -> None:
    with pytest.raises(ScenarioError, match="seed=") as error:
        parallel_env("chain3-v0").reset(seed=bad)
    one_line(error)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, ScenarioError, "split is 'test'"),
        ({"observation": "array"}, ScenarioError, "observation is 'array'"),
        ({"render_mode": "pixels"}, ScenarioError, "render_mode is 'pixels'"),
        ({"forecaster": "oracel"}, PolicyError, "did you mean 'oracle'"),
        ({"deadlin": 2.0}, ScenarioError, "did you mean 'deadline'"),
        ({"scenario": "mesh10-v0"}, ScenarioError, "did you mean 'mesh100-v0'"),
    ],
)
def test_a_bad_argument_is_told_in_one_line(arguments: dict[str, Any], error: type[DpemError], message: str) -> None:
    with pytest.raises(error) as raised:
        parallel_env(**arguments)
    assert message in one_line(raised)


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint8, np.array])
def test_integers_of_every_kind_are_actions(kind: Callable[[int], Any]) -> None:
    env, plain = parallel_env("star8-v0"), parallel_env("star8-v0")
    for each in (env, plain):
        each.reset(seed=0)
    env.step({agent: kind(2) for agent in env.agents})
    plain.step(dict.fromkeys(plain.agents, 2))
    assert env.session.simulator.digest() == plain.session.simulator.digest()
    assert (env.session.simulator.state.verdict > 0).all()


def test_sampled_actions_are_actions() -> None:
    env = parallel_env("star8-v0")
    _, infos = env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample(infos[agent]["action_mask"]) for agent in env.agents})
    env.step({agent: np.int64(0) if i % 2 else 0 for i, agent in enumerate(env.agents)})


@pytest.mark.parametrize(
    "bad", [1.0, "1", None, [1], np.array([1]), np.float32(1), 2**70, {}, True, False, np.True_, np.array(True)]
)
@pytest.mark.parametrize("all_of_them", [False, True])
def test_an_action_that_is_no_integer_is_refused_and_nothing_is_played(bad: Any, all_of_them: bool) -> None:
    env = parallel_env("chain3-v0")
    env.reset(seed=0)
    before = env.session.simulator.digest()
    actions = waits(env) | (dict.fromkeys(env.agents, bad) if all_of_them else {"agent_1": bad})
    with pytest.raises(ActionError, match="expected an int, 0 waits") as error:
        env.step(actions)
    told = one_line(error)
    assert "fit into 64 bits" in told if type(bad) is int else type(bad).__name__ in told
    assert env.session.simulator.digest() == before
    env.step(waits(env))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"agent_3": 0}, "unknown agent 'agent_3'"),
        (lambda a: {**{k: v for k, v in a.items() if k != "agent_1"}, "agnet_1": 0}, "unknown agent 'agnet_1'"),
        (lambda a: {k: v for k, v in a.items() if k != "agent_1"}, "no action for 'agent_1' (1 missing)"),
        (lambda a: {}, "no action for 'agent_0' (3 missing)"),
        (lambda a: [0, 0, 0], "actions is list"),
        (lambda a: np.zeros(3, dtype=int), "actions is ndarray"),
        (lambda a: None, "actions is NoneType"),
        (lambda a: 0, "actions is int"),
    ],
)
def test_actions_that_fit_no_agents_are_refused_in_one_line(change: Callable[[Any], Any], message: str) -> None:
    env = parallel_env("chain3-v0")
    env.reset(seed=0)
    with pytest.raises(ActionError) as error:
        env.step(change(waits(env)))
    assert message in one_line(error)


@pytest.mark.parametrize("routes", [False, True])
def test_an_integer_out_of_range_is_a_wait_and_counted(routes: bool) -> None:
    env, waiting = (parallel_env("chain3-v0", routes=routes) for _ in range(2))
    env.reset(seed=0)
    waiting.reset(seed=0)
    n = int(env.action_space("agent_0").n)
    *_, infos = env.step({"agent_0": n, "agent_1": -1, "agent_2": 0})
    assert [info["illegal_actions"] for info in infos.values()] == [1, 1, 0]
    observations, *_, infos = env.step({"agent_0": 2**62, "agent_1": 0, "agent_2": -(2**62)})
    assert [info["illegal_actions"] for info in infos.values()] == [2, 1, 1]
    waiting.step(waits(waiting))
    expected, *_ = waiting.step(waits(waiting))
    for agent, observation in observations.items():
        assert np.array_equal(observation, expected[agent])
    _, infos = env.reset(seed=0)
    assert [info["illegal_actions"] for info in infos.values()] == [0, 0, 0]


def test_a_masked_action_is_a_wait_and_counted() -> None:
    env = parallel_env("chain3-v0", routes=True, rows=1, generation_rate=(0.0, 0.0), min_link_rate=0.0)
    _, infos = env.reset(seed=0)
    second_route = 1 + 1
    assert infos["agent_0"]["action_mask"][[1, second_route]].tolist() == [1, 0]  # a chain has one route
    *_, infos = env.step({"agent_0": 1, "agent_1": second_route, "agent_2": 0})
    assert [info["illegal_actions"] for info in infos.values()] == [0, 1, 0]
    assert not infos["agent_0"]["action_mask"][1:].any()  # its only row is taken
    *_, infos = env.step({"agent_0": 1, "agent_1": 0, "agent_2": 0})
    assert [info["illegal_actions"] for info in infos.values()] == [1, 1, 0]


def test_a_named_route_is_the_one_taken() -> None:
    env = parallel_env("mesh20-v0", routes=True)
    env.reset(seed=0)
    hops = env.session.network.routes.hops
    i, d = (int(x) for x in np.argwhere(hops[:, :, 2] > 0)[0])
    actions = waits(env) | {f"agent_{i}": 1 + (d * 3 + 1) * 3 + 2}
    env.session.simulator.world.emit(0.0)
    env.step(actions)
    state = env.session.simulator.state
    assert (state.alloc_peer[0, i, 0], state.alloc_quality[0, i, 0], state.alloc_route[0, i, 0]) == (d, 2, 2)


def test_before_the_first_and_after_the_last_slot_there_is_nothing_to_step() -> None:
    env = parallel_env("chain3-v0", max_cycles=2)
    everyone = dict.fromkeys(env.possible_agents, 0)
    for actions in (everyone, {}):
        with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
            env.step(actions)
    env.reset(seed=0)
    env.step(everyone)
    env.step(everyone)
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    with pytest.raises(ActionError, match="call reset") as error:
        env.step(everyone)
    one_line(error)
    env.reset(seed=0)
    env.step(everyone)


@pytest.mark.parametrize("look", ["state", "render"])
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_before_the_first_reset_there_is_nothing_to_look_at(look: str, render_mode: str | None) -> None:
    env = parallel_env("chain3-v0", render_mode=render_mode)
    for each in (env, copy.deepcopy(env), pickled(env)):
        with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
            getattr(each, look)()
    env.reset(seed=0)
    getattr(env, look)()


@pytest.mark.parametrize("call", ["state", "render", "last", "agent_iter"])
def test_before_the_first_reset_agents_in_turn_are_told_to_reset(call: str) -> None:
    with pytest.raises((AssertionError, AttributeError), match="reset"):
        getattr(dpem_env.env("chain3-v0"), call)()
    with pytest.raises(AssertionError, match="reset"):
        dpem_env.env("chain3-v0").step(0)


def test_the_state_is_every_agents_features_as_of_now() -> None:
    env = parallel_env("star8-v0", forecaster="moving-average")
    _, infos = env.reset(seed=1)
    rng = np.random.default_rng(1)
    width = env.observation_space("agent_0").shape[0]  # type: ignore[index]
    assert env.state_space == spaces.Box(0.0, 1.0, (8 * width,), np.float32)
    for _ in range(20):
        session = env.session
        expected = session.observer.observe(session.forecast, fresh=True)[0]
        assert env.state().dtype == np.float32
        assert np.array_equal(env.state().reshape(8, width), expected)
        *_, infos = env.step(legal_actions(infos, rng))


def test_an_own_forecaster_object_is_used() -> None:
    own = MovingAverage(window=3)
    env = parallel_env("chain3-v0", forecaster=own)
    env.reset(seed=0)
    assert env.session.forecaster is own


def test_observations_are_those_of_the_session() -> None:
    env = parallel_env("star8-v0", forecaster="persistence")
    observations, infos = env.reset(seed=2)
    assert np.array_equal(np.stack(list(observations.values())), env.session.observations())
    assert np.array_equal(np.stack([info["action_mask"] for info in infos.values()]), env.session.masks())


def test_the_package_offers_the_environment_by_name() -> None:
    assert dpem_env.parallel_env is parallel_env
    assert isinstance(dpem_env.parallel_env("chain3-v0"), dpem_env.EntanglementEnv)
    assert parallel_env().scenario.name == "mesh100-v0"
