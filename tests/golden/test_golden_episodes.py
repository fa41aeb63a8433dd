"""Recorded episodes come out again; what differs is named by episode, slot, phase and value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpem_env.logs.recorder import EpisodeLog, decision_of, read_log
from dpem_env.logs.replay import replay_log
from dpem_env.simulator import Tally, Verdict
from dpem_env.simulator.simulator import fingerprint

from .phases import Phase, begun, first_difference, label, play, same_bits
from .record import FOLDER, episodes, log_of, phases_of

NAMES = list(episodes())
ADVICE = "If the rules changed on purpose: make golden"


@pytest.fixture(scope="module")
def logs() -> dict[str, EpisodeLog]:
    """The golden episodes by name."""
    return {name: read_log(log_of(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_phase_does_what_it_did_when_recorded(logs: dict[str, EpisodeLog], name: str) -> None:
    difference = first_difference(logs[name], phases_of(name))
    assert difference is None, f"{name}: {difference}. {ADVICE}"


@pytest.mark.parametrize("name", NAMES)
def test_every_golden_log_replays(logs: dict[str, EpisodeLog], name: str) -> None:
    report = replay_log(logs[name])
    if not report.verified and not same_bits(logs[name], phases_of(name)):
        pytest.skip("bit for bit only where exponentials have the recorded last bits; the phases tell of the rules")
    assert report.verified, f"{name}: {'; '.join(report.lines())}. {ADVICE}"


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_plays_these_phases_in_this_order(logs: dict[str, EpisodeLog], name: str) -> None:
    simulator = begun(logs[name]).simulator
    for slot, phase, state in play(logs[name]):
        if phase == Phase.ARRIVALS:
            assert fingerprint(state) == simulator.digest(), f"{name}: step and phases part before slot {slot}"
            simulator.step(*decision_of(logs[name].rows[slot]))
    assert fingerprint(state) == simulator.digest(), f"{name}: step and phases part in the last slot"


def test_the_rules_tell_the_phases_in_this_order() -> None:
    rules = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    numbered = re.findall(r"^(\d)\. \*\*.*?\(`(\w+)`\)", rules, re.MULTILINE)
    told = [f"phase {number} ({name})" for number, name in numbered]
    assert told == [label(phase) for phase in Phase if phase is not Phase.TELEMETRY]


def test_every_count_and_every_verdict_occurs(logs: dict[str, EpisodeLog]) -> None:
    totals = [log.header["totals"] for log in logs.values()]
    assert not [count.name for count in Tally if not any(total[count.name.lower()] for total in totals)]
    verdicts = {verdict for log in logs.values() for row in log.rows for verdict in row["verdict"]}
    assert verdicts == set(Verdict)


def test_the_folder_holds_the_golden_episodes_and_is_small() -> None:
    files = set(FOLDER.iterdir())
    assert files == {path(name) for name in NAMES for path in (log_of, phases_of)}
    assert sum(file.stat().st_size for file in files) < 64_000 * len(NAMES)


@pytest.mark.parametrize(
    ("phase", "field", "called"),
    [
        (Phase.SWAP, "tokens", lambda place: f"phase 4 (swap): tokens[{place}]"),
        (Phase.DELIVER, "alloc_slot", lambda place: f"phase 5 (deliver): alloc_slot[{place // 4}, {place % 4}]"),
        (Phase.ADMIT, "tally", lambda place: f"phase 2 (admit): tally[{Tally(place).name}]"),
        (Phase.TELEMETRY, "slot", lambda place: "telemetry: slot"),
    ],
    ids=["node", "row", "tally", "clock"],
)  # fmt: skip
def test_a_difference_is_named_by_slot_phase_and_value(
    logs: dict[str, EpisodeLog], tmp_path: Path, phase: Phase, field: str, called: Callable[[int], str]
) -> None:
    table = pq.read_table(phases_of("mesh20-purification"))
    rows = table.to_pylist()
    changed = next(row for row in rows if (row["slot"], row["phase"], row["field"]) == (17, phase, field))
    played = changed["value"]
    changed["value"] += 1.0
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "changed.parquet")
    difference = first_difference(logs["mesh20-purification"], tmp_path / "changed.parquet")
    assert difference == f"slot 17, {called(changed['place'])} recorded {played + 1.0:.7g}, now {played:.7g}"


@pytest.mark.parametrize(
    ("field", "shape", "difference"),
    [
        ("tokens", [4], "tokens of the state: recorded shape [4], now [3]"),
        ("luck", [3], "luck of the state: recorded shape [3], now None"),
        ("tally", [99], f"tally of the state: recorded shape [99], now [{len(Tally)}]"),
    ],
)
def test_a_field_of_another_shape_is_named(
    logs: dict[str, EpisodeLog], tmp_path: Path, field: str, shape: list[int], difference: str
) -> None:
    table = pq.read_table(phases_of("chain3"))
    shapes = json.loads(table.schema.metadata[b"shapes"]) | {field: shape}
    pq.write_table(table.replace_schema_metadata({"shapes": json.dumps(shapes)}), tmp_path / "changed.parquet")
    assert first_difference(logs["chain3"], tmp_path / "changed.parquet") == difference


def test_last_bits_are_no_difference(logs: dict[str, EpisodeLog], tmp_path: Path) -> None:
    table = pq.read_table(phases_of("chain3"))
    values = table["value"].to_numpy() * np.float32(1.0 + 3e-7)
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, "value", pa.array(values)), tmp_path / "changed.parquet")
    assert first_difference(logs["chain3"], tmp_path / "changed.parquet") is None
