"""Federated training: nodes learn alone between rounds, share what they should and nothing else, within the budget."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed, killed_at, killed_at_random
from ppo_models import TOPOLOGY

from dpem_agents.dpem import train_dpem
from dpem_agents.federated import BudgetExhausted, Ledger
from dpem_agents.federation import Federation, Share, federation
from dpem_agents.ppo.checkpoint import load
from dpem_agents.ppo.hyperparameters import Encoder, Hyperparameters
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.training import Settings, train
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.support.errors import DpemError, ScenarioError
from dpem_env.support.files import sole_writer
from support.command_line import complaint, dpem

CHAIN = scenarios.get("chain3-v0", slots=50)
QUICK = Hyperparameters(networks=1, slots=16, minibatches=2, epochs=2, hidden=8, encoder="plain")
ROLLOUT = 16 * 3
OPEN = federation(privacy="off", period=2)
SEEDED = federation(period=2, noise_seed=7, delta=1e-2)
PRIVATE = federation(period=2, epsilon=4.0, delta=1e-2)
LOCAL = federation(period=2, epsilon=4.0, delta=1e-2, privacy="local")


def trained(out: Path, chosen: Federation | None = OPEN, rollouts: int = 6, **arguments: Any) -> Path:
    known = {"hyperparameters": QUICK, "topology_seed": TOPOLOGY, "validation_episodes": 1, "validations": 2}
    return train(CHAIN, "federated", rollouts * ROLLOUT, out, federation=chosen, **known | arguments)


def learner(folder: Path, chosen: Federation, rollouts: int = 100) -> Learner:
    settings = Settings(CHAIN.hash, "federated", 0, None, None, TOPOLOGY, QUICK, chosen)
    return Learner(CHAIN, settings, rollouts * ROLLOUT, "cpu", folder)


def actors(path: Path) -> dict[str, Any]:
    return load(path).actor


def assert_equal_over_nodes(arrays: dict[str, Any], names: list[str]) -> None:
    for name, array in arrays.items():
        assert np.array_equal(array[0], array[1]) == (name in names), name


@pytest.mark.parametrize(
    ("encoder", "head"), [("per-peer", ("actor.quality.", "actor.wait.")), ("plain", ("actor.2.",))]
)
@pytest.mark.parametrize("share", ["head", "body"])
def test_the_head_is_shared_and_nothing_else_or_all_else_and_not_the_head(
    share: Share, encoder: Encoder, head: tuple[str, ...], tmp_path: Path
) -> None:
    chosen = federation(period=2, noise_seed=7, delta=1e-2, share=share)
    weights = actors(trained(tmp_path, chosen, hyperparameters=replace(QUICK, encoder=encoder)))
    shared = [name for name in weights if name.startswith(head) == (share == "head")]
    assert 0 < len(shared) < len(weights)
    assert_equal_over_nodes(weights, shared)
    # What is charged is noise on as many numbers as that.
    [first, *_] = sorted((tmp_path / "ledger-releases").glob("*.npz"))
    with np.load(first) as release:
        assert len(release["vector"]) == sum(weights[name][0].size for name in shared)


def test_after_a_round_nodes_have_the_shared_weights_in_common_and_no_others(tmp_path: Path) -> None:
    head = ["actor.2.weight", "actor.2.bias"]
    assert_equal_over_nodes(actors(trained(tmp_path / "head")), head)
    whole = federation(privacy="off", period=2, share="whole")
    path = trained(tmp_path / "policy", whole)
    assert_equal_over_nodes(actors(path), list(actors(path)))
    critics = {name: a for name, a in load(path, training=True).arrays.items() if "weights.critic" in name}
    assert critics
    assert_equal_over_nodes(critics, [])
    between = trained(tmp_path / "between", rollouts=7)  # the last rollout was after the last round
    assert_equal_over_nodes(actors(between), [])


def test_the_shared_weights_are_the_mean_of_what_nodes_have_learned(tmp_path: Path) -> None:
    made = learner(tmp_path, OPEN)
    averaging = made.averaging
    assert averaging is not None
    head = made.model.policy.mlp_extractor.actor[2].weight
    start = head.detach().clone()
    assert torch.equal(start[0], start[1])
    learned = start + torch.arange(3.0)[:, None, None]
    head.data.copy_(learned)
    averaging.average()
    np.testing.assert_allclose(head.detach(), (start + 1.0).numpy(), rtol=1e-6)
    assert averaging.rounds == 1


def test_between_rounds_it_is_independent_learning(tmp_path: Path) -> None:
    def before_the_round(made: Learner) -> dict[str, Any]:
        weights: dict[str, Any] = {}

        def at_boundary() -> None:
            made.average_if_due()
            if made.timesteps == 3 * ROLLOUT:
                weights.update(made.checkpoint({}).actor)

        made.learn(at_boundary, lambda: None)
        return weights

    together = learner(tmp_path / "federated", federation(privacy="off", period=4), 4)
    # From the same start for all nodes, which independent learners do not have: put it into theirs.
    alone = Learner(
        CHAIN, Settings(CHAIN.hash, "independent", 0, None, None, TOPOLOGY, QUICK), 4 * ROLLOUT, "cpu", tmp_path
    )
    for parameter in alone.model.policy.mlp_extractor.actor.parameters():
        parameter.data[:] = parameter.data[0].clone()
    weights, expected = before_the_round(together), before_the_round(alone)
    assert together.averaging is not None
    assert together.averaging.rounds == 1  # after these
    assert weights
    assert all(np.array_equal(array, expected[name]) for name, array in weights.items())


@pytest.mark.parametrize("chosen", [OPEN, SEEDED], ids=["off", "noised"])
def test_an_interrupted_training_goes_on_where_it_was(
    chosen: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = load(trained(tmp_path / "straight", chosen), training=True)
    usual, calls = Learner.average_if_due, [0]

    def interrupted(self: Learner) -> None:
        usual(self)
        calls[0] += 1
        if calls[0] == 4:  # between two rounds
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "average_if_due", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", chosen)
    monkeypatch.setattr(Learner, "average_if_due", usual)
    resumed = load(trained(tmp_path / "stopped", chosen), training=True)
    assert resumed.about["federated_rounds"] == 3
    for name, array in straight.arrays.items():
        assert np.array_equal(array, resumed.arrays[name]), name


def test_privacy_is_booked_and_a_longer_training_finds_the_budget_exhausted(tmp_path: Path) -> None:
    chosen = federation(period=2, epsilon=4.0, delta=1e-2)
    path = trained(tmp_path, chosen)
    ledger = Ledger(tmp_path / "ledger.json")
    assert ledger.rounds == 3
    assert ledger.private
    spent = json.loads((tmp_path / "ledger.json").read_text())
    with pytest.raises(BudgetExhausted, match="round 4 would take ε to"):
        trained(tmp_path, chosen, rollouts=8)
    assert json.loads((tmp_path / "ledger.json").read_text()) == spent
    kept = load(path)
    assert kept.about["timesteps"] == 8 * ROLLOUT
    assert kept.about["federated_rounds"] == 3
    assert PpoPolicy(tmp_path / "policy.npz").actor.checkpoint.about["timesteps"] == 8 * ROLLOUT


def test_beginning_anew_does_not_undo_what_was_spent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, PRIVATE)
    before = contents(tmp_path)
    with pytest.raises(
        DpemError, match=r"ledger\.json' has booked 3 rounds, which beginning anew does not undo"
    ) as told:
        trained(tmp_path, PRIVATE, resume=False)
    assert "choose another --out" in str(told.value)
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--timesteps", "96", "--out", str(tmp_path), "--again")
    for kind in (("--mode", "federated"), ("--preset", "dpem"), ("--mode", "shared")):
        assert "does not undo" in complaint(capsys, "train", *small, *kind)
    assert contents(tmp_path) == before
    other = trained(tmp_path / "another", PRIVATE, resume=False)
    assert Ledger(other.with_name("ledger.json")).rounds == 3


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        (("ledger.json",), "is missing, which booked 3 of the releases in"),
        (("ledger.json", "checkpoint.npz"), "is missing, which booked 3 of the releases in"),
        (("ledger.json", "checkpoint.npz", "policy.npz"), "is missing, which booked 3 of the releases in"),
        (("ledger.json", "ledger-releases"), "checkpoint.npz' has learned from 3 rounds, of which privacy ledger"),
        (("ledger.json", "ledger-releases", "checkpoint.npz"), "policy.npz' has learned from 3 rounds, of which"),
    ],
)
def test_without_its_ledger_what_was_spent_is_seen_by_what_it_came_to(
    gone: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, PRIVATE)
    for name in gone:
        shutil.rmtree(tmp_path / name) if name == "ledger-releases" else (tmp_path / name).unlink()
    before = contents(tmp_path)
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--timesteps", "1600", "--out", str(tmp_path))
    quick = ("--learn.networks", "1", "--learn.slots", "16", "--federate.period", "1")
    for kind in (("--mode", "federated", *quick), ("--preset", "dpem", *quick)):
        for again in ((), ("--again",)):
            told = complaint(capsys, "train", *small, *kind, *again)
            assert line in told
            assert "another folder" in told
    assert line in complaint(capsys, "train", *small, "--mode", "shared", "--again")
    assert contents(tmp_path) == before


def test_a_training_that_would_average_nothing_is_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "learn", None)
    monkeypatch.setattr("dpem_agents.dpem.train_forecasters", None)
    small = ("--scenario", "mesh20-v0", "--set", "slots=20", "--set", "nodes=6", "--timesteps", "600")
    out = ("--validation-episodes", "1", "--out", str(tmp_path / "out"))
    for kind in (("--mode", "federated"), ("--preset", "dpem")):
        told = complaint(capsys, "train", *small, *kind, *out)
        assert "federation's period is 32 rollouts, and the training has 1: no round would be played" in told
        assert "timesteps, or choose a period of 1 at most" in told
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    with pytest.raises(DpemError, match="train for more than 96 timesteps, or choose a period of 2 at most"):
        trained(tmp_path / "out", federation(privacy="off", period=3), 2)
    with pytest.raises(TypeError):  # it begins
        trained(tmp_path / "out", federation(privacy="off", period=2), 2)


def test_one_process_trains_in_a_folder_at_a_time(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(DpemError, match="another process is writing"):
        trained(tmp_path, PRIVATE)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with sole_writer(tmp_path), pytest.raises(DpemError, match="another process is writing"):
        train_dpem(CHAIN, 96, tmp_path)


@pytest.mark.parametrize("change", ["deleted", "older", "of another run"])
def test_a_ledger_that_does_not_agree_with_the_checkpoint_is_refused(change: str, tmp_path: Path) -> None:
    path = trained(tmp_path / "one", PRIVATE)
    ledger = path.with_name("ledger.json")
    if change == "deleted":
        ledger.unlink()
    elif change == "older":
        stored = json.loads(ledger.read_text())
        ledger.write_text(json.dumps(stored | {"charges": stored["charges"][:2]}))
    else:
        other = trained(tmp_path / "two", PRIVATE).parent
        shutil.copy(other / "ledger.json", ledger)
        shutil.copytree(other / "ledger-releases", path.with_name("ledger-releases"), dirs_exist_ok=True)
    before = contents(path.parent)
    line = {
        "deleted": r"ledger\.json' is missing, which booked 3 of the releases in .*ledger-releases': put it back",
        "older": r"ledger\.json' does not book 1 of the releases in .*ledger-releases': put it back",
        "of another run": r"the weights after round 3 are not those that .* has booked: they are of another run",
    }
    with pytest.raises(DpemError, match=line[change]) as told:
        trained(tmp_path / "one", PRIVATE, rollouts=8)
    assert "begin anew in another folder" in str(told.value)
    assert contents(path.parent) == before


def test_a_checkpoint_alone_that_was_copied_elsewhere_is_not_trained_on(tmp_path: Path) -> None:
    path = trained(tmp_path / "one", PRIVATE)
    (tmp_path / "two").mkdir()
    shutil.copy(path, tmp_path / "two")
    with pytest.raises(DpemError, match=r"has learned from 3 rounds, of which privacy ledger .* books 0: put it back"):
        trained(tmp_path / "two", PRIVATE, rollouts=8)
    assert PpoPolicy(tmp_path / "two")  # it plays


def test_without_its_checkpoint_a_training_takes_its_rounds_from_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load(trained(tmp_path, PRIVATE), training=True)
    spent = (tmp_path / "ledger.json").read_bytes()
    for name in ("checkpoint.npz", "policy.npz"):
        (tmp_path / name).unlink()
    again = load(trained(tmp_path, PRIVATE), training=True)
    told = "has booked 3 rounds of these nodes: those of this training are taken over from it, and not charged again"
    assert told in capsys.readouterr().err
    assert (tmp_path / "ledger.json").read_bytes() == spent
    for name, array in before.arrays.items():
        assert np.array_equal(array, again.arrays[name]), name


def test_another_training_of_the_same_nodes_is_charged_on_top_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, PRIVATE)
    (tmp_path / "checkpoint.npz").unlink()
    with pytest.raises(BudgetExhausted, match="round 4 would take ε to"):
        trained(tmp_path, PRIVATE, seed=1)
    assert "has booked 3 rounds of these nodes: those of this training are charged on top" in capsys.readouterr().err
    assert Ledger(tmp_path / "ledger.json").rounds == 3


def test_a_training_that_an_earlier_version_left_without_its_rounds_ends_with_a_policy(tmp_path: Path) -> None:
    path = trained(tmp_path, PRIVATE, rollouts=6)
    charge = {"sample_rate": 1.0, "noise_multiplier": Ledger(tmp_path / "ledger.json").charges[0].noise_multiplier}
    first = {"format": "dpem-privacy-ledger-1", "charges": [charge | {"private": True, "rounds": 4}]}
    (tmp_path / "ledger.json").write_text(json.dumps(first))  # four rounds were booked, the checkpoint knows of three
    shutil.rmtree(tmp_path / "ledger-releases")
    (tmp_path / "policy.npz").unlink()
    with pytest.raises(BudgetExhausted, match="round 5"):
        trained(tmp_path, PRIVATE, rollouts=8)
    assert load(path).about["federated_rounds"] == 3
    policy = PpoPolicy(tmp_path / "policy.npz")
    assert run_episode(CHAIN, policy, EpisodeSeeds(TOPOLOGY, 3))[0].submitted > 0


@pytest.mark.parametrize("chosen", [SEEDED, PRIVATE, LOCAL], ids=["seeded", "central", "local"])
def test_a_training_that_is_killed_again_and_again_ends_with_the_rounds_it_was_planned_for(
    chosen: Federation, tmp_path: Path
) -> None:
    """Its checkpoint is written at the end alone, or at every boundary of rollouts."""
    straight = load(trained(tmp_path / "straight", chosen, validation_episodes=0), training=True)
    for often, steps in ((1e9, 5), (0.0, 11)):
        folder, kills = tmp_path / f"killed-{often}", 0
        for moment in count(steps, steps):
            try:
                with killed_at(moment):
                    path = trained(folder, chosen, validation_episodes=0, save_every=often)
                break
            except Killed:
                kills += 1
        assert kills >= 3
        assert_same_rounds(folder, tmp_path / "straight", chosen)
        resumed = load(path, training=True)
        assert resumed.about["federated_rounds"] == 3
        if chosen is SEEDED:
            for name, array in straight.arrays.items():
                assert np.array_equal(array, resumed.arrays[name]), name
        assert (folder / "policy.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [SEEDED, PRIVATE], ids=["seeded", "secret"])
def test_a_training_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(
    chosen: Federation, tmp_path: Path
) -> None:
    straight = load(trained(tmp_path / "straight", chosen, 24, save_every=0.05), training=True)
    run = partial(trained, tmp_path / "killed", chosen, 24, save_every=0.05, show_progress=False)
    began = time.monotonic()
    trained(tmp_path / "timed", chosen, 24, save_every=0.05)
    assert killed_at_random(run, 25, 0.1 * (time.monotonic() - began)) >= 20  # 25 times a twentieth is all of it
    resumed = load(tmp_path / "killed", training=True)
    assert_same_rounds(tmp_path / "killed", tmp_path / "straight", chosen)
    assert resumed.about["federated_rounds"] == 12
    assert list((tmp_path / "killed" / "ledger-releases").glob(".*")) == []
    if chosen is SEEDED:
        for name, array in straight.arrays.items():
            assert np.array_equal(array, resumed.arrays[name]), name
        ours, theirs = (load(tmp_path / name / "policy.npz").actor for name in ("killed", "straight"))
        assert all(np.array_equal(array, theirs[name]) for name, array in ours.items())


def assert_same_rounds(ours: Path, theirs: Path, chosen: Federation) -> None:
    """As many charges, each with one release; the same ones where noise is seeded."""
    mine, other = Ledger(ours / "ledger.json"), Ledger(theirs / "ledger.json")
    assert mine.charges == other.charges
    kept, expected = (
        {path.name: path.read_bytes() for path in (folder / "ledger-releases").glob("*.npz")}
        for folder in (ours, theirs)
    )
    assert kept.keys() == expected.keys()
    assert len(kept) == mine.rounds
    assert (kept == expected) == (chosen is SEEDED)


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but locks and what TensorBoard writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name)
    return {str(path): path.read_bytes() for path in files if not path.name.endswith("lock")}


def test_noise_is_not_repeatable_unless_it_is_seeded(tmp_path: Path) -> None:
    private = federation(period=2, epsilon=4.0, delta=1e-2)
    first, second = (actors(trained(tmp_path / name, private, 2)) for name in ("a", "b"))
    assert not np.array_equal(first["actor.2.weight"], second["actor.2.weight"])
    assert Ledger(tmp_path / "a" / "ledger.json").private
    first, second = (actors(trained(tmp_path / name, SEEDED, 2)) for name in ("c", "d"))
    assert np.array_equal(first["actor.2.weight"], second["actor.2.weight"])
    assert not Ledger(tmp_path / "c" / "ledger.json").private


def test_the_checkpoint_is_a_policy_of_its_topology(tmp_path: Path) -> None:
    policy = PpoPolicy(trained(tmp_path))
    assert run_episode(CHAIN, policy, EpisodeSeeds(TOPOLOGY, 3))[0].submitted > 0
    assert isinstance(policy.actor.checkpoint.about["topology"], str)


def test_the_command_trains_and_tells_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--scenario", "chain3-v0", "--set", "slots=40", "--learn.slots", "16", "--learn.hidden", "4")
    options = (
        "--federate.epsilon",
        "4",
        "--federate.period",
        "1",
        "--federate.share",
        "whole",
        "--federate.delta",
        "0.01",
    )
    assert dpem("train", *small, "--mode", "federated", *options, "--timesteps", "96", "--out", str(tmp_path)) == 0
    assert f"use it as --policy ppo:{tmp_path}" in capsys.readouterr().out
    assert load(tmp_path).about["settings"]["federation"]["epsilon"] == 4


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shared": "head"}, "unknown field of a federation 'shared'; did you mean 'share'"),
        ({"share": "all"}, "share is 'all'; expected one of 'head', 'body', 'whole'"),
        ({"privacy": "none"}, "privacy is 'none'; expected one of 'central', 'local', 'off'"),
        ({"period": 0}, "federation's period is 0"),
        ({"privacy": "off", "epsilon": 2.0}, "none with 'off'"),
        ({"epsilon": None}, "expected an epsilon with privacy 'central'"),
    ],
)
def test_a_federation_is_checked(values: dict[str, Any], line: str) -> None:
    with pytest.raises(DpemError, match=line) as told:
        federation(**values)
    assert "\n" not in str(told.value)


def test_a_federation_goes_with_its_mode_only(tmp_path: Path) -> None:
    with pytest.raises(DpemError, match="a federation goes with mode 'federated', and with no other"):
        train(CHAIN, "shared", 48, tmp_path / "new", federation=OPEN)
    with pytest.raises(ScenarioError, match=r"expected one of .*'federated'"):
        train(CHAIN, "together", 48, tmp_path / "new")
    assert not (tmp_path / "new").exists()
