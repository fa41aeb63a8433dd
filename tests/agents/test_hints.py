"""What the program tells to type works as it stands, pasted into a shell, whatever folders and scenarios are called."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dpem_agents.commands import playing
from dpem_agents.forecasters import training as forecaster_training
from dpem_agents.ppo.checkpoint import load
from dpem_agents.ppo.learner import Learner
from dpem_env import scenarios
from support.command_line import but, complaint, dpem
from support.suites import few

SMALL = ("--scenario", "chain3-v0", "--set", "slots=20")
QUICK = ("--timesteps", "48", "--learn.slots", "8", "--learn.networks", "2", "--validation-episodes", "0")
OPEN = ("--federate.privacy", "off", "--federate.period", "1")
FOLDERS = (
    "it's",
    'a "b" $HOME',
    "q[1]",
    "~x",
    "-x",
    "runs",
    "my runs",
    "slots=20+b",
    "a,b",
    "a:b",
    "*?",
    "ä ε",
    "#1;ls",
)


def hint(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.rpartition("use it as ")[2].strip("\n")


def play(arguments: str, folder: Path) -> dict[str, Any]:
    """The results of a run with what was told to type, in words as a shell in `folder` makes them of it."""
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {arguments}"], cwd=folder, capture_output=True, check=True)
    words = read.stdout.decode().split("\0")[:-1]
    assert dpem("run", "--scenario", "chain3-v0", "--set", "slots=20", "--seeds", "1", "--out", "results", *words) == 0
    summary: dict[str, Any] = json.loads((folder / "results" / "summary.json").read_text())
    return dict(summary["scenarios"][0])


@pytest.mark.parametrize("name", few(FOLDERS, 5))
def test_a_trained_policy_is_played_by_what_is_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dpem("train", *SMALL, *QUICK, f"--out={name}") == 0
    [contestant] = play(hint(capsys), tmp_path)["contestants"]
    assert contestant["policy"] == f"ppo:{name}"


@pytest.mark.parametrize(
    ("options", "seeds", "delay"),
    [
        (("--mode", "independent", "--topology", "3"), 3, None),
        (("--mode", "federated", *OPEN), 0, None),
        (("--mode", "central", "--delay", "0.5"), None, 0.5),
        (("--mode", "central"), None, 0.0),
    ],
)
def test_a_policy_is_played_where_and_as_it_was_trained(
    options: tuple[str, ...],
    seeds: int | None,
    delay: float | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dpem("train", *SMALL, *QUICK, *options, "--out", "own one") == 0
    results = play(hint(capsys), tmp_path)
    assert results["contestants"][0]["delay"] == delay
    assert seeds in (None, results["seeds"][0]["topology"])


@pytest.mark.parametrize("name", ["chain3-v0", "lab/mesh", "../escaped", "n" * 200, "a b", "ε*[1]", "."])
def test_the_folder_of_a_training_follows_from_any_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    scenarios.get("chain3-v0", name=name, slots=20).save("mine.toml")
    assert dpem("train", "--scenario", "mine.toml", *QUICK) == 0
    [folder] = (here / "runs").iterdir()
    assert (folder / "policy.npz").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert play(hint(capsys), here)["contestants"][0]["policy"] == f"ppo:runs/{folder.name}"


@pytest.mark.parametrize("file", ["weights.npz", "my weights", "q[1],a+b.npz"])
def test_a_trained_forecaster_forecasts_by_what_is_told(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learn = ("--hours", "0.5", "--epochs", "1", "--hidden", "2", "--topology", "7", "--topology", "8")
    assert dpem("train-forecaster", *SMALL, *learn, "--out", file) == 0
    results = play(f"--policy local-predictive {hint(capsys)}", tmp_path)
    assert results["seeds"][0]["topology"] == 7
    assert results["contestants"][0]["forecaster"] == f"gru:{file}"


def test_an_interrupted_training_goes_on_as_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", *but((*SMALL, *QUICK), "--timesteps", "192", "--out", "two  words")]
    average = Learner.average_if_due

    def interrupted(learner: Learner) -> None:
        average(learner)
        if learner.timesteps >= 96:
            raise KeyboardInterrupt

    for again, words in ((), "again"), (("--again",), "without --again"):
        with monkeypatch.context() as pressed:
            pressed.setattr(Learner, "average_if_due", interrupted)
            assert dpem(*train, *again) == 130
        done = "interrupted after 48 of 192 timesteps, saved to two  words/checkpoint.npz"
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", f"dpem: {done}; the same command {words} goes on\n")
    assert load(tmp_path / "two  words" / "checkpoint.npz", training=True).about["timesteps"] == 48
    assert dpem(*train) == 0
    assert load(tmp_path / "two  words" / "checkpoint.npz", training=True).about["timesteps"] == 192


def test_an_interrupted_training_of_forecasters_says_what_it_has_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        yield 1, 2
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forecaster_training.Training, "run", interrupted)
    learn = ("--hours", "0.5", "--epochs", "1", "--hidden", "2", "--topology", "7")
    assert dpem("train-forecaster", *SMALL, *learn, "--out", "kept.npz") == 130
    assert capsys.readouterr().err == "dpem: interrupted; kept.npz holds what was learned by then\n"
    assert len(play("--policy local-predictive --forecaster gru:kept.npz --topology 7", tmp_path)["contestants"]) == 1
    system = ("--preset", "dpem", "--federate.period", "1", "--out", "system")
    assert dpem("train", *SMALL, *QUICK, *system) == 130  # its first layer is begun anew
    assert capsys.readouterr().err == "dpem: interrupted\n"
    assert not list((tmp_path / "system").glob("*.npz"))


def test_a_folder_of_another_training_is_begun_anew_as_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("train", *SMALL, *QUICK, "--out", str(tmp_path / "out"))
    assert dpem(*train) == 0
    capsys.readouterr()
    said = complaint(capsys, *train, "--learn.discount", "0.9")
    assert "of another training, with discount 0.95 instead of 0.9: choose another --out, or begin anew with" in said
    assert dpem(*train, "--learn.discount", "0.9", "--again") == 0


def test_a_node_of_a_federation_is_told_how_to_play_what_it_has_learned() -> None:
    assert playing("federated", Path("node 0"), 4) == "--policy 'ppo:node 0' --topology 4"


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("mode", ["shared", "independent", "central", "federated"])
def test_trainings_take_every_seed(mode: str, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--mode", mode, *(OPEN if mode == "federated" else ()))
    assert dpem("train", *SMALL, *QUICK, *options, "--seed", str(seed), "--out", str(tmp_path)) == 0
    assert load(tmp_path / "checkpoint.npz", training=True).about["settings"]["seed"] == seed
