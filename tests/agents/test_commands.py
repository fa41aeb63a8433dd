"""The commands that this package adds: they teach, they train, and bad input is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import complaint, dpem
from dpem_env import forecast
from dpem_env.policies import get_policy

SMALL = ("--scenario", "chain3-v0", "--set", "slots=40")


@pytest.mark.parametrize("command", ["train", "train-forecaster"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert dpem(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: dpem {command}")


@pytest.mark.parametrize("model", ["gru", "ridge"])
def test_a_trained_forecaster_is_one_that_policies_and_scores_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    path = str(tmp_path / "weights.npz")
    options = ("--model", model, "--topology", "2000", "--hours", "0.5", "--epochs", "1", "--hidden", "2")
    assert dpem("train-forecaster", *SMALL, *options, "--out", path) == 0
    assert f"use it as --forecaster {model}:{path}" in capsys.readouterr().out
    assert forecast.get_forecaster(f"{model}:{path}") is not None
    common = ("--topology", "2000", "--seeds", "2", "--out", str(tmp_path / "out"))
    assert dpem("forecast", *SMALL, "--forecaster", f"{model}:{path}", *common) == 0


def test_a_trained_policy_is_one_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(tmp_path / "runs")
    assert dpem("train", *SMALL, "--timesteps", "3072", "--out", runs) == 0
    assert f"use it as --policy ppo:{runs}" in capsys.readouterr().out
    assert get_policy(f"ppo:{runs}").forecaster is None
    out = str(tmp_path / "out")
    assert (
        dpem("run", *SMALL, "--policy", f"ppo:{runs}", "--policy", "local-reactive", "--seeds", "2", "--out", out) == 0
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train-forecaster", "--topology", "-1", "--out", "x.npz"), "--topology"),
        (("train-forecaster", "--topology", "0", "--hours", "0", "--out", "x.npz"), "hours is 0.0"),
        (("train-forecaster", "--topology", "0", "--hidden", "0", "--out", "x.npz"), "--hidden is 0"),
        (("train", "--timesteps", "0", "--out", "x"), "timesteps is 0"),
        (("train", "--timesteps", "9", "--forecaster", "orcale", "--out", "x"), "unknown forecaster 'orcale'"),
        (("train", "--timesteps", "9", "--device", "cdua", "--out", "x"), "device is 'cdua'"),
        (("train", "--timesteps", "9", "--mode", "alone", "--out", "x"), "invalid choice: 'alone'"),
    ],
)
def test_bad_input_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = argv
    assert message in complaint(capsys, command, *SMALL, *options)
    assert not list(tmp_path.iterdir())
