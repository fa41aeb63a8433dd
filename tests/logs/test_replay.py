"""Verified replay: a log plays again bit for bit, and whatever was changed in it is named."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpem_env import scenarios
from dpem_env.cli import main
from dpem_env.envs.session import Session
from dpem_env.logs.recorder import EpisodeRecorder, read_log
from dpem_env.logs.replay import replay, replay_log
from dpem_env.network.network import _build
from dpem_env.network.own_network import _read
from dpem_env.policies import Decision
from dpem_env.support import plugins
from dpem_env.support.errors import LogError
from dpem_env.support.provenance import stamp
from support.episode_logs import Change, Header, Row, record_episode, rewrite

SLOTS = 24
OUTCOMES = f"verified: all outcomes of {SLOTS} slots came out again, bit for bit"
DRAWN = "network and requests were drawn again from scenario and seeds, and are the same"
AS_RECORDED = (
    "as recorded, not made again: the names of policy and scenario, the decisions and the forecasts; "
    "the log's digest fits, but whoever changes a log can make a new one"
)
VERIFIED = [OUTCOMES, DRAWN, AS_RECORDED]
ALTERED = "the log was changed after recording: its content is not the one its digest was made of"


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0, attenuation=0.05)
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
    assert replayed(path, capsys) == (0, VERIFIED)


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
    assert replayed(path, capsys) == (0, VERIFIED)


@pytest.mark.parametrize(
    ("policy", "delay"), [("local-reactive", 0.0), ("central:local-reactive", 0.25), ("hybrid-maxweight", 0.25)]
)
def test_an_episode_with_silence_replays_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, delay: float
) -> None:
    """The log has waits where nothing was carried out: so it does not matter who was silent, agents or a controller."""
    silence = {"share": 0.5, "start": 2.0, "duration": 2.0}
    scenario = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=20.0, predictability=0.0, silence=silence)
    path = tmp_path / "a.parquet"
    _, session = record_episode(path, scenario, policy, delay=delay)
    assert session.silent_agents is not None
    silent, acting = session.silent_agents.silent[0], np.array([row["action"] for row in read_log(path).rows]) > 0
    assert silent.sum() == (20 if policy.startswith("central") else 10)
    assert not acting[8:16, silent].any()
    assert all(acting[slots][:, silent].any() for slots in (slice(8), slice(16, None)))
    assert acting[8:16, ~silent].any() != silent.all()
    assert replayed(path, capsys) == (0, VERIFIED)


def test_a_log_replays_without_policy_and_request_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = tmp_path / "requests.csv"
    requests.write_text("time,source,destination,fidelity\n0.1,0,2,0.75\n0.3,2,0,0.85\n1.0,0,1,0.91\n")
    scenario = scenarios.from_toml(
        'name = "recorded"\n[network]\ngenerator = "chain"\n[hardware]\ngeneration_rate = [8.0, 8.0]\n'
        f'[demand]\nkind = "replay"\nrequests_file = "{requests}"\n[episode]\nslots = {SLOTS}\n'
    )
    path = tmp_path / "a.parquet"
    record_episode(path, scenario)
    assert sum(len(row["requests"]) for row in read_log(path).rows) == 3
    requests.unlink()
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    told = f"network and requests are as recorded, not drawn again: they follow from the file '{requests}'"
    assert replayed(path, capsys) == (0, [OUTCOMES, told, AS_RECORDED])


def test_a_log_of_a_network_from_files_replays_with_and_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    links, path = Path("links.csv"), tmp_path / "a.parquet"
    links.write_text("source,target,length,attenuation\nA,B,3,0.5\nB,C,4,\nC,A,9,\n")
    Path("nodes.csv").write_text("name,memory\nA,3\nB,\nC,\n")  # less than any is drawn
    fields = {"generator": "file", "links_file": "links.csv", "nodes_file": "nodes.csv"}
    record_episode(path, scenarios.get("mesh20-v0", slots=SLOTS, **fields, name="mine"))
    assert read_log(path).header["network"]["names"] == ["A", "B", "C"]
    assert replayed(path, capsys) == (0, VERIFIED)
    links.write_text(links.read_text().replace("9", "8"))
    _build.cache_clear()
    code, lines = replayed(path, capsys)
    assert (code, lines[0]) == (0, OUTCOMES)
    assert "not drawn again: they cannot be drawn here: 'nodes.csv' and 'links.csv' changed: the content is" in lines[1]
    links.unlink()
    for kept in (_build, _read):
        kept.cache_clear()
    code, lines = replayed(path, capsys)
    assert (code, lines[0]) == (0, OUTCOMES)
    assert "network file 'links.csv' cannot be used: No such file or directory" in lines[1]


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
    assert lines[1].startswith(f"what was made again differs from the log: slot {slot}, verdict[")
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
    assert lines == [
        f"what was made again differs from the log: slot 7, {name}[3]: logged {before + 1}, replayed {before}"
    ]


def test_the_first_of_several_differences_is_named(log_path: Path, tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        rows[9]["expired"] += 1
        rows[4]["state"] = bytes(8)

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
        (lambda header, rows: header["seeds"].update(demand=1), "requests: logged "),
        (lambda header, rows: header["seeds"].update(topology=1), "network.position"),
        (lambda header, rows: header["network"]["generation_rate"]["values"].reverse(), "network.generation_rate[0]: "),
    ],
    ids=["totals", "no totals", "hash", "scenario", "start", "seed", "topology", "hardware"],
)  # fmt: skip
def test_a_changed_header_is_named(log_path: Path, tmp_path: Path, change: Change, fragment: str) -> None:
    report = replay(rewrite(log_path, tmp_path / "a.parquet", change))
    assert report.first_difference is not None
    assert report.first_difference.startswith(fragment)
    assert not report.verified


@pytest.mark.parametrize(("recorded", "said"), [("0123456789ab", "0123456789ab"), (None, "unknown")])
def test_other_code_is_told_and_outcomes_are_compared_all_the_same(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: str | None, said: str
) -> None:
    def older(header: Header, rows: list[Row]) -> None:
        header.pop("stamp")
        header |= {"stamp": recorded} if recorded else {}

    told = f"the log is of other code (stamp {said}; now {stamp()})"
    path = rewrite(log_path, tmp_path / "older.parquet", older)
    assert replayed(path, capsys) == (0, [told, *VERIFIED])

    path = rewrite(path, tmp_path / "changed.parquet", lambda header, rows: rows[7]["reward"].__setitem__(0, 9.0))
    code, lines = replayed(path, capsys)
    assert code == 1
    assert lines[0] == told
    assert lines[1].startswith("what was made again differs from the log: slot 7, reward[0]: logged 9.0, ")


FORGERIES: dict[str, Change] = {
    "policy": lambda header, rows: header.update(policy="the-champion"),
    "version": lambda header, rows: header["version"].update(author="me"),
    "scenario name": lambda header, rows: header.update(scenario=header["scenario"].replace("mesh20-v0", "mesh21-v0")),
    "forecast": lambda header, rows: rows[3].update(forecast=[0.5] * (20 * 8 * 8)),
    "another key": lambda header, rows: header.update(note="checked"),
}
# What can be made again: changed and with a digest made anew, it is found all the same, by name.
FOUND: dict[str, tuple[Change, str]] = {
    "weights": (
        lambda header, rows: header["network"]["weights"]["values"][4].__setitem__(2, 0.5),
        "network.weights[4, 2]: logged 0.5, drawn ",
    ),
    "position": (
        lambda header, rows: header["network"]["position"]["values"][4].__setitem__(1, 3.0),
        "network.position[4, 1]: logged 3.0, drawn ",
    ),
    "length": (
        lambda header, rows: header["network"]["length"]["values"].__setitem__(7, 1.25),
        "network.length[7]: logged 1.25, drawn ",
    ),
    "popularity": (
        lambda header, rows: header["network"]["popularity"]["values"].__setitem__(0, 2.0),
        "network.popularity[0]: logged 2.0, drawn ",
    ),
    "link key": (
        lambda header, rows: header["network"]["link_key"]["values"].__setitem__(0, 5),
        "network.link_key[0]: logged 5, drawn ",
    ),
    "name": (lambda header, rows: header["network"]["names"].__setitem__(0, "hub"), "network: the names of its nodes"),
    "excluded": (
        lambda header, rows: header["network"]["excluded"].update({"weak link": 1}),
        "network: the names of its nodes or the counts",
    ),
    "excluded requests": (lambda header, rows: header.update(excluded_requests=3), "requests: logged "),
    "scenario": (
        lambda header, rows: header.update(scenario=re.sub("(attenuation = 0.0)5", r"\g<1>6", header["scenario"])),
        "scenario: logged hash ",
    ),
}


@pytest.mark.parametrize(
    "change", [*FORGERIES.values(), *(change for change, _ in FOUND.values())], ids=[*FORGERIES, *FOUND]
)
def test_whatever_was_changed_the_digest_tells(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change
) -> None:
    code, lines = replayed(rewrite(log_path, tmp_path / "a.parquet", change, sealed=False), capsys)
    assert code == 1
    assert ALTERED in lines
    assert not any(line.startswith("verified") for line in lines)


@pytest.mark.parametrize(("change", "difference"), FOUND.values(), ids=FOUND)
def test_what_can_be_made_again_is_found_without_the_digest_too(
    log_path: Path, tmp_path: Path, change: Change, difference: str
) -> None:
    report = replay(rewrite(log_path, tmp_path / "a.parquet", change))
    assert not report.altered
    assert report.first_difference is not None
    assert report.first_difference.startswith(difference)
    assert not report.verified


def test_requests_that_no_seed_draws_are_found_though_they_play(log_path: Path, tmp_path: Path) -> None:
    """A consistent forgery: one request less, all outcomes played anew, everything sealed."""
    slot = next(row["slot"] for row in read_log(log_path).rows if row["requests"])
    fewer = read_log(rewrite(log_path, tmp_path / "a.parquet", lambda header, rows: rows[slot]["requests"].pop()))
    session, recorder, network = Session(fewer.scenario), EpisodeRecorder(), fewer.network()
    session.begin_with(network, fewer.demand(network), fewer.seeds, SLOTS)
    recorder.begin(session, "local-reactive")
    for row in fewer.rows:
        decision = Decision(*(np.array(row[name]) for name in ("action", "route", "priority")))
        session.step(*decision)
        recorder.record(session, decision, None)
    recorder.save(tmp_path / "forged.parquet")
    report = replay(tmp_path / "forged.parquet")
    assert (report.altered, report.changed_decisions) == (False, ())
    assert report.first_difference is not None
    assert report.first_difference.startswith("requests: logged ")


def test_the_digest_is_of_the_content_not_of_its_encoding(log_path: Path, tmp_path: Path) -> None:
    table = pq.read_table(log_path)
    ways: tuple[dict[str, Any], ...] = (
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "row_group_size": 5},
        {"data_page_version": "2.0", "data_page_size": 64},
    )
    for number, way in enumerate(ways):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, **way)
        assert replay(path).verified
    moved = table.select(table.schema.names[::-1]).replace_schema_metadata(table.schema.metadata)
    pq.write_table(moved, tmp_path / "moved.parquet")
    assert replay(tmp_path / "moved.parquet").verified


@pytest.mark.parametrize("name", ["abilene-trace-v0", "coronet100-v0"])
def test_where_a_file_is_missing_the_report_says_what_was_not_drawn(
    name: str, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_episode(tmp_path / "a.parquet", scenarios.get(name, slots=4))
    assert replay(tmp_path / "a.parquet").not_drawn is None
    monkeypatch.delenv("DPEM_DATA")
    report = replay(tmp_path / "a.parquet")
    assert report.verified
    assert "not drawn again: they cannot be drawn here: " in report.lines()[1]
    assert "pass --data DIR or set DPEM_DATA" in report.lines()[1]
    assert replay(tmp_path / "a.parquet", data_dir=data_dir).not_drawn is None


def test_a_log_that_claims_a_huge_world_is_not_drawn(log_path: Path, tmp_path: Path) -> None:
    def with_scenario(**fields: Any) -> Change:
        claimed = read_log(log_path).scenario.override(**fields)
        return lambda header, rows: header.update(scenario=claimed.to_toml(), scenario_hash=claimed.hash)

    report = replay(rewrite(log_path, tmp_path / "a.parquet", with_scenario(nodes=9000)))
    assert report.first_difference == "network: logged 20 nodes, the scenario has 9000"
    report = replay(rewrite(log_path, tmp_path / "b.parquet", with_scenario(request_rate=1e6)))
    assert report.not_drawn is not None
    assert report.not_drawn.startswith("the scenario has about 6,000,000 requests, too many")


def test_a_replay_reports_every_slot_as_it_goes(log_path: Path) -> None:
    seen: list[int] = []

    def note(session: Session) -> None:
        seen.append(session.slot)

    replay_log(read_log(log_path), note)
    assert seen == list(range(1, SLOTS + 1))


def test_a_log_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LogError, match="it is no regular file"):
        replay(tmp_path / "pipe")
