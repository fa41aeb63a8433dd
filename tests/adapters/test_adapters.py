"""Adapters of RL libraries: the trial finds out what is wrong, and each adapter keeps to its contract.

Libraries that are not installed are skipped; `make test-adapters` installs them, and commits what the trials found.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import py_compile
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpem_env
from dpem_agents import adapters
from dpem_agents.adapters import trial as harness
from dpem_env import make_vec
from dpem_env.simulator import RULES_VERSION

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "agents" / "dpem_agents" / "adapters"
RESULTS = ROOT / "baselines" / "results" / "adapters"
CONSTRAINTS = sorted(Path(__file__).parent.glob("constraints-*.txt"))
SLOTS = 16
ACTIONS = {
    (False, False): 13,
    (True, False): 37,
    (False, True): 25,
    (True, True): 73,
}  # of star8-v0: routes, only if free
MORE_ACTIONS = "routes-conditional"  # the folder of results with both

LEGAL = """
import numpy as np
import dpem_env

LIBRARY, MASKS = "numpy", "none needed"
rng = np.random.default_rng(0)


def train(scenario="star8-v0", timesteps=800, seed=0, **arguments):
    envs = dpem_env.make_vec(scenario, 2, **arguments)
    envs.reset(seed=seed)
    for _ in range(timesteps // envs.num_envs):
        envs.step(np.zeros(envs.num_envs, dtype=np.int64))
    return lambda observations, masks: np.zeros(len(masks), dtype=np.int64)
"""
WAITS = "np.zeros(len(masks), dtype=np.int64)"
ILLEGAL = "np.full(len(masks), 99)"
RANDOM = "(rng.random(masks.shape) * masks).argmax(axis=1)"
AS_TRAINED = f"{WAITS} if masks.shape[1] == envs.single_action_space.n else None"
ILLEGAL_TRAINING = LEGAL.replace("np.zeros(envs.num_envs, dtype=np.int64)", "np.full(envs.num_envs, 99)")

Write = Callable[[str], object]


@pytest.fixture
def write_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Puts a source beside the adapters, as one of the name "made_up"."""
    monkeypatch.setattr(adapters, "__path__", [*adapters.__path__, str(tmp_path)])
    monkeypatch.setattr(harness, "NAMES", ["made_up"])
    monkeypatch.setattr(harness, "EPISODES", 4)
    monkeypatch.delitem(sys.modules, "dpem_agents.adapters.made_up", raising=False)
    path = tmp_path / "made_up.py"

    return lambda source: path.write_text(source, encoding="utf-8")


def failures(source: str, write_adapter: Write) -> Any:
    write_adapter(source)
    return harness.trial("made_up")["failures"]


def test_an_adapter_that_waits_always_passes_since_random_legal_floods_the_network(write_adapter: Write) -> None:
    assert failures(LEGAL, write_adapter) == []


def test_an_illegal_action_in_training_is_found_out(write_adapter: Write) -> None:
    assert failures(ILLEGAL_TRAINING, write_adapter) == ["1600 illegal actions while training"]


def test_an_illegal_action_in_play_is_found_out(write_adapter: Write) -> None:
    assert failures(LEGAL.replace(WAITS, ILLEGAL), write_adapter) == ["25600 illegal actions while playing"]


def test_an_adapter_that_looks_at_no_mask_is_found_out_where_nodes_are_crowded(write_adapter: Write) -> None:
    blind = LEGAL.replace(WAITS, "np.full(len(masks), 1)")  # always the first peer
    (failure,) = (found for found in failures(blind, write_adapter) if "illegal" in found)
    assert failure.endswith("illegal actions while playing")
    assert 0 < int(failure.split()[0]) < 12_800


def test_a_library_without_masks_may_train_on_illegal_actions_but_not_play_them(write_adapter: Write) -> None:
    source = "ILLEGAL_ACTIONS_POSSIBLE = True\n" + ILLEGAL_TRAINING.replace(WAITS, ILLEGAL)
    write_adapter(source)
    found = harness.trial("made_up")
    assert found["illegal_actions_training"] == 1600
    assert found["illegal_actions_possible"]
    assert found["failures"] == ["25600 illegal actions while playing"]


def test_an_adapter_that_learned_nothing_fails(write_adapter: Write) -> None:
    (failure,) = failures(LEGAL.replace(WAITS, RANDOM), write_adapter)
    assert failure.startswith("return minus that of random-legal is ")


def test_training_in_another_process_is_found_out(write_adapter: Write) -> None:
    (failure,) = failures(LEGAL.replace("range(timesteps // envs.num_envs)", "range(10)"), write_adapter)
    assert failure.startswith("160 of 800 agent-steps")


@pytest.mark.parametrize(("routes", "conditional"), ACTIONS)
def test_a_trial_is_made_with_the_actions_that_are_asked_for(
    write_adapter: Write, routes: bool, conditional: bool
) -> None:
    write_adapter(LEGAL.replace(WAITS, AS_TRAINED))
    found = harness.trial("made_up", routes=routes, conditional=conditional)
    assert (found["routes"], found["conditional"]) == (routes, conditional)
    assert found["actions"] == ACTIONS[routes, conditional]
    assert found["failures"] == []


def test_the_result_file_says_all_that_the_table_needs(
    write_adapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(LEGAL)
    out = tmp_path / "results" / "made_up.json"
    monkeypatch.setattr(sys, "argv", ["trial", "made_up", "--conditional", "--out", str(out)])
    assert harness.main() == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["library"] == "numpy"
    assert found["version"] == importlib.metadata.version("numpy")
    assert found["masks"] == "none needed"
    assert (found["routes"], found["conditional"], found["actions"]) == (False, True, 25)
    assert found["lines"] == len(LEGAL.splitlines())
    assert found["timesteps"] == found["agent_steps"] == 800
    assert found["agent_steps_per_second"] == pytest.approx(800 / found["cpu_seconds"])
    assert found["illegal_actions_training"] == found["illegal_actions_playing"] == 0
    assert found["return"] == 0.0
    assert found["difference"] == pytest.approx(-found["return_random_legal"])
    assert 0 < found["standard_error"] < found["difference"]
    assert found["passed"]
    assert found["failures"] == []
    assert found.keys() >= {"seconds", "python", "date", "scenario_hash", "simulator", "episodes"}


def test_a_trial_that_fails_says_why_and_still_writes_its_result(
    write_adapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(ILLEGAL_TRAINING)
    out = tmp_path / "made_up.json"
    monkeypatch.setattr(sys, "argv", ["trial", "made_up", "--out", str(out)])
    assert harness.main() == 1
    assert "made_up: " in (said := capsys.readouterr().out)
    assert "1600 illegal actions while training" in said
    assert not json.loads(out.read_text(encoding="utf-8"))["passed"]


def test_what_is_counted_is_what_environments_of_both_kinds_count() -> None:
    rng = np.random.default_rng(0)
    told: list[int] = []
    with harness.watched(told.append) as plays:
        envs = make_vec("star8-v0", 2, max_cycles=3 * SLOTS)
        envs.reset(seed=0)
        for _ in range(SLOTS):
            *_, infos = envs.step(rng.integers(0, 20, envs.num_envs))
        env = dpem_env.parallel_env("star8-v0")
        env.reset(seed=0)
        for _ in range(SLOTS):
            *_, single = env.step({agent: int(rng.integers(0, 20)) for agent in env.agents})
    illegal = infos["illegal_actions"].sum() + sum(info["illegal_actions"] for info in single.values())
    assert plays == {"decided": 3 * 8 * SLOTS, "illegal": illegal}
    assert 0 < illegal < plays["decided"]
    assert sum(told) == plays["decided"]
    env.step(dict.fromkeys(env.agents, 99))
    assert plays["decided"] == 3 * 8 * SLOTS


def test_there_are_adapters() -> None:
    assert {"cleanrl", "torchrl", "torchrl_pettingzoo", "rllib"} <= set(harness.NAMES)


@pytest.mark.parametrize("name", harness.NAMES)
def test_an_adapter_is_at_most_85_lines_of_python(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.py"
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled.pyc"), doraise=True)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 85


@pytest.mark.parametrize("name", harness.NAMES)
def test_an_adapter_declares_its_library_and_masks_and_trains_by_default(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert assigned >= {"LIBRARY", "MASKS"}
    (train,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    assert [argument.arg for argument in train.args.args] == ["scenario", "timesteps", "seed"]
    assert train.args.kwarg is not None
    assert [ast.literal_eval(default) for default in train.args.defaults][::2] == ["star8-v0", 0]


@pytest.mark.parametrize("folder", [".", MORE_ACTIONS])
@pytest.mark.parametrize("name", harness.NAMES)
def test_the_committed_result_of_an_adapter_passed_and_is_of_this_source(name: str, folder: str) -> None:
    found = json.loads((RESULTS / folder / f"{name}.json").read_text(encoding="utf-8"))
    assert found["passed"]
    assert found["lines"] == len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines())
    assert found["routes"] == found["conditional"] == (folder == MORE_ACTIONS)
    assert found["version"].split("+")[0] in versions_pinned(found["library"])
    if found["simulator"]["rules"] == RULES_VERSION:
        assert found["scenario_hash"] == dpem_env.scenarios.get(found["scenario"]).hash


def versions_pinned(library: str) -> set[str]:
    return {
        line.removeprefix(f"{library}==")
        for path in CONSTRAINTS
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"{library}==")
    }


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_a_set_of_libraries_is_pinned_to_exact_versions(path: Path) -> None:
    pins = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(pins) > 20
    assert all(line.count("==") == 1 and "+" not in line for line in pins)


@pytest.mark.parametrize(("routes", "conditional"), ACTIONS)
@pytest.mark.parametrize("name", harness.NAMES)
def test_a_library_that_is_installed_trains_briefly_on_legal_actions_alone(
    name: str, routes: bool, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(f"dpem_agents.adapters.{name}", exc_type=ImportError, reason=f"{name}: not installed")
    monkeypatch.setattr(harness, "EPISODES", 2)
    found = harness.trial(name, 10_000, routes, conditional)
    assert found["actions"] == ACTIONS[routes, conditional]
    assert found["agent_steps"] >= 5_000
    assert found["illegal_actions_possible"] or found["illegal_actions_training"] == 0
    assert found["illegal_actions_playing"] == 0


@pytest.fixture
def torch() -> types.ModuleType:
    torch: types.ModuleType = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def cleanrl(torch: types.ModuleType) -> types.ModuleType:
    return importlib.import_module("dpem_agents.adapters.cleanrl")


def test_advantages_bootstrap_at_a_truncation_and_stop_there(torch: types.ModuleType, cleanrl: Any) -> None:
    slots, cut = 7, 3
    rng = np.random.default_rng(0)
    rewards, values, next_values = (torch.from_numpy(rng.random((slots, 2))) for _ in range(3))
    over = torch.zeros((slots, 2), dtype=torch.bool)
    over[cut, 0] = True
    found = cleanrl.advantages(rewards, values, next_values, over)
    errors = rewards + cleanrl.DISCOUNT * next_values - values
    weights = [(cleanrl.DISCOUNT * cleanrl.TRACE) ** k for k in range(slots)]
    for column, ends in ((0, (cut, slots - 1)), (1, (slots - 1,))):
        for slot in range(slots):
            end = next(last for last in ends if last >= slot)
            due = sum(weights[t - slot] * errors[t, column] for t in range(slot, end + 1))
            assert torch.isclose(found[slot, column], due)


def test_collected_values_are_those_of_the_final_observation(
    torch: types.ModuleType, cleanrl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = make_vec("star8-v0", 2, max_cycles=SLOTS)
    observations, infos = envs.reset(seed=0)
    agent = cleanrl.Agent(observations.shape[1], infos["action_mask"].shape[1])
    played: list[Any] = []
    given: list[Any] = []
    step = envs.step
    monkeypatch.setattr(envs, "step", lambda actions: played.append(step(actions)) or played[-1])
    monkeypatch.setattr(cleanrl, "advantages", lambda *columns: given.extend(columns) or columns[0])
    monkeypatch.setattr(cleanrl, "SLOTS", SLOTS + 2)
    cleanrl.collect(envs, agent, torch.from_numpy(observations), torch.from_numpy(infos["action_mask"]))
    _, values, next_values, over = given
    assert over.all(dim=1).tolist() == [slot == SLOTS - 1 for slot in range(SLOTS + 2)]
    with torch.no_grad():
        final = agent.critic(torch.from_numpy(played[SLOTS - 1][-1]["final_obs"])).squeeze(-1)
    assert torch.equal(next_values[SLOTS - 1], final)
    assert not torch.allclose(next_values[SLOTS - 1], values[SLOTS])
    assert torch.allclose(next_values[: SLOTS - 1], values[1:SLOTS])


def test_the_cleanrl_loop_learns_on_legal_actions_alone(
    torch: types.ModuleType, cleanrl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents: list[Any] = []
    made = cleanrl.Agent
    monkeypatch.setattr(cleanrl, "Agent", lambda *sizes: agents.append(made(*sizes)) or agents[-1])
    update = cleanrl.SLOTS * cleanrl.NETWORKS * 8
    with harness.watched(lambda decisions: None) as plays:
        actor = cleanrl.train(timesteps=2 * update)
    assert plays == {"decided": 2 * update, "illegal": 0}
    cleanrl.train(timesteps=update)
    longer, shorter = (list(agent.parameters()) for agent in agents)
    assert len(longer) == 12
    assert all(parameter.isfinite().all() for parameter in longer)
    assert all(not torch.equal(a, b) for a, b in zip(longer, shorter, strict=True))
    observations, infos = make_vec("star8-v0", 2).reset(seed=0)
    masks = infos["action_mask"].copy()
    masks[:, 0] = 0  # waiting, which it prefers
    assert masks[np.arange(len(masks)), actor(observations, masks)].all()


def test_the_loop_of_the_page_trains_with_stable_baselines3(torch: types.ModuleType) -> None:
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adapters.md").read_text("utf-8"), re.DOTALL)
    assert "learn(300_000)" in block
    with harness.watched(lambda decisions: None) as plays:
        exec(compile(block.replace("learn(300_000)", "learn(10_000)"), "adapters.md", "exec"), {})
    assert plays == {"decided": 2 * 8 * 8 * 128, "illegal": 0}


@pytest.fixture
def torchrl(torch: types.ModuleType) -> types.ModuleType:
    pytest.importorskip("torchrl", reason="TorchRL is not installed")
    return importlib.import_module("dpem_agents.adapters.torchrl")


def test_the_torchrl_environment_keeps_to_its_specs(torchrl: Any) -> None:
    from torchrl.envs import ActionMask, TransformedEnv
    from torchrl.envs.utils import check_env_specs

    env = torchrl.EntanglementTorchEnv(make_vec("star8-v0", 2, max_cycles=SLOTS))
    check_env_specs(TransformedEnv(env, ActionMask()))


WRAPPED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"observation": "dict"}, {}),
    ({"observation": "dict", "routes": True}, {"categorical_actions": False}),
    ({"observation": "dict"}, {"return_state": True}),
]


@pytest.mark.parametrize(("arguments", "options"), WRAPPED, ids=str)
@pytest.mark.parametrize("in_turn", [False, True])
def test_torchrls_wrapper_of_pettingzoo_plays_legal_actions_to_the_end(
    torchrl: Any, arguments: dict[str, Any], options: dict[str, Any], in_turn: bool
) -> None:
    from torchrl.envs import PettingZooWrapper
    from torchrl.envs.utils import check_env_specs

    build = dpem_env.env if in_turn else dpem_env.parallel_env
    made = build("star8-v0", max_cycles=SLOTS, **arguments)
    env = PettingZooWrapper(made, use_mask=in_turn, seed=3, **options)
    turns = SLOTS * (8 if in_turn else 1)
    rollout = env.rollout(turns + 1, break_when_any_done=False)
    group = "agent_0" if in_turn else "agent"
    seen = rollout[group, "observation"]
    features = seen["observation"] if "observation" in arguments else seen
    assert features.shape[0] == turns + 1
    assert (features >= 0).all()
    assert (features <= 1).all()
    assert rollout["next", "done"].flatten().nonzero().flatten().tolist() == [turns - 1]
    assert (rollout[group, "info", "illegal_actions"] == 0).all()
    assert rollout[group, "action_mask"].shape[-1] == made.action_space("agent_0").n
    check_env_specs(env)


def test_torchrl_sees_the_episodes_of_the_vector_environment_with_their_final_observations(
    torch: types.ModuleType, torchrl: Any
) -> None:
    from torchrl.envs import ActionMask, TransformedEnv

    torch.manual_seed(0)
    made = torchrl.EntanglementTorchEnv(make_vec("mesh20-v0", 2, max_cycles=SLOTS))
    env = TransformedEnv(made, ActionMask())
    env.set_seed(3)
    rollout = env.rollout(2 * SLOTS + 1, break_when_any_done=False).transpose(0, 1)
    alone = make_vec("mesh20-v0", 2, max_cycles=SLOTS)
    observations, infos = alone.reset(seed=3)
    for seen in rollout:
        assert np.array_equal(seen["observation"], observations)
        assert np.array_equal(seen["action_mask"], infos["action_mask"])
        assert infos["action_mask"][np.arange(alone.num_envs), seen["action"]].all()
        observations, rewards, _, truncations, infos = alone.step(seen["action"].numpy())
        after = seen["next"]
        assert np.array_equal(after["observation"], infos.get("final_obs", observations))
        assert np.array_equal(after["reward"].squeeze(-1), rewards.astype(np.float32))
        assert np.array_equal(after["truncated"].squeeze(-1), truncations)
        assert np.array_equal(after["done"].squeeze(-1), truncations)
    assert not rollout["next", "terminated"].any()
    assert rollout["next", "truncated"].sum() == 2 * alone.num_envs


def test_a_seed_set_in_the_middle_of_an_episode_begins_anew(torch: types.ModuleType, torchrl: Any) -> None:
    env = torchrl.EntanglementTorchEnv(make_vec("star8-v0", 2, max_cycles=SLOTS))
    waits = [torch.zeros(env.batch_size, dtype=torch.int64)] * SLOTS
    env.set_seed(3)
    first = env.rollout(SLOTS, actions=waits)
    env.set_seed(3)
    again = env.rollout(SLOTS, actions=waits)
    other = env.rollout(SLOTS, actions=waits)
    assert torch.equal(first["observation"], again["observation"])
    assert not torch.equal(first["observation"], other["observation"])
