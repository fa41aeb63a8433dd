"""What is committed, played again: every value the same, or the first that is not, and what is adopted then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from dpem_env import scenarios
from dpem_env.experiments.checking import Checked, Compared, check, compared_files, named
from dpem_env.support.provenance import stamp
from support.command_line import dpem

RUN = ("run", "--scenario", "chain3-v0", "--set", "slots=12", "--set", "request_rate=4.0")
MADE = {
    "played": (*RUN, "--policy", "local-reactive", "--policy", "central-reactive", "--delay", "0.5", "--seeds", "2"),
    "tuned": ("tune", "--scenario", "chain3-v0", "--policy", "acp", "--trials", "2", "--episodes", "2"),
    "scored": ("forecast", "--scenario", "chain3-v0", "--set", "slots=40", "--horizon", "3", "--seeds", "1",
               "--forecaster", "persistence"),
}  # fmt: skip
FILES = {"played": "summary.json", "tuned": "chain3-v0.json", "scored": "forecast.json"}
SAID = {
    "played": r"\d+ of \d+ values came out otherwise: submitted of chain3-v0\+slots=12\+request_rate=4.0, "
    r"local-reactive was 99\.0, now \d+\.0",
    "tuned": r"1 of 2 values came out otherwise: reward of acp.* was 99\.0, now ",
    "scored": r"1 of 37 values came out otherwise: came_1 of mean-rates was 99\.0, now ",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of every kind."""
    folder = tmp_path_factory.mktemp("made")
    for kind, words in MADE.items():
        assert dpem(*words, "--out", str(folder / kind)) == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working folder."""
    for file in made.rglob("*"):
        if file.is_file():
            (tmp_path / file.relative_to(made)).parent.mkdir(exist_ok=True)
            (tmp_path / file.relative_to(made)).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def falsify(folder: Path, kind: str) -> None:
    """Another value than what was found, in the first episode."""
    path = folder / kind / FILES[kind]
    found = json.loads(path.read_text())
    if kind == "played":
        frame = pandas.read_parquet(path.with_name("results.parquet"))
        chosen = (frame["metric"] == "submitted") & (frame["seed"] == 0) & (frame["policy"] == "local-reactive")
        frame.loc[chosen, "value"] = 99.0
        frame.to_parquet(path.with_name("results.parquet"), index=False)
    elif kind == "tuned":
        found["tuned"][0]["best"]["reward"] = 99.0
    else:
        found["forecasters"][0]["episodes"][0]["came"][0] = 99.0
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("kind", MADE)
def test_the_code_that_made_it_makes_it_again(copied: Path, kind: str) -> None:
    found = check(copied / kind / FILES[kind])
    assert found is not None
    assert found.values > 0
    assert (found.differences, found.prevented) == ([], [])
    assert found.told() == f"{found.values:,} values came out the same"


@pytest.mark.parametrize("kind", MADE)
def test_a_value_that_comes_out_otherwise_is_told(copied: Path, kind: str) -> None:
    import re

    falsify(copied, kind)
    found = check(copied / kind / FILES[kind])
    assert found is not None
    assert re.match(SAID[kind], found.told()), found.told()


def test_what_cannot_be_played_is_told(copied: Path) -> None:
    path = copied / "played" / "summary.json"
    found = json.loads(path.read_text())
    found["scenarios"][0]["contestants"][0] |= {"policy": "ppo:runs/seed*", "label": "ppo, 2 training seeds"}
    path.write_text(json.dumps(found))
    checked = check(path)
    assert checked is not None
    assert checked.values > 0
    assert checked.told().endswith(
        "; left out: ppo, 2 training seeds: no file matches 'runs/seed*' of policy 'ppo:runs/seed*'"
    )


def test_files_of_another_kind_are_not_checked(copied: Path) -> None:
    (copied / "noise.json").write_text('{"format": "dpem-noise-1"}')
    assert check(copied / "noise.json") is None
    assert check(copied / "played" / "results.parquet") is None


def test_scenarios_are_found_by_the_names_that_results_have() -> None:
    mesh = scenarios.get("mesh100-v0")
    for scenario in (
        mesh,
        mesh.override(nodes=25, side=50.0, request_rate=3.125),
        mesh.override(arrivals="periodic"),
        mesh.override(coherence_time=1.0).on_topology(2000, "validation"),
        scenarios.get("surfnet-v0"),
    ):
        assert named(scenario.name, "validation") == scenario
    longer = mesh.override(name=mesh.name, forecast_horizon=10)
    assert named(longer.name, "evaluation", forecast_horizon=10) == longer


def test_rounding_of_the_last_digits_is_no_difference_and_all_more_is() -> None:
    def differences(now: float) -> int:
        return len(Checked.of([Compared("x", {"rate": 2.0785804903668867}, {"rate": now})]).differences)

    assert differences(2.078580490366887) == 0
    assert differences(2.0785804903668867 * (1 + 1e-10)) == 1


def test_another_scenario_of_the_name_is_told(copied: Path) -> None:
    path = copied / "tuned" / "chain3-v0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scenario_hash": "0" * 12}))
    found = check(path)
    assert found is not None
    assert "1 of 2 values came out otherwise: the hash of chain3-v0 was '000000000000', now " in found.told()


EXPERIMENT = """
summary = "s"

[[steps]]
name = "played"
run = "run"
outputs = ["played/summary.json", "played/results.parquet"]
core_minutes = 2

[[steps]]
name = "tuned"
run = "tune"
outputs = ["tuned/chain3-v0.json"]
core_minutes = 2

[[steps]]
name = "counted"
run = "python count.py"
options = { out = "counted" }
outputs = ["counted/count.json"]
core_minutes = 0.1

[[steps]]
name = "learned"
run = "train"
options = { out = "learned" }
outputs = ["learned/policy.npz"]
core_minutes = 9
"""
COUNT = """
import json, sys
from pathlib import Path
out = Path(sys.argv[2])
out.mkdir(exist_ok=True)
(out / "count.json").write_text(json.dumps({"stamp": "of whoever counts", "count": [1, 2, 3]}))
"""


@pytest.fixture
def experiment(copied: Path) -> Path:
    """The declaration of how all this was made, with a step that is checked by running it, and one that is not."""
    (copied / "all.toml").write_text(EXPERIMENT)
    (copied / "count.py").write_text(COUNT)
    for name in ("counted", "learned"):
        (copied / name).mkdir()
    (copied / "counted" / "count.json").write_text('{"stamp": "another", "count": [1, 2, 3]}')
    (copied / "learned" / "policy.npz").touch()
    return copied


def test_a_whole_experiment_is_checked_and_nothing_changes(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in experiment.rglob("*.*")}
    assert dpem("reproduce", "all.toml", "--check") == 0
    head, played, tuned, counted, learned = capsys.readouterr().out.splitlines()
    assert head.startswith("all, 20")
    assert head.endswith(f", code of stamp {stamp()}:")
    assert played.startswith("played: ")
    assert played.endswith(" values came out the same")
    assert tuned == "tuned: 2 values came out the same"
    assert counted == "counted: 3 values came out the same"
    assert learned == "learned: nothing of it can be made again in little time"
    assert {path: path.read_bytes() for path in before} == before


def without_stamps(folder: Path) -> None:
    for path in (folder / "played" / "summary.json", folder / "tuned" / "chain3-v0.json"):
        found = json.loads(path.read_text())
        del found["stamp"]
        path.write_text(json.dumps(found))


def stamps(folder: Path) -> list[Any]:
    paths = ("played/summary.json", "tuned/chain3-v0.json", "counted/count.json")
    return [json.loads((folder / path).read_text()).get("stamp") for path in paths]


def test_what_came_out_the_same_is_adopted_and_stamped(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_stamps(experiment)
    falsify(experiment, "tuned")
    (experiment / "counted" / "count.json").write_text('{"stamp": "another", "count": [1, 2, 4]}')
    assert dpem("reproduce", "all.toml", "--check", "--adopt", "made before there were records") == 1
    said = capsys.readouterr().out
    assert "counted: 1 of 3 values came out otherwise: count.2 of count.json was 4, now 3" in said
    assert stamps(experiment) == [stamp(), None, "another"]
    kept = json.loads((experiment / "all.lock.json").read_text())["steps"]
    assert {name: step["adopted"] for name, step in kept.items()} == dict.fromkeys(
        ("played", "learned"), "made before there were records"
    )
    assert kept["learned"]["checked"] == "nothing of it can be made again in little time"
    assert dpem("reproduce", "all.toml", "--dry-run") == 0
    assert "all: 2 of 4 steps to run" in capsys.readouterr().out


def test_what_is_not_there_is_not_adopted_and_the_rest_is(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (experiment / "counted" / "count.json").unlink()
    assert dpem("reproduce", "all.toml", "--adopt", "because") == 0
    assert capsys.readouterr().out.splitlines() == [
        "played: adopted",
        "tuned: adopted",
        "counted: not adopted: there is no counted/count.json",
        "learned: adopted",
    ]
    assert dpem("reproduce", "all.toml", "--dry-run") == 0
    assert "counted (0.1 core minutes): was never run\nall: 1 of 4" in capsys.readouterr().out


def test_without_a_check_nothing_gets_a_stamp(experiment: Path) -> None:
    without_stamps(experiment)
    assert dpem("reproduce", "all.toml", "--adopt", "because") == 0
    assert stamps(experiment) == [None, None, "another"]
    assert dpem("reproduce", "all.toml") == 0


@pytest.mark.parametrize(("kept", "same"), [("1/3", True), ("seven digits", True), ("six digits", False)])
def test_numbers_of_before_have_seven_digits(tmp_path: Path, kept: str, same: bool) -> None:
    value = {"1/3": 1 / 3, "seven digits": 0.3333333, "six digits": 0.333333}[kept]
    for name, number in (("kept", value), ("made", 1 / 3)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"a": [number], "stamp": name}))
    found = Checked.of([compared_files(tmp_path / "kept.json", tmp_path / "made.json")])
    assert found == (1, [] if same else [f"a.0 of kept.json was {value}, now {1 / 3}"], [])
