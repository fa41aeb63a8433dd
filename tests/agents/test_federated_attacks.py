"""Attacks: adversaries send what they are said to, honest nodes what they have learned, and trials are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_agents.federation import federation
from dpem_agents.ppo.checkpoint import load
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.training import train
from dpem_agents.studies import attacks
from dpem_agents.studies.attacks import ATTACKS, DEFENCES, METRICS, AttackedAveraging, Setting, Trial, withstand
from dpem_env import scenarios
from dpem_env.support.errors import DpemError
from support.command_line import dpem

STAR = scenarios.get("star8-v0", slots=30)
QUICK = Hyperparameters(networks=1, slots=16, minibatches=2, epochs=1, hidden=4, warm_start="none")
TRAINED = federation(epsilon=4.0, delta=1e-2, period=2)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short private training, whose continuation is attacked."""
    out = tmp_path_factory.mktemp("training")
    train(STAR, "federated", 4 * 16 * 8, out, hyperparameters=QUICK, federation=TRAINED, validation_episodes=0)
    return out


def setting(training: Path, **changed: Any) -> Setting:
    return Setting(training, STAR, **{"rounds": 2, "period": 1, "adversaries": 0.25, "episodes": 1} | changed)


@pytest.mark.parametrize(
    ("attack", "expected"), [("none", [1.0, -2.0]), ("sign flip", [-1.0, 2.0]), ("× 100", [100.0, -200.0])]
)
def test_adversaries_send_what_is_made_of_their_updates(attack: str, expected: list[float]) -> None:
    sent = ATTACKS[attack](np.array([1.0, -2.0]), np.random.default_rng(0))
    assert sent.tolist() == expected


def test_random_updates_are_drawn_anew_and_owe_nothing_to_what_was_learned() -> None:
    draws = np.random.default_rng(0)
    sent = [ATTACKS["random"](np.full(4000, given), draws) for given in (0.0, 50.0)]
    assert not np.array_equal(*sent)
    for vector in sent:
        assert abs(vector.mean()) < 0.1
        assert vector.std() == pytest.approx(1.0, abs=0.05)


def test_two_of_eight_nodes_attack_in_every_round_to_come_and_no_other(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, bool]] = []
    usual = AttackedAveraging.sent

    def watched(self: AttackedAveraging, node: Any, local: Any) -> Any:
        update = usual(self, node, local)
        sent.append((node, bool(np.array_equal(update, self.averager.update_of(node, local)))))
        return update

    monkeypatch.setattr(AttackedAveraging, "sent", watched)
    attacks.play(setting(training), Trial("sign flip", "median", 1))
    assert [node for node, _ in sent] == [*range(8)] * 2  # two rounds
    adversaries = {node for node, honest in sent if not honest}
    assert len(adversaries) == 2
    assert all(honest == (node not in adversaries) for node, honest in sent)


@pytest.mark.parametrize("defence", sorted(DEFENCES))
def test_every_defence_is_the_aggregator_it_says_without_noise(
    defence: str, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AttackedAveraging] = []
    monkeypatch.setattr(Learner, "learn", lambda self, *a: made.append(self.averaging))
    attacks.play(setting(training, clip_norm=0.3), Trial("none", defence, 0))
    averager = made[0].averager
    assert averager.dp.mode == "off"
    assert averager.aggregator == {"trimmed mean": "trimmed_mean", "median": "median"}.get(defence, "mean")
    assert averager.clip_norm == (0.3 if defence == "mean + clip" else np.inf)
    assert made[0].federation.period == 1
    assert made[0].federation.share == TRAINED.share
    assert np.array_equal(averager.weights, load(training, training=True).arrays["federated.weights"])


def test_results_are_kept_and_only_what_is_missing_is_tried(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Trial] = []

    def play(setting: Setting, trial: Trial) -> dict[str, float]:
        tried.append(trial)
        if len(tried) == 6:
            raise KeyboardInterrupt
        return dict.fromkeys(METRICS, float(len(tried)))

    monkeypatch.setattr(attacks, "play", play)
    out, told = tmp_path / "attacks.json", []
    with pytest.raises(KeyboardInterrupt):
        withstand(setting(training), out, seeds=(0,))
    assert len(json.loads(out.read_text())["trials"]) == 5
    found = withstand(setting(training), out, seeds=(0,), on_trial=lambda: told.append(1))
    assert len(tried) == len(ATTACKS) * len(DEFENCES) + 1
    assert len(told) == len(found["trials"]) == len(ATTACKS) * len(DEFENCES)
    assert set(found["before"]) == set(METRICS)
    assert found["nodes"] == 8
    with pytest.raises(DpemError, match="holds trials of another setting: choose another --out"):
        withstand(setting(training, rounds=3), out)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"rounds": 0}, "rounds is 0; expected a whole number >= 1"),
        ({"period": 0}, "period is 0; expected a whole number >= 1"),
        ({"adversaries": 0.5}, r"adversaries is 0.5; expected a share of the nodes from 0 to below 0.5"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; expected a number above 0"),
    ],
)
def test_a_setting_is_checked(changed: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(DpemError, match=line):
        setting(tmp_path, **changed)


def test_the_command_writes_all_trials(training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attacks.json"
    options = [
        "--rounds",
        "1",
        "--period",
        "1",
        "--episodes",
        "4",
        "--seeds",
        "1",
        "--training",
        str(training),
        "--out",
        str(out),
    ]
    assert dpem("federate", "attacks", "--scenario", "star8-v0", "--set", "slots=30", *options) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    trials = json.loads(out.read_text())["trials"]
    assert {(t["attack"], t["defence"]) for t in trials} == {(a, d) for a in ATTACKS for d in DEFENCES}
    assert len({t["reward"] for t in trials}) > 1


def test_a_folder_without_a_federated_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--training", str(tmp_path), "--out", str(tmp_path / "attacks.json")]
    assert dpem("federate", "attacks", "--scenario", "star8-v0", *out) != 0
    assert "cannot be used" in capsys.readouterr().err
    train(STAR, "independent", 128, tmp_path, hyperparameters=QUICK, validation_episodes=0)
    assert dpem("federate", "attacks", "--scenario", "star8-v0", "--set", "slots=30", *out) != 0
    assert "mode 'independent'; expected a training in mode 'federated'" in capsys.readouterr().err
