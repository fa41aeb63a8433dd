"""The command line: what a run writes, how it is interrupted, and the one line bad input is answered with."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from scipy import stats

import dpem_env
from dpem_baselines.local import LocalReactive
from dpem_env import scenarios
from dpem_env.demand.forecast import FORECASTERS
from dpem_env.envs.metric_labels import METRICS
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.results import Key, arrays, read
from dpem_env.logs.recorder import EpisodeRecorder, read_log
from dpem_env.policies import available
from dpem_env.support.provenance import stamp
from support.command_line import Interrupt, but, complaint, dpem

SLOTS = 16
SEEDS = 3
QUICK = ["--scenario", "chain3-v0", "--policy", "local-reactive", "--seeds", "1", "--set", "slots=8"]
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).with_name("dpem")


def results_in(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    results: dict[str, Any] = json.loads((folder / "summary.json").read_text(), parse_constant=refuse)
    return results


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run that uses most of what there is."""
    out = tmp_path_factory.mktemp("run") / "below" / "results"
    code = dpem(
        "run", "--scenario", "mesh20-v0", "--set", f"slots={SLOTS}", "--set", "request_rate=16.0",
        "--policy", "local-reactive", "--policy", "central-reactive", "--policy", "central:local-reactive",
        "--delay", "0", "--delay", "0.5", "--forecaster", "mean-rates", "--seeds", str(SEEDS), "--logs", "all",
        "--out", str(out),
    )  # fmt: skip
    assert code == 0
    return out


LABELS = [
    "local-reactive +mean-rates",
    "central-reactive +mean-rates (delay 0 s)",
    "central-reactive +mean-rates (delay 0.5 s)",
    "central:local-reactive +mean-rates (delay 0 s)",
    "central:local-reactive +mean-rates (delay 0.5 s)",
]
STEMS = [
    "local-reactive,+mean-rates",
    "central-reactive,+mean-rates,delay0",
    "central-reactive,+mean-rates,delay0.5",
    "central%3Alocal-reactive,+mean-rates,delay0",
    "central%3Alocal-reactive,+mean-rates,delay0.5",
]


def test_a_run_writes_results_picture_and_every_log(finished: Path) -> None:
    logs = [f"{stem}-{index}.parquet" for stem in STEMS for index in range(SEEDS)]
    assert files_in(finished) == sorted([*logs, "results.parquet", "results.png", "summary.json"])


def test_results_say_what_was_run(finished: Path) -> None:
    results = results_in(finished)
    scenario = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0)
    [played] = results["scenarios"]
    assert played["hash"] == scenario.hash
    assert scenarios.Scenario.model_validate_json(json.dumps(played["scenario"])) == scenario
    assert results["version"]["dpem_env"] == dpem_env.__version__
    assert results["split"] == "evaluation"
    assert results["complete"] is True
    assert played["seeds"] == [episode_seeds(scenario, "evaluation", index)._asdict() for index in range(SEEDS)]
    assert [each["label"] for each in played["contestants"]] == LABELS
    assert [each["delay"] for each in played["contestants"]] == [None, 0.0, 0.5, 0.0, 0.5]
    assert {each["forecaster"] for each in played["contestants"]} == {"mean-rates"}
    assert [values["reward"].shape for values in contestants_in(finished).values()] == [(1, SEEDS)] * 5
    assert "the version of numba" in results["sources"]
    assert {results["stamp"], read_log(next(finished.glob("*-0.parquet"))).header["stamp"]} == {stamp()}


def contestants_in(folder: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """(1, E) values by label and metric."""
    [scenario] = results_in(folder)["scenarios"]
    values = arrays(read(folder).frame, scenario["name"])
    return {each["label"]: values[Key.of(each)] for each in scenario["contestants"]}


def test_summaries_are_means_and_students_intervals_of_the_episodes(finished: Path) -> None:
    checked = 0
    for each in results_in(finished)["scenarios"][0]["contestants"]:
        assert set(each["metrics"]) == set(METRICS)
        for metric, told in each["metrics"].items():
            [values] = contestants_in(finished)[each["label"]][metric]
            values = values[np.isfinite(values)]
            if len(values) < 2:
                assert told is None or told["mean"]["low"] is None
                continue
            half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
            expected = [values.mean(), values.mean() - half, values.mean() + half]
            assert list(told["mean"].values()) == pytest.approx(expected, rel=1e-6, abs=1e-9)
            checked += 1
    assert checked > 50


def test_differences_from_the_first_contestant_are_paired(finished: Path) -> None:
    values = contestants_in(finished)
    differences = results_in(finished)["scenarios"][0]["differences"]
    assert [each["label"] for each in differences] == LABELS[1:]
    for each in differences:
        for metric, told in each["metrics"].items():
            gaps = (values[each["label"]][metric] - values[LABELS[0]][metric]).ravel()
            gaps = gaps[np.isfinite(gaps)]
            half = stats.sem(gaps) * stats.t.ppf(0.975, len(gaps) - 1)
            expected = [gaps.mean(), gaps.mean() - half, gaps.mean() + half]
            assert list(told["difference"].values()) == pytest.approx(expected, rel=1e-6, abs=1e-9), metric


def test_all_contestants_are_asked_for_the_same(finished: Path) -> None:
    asked = [values["requests"].tolist() for values in contestants_in(finished).values()]
    assert all(requests == asked[0] for requests in asked)
    assert min(asked[0][0]) > 0


def test_a_local_policy_under_central_control_without_delay_is_itself(finished: Path) -> None:
    values = contestants_in(finished)
    asked = dict.fromkeys(["messages"], np.zeros_like(values[LABELS[0]]["messages"]))  # by a controller: nobody
    np.testing.assert_equal(values[LABELS[3]], values[LABELS[0]] | asked)
    assert values[LABELS[4]]["reward"].tolist() != values[LABELS[0]]["reward"].tolist()


def test_the_picture_is_a_picture(finished: Path) -> None:
    picture = imread(finished / "results.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    assert len(np.unique((255 * picture).astype(np.uint8).view(np.uint32))) > 50  # colours


def test_logs_name_their_contestant_and_hold_its_forecasts(finished: Path) -> None:
    for label, stem in zip(LABELS, STEMS, strict=True):
        log = read_log(finished / f"{stem}-1.parquet")
        assert log.header["policy"] == label
        network = log.network()
        late = 2 if "0.5" in label else 0  # nothing has been seen yet
        assert [row["forecast"] for row in log.rows[:late]] == [None] * late
        for row in log.rows[late:]:
            forecast = np.reshape(row["forecast"], (*network.weights.shape, 8))
            np.testing.assert_allclose(forecast[:, :, 0], network.weights * 16.0 * 0.25, rtol=1e-6)


@pytest.mark.parametrize("stem", STEMS)
def test_every_log_of_a_run_replays(finished: Path, capsys: pytest.CaptureFixture[str], stem: str) -> None:
    assert dpem("replay", str(finished / f"{stem}-2.parquet")) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"verified: all outcomes of {SLOTS} slots came out again, bit for bit\n")
    assert said.err == ""


def test_only_first_episodes_are_logged_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert dpem("run", *but(QUICK, "--policy", "central-reactive", "--seeds", "2", "--out", str(out))) == 0
    logs = ["central-reactive,delay0-0.parquet", "local-reactive-0.parquet"]
    assert files_in(out) == [*logs, "results.parquet", "results.png", "summary.json"]
    assert all(row["forecast"] is None for row in read_log(out / logs[0]).rows)
    said = capsys.readouterr()
    assert said.err == ""
    assert "2 evaluation seed(s), mean ± 95 % CI" in said.out
    assert "minus local-reactive on the same episodes" in said.out
    assert f"wrote {out / 'results.parquet'}" in said.out.replace("\n", "")


def test_a_split_is_played_from_its_own_seeds(tmp_path: Path) -> None:
    assert dpem("run", *QUICK, "--split", "validation", "--out", str(tmp_path)) == 0
    results = results_in(tmp_path)
    assert results["split"] == "validation"
    assert results["scenarios"][0]["seeds"] == [{"topology": 1_000, "demand": 1_000_000}]


def test_one_network_is_played_on_the_demand_of_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("run", *QUICK, "--topology", "7", "--out", str(tmp_path)) == 0
    assert results_in(tmp_path)["scenarios"][0]["seeds"] == [{"topology": 7, "demand": 2_000_000}]
    capsys.readouterr()
    assert "--topology is '-1'" in complaint(capsys, "run", *QUICK, "--topology", "-1", "--out", str(tmp_path / "no"))


def test_a_run_without_requests_has_nulls_for_what_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dpem("run", *QUICK, "--set", "request_rate=0.0", "--out", str(tmp_path)) == 0
    [scenario] = results_in(tmp_path)["scenarios"]
    [idle] = scenario["contestants"]
    assert idle["metrics"]["delivery_rate"] is None
    assert idle["metrics"]["requests"]["mean"] == {"value": 0.0, "low": None, "high": None}
    assert np.isnan(arrays(read(tmp_path).frame, scenario["name"])[Key.of(idle)]["delivery_rate"]).all()
    assert capsys.readouterr().err.endswith(": demand.request_rate is 0, so nobody asks for anything\n")


def test_a_run_replaces_the_results_of_an_earlier_one(tmp_path: Path) -> None:
    for slots in ("8", "12"):
        assert dpem("run", *QUICK, "--set", f"slots={slots}", "--out", str(tmp_path)) == 0
    assert results_in(tmp_path)["scenarios"][0]["scenario"]["episode"]["slots"] == 12
    assert len(read_log(tmp_path / "local-reactive-0.parquet").rows) == 12


def test_the_demo_plays_what_comes_with_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dpem_env.commands.DEMO_SEEDS", 1)
    assert dpem("demo") == 0
    [played] = results_in(tmp_path / "demo")["scenarios"]
    options = {each["label"]: each["options"] for each in played["contestants"]}
    assert set(options) == {"local-reactive", "maxweight", "ppo:mesh20", "central-maxweight (delay 0.5 s)"}
    tuned = json.loads((ROOT / "baselines" / "tuned" / "mesh20-v0.json").read_text())["tuned"]
    [best] = [each["best"]["options"] for each in tuned if each["policy"] == "maxweight" and not each["forecaster"]]
    assert options["maxweight"] == best
    assert "wrote demo/results.parquet" in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_names_are_shown_as_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "[red]10 % of $x_[/blue]"
    path = tmp_path / "mine.toml"
    scenarios.get("chain3-v0", name=name, slots=8).save(path)
    out = tmp_path / "out"
    assert dpem("run", "--scenario", str(path), "--policy", "local-reactive", "--seeds", "1", "--out", str(out)) == 0
    assert name in " ".join(capsys.readouterr().out.split())
    assert (out / "results.png").stat().st_size > 10_000


def test_a_log_that_was_being_written_at_an_interruption_is_not_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpisodeRecorder, "save", Interrupt(1))
    assert dpem("run", *QUICK, "--out", str(tmp_path)) == 130
    assert capsys.readouterr().err == "dpem: interrupted before the first seed was finished; no results\n"


@pytest.mark.usefixtures("drawn")
def test_an_interrupted_run_writes_the_seeds_it_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 slots an episode: seeds 0 and 1 of both, the first contestant's seed 2, then Ctrl-C in the second's.
    monkeypatch.setattr(LocalReactive, "act", Interrupt(8 * 5 + 3))
    arguments = but(
        QUICK, "--policy", "central:local-reactive", "--seeds", "4", "--logs", "all", "--out", str(tmp_path)
    )
    assert dpem("run", *arguments) == 130
    said = capsys.readouterr()
    assert said.out.endswith("interrupted after 2 of 4 seeds; results hold these\n")
    assert said.err == ""
    results = results_in(tmp_path)
    assert results["complete"] is False
    assert len(results["scenarios"][0]["seeds"]) == 2
    assert [values["reward"].shape for values in contestants_in(tmp_path).values()] == [(1, 2), (1, 2)]
    assert imread(tmp_path / "results.png").size > 0
    assert files_in(tmp_path) == [
        "central%3Alocal-reactive,delay0-0.parquet",
        "central%3Alocal-reactive,delay0-1.parquet",
        "local-reactive-0.parquet",
        "local-reactive-1.parquet",
        "local-reactive-2.parquet",
        "results.parquet",
        "results.png",
        "summary.json",
    ]
    assert dpem("replay", str(tmp_path / "local-reactive-1.parquet")) == 0


def test_a_run_interrupted_before_any_seed_is_finished_has_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalReactive, "act", Interrupt(3))
    assert dpem("run", *QUICK, "--out", str(tmp_path)) == 130
    said = capsys.readouterr()
    assert said.err == "dpem: interrupted before the first seed was finished; no results\n"
    assert said.out == ""
    assert files_in(tmp_path) == []


def test_a_command_interrupted_elsewhere_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpem_env.report.tables.print_list", interrupt)
    assert dpem("list") == 130
    assert capsys.readouterr().err == "dpem: interrupted\n"


@pytest.mark.parametrize("then", ["fails", "goes on"])
def test_an_interruption_that_a_compiler_swallows_is_still_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def compile_something(*arguments: Any) -> None:
        ctypes.CFUNCTYPE(None)(interrupt)()
        if then == "fails":
            raise RuntimeError("no compiled object yet")
        for _ in range(500):
            time.sleep(0.01)

    monkeypatch.setattr("dpem_env.report.tables.print_list", compile_something)
    # Tests that a shell has put in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert dpem("list") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "dpem: interrupted\n"


@pytest.mark.parametrize(
    ("error", "fragment"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError("Unable to allocate 16.4 GiB"), "not enough memory for a scenario this big: Unable to allocate"),
    ],
)
def test_a_machine_that_gives_out_is_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    fragment: str,
) -> None:
    def give_out(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("dpem_env.envs.session.Session.begin", give_out)
    assert fragment in complaint(capsys, "run", *QUICK, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--scenario", "mesh10-v0"], "unknown scenario 'mesh10-v0'; did you mean 'mesh100-v0'?"),
        (["--scenario", "nowhere"], "unknown scenario 'nowhere'; known: abilene-mixed-v0, "),
        (["--scenario", "none.toml"], "scenario file 'none.toml' cannot be used: No such file or directory"),
        (["--policy", "local-reactiv"], "unknown policy 'local-reactiv'; did you mean 'local-reactive'?"),
        (["--policy", "two\nlines"], "unknown policy 'two\\nlines'"),
        (["--policy", "central:local"], "unknown policy 'local'; did you mean 'local-reactive'?"),
        (
            ["--policy", "central:central-reactive"],
            "policy 'central-reactive' has a controller already; drop 'central:'",
        ),
        (["--forecaster", "oracl"], "unknown forecaster 'oracl'; did you mean 'oracle'?"),
        (["--set", "slots"], "--set 'slots': expected NAME=VALUE"),
        (["--set", "slot=8"], "override 'slot' is no field of a scenario; did you mean 'slots'?"),
        (["--set", "=8"], "override '' is no field of a scenario"),
        (["--set", "slots="], "episode.slots: "),
        (["--set", "slots=0"], "episode.slots: "),
        (["--set", "slots=8.5"], "episode.slots: "),
        (["--set", "request_rate=nan"], "demand.request_rate: "),
        (["--set", "request_rate=-1.0"], "demand.request_rate: "),
        (["--set", "request_rate=many"], "demand.request_rate: "),
        (["--set", "swap_success=1.5"], "hardware.swap_success: "),
        (["--set", "topology=sndlib/abilene"], "'topology' is no field of a scenario"),
        (["--seeds", "0"], "--seeds is '0'; expected a whole number from 1 to 1,000,000"),
        (["--seeds", "-1"], "--seeds is '-1'; expected a whole number from 1 to 1,000,000"),
        (["--seeds", "x"], "--seeds is 'x'; expected a whole number from 1 to 1,000,000"),
        (["--policy", "central-reactive", "--delay", "-1"], "--delay is '-1'; expected seconds >= 0"),
        (["--policy", "central-reactive", "--delay", "nan"], "--delay is 'nan'; expected seconds >= 0"),
        (["--policy", "central-reactive", "--delay", "inf"], "--delay is 'inf'; expected seconds >= 0"),
        (["--policy", "central-reactive", "--delay", "2"], "less than an episode (2 s)"),
        (["--policy", "central-reactive", "--delay", "1e300"], "less than an episode (2 s)"),
        (["--policy", "central-reactive", "--delay", "soon"], "--delay is 'soon'; expected seconds >= 0"),
        (["--delay", "0.5"], "--delay is given, but no --policy is central"),
        (["--split", "test"], 'Invalid value "test" for --split. Choose from: "train", '),
        (["--logs", "none"], 'Invalid value "none" for --logs. Choose from: "first", "all"'),
        (["--fast"], "Unknown option: --fast"),
        (["--scenario", "abilene-trace-v0"], "pass --data DIR or set DPEM_DATA"),
        (["--scenario", "coronet100-v0", "--data", "nowhere"], "nowhere' (dpem list says where to get it)"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    fragment: str,
) -> None:
    monkeypatch.delenv("DPEM_DATA", raising=False)
    out = tmp_path / "out"
    assert fragment in complaint(capsys, "run", *but(QUICK, *arguments, "--out", str(out)))
    assert not out.exists()


@pytest.mark.parametrize("argv", [[], ["fly"], ["run"], ["run", "--scenario", "chain3-v0"], ["replay"], ["show"]])
def test_an_incomplete_command_is_told_in_one_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert "--help" in complaint(capsys, *argv)


@pytest.mark.parametrize(
    ("toml", "fragment"),
    [
        ('name = "x"\n[episode]\nslots = "many"\n', "episode.slots: "),
        ('name = "x"\n[episode]\nslotz = 8\n', "episode.slotz: unknown key"),
        ('name = "x"\n[weather]\nrain = true\n', "weather: unknown key"),
        ('name = "x"\n[demand]\nkind = "sessions"\nrequest_rate = -1.0\n', "demand.request_rate: "),
        ('name = "x"\n[hardware]\nswap_success = 1.5\n', "hardware.swap_success: "),
        ('name = "x"\n[hardware]\ncoherence_time = nan\n', "hardware.coherence_time: "),
        ('name = "x"\n[hardware]\nmemory = [8]\n', "hardware.memory"),
        ('name = "x"\n[network]\ngenerator = "ring"\n', "network: "),
        ('name = "x"\n[control]\nslot_duration = 0.3\n', "must be a whole number"),
        ("[episode]\nslots = 8\n", "name: "),
        ("name = \n", "not valid TOML"),
        ("\x00", "it holds null characters"),
    ],
)
def test_a_bad_scenario_file_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, fragment: str
) -> None:
    path, out = tmp_path / "mine.toml", tmp_path / "out"
    path.write_text(toml)
    said = complaint(capsys, "run", *but(QUICK, "--scenario", str(path), "--out", str(out)))
    # The override of QUICK comes after the file is read: it cannot be what is complained about.
    assert fragment in said
    assert str(path) in said
    assert not out.exists()


def test_a_scenario_file_that_is_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'name = "\xff"\n')
    assert "cannot be used: it is no text in UTF-8" in complaint(capsys, "show", str(path))


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / out
    assert f"--out {str(path)!r} cannot be written: " in complaint(capsys, "run", *QUICK, "--out", str(path))
    assert (tmp_path / "file").read_text() == "mine"
    assert files_in(tmp_path) == ["file"]


def test_a_disconnected_topology_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cities = [{"id": i, "name": f"city {i}", "lat": 40.0 + i, "lon": -70.0 - i} for i in range(4)]
    fibres = [{"u": 0, "v": 1, "km": 900.0}, {"u": 0, "v": 2, "km": 900.0}]
    path = tmp_path / "data" / "coronet" / "flat_CORONET_Global_Topology.json"
    path.parent.mkdir(parents=True)
    arguments = ["run", *but(QUICK, "--scenario", "coronet100-v0", "--data", str(tmp_path / "data"))]
    path.write_text(json.dumps({"nodes": cities, "edges": fibres}))
    out = tmp_path / "out"
    said = complaint(capsys, *arguments, "--out", str(out))
    assert "coronet100-v0+slots=8: the topology is disconnected (2 components; 'city 3' is cut off); add a link" in said
    assert not out.exists()


def test_a_joined_topology_of_the_same_kind_runs(tmp_path: Path) -> None:
    cities = [{"id": i, "name": f"city {i}", "lat": 40.0 + i, "lon": -70.0 - i} for i in range(4)]
    fibres = [{"u": 0, "v": i, "km": 900.0} for i in range(1, 4)]
    path = tmp_path / "data" / "coronet" / "flat_CORONET_Global_Topology.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"nodes": cities, "edges": fibres}))
    out = tmp_path / "out"
    data = ["--scenario", "coronet100-v0", "--data", str(tmp_path / "data")]
    assert dpem("run", *but(QUICK, *data, "--out", str(out))) == 0
    assert read_log(out / "local-reactive-0.parquet").network().topology.names[3] == "city 3"


@pytest.mark.parametrize(
    ("mbps", "fragment"),
    [
        (np.full((20, 12, 12), np.nan), "tm_mbps[0, 0, 0] is NaN or infinite"),
        (np.full((20, 12, 12), -1.0), "tm_mbps[0, 0, 0] is negative"),
        (np.ones((20, 12, 11)), "tm_mbps has shape (20, 12, 11)"),
        (np.ones((20, 5, 5)), "tm_mbps has shape (20, 5, 5)"),
    ],
)
def test_a_bad_trace_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mbps: np.ndarray, fragment: str
) -> None:
    path = tmp_path / "data" / "abilene" / "abilene_20040301_5min_14d.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, tm_mbps=mbps, nodes=np.array([f"n{i}" for i in range(12)]))
    out = tmp_path / "out"
    data = ["--scenario", "abilene-trace-v0", "--data", str(tmp_path / "data")]
    assert fragment in complaint(capsys, "run", *but(QUICK, *data, "--out", str(out)))
    assert not out.exists()


REPLAY = 'name = "recorded"\n[network]\ngenerator = "chain"\n[demand]\nkind = "replay"\nrequests_file = "{}"\n'


@pytest.mark.parametrize(
    ("csv", "fragment"),
    [
        (None, "No such file or directory"),
        ("time,source,destination\n0.0,0,1\n", "no column 'fidelity'"),
        ("time,source,destination,fidelity\n-1,0,1,0.75\n", "line 2: time is '-1'"),
        ("time,source,destination,fidelity\n0,0,1,0.75\nnan,0,1,0.75\n", "line 3: time is 'nan'"),
        (
            "time,source,destination,fidelity\n0,0,3,0.75\n",
            "destination is '3'; expected a node's name",
        ),
        ("time,source,destination,fidelity\n0,0,1,0.7\n", "fidelity is '0.7'"),
        ("time,source,destination,fidelity\n0,0\n", "line 2: destination is None"),
    ],
)
def test_a_bad_request_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], csv: str | None, fragment: str
) -> None:
    requests, path, out = tmp_path / "requests.csv", tmp_path / "mine.toml", tmp_path / "out"
    if csv is not None:
        requests.write_text(csv)
    path.write_text(REPLAY.format(requests))
    said = complaint(capsys, "run", *but(QUICK, "--scenario", str(path), "--out", str(out)))
    assert fragment in said
    assert str(requests) in said
    assert not out.exists()


def test_a_log_that_is_none_is_told(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be used: No such file" in complaint(capsys, "replay", str(tmp_path / "none.parquet"))
    assert "it is no Parquet file, or cut off" in complaint(capsys, "replay", str(finished / "results.png"))
    half = tmp_path / "half.parquet"
    half.write_bytes((finished / f"{STEMS[0]}-0.parquet").read_bytes()[:-200])
    assert str(half) in complaint(capsys, "replay", str(half))


def test_list_names_everything_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPEM_DATA", raising=False)
    assert dpem("list") == 0
    said = capsys.readouterr().out
    for name in (*scenarios.SCENARIOS, *available(), *FORECASTERS, "central:NAME", "MIT", "BSD-3-Clause"):
        assert name in said
    assert said.count("[no data folder given]") == 2
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in said.splitlines() if "│" in line}
    nodes = {"chain3-v0": "3", "star8-v0": "8", "mesh100-v0": "100", "surfnet-v0": "50", "abilene-trace-v0": "12"}
    assert {name: rows[name] for name in nodes} == nodes


def test_list_names_the_networks_of_topohub(capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("list", "--topologies") == 0
    names = capsys.readouterr().out.splitlines()
    assert {"topozoo/Surfnet", "sndlib/germany50", "backbone/africa", "gabriel/25/0"} <= set(names)
    assert len(names) > 600


def test_list_tells_missing_and_altered_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "abilene").mkdir()
    (tmp_path / "abilene" / "abilene_20040301_5min_14d.npz").write_bytes(b"another")
    assert dpem("list", "--data", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "abilene_20040301_5min_14d.npz [present, but another checksum]" in said
    assert "flat_CORONET_Global_Topology.json [missing]" in said


def test_list_knows_the_real_data(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem("list", "--data", str(data_dir)) == 0
    assert capsys.readouterr().out.count("[present]") == 2


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_show_prints_a_scenario_that_reads_back(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert dpem("show", name, "--set", "slots=123") == 0
    shown = scenarios.from_toml(capsys.readouterr().out)
    assert shown == scenarios.get(name, slots=123)
    assert shown.episode.slots == 123


def test_the_kind_of_an_overriding_value_is_that_of_toml(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["nodes=4", "coherence_time=1e1", "generation_rate=[1.0, 2.0]", "summary=two words", "name = mine "]
    settings += ["news_period = none"]
    assert dpem("show", "chain3-v0", *(part for setting in settings for part in ("--set", setting))) == 0
    shown = scenarios.from_toml(capsys.readouterr().out)
    assert shown.network.nodes == 4  # type: ignore[union-attr]
    assert math.isclose(shown.hardware.coherence_time, 10.0)
    assert shown.hardware.generation_rate == (1.0, 2.0)
    assert shown.summary == "two words"
    assert shown.control.news_period is None


def script(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *argv], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_the_installed_command_runs_and_replays(tmp_path: Path) -> None:
    version = script("--version", cwd=tmp_path)
    assert (version.returncode, version.stdout) == (0, f"dpem {dpem_env.__version__}\n")
    run = script("run", *QUICK, "--out", "results", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert files_in(tmp_path / "results") == [
        "local-reactive-0.parquet",
        "results.parquet",
        "results.png",
        "summary.json",
    ]
    replay = script("replay", "results/local-reactive-0.parquet", cwd=tmp_path)
    assert (replay.returncode, replay.stderr) == (0, "")
    assert replay.stdout.startswith("verified: all outcomes of 8 slots came out again, bit for bit\n")


def test_the_installed_command_answers_bad_input_in_one_line(tmp_path: Path) -> None:
    run = script("run", *QUICK, "--policy", "magic", "--out", "results", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("dpem: error: unknown policy 'magic'")
    assert run.stderr.count("\n") == 1
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("command", [["list"], ["show", "mesh100-v0"]])
def test_a_reader_that_stops_reading_is_no_error(command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run([SCRIPT, *command], stdout=writer, stderr=subprocess.PIPE, timeout=300, check=False)
    finally:
        os.close(writer)
    assert run.stderr == b""
    assert run.returncode == 0
