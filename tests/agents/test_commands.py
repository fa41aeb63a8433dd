"""The commands that this package adds: they teach, they train, and bad input is one line."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters, changed
from dpem_agents.studies import search as ppo_search
from dpem_env import scenarios
from dpem_env.demand import forecast
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.tuning import EPISODES, TRIALS
from dpem_env.policies import get_policy
from dpem_env.simulator import RULES_VERSION
from support.command_line import commands, complaint, dpem

ROOT = Path(__file__).resolve().parents[2]
CHAIN = scenarios.get("chain3-v0", slots=40)
SMALL = ("--scenario", "chain3-v0", "--set", "slots=40")


@pytest.mark.parametrize("command", ["train", "train-forecaster", "tune-ppo"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert dpem(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"Usage: dpem {command}")


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


def test_a_central_policy_is_trained_for_its_delay_with_other_hyperparameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(tmp_path / "runs")
    learn = ("--learn.slots", "8", "--learn.networks", "2", "--learn.warm-start", "waiting")
    assert dpem("train", *SMALL, "--mode", "central", "--delay", "0.5", *learn, "--timesteps", "96", "--out", runs) == 0
    assert f"use it as --policy central-ppo:{runs}" in capsys.readouterr().out
    settings = get_policy(f"central-ppo:{runs}").actor.checkpoint.about["settings"]
    assert settings["delay"] == 0.5
    assert settings["hyperparameters"]["slots"] == 8
    assert settings["hyperparameters"]["warm_start"] == "waiting"


@pytest.mark.slow
def test_a_training_of_minutes_beats_the_tuned_reactive_rule_on_networks_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = [line for line in commands((ROOT / "README.md").read_text("utf-8")) if "runs/mesh100" in line]
    assert [line.split()[1] for line in told] == ["train", "run"]
    for line in told:
        assert dpem(*shlex.split(line)[1:]) == 0
    [played] = json.loads(Path("results/summary.json").read_text())["scenarios"]
    [learned] = played["differences"]
    assert learned["metrics"]["reward"]["difference"]["low"] > 0.0
    assert learned["metrics"]["delivery_rate"]["difference"]["low"] > 0.0


def test_a_search_scores_every_trial_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden": 2, "networks": 2, "slots": 4, "minibatches": 2}
    changes = {"small": small, "small, greedy": small | {"discount": 0.1}}
    monkeypatch.setitem(ppo_search.SEARCHES, "idle", (Hyperparameters(), changes))
    file = tmp_path / "new" / "search.json"
    search = (
        *SMALL,
        "--search",
        "idle",
        "--timesteps",
        "48",
        "--forecaster",
        "moving-average",
        "--runs",
        str(tmp_path),
        "--out",
        str(file),
    )
    assert dpem("tune-ppo", *search) == 0
    found = json.loads(file.read_text())
    told = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in told] == [trial["name"] for trial in found["trials"]]
    assert {trial["name"]: trial["changes"] for trial in found["trials"]} == changes
    rewards = [trial["reward"] for trial in found["trials"]]
    assert rewards == sorted(rewards, reverse=True)
    assert found["validation_episodes"] == 3
    greedy = next(trial for trial in found["trials"] if "greedy" in trial["name"])
    assert greedy["learned_with"]["discount"] == 0.1
    played = [
        run_episode(CHAIN, get_policy(f"ppo:{tmp_path / 'small-greedy'}"), episode_seeds(CHAIN, "validation", index))[0]
        for index in range(3)
    ]
    assert greedy["reward"] == pytest.approx(np.mean([metrics.reward for metrics in played]))
    assert dpem("tune-ppo", *search) == 0
    assert json.loads(file.read_text()) == found


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train-forecaster", "--topology", "-1", "--out", "x.npz"), "--topology"),
        (
            ("train-forecaster", "--topology", "0", "--hours", "0", "--out", "x.npz"),
            "--hours is '0'; expected a number above 0",
        ),
        (("train-forecaster", "--topology", "0", "--hidden", "0", "--out", "x.npz"), "--hidden is '0'"),
        (("train", "--timesteps", "0", "--out", "x"), "--timesteps is '0'"),
        (("train", "--timesteps", "9", "--forecaster", "orcale", "--out", "x"), "unknown forecaster 'orcale'"),
        (("train", "--timesteps", "9", "--device", "cdua", "--out", "x"), "device is 'cdua'"),
        (
            ("train", "--timesteps", "9", "--learn.discont", "1", "--out", "x"),
            "Unknown option: --learn.discont. Did you mean --learn.discount?",
        ),
        (("train", "--timesteps", "9", "--learn.clip", "x", "--out", "x"), "--learn.clip is 'x'; expected a number"),
        (
            ("train", "--timesteps", "9", "--mode", "central", "--delay", "-1", "--out", "x"),
            "--delay is '-1'; expected seconds >= 0",
        ),
        (("tune-ppo", "--timesteps", "0", "--runs", "x", "--out", "x.json"), "--timesteps is '0'"),
        (("tune-ppo", "--timesteps", "9", "--runs", "/dev/null", "--out", "x.json"), "--runs '/dev/null' cannot be"),
        (("train", "--delay", "0.5", "--out", "x"), "--delay is for mode central"),
        (("train", "--topology", "3", "--out", "x"), "--topology is for modes independent and federated"),
        (("train", "--preset", "dpem", "--forecaster", "oracle", "--out", "x"), "leave out --forecaster"),
        (("train", "--preset", "dpem", "--mode", "shared", "--out", "x"), "leave out --mode"),
        (("train", "--hours", "3", "--out", "x"), "--hours is of --preset dpem"),
        (("train", "--timesteps", "9", "--learn.networks", "1e6", "--out", "x"), "expected a whole number from 1"),
        (("train", "--timesteps", "9", "--out", ""), "--out is ''; expected a path"),
        (("train", "--timesteps", "9", "--out", 300 * "n"), "File name too long"),
        (("train-forecaster", "--topology", "0", "--out", 300 * "n"), "File name too long"),
        (("train-forecaster", "--topology", "0", "--out", "a\0b"), "--out 'a\\x00b' cannot be written: embedded null"),
        (
            ("train-forecaster", "--topology", "0", "--hidden", "9" * 30, "--out", "x"),
            "expected a whole number from 1 to 10,000",
        ),
        (("train-forecaster", "--topology", "0", "--out", "."), "is a folder; expected the path of a file"),
        (("train-forecaster", "--topology", "0", "--seed", "-1", "--out", "x.npz"), "--seed is '-1'"),
        (("train-forecaster", "--topology", "0", "--epochs", "inf", "--out", "x.npz"), "--epochs is 'inf'"),
        (("tune-ppo", "--timesteps", "9", "--runs", "x", "--out", 300 * "n"), "File name too long"),
        (("train", "--timesteps", "9", "--mode", "alone", "--out", "x"), 'Invalid value "alone" for --mode'),
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


def test_the_preset_is_the_best_trial_of_the_committed_searches() -> None:
    learning = ROOT / "baselines" / "results" / "learning"
    for search, file, scenario in (("all", "search.json", "mesh20-v0"), ("idle", "idle.json", "mesh100-v0")):
        found = json.loads((learning / file).read_text())
        tried = {trial["name"]: trial["changes"] for trial in found["trials"]}
        assert tried == ppo_search.SEARCHES[search][1]
        assert found["validation_episodes"] == EPISODES
        if found.get("rules", "v0") == RULES_VERSION:  # which was v0 when results did not say
            assert found["scenario_hash"] == scenarios.get(scenario).hash
        best = changed(Hyperparameters(), **max(found["trials"], key=lambda trial: trial["reward"])["learned_with"])
        if search == "all":
            assert len(tried) == TRIALS
            assert replace(best, idle_forecast=PRESETS["shared"].idle_forecast) == PRESETS["shared"]
        else:
            assert {preset.idle_forecast for preset in PRESETS.values()} == {best.idle_forecast}
