"""Verified replay: a log plays again bit for bit, and whatever was changed in it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpem_env import policies, scenarios
from dpem_env.cli import main
from dpem_env.records import read_log, simulator_version
from dpem_env.replay import replay, replay_log
from dpem_env.session import Session
from episode_logs import Change, Header, Row, record_episode, rewrite

SLOTS = 24
VERIFIED = f"verified: all outcomes of {SLOTS} slots came out again, bit for bit"


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0)
    path = tmp_path_factory.mktemp("log") / "episode.parquet"
    record_episode(path, scenario)
    return path


def replayed(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines of `dpem replay`."""
    code = main(["replay", str(path)])
    said = capsys.readouterr()
    assert said.err == ""
    return code, said.out.splitlines()


@pytest.mark.parametrize(
    ("policy", "how"),
    [
        ("local-reactive", {}),
        ("local-reactive", {"forecaster": "oracle"}),
        ("central-reactive", {"delay": 0.5}),  # names routes and orders admissions
        ("central:local-reactive", {"delay": 0.25, "forecaster": "persistence"}),
    ],
)
def test_an_episode_replays_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, how: dict[str, Any]
) -> None:
    scenario = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0)
    path = tmp_path / "a.parquet"
    record_episode(path, scenario, policy, **how)
    assert any(any(row["action"]) for row in read_log(path).rows)
    assert replayed(path, capsys) == (0, [VERIFIED])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("chain3-v0", {}),
        ("mesh20-v0", {"outages": {"mean_up": 5.0, "mean_down": 2.0}}),
        ("mesh20-v0", {"request_rate": 0.0}),
        ("mesh20-v0", {"coherence_time": 1.0, "swap_success": 0.5, "request_rate": 16.0}),
    ],
)
def test_every_kind_of_world_replays_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, fields: dict[str, Any]
) -> None:
    path = tmp_path / "a.parquet"
    record_episode(path, scenarios.get(name, slots=SLOTS, **fields))
    assert replayed(path, capsys) == (0, [VERIFIED])


def test_a_log_replays_without_policy_and_request_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = tmp_path / "requests.csv"
    requests.write_text("time,source,destination,fidelity\n0.1,0,2,0.7\n0.3,2,0,0.8\n1.0,0,1,0.9\n")
    scenario = scenarios.from_toml(
        'name = "recorded"\n[network]\ngenerator = "chain"\n[hardware]\ngeneration_rate = [8.0, 8.0]\n'
        f'[demand]\nkind = "replay"\nrequests_file = "{requests}"\n[episode]\nslots = {SLOTS}\n'
    )
    path = tmp_path / "a.parquet"
    record_episode(path, scenario)
    assert sum(len(row["requests"]) for row in read_log(path).rows) == 3
    requests.unlink()
    monkeypatch.setattr(policies, "entry_points", lambda group: [])
    assert replayed(path, capsys) == (0, [VERIFIED])


def test_a_changed_decision_is_named_and_its_outcome_compared(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slot = next(row["slot"] for row in read_log(log_path).rows if 1 in row["verdict"])

    def withdraw(header: Header, rows: list[Row]) -> None:
        rows[slot]["action"][rows[slot]["verdict"].index(1)] = 0

    path = rewrite(log_path, tmp_path / "a.parquet", withdraw)
    report = replay(path)
    assert report.changed_decisions == (slot,)
    assert not report.verified
    code, lines = replayed(path, capsys)
    assert code == 1
    assert lines[0] == f"decisions were changed after recording in 1 slot(s): {slot}"
    assert lines[1].startswith(f"outcomes differ from the log: slot {slot}, verdict[")
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["action", "route", "priority"])
def test_every_part_of_the_decision_vector_is_sealed(log_path: Path, tmp_path: Path, name: str) -> None:
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[5][name].__setitem__(0, 99))
    assert replay(path).changed_decisions == (5,)


def test_changed_decisions_are_counted_and_the_first_five_named(log_path: Path, tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        for slot in range(2, 10):
            rows[slot]["priority"][0] += 1

    lines = replay(rewrite(log_path, tmp_path / "a.parquet", change)).lines()
    assert lines[0] == "decisions were changed after recording in 8 slot(s): 2, 3, 4, 5, 6"


@pytest.mark.parametrize("name", ["verdict", "delivered", "contended", "reward"])
def test_a_changed_outcome_is_named_by_slot_column_and_node(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = read_log(log_path).rows[7][name][3]

    def change(header: Header, rows: list[Row]) -> None:
        rows[7][name][3] += 1

    code, lines = replayed(rewrite(log_path, tmp_path / "a.parquet", change), capsys)
    assert code == 1
    assert lines == [f"outcomes differ from the log: slot 7, {name}[3]: logged {before + 1}, replayed {before}"]


def test_the_first_of_several_differences_is_named(log_path: Path, tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        rows[9]["expired"] += 1
        rows[4]["state"] = "0" * 16

    difference = replay(rewrite(log_path, tmp_path / "a.parquet", change)).first_difference
    assert difference is not None
    assert difference.startswith("slot 4, state: logged 0000000000000000, replayed ")


def test_a_delivery_left_out_is_named(log_path: Path, tmp_path: Path) -> None:
    slot = next(row["slot"] for row in read_log(log_path).rows if row["deliveries"])
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[slot]["deliveries"].pop())
    difference = replay(path).first_difference
    assert difference is not None
    assert difference.startswith(f"slot {slot}, deliveries: logged ")


def test_a_request_left_out_changes_the_outcome(log_path: Path, tmp_path: Path) -> None:
    slot = next(row["slot"] for row in read_log(log_path).rows if row["requests"])
    path = rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[slot]["requests"].pop())
    assert replay(path).first_difference is not None


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda header, rows: header["totals"].update(delivered=0), "totals: logged {"),
        (lambda header, rows: header.pop("totals"), "totals: logged None"),
        (lambda header, rows: header.update(scenario_hash="0" * 12), "scenario: logged hash 000000000000"),
        (lambda header, rows: header.update(scenario=header["scenario"].replace("60.0", "59.0")), "scenario: logged"),
        (lambda header, rows: header.update(start="0" * 16), "before slot 0: "),
        (lambda header, rows: header["seeds"].update(demand=1), "slot 0, "),
        (lambda header, rows: header["network"]["generation_rate"]["values"].reverse(), "slot "),
    ],
    ids=["totals", "no totals", "hash", "scenario", "start", "seed", "hardware"],
)  # fmt: skip
def test_a_changed_header_is_named(log_path: Path, tmp_path: Path, change: Change, fragment: str) -> None:
    report = replay(rewrite(log_path, tmp_path / "a.parquet", change))
    assert report.first_difference is not None
    assert report.first_difference.startswith(fragment)
    assert not report.verified


def test_another_simulator_version_is_told_and_outcomes_are_compared_all_the_same(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def older(header: Header, rows: list[Row]) -> None:
        header["version"] = {"dpem_env": "0.0.0", "rules": "v00"}

    mine = simulator_version()
    told = (
        "recorded with another simulator version: dpem_env 0.0.0, rules v00; "
        f"this is dpem_env {mine['dpem_env']}, rules {mine['rules']}"
    )
    path = rewrite(log_path, tmp_path / "older.parquet", older)
    assert replayed(path, capsys) == (0, [told, VERIFIED])

    path = rewrite(path, tmp_path / "changed.parquet", lambda header, rows: rows[7]["reward"].__setitem__(0, 9.0))
    code, lines = replayed(path, capsys)
    assert code == 1
    assert lines[0] == told
    assert lines[1].startswith("outcomes differ from the log: slot 7, reward[0]: logged 9.0, ")


def test_a_replay_reports_every_slot_as_it_goes(log_path: Path) -> None:
    seen: list[int] = []

    def note(session: Session) -> None:
        seen.append(session.slot)

    replay_log(read_log(log_path), note)
    assert seen == list(range(1, SLOTS + 1))
