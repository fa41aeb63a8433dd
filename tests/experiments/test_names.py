"""Names of contestants and scenarios may be anything: nothing is lost, overwritten, mixed up or written elsewhere."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_baselines.local import LocalReactive
from dpem_env import policies, scenarios
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.tuning import Tuned
from dpem_env.logs.recorder import read_log
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.support import plugins
from support.command_line import complaint, dpem, given
from support.suites import few

TINY = scenarios.get("chain3-v0", slots=8, request_rate=4.0, name="tiny")
REPOSITORY = Path(__file__).resolve().parents[2]


class AtPath(LocalPolicy):
    """Waits, whatever its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def act(self, observations: Any, masks: Any) -> Decision:
        return Decision(np.zeros(len(masks), dtype=np.int64))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TINY.save("tiny.toml")
    known = policies.available() | {"at": EntryPoint("at", f"{__name__}:AtPath", plugins.POLICIES)}
    monkeypatch.setattr(policies, "available", lambda: known)


def summary(folder: str = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "summary.json").read_text())  # type: ignore[no-any-return]


def logs(folder: str = "out") -> dict[str, str]:
    """Names of the logs by the label of the contestant."""
    return {read_log(path).header["policy"]: path.name for path in Path(folder).glob("*-*.parquet")}


def bench(*arguments: str, scenario: str = "tiny.toml") -> int:
    return dpem("benchmark", "quick", "--scenario", scenario, *arguments, "--out", "out")


# --- delays -----------------------------------------------------------------------------------------------------------


def test_a_delay_that_is_no_whole_slots_is_told_and_labelled_as_it_is_played(
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ("--scenario", "tiny.toml", "--seeds", "1", "--out", "out")
    assert dpem("run", "--policy", "central-reactive", "--delay", "0.1", "--delay", "0", "--delay", "0.3", *common) == 0
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if "warning" in line] == [
        "dpem: warning: control delay of 0.1 s: played as 0 s, since slots last 0.25 s",
        "dpem: warning: control delay of 0.3 s: played as 0.25 s, since slots last 0.25 s",
    ]
    results = json.loads(Path("out/summary.json").read_text())
    assert [(each["label"], each["delay"]) for each in results["scenarios"][0]["contestants"]] == [
        ("central-reactive (delay 0 s)", 0.0),
        ("central-reactive (delay 0.25 s)", 0.25),
    ]
    assert logs() == {
        "central-reactive (delay 0 s)": "central-reactive,delay0-0.parquet",
        "central-reactive (delay 0.25 s)": "central-reactive,delay0.25-0.parquet",
    }


@pytest.mark.parametrize("command", ["benchmark", "tune"])
def test_so_do_benchmarks_and_searches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--scenario", "tiny.toml", "--policy", "central-reactive", "--delay", "0.1", "--delay", "0")
    if command == "benchmark":
        assert dpem("benchmark", "loads", *common, "--seeds", "1", "--out", "out") == 0
        delays = {each["delay"] for scenario in summary()["scenarios"] for each in scenario["contestants"]}
        assert [len(scenario["contestants"]) for scenario in summary()["scenarios"]] == [1, 1, 1]
        assert all("delay0" in path.name for path in Path("out/episodes").iterdir())
    else:
        assert dpem("tune", *common, "--trials", "2", "--episodes", "1", "--out", "out") == 0
        delays = {found["delay"] for found in json.loads(Path("out/tiny.json").read_text())["tuned"]}
    assert delays == {0.0}
    assert capsys.readouterr().err == "dpem: warning: control delay of 0.1 s: played as 0 s, since slots last 0.25 s\n"


def test_delays_that_would_print_alike_are_told_apart() -> None:
    slots = scenarios.get("chain3-v0", slots=8, request_rate=4.0, slot_duration=0.001, name="short")
    delays = (123.4561, 123.4562)
    labels = {PolicySpec("a", delay).label for delay in delays} | {
        PolicySpec("a", delay).file_parts[1] for delay in delays
    }
    assert len(labels) == 4
    assert slots.control.slot_duration == 0.001


def test_scenarios_that_would_play_a_delay_differently_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    TINY.override(name="fine", slot_duration=0.1, telemetry_period=0.5, news_period=None).save("fine.toml")
    common = ("--scenario", "tiny.toml", "--scenario", "fine.toml", "--policy", "central-reactive", "--seeds", "1")
    delays = ("--delay", "0.25", "--out", "out")
    said = complaint(capsys, "benchmark", "quick", *common, *delays)
    assert "--delay 0.25 would be 0.25 s on tiny" in said
    assert "0.2 s on fine" in said
    assert not Path("out").exists()


# --- policies and forecasters -----------------------------------------------------------------------------------------


def test_every_contestant_has_a_log_of_its_own() -> None:
    names = ["local-predictive", "local-predictive+oracle", "local-predictive+none", "central:local-predictive+oracle"]
    arguments = [word for name in names for word in ("--policy", name)]
    assert dpem("run", "--scenario", "tiny.toml", *arguments, "--seeds", "1", "--out", "out") == 0
    assert logs() == {
        "local-predictive": "local-predictive-0.parquet",
        "local-predictive +oracle": "local-predictive,+oracle-0.parquet",
        "local-predictive +none": "local-predictive,+none-0.parquet",
        "central:local-predictive +oracle (delay 0 s)": "central%3Alocal-predictive,+oracle,delay0-0.parquet",
    }


ODD = [
    "q[1]",
    "a+b",
    "chain3-v0+slots=20-shared",
    "a,b",
    "a:b",
    "*",
    "$x$_$y$",
    "[/red]",
    "ä µ",
    "n\nl",
    "a--b",
    "A",
    "a",
]


@pytest.mark.parametrize("command", ["run", "benchmark", "tune"])
def test_a_policy_may_lie_at_any_path(command: str) -> None:
    for name in ODD:
        Path(name).mkdir(parents=True)
    names = [f"at:{name}" for name in ODD]
    common = ("--scenario", "tiny.toml", "--out", "out")
    if command == "run":
        assert dpem("run", *common, *(f"--policy={name}" for name in names), "--seeds", "1") == 0
        assert set(logs()) == set(names)
    elif command == "benchmark":
        arguments = (*given(*names), "--seeds", "1", "--reference", "at:a+b")
        assert dpem("benchmark", "quick", *common, *arguments) == 0
        assert [each["label"] for each in summary()["scenarios"][0]["contestants"]] == names
        assert len(list(Path("out").glob("episodes/*/*.json"))) == len(names)
    else:
        assert dpem("tune", *common, *given(*names), "--trials", "1", "--episodes", "1") == 0
        assert [found["policy"] for found in json.loads(Path("out/tiny.json").read_text())["tuned"]] == names


def test_a_trained_policy_may_lie_at_any_path() -> None:
    trained = Path("runs/mesh20-v0+slots=20,[1]-shared")
    shutil.copytree(REPOSITORY / "agents" / "checkpoints" / "shipped" / "mesh20", trained)
    small = ("--scenario", "mesh20-v0", "--set", "slots=4", "--seeds", "1", "--out", "out")
    assert dpem("run", "--policy", f"ppo:{trained}", "--policy", f"ppo:{trained}+mean-rates", *small) == 0
    assert set(logs()) == {f"ppo:{trained}", f"ppo:{trained} +mean-rates"}


@pytest.mark.parametrize("out", few(["runs/a,idle+oracle", "q[1], $x*", None]))
def test_the_hint_of_a_training_works_as_it_stands(out: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sb3_contrib", reason="needs the extra agents")
    world = ("--scenario", "chain3-v0", "--set", "slots=20")
    place = () if out is None else ("--out", out)
    assert dpem("train", *world, "--timesteps", "60", "--validation-episodes", "0", *place) == 0
    _, _, hint = capsys.readouterr().out.strip().partition("; use it as ")
    flag, policy = shlex.split(hint)
    assert policy == f"ppo:{out or 'runs/chain3-v0+slots=20-shared'}"
    assert dpem("run", *world, flag, policy, "--seeds", "1", "--out", "out") == 0
    assert set(logs()) == {policy}
    both = (
        "--scenario",
        "chain3-v0",
        "--policy",
        policy,
        "--policy",
        f"{policy}+oracle",
        "--policy",
        "idle",
        "--seeds",
        "1",
    )
    assert dpem("benchmark", "coherence", *both, "--out", "out") == 0
    assert [each["label"] for each in summary()["scenarios"][0]["contestants"]] == [policy, f"{policy} +oracle", "idle"]


def test_a_training_says_the_delay_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sb3_contrib", reason="needs the extra agents")
    central = ("--mode", "central", "--delay", "0.3", "--timesteps", "60", "--validation-episodes", "0")
    assert dpem("train", "--scenario", "tiny.toml", *central, "--out", "late") == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warned == ["dpem: warning: control delay of 0.3 s: played as 0.25 s, since slots last 0.25 s"]
    with np.load("late/policy.npz") as file:
        assert json.loads(str(file["about"]))["settings"]["delay"] == 0.25


def test_a_long_path_is_no_problem_of_the_file_system() -> None:
    long = Path("a" * 120, "b" * 124)
    for end in ("1", "2"):
        (long / end).mkdir(parents=True)
    names = [f"at:{long}/{end}" for end in ("1", "2")]
    common = ("--scenario", "tiny.toml", "--seeds", "1", "--out")
    assert dpem("run", *(f"--policy={name}" for name in names), *common, "run") == 0
    assert set(logs("run")) == set(names)
    assert dpem("benchmark", "quick", *given(*names), *common, "out") == 0
    assert summary()["complete"] is True
    assert len(list(Path("out").glob("episodes/*/*.json"))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--policy", "idle", "--forecaster", "oracle", "--forecaster", "oracle"),
        ("--policy", "idle", "--policy", "idle+oracle", "--forecaster", "oracle"),
        ("--policy", "idle", "--policy", "idle", "--policy", "idle"),
        ("--policy", "central:idle", "--delay", "0", "--delay", "0.0", "--delay", "0"),
        ("--policy", "idle", "--scenario", "tiny.toml", "--scenario", "./tiny.toml"),
    ],
    ids=" ".join,
)
def test_what_is_named_twice_plays_once(arguments: tuple[str, ...]) -> None:
    for _ in range(2):
        assert bench(*arguments, "--seeds", "1") == 0
        [scenario] = summary()["scenarios"]
        assert len(scenario["contestants"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--policy", "idle,acp"),
            "unknown policy 'idle,acp'; a list with commas is not taken here: name each by itself",
        ),
        (("--policy", "acp:5"), "policy 'acp' takes no argument, given '5'"),
        (("--policy", "idle:x"), "policy 'idle' takes no argument, given 'x'"),
        (("--policy", "ppo"), "policy 'ppo' needs an argument: ppo:ARGUMENT, such as a file"),
        (("--policy", "local-predictive+gru"), "forecaster 'gru' needs an argument: gru:ARGUMENT, such as a file"),
        (("--policy", "idle", "--forecaster", "oracle:3"), "forecaster 'oracle' takes no argument, given '3'"),
        (("--policy", "idle", "--forecaster", "oracle,none"), "unknown forecaster 'oracle,none'; a list with commas"),
        (("--policy", "idle+"), "unknown forecaster ''"),
        (("--policy", "ppo:no[thing]"), "no file matches 'no[thing]'"),
        (("--policy", "ppo:no\0thing"), "checkpoint"),
        (("--policy", "idle", "--forecaster", "gru:no\0thing"), "checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_contestant_that_cannot_be_is_told_in_the_words_of_the_command(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, "run", "--scenario", "tiny.toml", *arguments, "--out", "out")
    assert message in said
    assert "__init__" not in said
    assert not Path("out").exists()


# --- scenarios --------------------------------------------------------------------------------------------------------

SCENARIO_NAMES = [
    "lab/mesh",
    "mesh+dense",
    "mesh+slots=4",
    "../escaped",
    "..",
    "a,b",
    "q[1]",
    "ä",
    "$x$_$y$",
    "x" * 150,
]


@pytest.mark.parametrize("name", few(SCENARIO_NAMES, 3))
def test_a_scenario_of_any_name_is_tuned_and_found_again(name: str) -> None:
    TINY.override(name=name).save("s.toml")
    before = set(Path.cwd().parent.iterdir())
    common = ("--scenario", "s.toml", "--policy", "central-reactive")
    assert dpem("tune", *common, "--trials", "2", "--episodes", "1", "--out", "tuned") == 0
    [file] = Path("tuned").glob("*.json")
    for suite in ("quick", "coherence"):  # as it is played there, and varied
        assert dpem("benchmark", suite, *common, "--seeds", "1", "--tuned", "tuned", "--out", suite) == 0
        for scenario in summary(suite)["scenarios"]:
            [best] = {json.dumps(each["options"]) for each in scenario["contestants"]}
            assert best == json.dumps(json.loads(file.read_text())["tuned"][0]["best"]["options"])
    assert set(Path.cwd().parent.iterdir()) == before
    assert {path.name for path in Path.cwd().iterdir()} == {"tiny.toml", "s.toml", "tuned", "quick", "coherence"}


def test_what_was_tuned_elsewhere_is_not_taken_for_a_scenario_of_a_longer_name() -> None:
    TINY.override(name="mesh").save("mesh.toml")
    TINY.override(name="mesh+dense").save("dense.toml")
    arguments = ("--policy", "acp", "--trials", "1", "--episodes", "1", "--out", "tuned")
    assert dpem("tune", "--scenario", "mesh.toml", *arguments) == 0
    assert bench("--policy", "acp", "--seeds", "1", "--tuned", "tuned", scenario="dense.toml") == 2
    assert bench("--policy", "acp", "--seeds", "1", "--tuned", "tuned", scenario="mesh.toml") == 0


def test_two_scenarios_of_one_name_are_refused_before_anything_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    for folder, rate in (("a", 4.0), ("b", 8.0)):
        Path(folder).mkdir()
        TINY.override(name="lab", request_rate=rate, summary=folder).save(f"{folder}/lab.toml")
    common = ("--policy", "idle", "--seeds", "1", "--out", "out")
    both = ("--scenario", "a/lab.toml", "--scenario", "b/lab.toml")
    assert "two scenarios are called 'lab" in complaint(capsys, "benchmark", "coherence", *both, *common)
    assert not Path("out").exists()
    for folder in ("a", "b", "b", "a"):  # one after the other, each is played
        assert dpem("benchmark", "coherence", "--scenario", f"{folder}/lab.toml", *common) == 0
        scenario = scenarios.get(f"{folder}/lab.toml", coherence_time=1.0)
        assert summary()["scenarios"][0]["hash"] == scenario.hash


@pytest.mark.parametrize("scenario", ["chain3-v0", "an odd one.toml"])
def test_the_hint_on_what_was_not_tuned_works_as_it_stands(capsys: pytest.CaptureFixture[str], scenario: str) -> None:
    TINY.override(name="odd").save("an odd one.toml")
    folder, here = "tuned [1], it's", ("--scenario", scenario)
    trials = ("--trials", "2", "--episodes", "1", "--out", folder)
    assert dpem("tune", *here, "--policy", "idle", *trials) == 0
    capsys.readouterr()
    arguments = ("benchmark", "coherence", *here, "--policy", "acp", "--seeds", "1")
    said = complaint(capsys, *arguments, "--tuned", folder, "--out", "out")
    _, _, hint = said.partition("; dpem ")
    assert dpem(*shlex.split(hint.removesuffix(" adds it\n"))) == 0
    assert Tuned(Path(folder)).policy(scenarios.get(scenario), PolicySpec("acp"))


# --- folders of results ----------------------------------------------------------------------------------------------


def commands() -> dict[str, tuple[str, ...]]:
    return {
        "benchmark": ("benchmark", "quick", "--policy", "local-reactive", "--policy", "idle", "--seeds", "2"),
        "run": ("run", "--policy", "local-reactive", "--policy", "idle", "--seeds", "2", "--logs", "all"),
        "tune": ("tune", "--policy", "idle", "--policy", "local-reactive", "--trials", "1", "--episodes", "2"),
    }


@pytest.mark.parametrize("command", commands())
@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_is_deleted_midway_is_never_called_complete(
    command: str, made_again: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    act = LocalReactive.act

    def delete(self: LocalReactive, *arguments: Any) -> Decision:
        nonlocal calls
        calls += 1
        if calls == (12 if command != "benchmark" else 30):  # in its second episode
            shutil.rmtree("out")
            if made_again:
                Path("out/episodes").mkdir(parents=True)
        return act(self, *arguments)

    monkeypatch.setattr(LocalReactive, "act", delete)
    arguments = (*commands()[command], "--scenario", "tiny.toml", "--out", "out")
    if command == "tune" and made_again:  # it writes one file, always whole
        assert dpem(*arguments) == 0
        assert len(json.loads(Path("out/tiny.json").read_text())["tuned"]) == 2
        return
    assert "--out 'out' was removed while results were written to it" in complaint(capsys, *arguments)
    assert not Path("out/summary.json").exists()
    assert not Path("out/summary.json").exists()


@pytest.mark.parametrize("command", commands())
def test_two_processes_do_not_write_to_one_folder(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins while the first plays; files are locked for it as for another process."""
    arguments = (*commands()[command], "--scenario", "tiny.toml", "--out", "out")
    codes: list[int] = []
    act = LocalReactive.act

    def begin_another(self: LocalReactive, *given: Any) -> Decision:
        if not codes:
            codes.append(-1)
            codes.append(dpem(*arguments))
        return act(self, *given)

    monkeypatch.setattr(LocalReactive, "act", begin_another)
    assert dpem(*arguments) == 0
    assert codes == [-1, 2]
    assert capsys.readouterr().err.count("another process is writing 'out") == 1
