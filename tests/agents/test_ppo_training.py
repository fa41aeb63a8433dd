"""Training: it goes on exactly where it was interrupted, keeps its checkpoints whole, and gets better."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_agents.libraries import errors_told_once
from dpem_agents.ppo import learner, training
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.decision_ppo import DecisionPPO
from dpem_agents.ppo.hyperparameters import Hyperparameters, changed
from dpem_agents.ppo.policy import CentralPpoPolicy, PpoPolicy
from dpem_agents.ppo.training import train
from dpem_agents.ppo.vec_env import NodeVecEnv
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.checking import check
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import get_policy
from dpem_env.support import provenance
from dpem_env.support.errors import DpemError, DpemWarning, ScenarioError
from support.command_line import complaint

CHAIN = scenarios.get("chain3-v0", slots=50)  # rollouts of 32 slots end inside episodes
QUICK = Hyperparameters(networks=2, slots=32, minibatches=3, epochs=2, hidden=8)
ROLLOUT = 2 * 32 * 3
MODES = pytest.mark.parametrize("mode", ["shared", "independent", "central"])


def quick(mode: str) -> Hyperparameters:
    """With plain networks for nodes that learn alone, so that either kind is trained here."""
    return replace(QUICK, encoder="plain" if mode == "independent" else "per-peer")


def trained(out: Path, mode: str = "shared", timesteps: int = 6 * ROLLOUT, **arguments: Any) -> Path:
    known = {"validation_episodes": 1, "validations": 3, "topology_seed": 5, "delay": 0.5}
    return train(CHAIN, mode, timesteps, out, **{"hyperparameters": quick(mode)} | known | arguments)


def interrupt_at(slot: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ctrl-C in the `slot`-th slot from now on; returns how to take it back."""
    usual, played = NodeVecEnv.step_wait, [0]

    def interrupted(self: NodeVecEnv) -> Any:
        played[0] += 1
        if played[0] == slot:
            raise KeyboardInterrupt
        return usual(self)

    monkeypatch.setattr(NodeVecEnv, "step_wait", interrupted)
    return lambda: monkeypatch.setattr(NodeVecEnv, "step_wait", usual)


def assert_same(ours: Checkpoint, theirs: Checkpoint) -> None:
    def lasting(about: dict[str, Any]) -> dict[str, Any]:
        curve = [{name: value for name, value in point.items() if name != "seconds"} for point in about["curve"]]
        return {name: value for name, value in about.items() if name != "seconds"} | {"curve": curve}

    assert lasting(ours.about) == lasting(theirs.about)
    assert set(ours.arrays) == set(theirs.arrays)
    for name, array in ours.arrays.items():
        assert np.array_equal(array, theirs.arrays[name]), name


@MODES
@pytest.mark.parametrize(("forecaster", "idle"), [(None, 0.0), ("moving-average", 0.0), ("moving-average", 0.5)])
def test_interrupted_training_goes_on_exactly_as_if_it_had_not_been(
    mode: str,
    forecaster: str | None,
    idle: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = {
        "forecaster": forecaster,
        "hyperparameters": replace(quick(mode), idle_forecast=idle),
    }
    straight = load(trained(tmp_path / "straight", mode, **chosen), training=True)
    # Within the fourth rollout; while the 46 slots of the running episodes are gone through again; then in the fifth.
    folder, told = tmp_path / "stopped", []
    for slot in (3 * 32 + 17, 40, 46 + 32 + 1):
        undo = interrupt_at(slot, monkeypatch)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            trained(folder, mode, **chosen)
        undo()
        told.append(str(interrupt.value))
    saved = f"saved to {folder / 'checkpoint.npz'}"
    first, last = (f"interrupted after {done} of 1,152 timesteps, {saved}" for done in (3 * ROLLOUT, 4 * ROLLOUT))
    assert told == [first, "", last]
    assert [line for line in capsys.readouterr().err.splitlines() if "compiling" not in line] == []
    resumed = load(trained(folder, mode, **chosen), training=True)
    assert resumed.about["timesteps"] == 6 * ROLLOUT
    assert resumed.about["rounds"] == 3
    assert_same(resumed, straight)


def test_finished_training_stays_as_it_is_and_can_be_made_longer(tmp_path: Path) -> None:
    first = load(trained(tmp_path), training=True)
    assert_same(load(trained(tmp_path), training=True), first)
    longer = load(trained(tmp_path, timesteps=8 * ROLLOUT), training=True)
    assert longer.about["timesteps"] == 8 * ROLLOUT
    assert longer.about["curve"][: len(first.about["curve"])] == first.about["curve"]
    anew = load(trained(tmp_path, resume=False), training=True)
    assert_same(anew, first)


def test_training_that_goes_on_with_other_code_says_so_and_carries_both_stamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = provenance.stamp()
    assert load(trained(tmp_path)).about["stamp"] == ours
    for module in (provenance, learner):
        monkeypatch.setattr(module, "stamp", lambda: "0123456789ab")
    told = rf"is of other code \(stamp {ours}; now 0123456789ab\): training goes on with this one"
    with pytest.warns(DpemWarning, match=told):
        trained(tmp_path)
    assert load(tmp_path).about["stamp"] == ours  # there was nothing left to learn
    with pytest.warns(DpemWarning, match=told):
        trained(tmp_path, timesteps=8 * ROLLOUT)
    assert load(tmp_path / "policy.npz").about["stamp"] == f"{ours}+0123456789ab"
    assert json.loads((tmp_path / "learning_curve.json").read_text())["stamp"] == f"{ours}+0123456789ab"


@MODES
def test_the_last_validation_of_a_finished_training_can_be_played_again(mode: str, tmp_path: Path) -> None:
    path = trained(tmp_path, mode, timesteps=2 * ROLLOUT).with_name("learning_curve.json")
    assert check(path) == (4, [], [])
    curve = json.loads(path.read_text())
    del curve["policy"], curve["format"]  # as they were before
    path.write_text(json.dumps(curve))
    assert check(path) == (4, [], [])
    curve["curve"][-1]["contention"] = 0.5
    path.write_text(json.dumps(curve))
    found = check(path)
    assert found is not None
    [difference] = found.differences
    assert difference.startswith("contention of ")


@MODES
def test_the_learning_curve_is_of_validation_episodes(mode: str, tmp_path: Path) -> None:
    path = trained(tmp_path, mode, validation_episodes=2)
    told = json.loads((tmp_path / "learning_curve.json").read_text())
    points = [point["timesteps"] for point in told["curve"]]
    assert points == [0, 2 * ROLLOUT, 4 * ROLLOUT, 6 * ROLLOUT]
    assert [point["environment_steps"] for point in told["curve"]] == [point // 3 for point in points]
    assert np.diff([point["seconds"] for point in told["curve"]]).min() > 0
    seeds = [episode_seeds(CHAIN, "validation", index) for index in range(2)]
    if mode == "independent":
        seeds = [EpisodeSeeds(5, seed.demand) for seed in seeds]
    policy = CentralPpoPolicy(path) if mode == "central" else PpoPolicy(path)
    played = [run_episode(CHAIN, policy, seed, delay=0.5)[0] for seed in seeds]
    for name in ("reward", "delivery_rate", "contention"):
        assert told["curve"][-1][name] == pytest.approx(np.mean([getattr(metrics, name) for metrics in played]))
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(tmp_path)
    before = path.read_bytes()

    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        DpemError, match=r"cannot be written: .*No space left on device; the one before is intact"
    ) as told:
        trained(tmp_path, timesteps=8 * ROLLOUT)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.glob("*.npz*")) == ["checkpoint.npz", "policy.npz"]


def test_checkpoints_are_written_while_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    usual = Checkpoint.save
    monkeypatch.setattr(
        Checkpoint,
        "save",
        lambda self, path, **named: saved.append(self.about["timesteps"]) or usual(self, path, **named),
    )
    trained(tmp_path / "often", save_every=0.0)
    assert saved == [*(rollouts * ROLLOUT for rollouts in range(7)), 6 * ROLLOUT, 6 * ROLLOUT]
    saved.clear()
    trained(tmp_path / "seldom", save_every=1e9)
    assert saved == [6 * ROLLOUT, 6 * ROLLOUT]  # the second alone is what playing needs


def test_what_playing_needs_is_written_by_itself_at_the_end(tmp_path: Path) -> None:
    path = trained(tmp_path, "shared")
    small = tmp_path / "policy.npz"
    assert small.stat().st_size < path.stat().st_size / 2
    ours, theirs = load(small), load(path)
    assert ours.actor.keys() == theirs.actor.keys()
    assert all(np.array_equal(array, theirs.actor[name]) for name, array in ours.actor.items())
    seeds = EpisodeSeeds(5, 3)
    played = [run_episode(CHAIN, PpoPolicy(file), seeds)[0].as_dict() for file in (small, path)]
    assert played[0] == played[1]
    path.unlink()
    assert load(tmp_path).about == load(small).about
    small.replace(path)
    with pytest.raises(DpemError, match="training cannot go on from"):
        trained(tmp_path, timesteps=8 * ROLLOUT)


def test_the_contention_penalty_grows_from_a_tenth_over_the_first_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [Hyperparameters().penalty_share(done) for done in (0.0, 0.2, 0.4, 1.0)] == pytest.approx([0.1, 0.55, 1, 1])
    assert Hyperparameters(penalty_ramp=0.0).penalty_share(0.0) == 1.0
    assert Hyperparameters(penalty_ramp=0.4, penalty_factor=3.0).penalty_share(0.2) == pytest.approx(3 * 0.55)
    used = []
    usual = NodeVecEnv.step_wait
    monkeypatch.setattr(NodeVecEnv, "step_wait", lambda self: used.append(self.penalty_share) or usual(self))
    trained(tmp_path)
    assert used[::32] == pytest.approx([QUICK.penalty_share(rollout / 6) for rollout in range(6)])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"mode": "central"}, "with mode 'shared' instead of 'central'"),
        (
            {"hyperparameters": replace(QUICK, hidden_blocks=("stock",))},
            r"with hidden_blocks \[\] instead of \['stock'\]",
        ),
        ({"seed": 1}, "is of another training, with seed 0 instead of 1"),
        ({"forecaster": "moving-average"}, "with forecaster None instead of 'moving-average'"),
        (
            {"hyperparameters": Hyperparameters(slots=64)},
            "with epochs .* instead of .*: choose another --out, or begin anew with --again",
        ),
    ],
)
def test_a_folder_with_another_training_is_left_alone(changed: Any, line: str, tmp_path: Path) -> None:
    before = trained(tmp_path, timesteps=ROLLOUT).read_bytes()
    with pytest.raises(DpemError, match=line):
        trained(tmp_path, **changed)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_a_checkpoint_without_the_state_of_its_training_cannot_be_gone_on_from(tmp_path: Path) -> None:
    whole = load(trained(tmp_path, timesteps=ROLLOUT), training=True)
    Checkpoint(whole.about, {name: whole.arrays[name] for name in whole.arrays if "mean." not in name}).save(
        tmp_path / "checkpoint.npz"
    )
    PpoPolicy(tmp_path)
    with pytest.raises(DpemError, match=r"training cannot go on from '.*': 'mean\.actor.*'; --again .* begins anew"):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("changed", "kind", "line"),
    [
        ({"mode": "teamwork"}, ScenarioError, "mode is 'teamwork'; expected one of 'shared', 'independent'"),
        ({"delay": -1.0}, ScenarioError, "delay is -1.0; expected seconds >= 0"),
        ({"device": "cuda"}, DpemError, "device is 'cuda', but PyTorch finds no CUDA device here"),
        ({"device": "abacus"}, DpemError, "device is 'abacus'; Expected one of"),
        ({"forecaster": "crystal-ball"}, DpemError, "unknown forecaster"),
        ({"timesteps": 0}, DpemError, "timesteps is 0; expected a whole number >= 1"),
        ({"validations": 0.5}, DpemError, "validations is 0.5; expected a whole number >= 1"),
        ({"seed": -1}, ScenarioError, "seed is -1; expected an int >= 0"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    changed: Any, kind: type[Exception], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(kind, match=line) as told:
        trained(tmp_path / "new", **changed)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "new").exists()


def test_hyperparameters_are_checked() -> None:
    with pytest.raises(
        ScenarioError, match="warm_start is 'hot'; expected one of 'reactive', 'maxweight', 'waiting', 'none'"
    ):
        Hyperparameters(warm_start="hot")  # type: ignore[arg-type]
    for wrong in (
        {"slots": 0}, {"slots": 8.0}, {"networks": True}, {"hidden": 10**11}, {"epochs": "3"},
        {"learning_rate": float("nan")}, {"entropy_weight": -1.0}, {"clip": "wide"}, {"discount": 2.0}, {"trace": 1.5},
        {"gradient_norm": 0.0}, {"value_weight": float("inf")}, {"first_penalty": 1.1},
    ):  # fmt: skip
        [(name, given)] = wrong.items()
        with pytest.raises(
            DpemError, match=rf"hyperparameter {name} is {given!r}; expected a (whole )?number (from|ab)"
        ):
            Hyperparameters(**wrong)  # type: ignore[arg-type]
    for values, line in (
        ({"routes": 1}, "hyperparameter routes is 1; expected true or false"),
        ({"penalties": [0.1]}, r"hyperparameter penalties is \[0.1\]; expected two numbers above 0, the smaller first"),
        ({"penalties": [0.2, 0.1]}, r"hyperparameter penalties is \[0.2, 0.1\]; expected two numbers"),
        ({"penalties": [0.0, 0.1]}, r"hyperparameter penalties is \[0.0, 0.1\]; expected two numbers"),
        ({"hidden_blocks": ["sky"]}, "hidden_blocks is 'sky'; expected one of 'resources', 'demand', 'progress'"),
        ({"hidden_blocks": "stock"}, r"hidden_blocks is 'stock'; expected a list, such as \['forecast'\]"),
        ({"encoder": "magic"}, "encoder is 'magic'; expected one of 'per-peer', 'plain'"),
        ({"annealed": 1.0}, "annealed is 1.0; expected true or false"),
        ({"slots": 0}, "slots is 0; expected a whole number from 1 to 10000"),
        ({"hidden": 2.5}, "hidden is 2.5; expected a whole number"),
        ({"networks": True}, "networks is True; expected a whole number"),
        ({"epochs": 10**400}, "expected a whole number"),
        ({"discont": 0.9}, "unknown hyperparameter 'discont'; did you mean 'discount'"),
    ):
        with pytest.raises(DpemError, match=line):
            changed(QUICK, **values)


def test_an_annealed_learning_rate_falls_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    usual = DecisionPPO.train
    monkeypatch.setattr(
        DecisionPPO,
        "train",
        lambda self: usual(self) or rates.append(self.policy.optimizer.param_groups[0]["lr"]),
    )
    trained(tmp_path / "straight", hyperparameters=replace(QUICK, annealed=True))
    assert rates == pytest.approx([1e-3 * (1 - done / 6) for done in range(1, 7)])


def test_training_without_torch_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dpem_agents.ppo.learner", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DpemError, match=r"pip install 'dpem-env\[agents\]'$"):
        trained(tmp_path)


def test_settings_tell_everything_that_changes_a_training() -> None:
    # Two trainings of equal settings and timesteps are equal: nothing else is asked when one goes on from another.
    given = set(asdict(training.Settings(CHAIN.hash, "shared", 0, None, None, None, QUICK)))
    assert given == {
        "scenario_hash",
        "mode",
        "seed",
        "forecaster",
        "delay",
        "topology_seed",
        "hyperparameters",
        "federation",
        "start",
    }


@pytest.mark.slow
def test_shared_training_beats_random_actions_and_keeps_up_with_the_rule_it_starts_from(tmp_path: Path) -> None:
    scenario = scenarios.get("star8-v0")
    path = train(scenario, "shared", 400_000, tmp_path, validations=1)
    means = {}
    for policy in (PpoPolicy(path), get_policy("local-reactive"), get_policy("random-legal")):
        played = [run_episode(scenario, policy, episode_seeds(scenario, "evaluation", index))[0] for index in range(8)]
        means[type(policy).__name__] = np.mean([metrics.reward for metrics in played])
    assert means["RandomLegal"] < 0.0
    assert means["PpoPolicy"] > 0.95 * means["LocalReactive"] > 0.0


@pytest.mark.parametrize("made_again", [False, True], ids=["gone", "made again"])
@pytest.mark.parametrize("episodes", [0, 1])
@pytest.mark.parametrize("slot", [40, 6 * 32], ids=["in the middle", "at the end"])
def test_a_folder_that_is_removed_midway_is_told_in_one_line(
    slot: int,
    episodes: int,
    made_again: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    usual, played, traces = NodeVecEnv.step_wait, [0], list[Any]()

    def removed(self: NodeVecEnv) -> Any:
        played[0] += 1
        if played[0] == slot:
            shutil.rmtree("out")
            if made_again:
                Path("out").mkdir()
        return usual(self)

    monkeypatch.setattr(NodeVecEnv, "step_wait", removed)
    monkeypatch.setattr(threading, "excepthook", traces.append)
    learn = [f"--learn.{name}" for name in ("networks=2", "slots=32", "minibatches=3", "epochs=1", "hidden=8")]
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--timesteps", str(6 * ROLLOUT))
    line = complaint(capsys, "train", *small, *learn, "--validation-episodes", str(episodes), "--out", "out")
    assert line.startswith("dpem: error: --out 'out' was removed while results were written to it: 'out")
    assert traces == []
    assert threading.excepthook == traces.append
    assert not Path("out/checkpoint.npz").exists()


def test_threads_of_others_are_heard_while_tensorboards_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = list[Any]()
    monkeypatch.setattr(threading, "excepthook", traces.append)
    with errors_told_once():
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    assert [error.exc_type for error in traces] == [ZeroDivisionError]
