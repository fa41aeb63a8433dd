"""The examples of the documentation work; those that need PyTorch or TorchRL are run where these are installed."""

from __future__ import annotations

import py_compile
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dpem_env import make_vec

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = DOCS / "examples"
SLOTS = 16


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def torch() -> ModuleType:
    torch: ModuleType = pytest.importorskip("torch", reason="PyTorch is not installed: examples are only compiled")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def torchrl(torch: ModuleType) -> ModuleType:
    return pytest.importorskip("torchrl", reason="TorchRL is not installed: its example is only compiled")


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_python(example: Path, tmp_path: Path) -> None:
    py_compile.compile(str(example), cfile=str(tmp_path / "compiled.pyc"), doraise=True)


def test_the_loop_in_the_page_on_vector_environments_plays_two_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    (loop,) = re.findall(r"```python\n(.*?)```", (DOCS / "vector.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(loop, "vector.md", "exec"), names)
    assert capsys.readouterr().out.count("episodes end") == 2
    assert names["infos"]["illegal_actions"].sum() == 0  # type: ignore[index]


@pytest.mark.usefixtures("examples")
def test_advantages_bootstrap_at_a_truncation_and_stop_there(torch: ModuleType) -> None:
    import cleanrl_loop as loop

    slots, cut = 7, 3
    rng = np.random.default_rng(0)
    rewards, values, next_values = (torch.from_numpy(rng.random((slots, 2))) for _ in range(3))
    over = torch.zeros((slots, 2), dtype=torch.bool)
    over[cut, 0] = True
    found = loop.advantages(rewards, values, next_values, over)
    errors = rewards + loop.DISCOUNT * next_values - values
    weights = [(loop.DISCOUNT * loop.TRACE) ** k for k in range(slots)]
    for column, ends in ((0, (cut, slots - 1)), (1, (slots - 1,))):
        for slot in range(slots):
            end = next(last for last in ends if last >= slot)
            due = sum(weights[t - slot] * errors[t, column] for t in range(slot, end + 1))
            assert torch.isclose(found[slot, column], due)


@pytest.mark.usefixtures("examples")
def test_collected_values_are_those_of_the_final_observation(
    torch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cleanrl_loop as loop

    envs = make_vec("star8-v0", 2, max_cycles=SLOTS)
    observations, infos = envs.reset(seed=0)
    agent = loop.Agent(observations.shape[1], infos["action_mask"].shape[1])
    played, given = [], []
    step = envs.step
    monkeypatch.setattr(envs, "step", lambda actions: played.append(step(actions)) or played[-1])
    monkeypatch.setattr(loop, "advantages", lambda *columns: given.extend(columns) or columns[0])
    loop.collect(envs, agent, observations, infos["action_mask"], SLOTS + 2)
    _, values, next_values, over = given
    assert over.all(dim=1).tolist() == [slot == SLOTS - 1 for slot in range(SLOTS + 2)]
    with torch.no_grad():
        final = agent.value(torch.from_numpy(played[SLOTS - 1][-1]["final_obs"]))
    assert torch.equal(next_values[SLOTS - 1], final)
    assert not torch.allclose(next_values[SLOTS - 1], values[SLOTS])
    assert torch.allclose(next_values[: SLOTS - 1], values[1:SLOTS])


@pytest.mark.usefixtures("examples")
def test_the_training_loop_learns_on_legal_actions_alone(torch: ModuleType) -> None:
    import cleanrl_loop as loop

    envs = make_vec("mesh20-v0", 2)
    agent, earned = loop.train(envs, updates=2, slots=16, seed=0)
    again, _ = loop.train(make_vec("mesh20-v0", 2), updates=1, slots=16, seed=0)
    assert np.isfinite(earned).all()
    *_, infos = envs.step(np.zeros(envs.num_envs, dtype=np.int64))
    assert infos["illegal_actions"].sum() == 0
    assert any(not torch.equal(a, b) for a, b in zip(agent.parameters(), again.parameters(), strict=True))


@pytest.mark.usefixtures("examples", "torchrl")
def test_the_torchrl_environment_keeps_to_its_specs() -> None:
    from torchrl.envs import ActionMask, TransformedEnv
    from torchrl.envs.utils import check_env_specs
    from torchrl_env import EntanglementTorchEnv

    check_env_specs(TransformedEnv(EntanglementTorchEnv(make_vec("star8-v0", 2, max_cycles=SLOTS)), ActionMask()))


@pytest.mark.usefixtures("examples", "torchrl")
def test_torchrl_sees_the_episodes_of_the_vector_environment_with_their_final_observations(torch: ModuleType) -> None:
    from torchrl.envs import ActionMask, TransformedEnv
    from torchrl_env import EntanglementTorchEnv

    torch.manual_seed(0)
    env = TransformedEnv(EntanglementTorchEnv(make_vec("mesh20-v0", 2, max_cycles=SLOTS)), ActionMask())
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


@pytest.mark.usefixtures("examples", "torchrl")
def test_a_seed_set_in_the_middle_of_an_episode_begins_anew(torch: ModuleType) -> None:
    from torchrl_env import EntanglementTorchEnv

    env = EntanglementTorchEnv(make_vec("star8-v0", 2, max_cycles=SLOTS))
    waits = [torch.zeros(env.batch_size, dtype=torch.int64)] * SLOTS
    env.set_seed(3)
    first = env.rollout(SLOTS, actions=waits)
    env.set_seed(3)
    again = env.rollout(SLOTS, actions=waits)
    other = env.rollout(SLOTS, actions=waits)
    assert torch.equal(first["observation"], again["observation"])
    assert not torch.equal(first["observation"], other["observation"])
