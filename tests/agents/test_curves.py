"""Learning curves of several seeds: their mean and interval, when they converge, and one line for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dpem_agents.studies.curves import convergence, learning_curves, means_of
from dpem_env.support.errors import DpemError, DpemWarning
from dpem_env.support.provenance import stamp
from support.command_line import complaint, dpem

REWARDS = {0: [1.0, 3.0, 4.0, 4.1], 1: [1.0, 2.0, 4.0, 3.9], 2: [1.0, 2.5, 4.3, 4.0]}
PNG = b"\x89PNG"


def write_curve(folder: Path, seed: int, rewards: list[float], **changed: Any) -> None:
    points = [
        {"timesteps": 600 * i, "environment_steps": 30 * i, "seconds": 2.0 * i + seed, "reward": reward}
        | {"delivery_rate": reward / 10, "contention": 0.01}
        for i, reward in enumerate(rewards)
    ]
    settings = {"seed": seed, "mode": "shared", "delay": None, "forecaster": None, "hyperparameters": {}}
    about = {"stamp": stamp(), "scenario": "mesh20-v0", "settings": settings, "curve": points, "validation_episodes": 4}
    folder.mkdir(parents=True)
    (folder / "learning_curve.json").write_text(json.dumps(about | changed))


@pytest.fixture
def runs(tmp_path: Path) -> str:
    for seed, rewards in REWARDS.items():
        write_curve(tmp_path / f"seed{seed}", seed, rewards)
    return str(tmp_path / "seed*")


def test_mean_and_interval_are_over_training_seeds(runs: str) -> None:
    [training] = learning_curves({"shared": runs})["trainings"]
    assert training["training_seeds"] == [0, 1, 2]
    assert training["timesteps"] == [0, 600, 1200, 1800]
    assert training["environment_steps"] == [0, 30, 60, 90]
    assert training["seconds"] == [1.0, 3.0, 5.0, 7.0]
    for at, (value, low, high) in enumerate(training["reward"]):
        column = [rewards[at] for rewards in REWARDS.values()]
        half = stats.t.ppf(0.975, 2) * np.std(column, ddof=1) / np.sqrt(3)
        assert (value, low, high) == pytest.approx((np.mean(column), np.mean(column) - half, np.mean(column) + half))
    assert training["converged_at"] == [1200, 1200, 1800]
    assert training["mean_converged_at"] == 1200
    assert training["mean_converged_after_seconds"] == 5.0


def test_curves_of_different_code_are_told_apart(runs: str, tmp_path: Path) -> None:
    assert learning_curves({"shared": runs})["stamp"] == stamp()
    write_curve(tmp_path / "older", 3, REWARDS[0], stamp="0123456789ab")
    with pytest.warns(DpemWarning, match=rf"they are of different code, stamps {stamp()}\+0123456789ab"):
        curves = learning_curves({"shared": runs, "older": str(tmp_path / "older")})
    assert curves["stamp"] == f"{stamp()}+0123456789ab"
    summary = tmp_path / "summary.json"
    summary.write_text('{"split": "validation", "scenarios": [{"name": "mesh20-v0", "contestants": []}]}')
    told = rf"it is of other code \(stamp unknown\) than the learning curves \(stamp {stamp()}\)"
    with pytest.warns(DpemWarning, match=told):
        assert means_of(summary, learning_curves({"shared": runs})) == {}


@pytest.mark.parametrize(
    ("returns", "first"),
    [
        ([0.0, 9.0, 10.0, 10.0], 2),  # 9 is further than 5 % from 10
        ([0.0, 9.6, 10.0, 10.0], 1),
        ([10.0, 10.0, 7.0, 10.0], 3),  # it has left once more
        ([5.0], 0),
        ([-10.0, -2.0, -1.0, -1.0], 2),
        ([0.0] * 6 + [8.0, 12.0], None),  # the mean of the last two is 10
    ],
)
def test_it_has_converged_once_it_stays_near_its_final_mean(returns: list[float], first: int | None) -> None:
    assert convergence(np.array(returns)) == first


def test_the_command_writes_numbers_and_a_picture_beside_rules(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("quick", "--seeds", "2", "--split", "validation")
    rules, out = tmp_path / "rules", tmp_path / "curves"
    assert dpem("benchmark", *small, "--policy", "idle", "--policy", "local-reactive", "--out", str(rules)) == 0
    played = json.loads((rules / "summary.json").read_text())
    for path in tmp_path.glob("seed*/learning_curve.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"scenario": played["scenarios"][0]["name"]}))
    capsys.readouterr()
    summary = str(rules / "summary.json")
    assert dpem("curve", "--run", f"shared={runs}", "--beside", summary, "--out", str(out)) == 0
    assert "shared: reward 4.00 [3.75, 4.25] after 1,800 agent-steps; converged after 1,200" in capsys.readouterr().out
    written = json.loads((out / "curve.json").read_text())
    assert list(written["rules"]) == ["idle", "local-reactive"]
    assert written["rules"]["idle"]["reward"] == 0.0
    assert (out / "curve.png").read_bytes().startswith(PNG)


def test_the_curve_of_one_training_seed_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_curve(tmp_path / "seed0", 0, [1.0, 2.0, 2.0])
    assert dpem("curve", "--run", f"alone={tmp_path / 'seed0'}", "--out", str(tmp_path / "out")) == 0
    assert "alone: reward 2.00 after" in capsys.readouterr().out
    [training] = json.loads((tmp_path / "out" / "curve.json").read_text())["trainings"]
    assert training["reward"][-1] == [2.0, None, None]


def test_what_does_not_belong_together_is_refused_in_one_line(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_curve(tmp_path / "short" / "seed0", 0, [1.0, 2.0])
    write_curve(tmp_path / "short" / "seed1", 1, [1.0, 2.0, 3.0])
    write_curve(tmp_path / "other" / "seed0", 0, [1.0, 2.0], scenario="star8-v0")
    write_curve(tmp_path / "blind" / "seed0", 0, [])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "learning_curve.json").write_text("{")
    for given, line in (
        ({"a": str(tmp_path / "short" / "*")}, "training seeds of 'a' have validated at other timesteps"),
        ({"a": runs, "b": str(tmp_path / "other" / "*")}, "curves of mesh20-v0, star8-v0 do not belong in one picture"),
        ({"a": str(tmp_path / "blind" / "*")}, "cannot be used: it has no validation"),
        ({"a": str(tmp_path / "broken")}, "cannot be used"),
        ({"a": str(tmp_path / "none*")}, "a: no folder matches"),
    ):
        with pytest.raises(DpemError, match=line) as told:
            learning_curves(given)
        assert "\n" not in str(told.value)
    assert "expected NAME=PATTERN" in complaint(capsys, "curve", "--run", runs, "--out", str(tmp_path / "out"))
    evaluated = tmp_path / "summary.json"
    evaluated.write_text(json.dumps({"split": "evaluation", "scenarios": [{"name": "mesh20-v0", "contestants": []}]}))
    wrong = ("--run", f"a={runs}", "--beside", str(evaluated), "--out", str(tmp_path / "out"))
    assert "it is of the evaluation split" in complaint(capsys, "curve", *wrong)
    assert not (tmp_path / "out").exists()
