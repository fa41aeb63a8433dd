"""Fine-tuning: nodes begin at a policy trained before, to the last bit, and how far they have moved it is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ppo_models import TOPOLOGY, checkpoint_of, draw_weights, drawn_checkpoint, learner

from dpem_agents.dpem import train_dpem
from dpem_agents.federation import federation
from dpem_agents.ppo.acting import Choices
from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.hyperparameters import PRESETS
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.movement import MOVEMENT, MovedPolicy
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.start import CRITIC_ALONE, Start
from dpem_agents.ppo.training import Settings, train
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision
from dpem_env.support.errors import DpemError, PolicyError
from support.command_line import complaint, dpem

STAR = scenarios.get("star8-v0", slots=40)
ALL: dict[str, Any] = {"routes": True, "penalties": (0.01, 1.0), "idle_forecast": 0.5}
QUICK = {"networks": 1, "slots": 16, "minibatches": 2, "epochs": 1}
MODES = pytest.mark.parametrize("mode", ["shared", "independent", "federated"])
OPEN = federation(privacy="off", period=2)
SMALL = ("--scenario", "star8-v0", "--set", "slots=40")


def pretrained(folder: Path, critic: bool = True, **changed: Any) -> Path:
    """A folder with a shared policy of weights that were drawn."""
    checkpoint = drawn_checkpoint(STAR, "shared", folder / "events", forecaster="moving-average", **ALL | changed)
    folder = folder / "public"
    folder.mkdir()
    (checkpoint if critic else checkpoint.for_playing()).save(folder / ("checkpoint.npz" if critic else "policy.npz"))
    return folder


def tuned(start: Start, mode: str, out: Path, rollouts: int = 4, **given: Any) -> Path:
    learn = QUICK | {name: given.pop(name) for name in list(given) if name in ("learning_rate", "epochs")}
    known: dict[str, Any] = {"federation": OPEN if mode == "federated" else None}
    known |= {"topology_seed": TOPOLOGY, "validation_episodes": 1, "validations": 2, "show_progress": False}
    chosen = start.hyperparameters(mode, **learn)
    return train(STAR, mode, rollouts * 16 * 8, out, start=start, hyperparameters=chosen, **known | given)


def curve(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.with_name("learning_curve.json").read_text())["curve"]  # type: ignore[no-any-return]


class Both(PpoPolicy):
    """Plays one policy, and asks another one what it would have done."""

    def __init__(self, checkpoint: Checkpoint, other: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.other, self.played = PpoPolicy(other), 0

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        ours, theirs = super().act(observations, masks), self.other.act(observations, masks)
        for mine, other in zip(ours, theirs, strict=True):
            assert np.array_equal(mine, other)
        self.played += int((ours.action > 0).sum())
        return ours


@MODES
@pytest.mark.parametrize("changed", [{}, {"encoder": "plain", "routes": False, "hidden": 4}], ids=["all", "plain"])
def test_every_node_begins_by_doing_what_the_start_does(mode: str, changed: Any, tmp_path: Path) -> None:
    start = Start.of(pretrained(tmp_path, **changed))
    settings = Settings(
        STAR.hash, mode, 0, start.forecaster, None, None if mode == "shared" else TOPOLOGY,
        start.hyperparameters(mode, **QUICK), OPEN if mode == "federated" else None, start.settings,
    )  # fmt: skip
    made = Learner(STAR, settings, 1000, "cpu", tmp_path / "out", start)
    ours = checkpoint_of(made)
    for name, array in start.weights.items():
        assert all(np.array_equal(own, array[0]) for own in ours.arrays[f"weights.{name}"])
    policy = Both(ours, start.checkpoint)
    run_episode(STAR, policy, EpisodeSeeds(TOPOLOGY, 3))
    assert policy.played > 50


@MODES
def test_movement_is_none_at_the_start_and_grows(mode: str, tmp_path: Path) -> None:
    start = Start.of(f"ppo:{pretrained(tmp_path)}")
    still = curve(tuned(start, mode, tmp_path / "still", learning_rate=1e-12))
    assert [[point[name] for name in MOVEMENT] for point in still[:1]] == [[0.0, 0.0, 0.0]]
    assert all(point["kl_from_start"] < 1e-12 and point["weight_distance"] < 1e-8 for point in still)
    moving = curve(tuned(start, mode, tmp_path / "moving", learning_rate=0.1))
    assert moving[0] == still[0] | {"seconds": moving[0]["seconds"]}
    assert all(point[name] > 0.0 for point in moving[1:] for name in ("kl_from_start", "weight_distance"))


class Watched(MovedPolicy):
    """Keeps the logits and masks that it compares."""

    def __init__(self, checkpoint: Checkpoint, start: Checkpoint) -> None:
        super().__init__(checkpoint, start)
        self.rows: list[tuple[Any, Any]] = []

    def _compare(self, choices: Choices) -> None:
        self.rows += zip(choices.logits.astype(np.float64), choices.masks == 1, strict=True)
        super()._compare(choices)


def test_movement_is_that_of_the_policies_on_the_decisions_taken(tmp_path: Path) -> None:
    # By hand: where the bias of waiting alone has moved by 4, nothing but the logit of waiting is another, by 4.
    made = learner(STAR, "shared", tmp_path, forecaster="moving-average")
    draw_weights(made, 1.0)
    start, bias = checkpoint_of(made), "weights.actor.wait.bias"
    policy = Watched(Checkpoint(start.about, start.arrays | {bias: start.arrays[bias] + 4.0}), start)
    run_episode(STAR, policy, EpisodeSeeds(TOPOLOGY, 3))
    kl, changed = [], []
    for row, legal in policy.rows:
        before = row - np.where(np.arange(len(row)) == 0, 4.0, 0.0)
        p, q = (np.exp(each[legal]) / np.exp(each[legal]).sum() for each in (row, before))
        kl.append((p * np.log(p / q)).sum())
        changed.append(row.argmax() != before.argmax())
    movement = policy.movement()
    assert len(kl) == 40 * 8
    assert 0.0 < np.mean(changed) < 1.0
    assert movement["kl_from_start"] == pytest.approx(np.mean(kl), rel=1e-4)
    assert movement["changed_decisions"] == pytest.approx(np.mean(changed))
    assert movement["weight_distance"] == pytest.approx(4.0)


@MODES
def test_a_critic_that_knows_nothing_learns_alone_at_first(mode: str, tmp_path: Path) -> None:
    start = Start.of(pretrained(tmp_path, critic=False))
    assert start.settings.critic_alone == CRITIC_ALONE > 0
    alone = load(tuned(start, mode, tmp_path / "alone", CRITIC_ALONE, learning_rate=0.1), training=True)
    for name, array in start.weights.items():
        assert all(np.array_equal(own, array[0]) for own in alone.arrays[f"weights.{name}"]), name
    assert max(np.abs(array).max() for name, array in alone.arrays.items() if name.startswith("mean.critic")) > 0.0
    after = tuned(start, mode, tmp_path / "after", CRITIC_ALONE + 2, learning_rate=0.1)
    assert curve(after)[-1]["weight_distance"] > 0.0
    whole = Start.of(pretrained(tmp_path / "whole"))
    assert whole.settings.critic_alone == 0


@pytest.mark.parametrize(("mode", "critic"), [("shared", False), ("independent", True), ("federated", False)])
def test_an_interrupted_fine_tuning_goes_on_exactly_where_it_was(
    mode: str, critic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start.of(pretrained(tmp_path, critic))
    straight = load(tuned(start, mode, tmp_path / "straight", 6), training=True)
    usual, calls = Learner.average_if_due, [0]

    def interrupted(self: Learner) -> None:
        usual(self)
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "average_if_due", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned(start, mode, tmp_path / "stopped", 6)
    resumed = load(tuned(start, mode, tmp_path / "stopped", 6), training=True)
    assert resumed.about["settings"] == straight.about["settings"]
    assert resumed.about["settings"]["start"]["name"] == "public"
    assert str(tmp_path) not in json.dumps(resumed.about)
    for name, array in straight.arrays.items():
        assert np.array_equal(array, resumed.arrays[name]), name
    for ours, theirs in zip(straight.about["curve"], resumed.about["curve"], strict=True):
        assert ours | {"seconds": 0.0} == theirs | {"seconds": 0.0}


def test_a_training_goes_on_from_the_same_start_only(tmp_path: Path) -> None:
    start = Start.of(pretrained(tmp_path))
    path = tuned(start, "independent", tmp_path / "out")
    before = path.read_bytes()
    given = {"hyperparameters": start.hyperparameters("independent", **QUICK), "topology_seed": TOPOLOGY}
    with pytest.raises(DpemError, match="is of another training, with start 'public' instead of None"):
        train(STAR, "independent", 999, tmp_path / "out", forecaster="moving-average", **given)
    other = {name: array + (name == "weights.actor.wait.bias") for name, array in start.checkpoint.arrays.items()}
    with pytest.raises(DpemError, match=r"with start's weights '\w{16}' instead of '\w{16}'"):
        tuned(replace(start, checkpoint=Checkpoint(start.checkpoint.about, other)), "independent", tmp_path / "out")
    with pytest.raises(DpemError, match="with start's penalty 'range' instead of 'scenario'"):
        tuned(replace(start, penalty="scenario"), "independent", tmp_path / "out")
    assert path.read_bytes() == before


def test_trainings_without_a_start_say_nothing_of_one(tmp_path: Path) -> None:
    assert "start" not in checkpoint_of(learner(STAR, "shared", tmp_path)).about["settings"]


@pytest.mark.parametrize(("penalty", "at"), [("range", None), ("scenario", 0.1), (None, None)])
def test_a_policy_that_is_told_its_penalty_learns_at_all_or_at_the_scenarios(
    penalty: Any, at: float | None, tmp_path: Path
) -> None:
    scenario = scenarios.get("star8-v0", slots=8, contention_penalty=0.1)
    start = Start.of(pretrained(tmp_path), penalty)
    chosen = start.hyperparameters("independent", **QUICK)
    settings = Settings(scenario.hash, "independent", 0, start.forecaster, None, TOPOLOGY, chosen, None, start.settings)
    env = Learner(scenario, settings, 1000, "cpu", tmp_path / "out", start).env
    env.seed(0)
    told, charged = [], []
    for _ in range(5):
        rows = env.reset()
        told.append(float(rows[0, -1]))
        charged.append(float(np.mean(env.contention_penalty)))
        assert len(set(rows[:, -1])) == 1
    assert told == pytest.approx([np.log(each / 0.01) / np.log(100.0) for each in charged], abs=1e-6)
    assert set(charged) == {at} if at else len(set(charged)) == 5


def test_the_shape_of_the_start_is_the_default_and_nothing_else(tmp_path: Path) -> None:
    start = Start.of(pretrained(tmp_path, hidden=5))
    for mode in ("shared", "independent", "federated"):
        chosen = start.hyperparameters(mode, clip=0.1, penalties=[0.01, 1.0])
        shape = {"hidden": 5, "encoder": "per-peer", **ALL}
        assert chosen == replace(PRESETS[mode], **shape, clip=0.1, penalty_ramp=0.0, learning_rate=1e-4)
        assert start.hyperparameters(mode, penalty_ramp=0.2).penalty_ramp == 0.2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--learn.hidden", "16"), "hyperparameter hidden is 16, and 'public', which training starts from, has 8"),
        (("--learn.conditional",), "hyperparameter conditional is True, and 'public', which training starts from, has"),
        (("--learn.penalties", "0.1", "--learn.penalties", "1"), "penalties is [0.1, 1.0], and 'public', which train"),
        (("--learn.encoder", "plain"), "encoder is 'plain', and 'public', which training starts from, has 'per-peer'"),
        (("--learn.idle-forecast", "1"), "idle_forecast is 1.0, and 'public', which training starts from, has 0.5"),
        (("--forecaster", "oracle"), "forecaster is 'oracle', and 'public', which training starts from, was trained"),
        (("--mode", "central"), "--start-from is for modes shared, independent, federated; mode 'central' starts from"),
        (("--preset", "dpem", "--learn.hidden", "4"), "hidden is 4, and 'public', which training starts"),
        (("--set", "qualities=2"), "the PPO checkpoint is for 3 qualities"),
    ],
)  # fmt: skip
def test_what_contradicts_the_start_is_told_in_one_line(
    options: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"ppo:{pretrained(tmp_path)}"
    told = complaint(capsys, "train", *SMALL, *options, "--start-from", start, "--out", str(tmp_path / "out"))
    assert line in told
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_started_from_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert "cannot be used" in complaint(capsys, "train", *SMALL, "--start-from", "ppo:nowhere", *out)
    assert "--start-penalty is of the policy that --start-from names" in complaint(
        capsys, "train", *SMALL, "--start-penalty", "range", *out
    )
    untold = pretrained(tmp_path / "untold", penalties=())
    shutil.rmtree(tmp_path / "untold" / "events")
    asked = ("--start-from", str(untold), "--start-penalty", "range")
    assert "'public' is told no contention penalty" in complaint(capsys, "train", *SMALL, *asked, *out)
    drawn_checkpoint(STAR, "independent", tmp_path / "events").save(tmp_path / "own.npz")
    with pytest.raises(PolicyError, match="was trained with mode 'independent'; expected a policy of mode 'shared'"):
        Start.of(tmp_path / "own.npz")
    with pytest.raises(DpemError, match="mode is 'central'; a training that starts from a policy has one of shared"):
        train(STAR, "central", 512, tmp_path / "out", start=Start.of(pretrained(tmp_path)))
    # A policy that has never seen a forecast makes nothing of those of the preset's GRUs; the shipped one has not.
    blind = ("--preset", "dpem", "--start-from", "ppo:mesh20", "--scenario", "mesh20-v0", *out)
    assert "'mesh20', which training starts from, was trained with None: leave forecaster" in complaint(
        capsys, "train", *blind
    )
    assert not (tmp_path / "out").exists()


def test_the_command_fine_tunes_and_tells_how_far_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ("--start-from", f"ppo:{pretrained(tmp_path)}", "--start-penalty", "scenario")
    learn = ("--learn.slots", "16", "--learn.epochs", "1", "--validation-episodes", "1", "--timesteps", "512")
    federate = ("--federate.share", "body", "--federate.period", "2", "--federate.delta", "0.01")
    out = str(tmp_path / "own")
    assert dpem("train", *SMALL, "--mode", "federated", *start, *learn, *federate, "--out", out) == 0
    assert f"use it as --policy ppo:{out}" in capsys.readouterr().out
    about = load(out).about
    assert about["settings"]["start"] | {"weights": ""} == {
        "name": "public", "weights": "", "penalty": "scenario", "critic_alone": 0,
    }  # fmt: skip
    assert about["settings"]["forecaster"] == "moving-average"
    assert dpem("curve", "--run", f"own={out}", "--out", str(tmp_path / "curve")) == 0
    told = capsys.readouterr().out
    assert "; from public: KL " in told
    assert "% of decisions changed, weights moved by " in told
    [training] = json.loads((tmp_path / "curve" / "curve.json").read_text())["trainings"]
    assert training["starts"] == ["public"]
    assert training["kl_from_start"][0] == [0.0, None, None]
    assert dpem("run", *SMALL, "--policy", f"ppo:{out}", "--topology", "0", "--seeds", "1", "--out", out + "-run") == 0


def test_nodes_start_from_a_policy_that_knew_more_peers(tmp_path: Path) -> None:
    start = ("--start-from", f"ppo:{pretrained(tmp_path)}", "--learn.slots", "16", "--validation-episodes", "1")
    federate = ("--mode", "federated", "--federate.period", "2", "--federate.delta", "0.01")
    out = str(tmp_path / "own")
    few = (*SMALL, "--set", "peers=2")
    assert dpem("train", *few, *start, *federate, "--timesteps", "512", "--out", out) == 0
    assert load(out).about["interface"]["peers per node"] == 2
    moved = json.loads((tmp_path / "own" / "learning_curve.json").read_text())["curve"]
    assert 0.0 == moved[0]["kl_from_start"] < moved[-1]["kl_from_start"]
    assert dpem("run", *few, "--policy", f"ppo:{out}", "--topology", "0", "--seeds", "1", "--out", out + "-run") == 0


def test_a_shipped_policy_is_a_start() -> None:
    start = Start.of("ppo:mesh20")
    assert start.settings.name == "mesh20"
    assert start.settings.critic_alone == CRITIC_ALONE
    start.require(scenarios.get("mesh20-v0"), "federated", start.hyperparameters("federated"), start.forecaster)


def test_the_whole_system_starts_from_a_policy_too(tmp_path: Path) -> None:
    start = Start.of(pretrained(tmp_path))
    path = train_dpem(
        STAR, 512, tmp_path / "own", topology_seed=TOPOLOGY, hours=0.3, validation_episodes=1, start=start,
        hyperparameters=start.hyperparameters("federated", **QUICK), federation=OPEN,
    )  # fmt: skip
    policy = PpoPolicy(path)
    assert type(get_forecaster(policy.forecaster)).__name__ == "GRU"
    assert load(path).about["settings"]["start"]["name"] == "public"
    assert curve(path)[0]["kl_from_start"] == 0.0
