"""What a run leaves out it says: requests of a file that do not count, networks where hardly anybody has a peer."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from dpem_env import parallel_env, scenarios
from dpem_env.cli import main
from dpem_env.experiments.workers import _begin_work, here
from dpem_env.network.network import _build
from dpem_env.support.errors import DpemWarning, warnings_told
from support.suites import few

FEW = ["--scenario", "few.toml"]
SENTENCE = (
    "dpem: warning: few: request file 'requests.csv': 4 of 9 requests count; left out: 3 after the episode's end, "
    "2 to more destinations of a node than demand.peers allows; raise episode.slots; raise demand.peers\n"
)


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scenario that replays a request file, in the present folder."""
    monkeypatch.chdir(tmp_path)
    rows = ["0,0,1,0.75"] * 4 + ["0.5,0,2,0.75"] * 2 + ["99,0,1,0.75"] * 3
    Path("requests.csv").write_text("\n".join(["time,source,destination,fidelity", *rows]))
    chain = scenarios.get("chain3-v0", kind="replay", requests_file="requests.csv", peers=1, slots=16)
    chain.override(name="few").save("few.toml")
    _build.cache_clear()


COMMANDS = {
    "run": ["run", *FEW, "--policy", "idle", "--seeds", "2", "--out", "out"],
    "benchmark": ["benchmark", "small", *FEW, "--policy", "idle", "--seeds", "2", "--out", "out"],
    "tune": ["tune", *FEW, "--policy", "local-predictive", "--trials", "2", "--episodes", "1", "--out", "out"],
    "benchmark on two": ["benchmark", "small", *FEW, "--policy", "idle", "--seeds", "2", "--workers=2", "--out=out"],
}


@pytest.mark.parametrize("command", few([*COMMANDS], 3))
def test_every_command_says_once_which_requests_do_not_count(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(COMMANDS[command]) == 0
    assert capfd.readouterr().err.count("dpem: warning:") == 1
    assert main([*COMMANDS["run"][:-1], "again"]) == 0
    assert SENTENCE in capfd.readouterr().err  # and again in every run


def test_training_says_it_too(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    short = ["--timesteps", "96", "--learn.networks", "1", "--learn.slots", "16"]
    assert main(["train", *FEW, *short, "--out", "out"]) == 0
    assert capfd.readouterr().err.count(SENTENCE) == 1


def test_a_run_of_which_nothing_counts_is_refused_with_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    Path("requests.csv").write_text("time,source,destination,fidelity\n" + "50,0,1,0.75\n" * 3)
    assert main(COMMANDS["run"]) == 2
    said = "0 of 3 requests count; left out: 3 after the episode's end; raise episode.slots\n"
    assert capsys.readouterr().err == f"dpem: error: few: request file 'requests.csv': {said}"
    assert not Path("out").exists()


def test_a_run_on_a_network_of_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    world = scenarios.get("surfnet-v0", topology="topozoo/Nsfnet", name="nobody")
    world.save("nobody.toml")
    assert main(["run", "--scenario", "nobody.toml", "--policy", "idle", "--out", "out"]) == 2
    assert "nobody: only 0 of 13 nodes have a peer" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_run_on_a_network_of_hardly_anybody_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    scenarios.get("surfnet-v0", topology="topozoo/Geant2012", slots=8, name="few").save("few.toml")
    assert main(COMMANDS["run"]) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith("dpem: warning: few: topology seed 2000: only 2 of 37 nodes have a peer; of 1332 pairs")


def test_python_is_warned_once_per_file() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        env = parallel_env("few.toml")
        for seed in range(3):
            env.reset(seed=seed)
    assert [str(one.message) for one in said] == [SENTENCE.removeprefix("dpem: warning: ").strip()]


def test_other_warnings_are_shown_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with warnings_told(lines.append):
        for number in range(2):
            warnings.warn(DpemWarning("this", f"{number}\nof two"), stacklevel=1)
        with pytest.warns(RuntimeWarning, match="strange"):
            warnings.warn("strange", RuntimeWarning, stacklevel=1)
    assert lines == ["this: 0 of two"]


def test_a_worker_leaves_warnings_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpem_env.experiments.workers.signal.signal", lambda *_: None)
    monkeypatch.setattr("dpem_env.experiments.workers.threading.Thread.start", lambda self: None)
    with warnings.catch_warnings(record=True) as said:
        _begin_work()
        list(here(lambda name: parallel_env(name).reset(seed=0), ["few.toml"]))
    assert not said


def test_requests_that_nobody_could_deliver_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    Path("requests.csv").write_text("time,source,destination,fidelity\n0,0,1,0.75\n0,0,1,0.91\n")
    assert main([*COMMANDS["run"], "--set", "gate_fidelity=0.97", "--set", "link_fidelity=0.85"]) == 0
    told = (
        "request file 'requests.csv': 2 of 2 requests count; 1 ask for a fidelity that no route of theirs meets, and "
        "count as not delivered; raise hardware.link_fidelity, lower bright_state or demand.fidelity_classes\n"
    )
    assert told in capfd.readouterr().err
