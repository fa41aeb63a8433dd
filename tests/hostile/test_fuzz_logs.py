"""Episode logs, damaged in every layer: refused in one line, or replayed to a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_input import NUMBERS, inputs, mutated_bytes, one_of, peak, refused, report, small, spoil, tried

from dpem_env import scenarios
from dpem_env.cli import main
from dpem_env.logs import format as log_format
from dpem_env.logs.format import DIGEST, HEADER
from dpem_env.logs.recorder import read_log, write_table
from dpem_env.logs.replay import ReplayReport, replay_log
from support.episode_logs import Header, Row, record_episode, rewrite

SLOTS = 6


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    worlds = [
        scenarios.get("chain3-v0", slots=SLOTS, request_rate=8.0),
        scenarios.get("star8-v0", slots=SLOTS, request_rate=16.0, outages={"mean_up": 1.0, "mean_down": 0.5}),
    ]
    for number, world in enumerate(worlds):
        record_episode(folder / f"{number}.parquet", world, forecaster="mean-rates")
    return sorted(folder.iterdir())


def replayed(path: Path) -> ReplayReport | None:
    """The report of a log that is accepted and small."""
    log = read_log(path)
    if not small(log.scenario) or len(log.header["network"]["names"]) > 50:
        return None
    report = replay_log(log)
    assert report.lines()
    return report


def test_a_log_with_damaged_bytes_is_refused_in_one_line_or_replayed(logs: list[Path], tmp_path: Path) -> None:
    path, whole, accepted = tmp_path / "damaged.parquet", [log.read_bytes() for log in logs], []
    for rng in inputs(150):
        path.write_bytes(mutated_bytes(rng, one_of(rng, whole)))
        accepted.append(not refused(tried(replayed, path)))
    report("logs with damaged bytes", accepted)


def test_a_log_with_another_header_is_refused_in_one_line_or_replayed(logs: list[Path], tmp_path: Path) -> None:
    accepted = []
    for rng in inputs(80):

        def change(header: Header, rows: list[Row], rng: np.random.Generator = rng) -> None:
            for _ in range(int(rng.integers(1, 3))):
                part = header if rng.random() < 0.3 else header.get("network")
                spoil(rng, part if isinstance(part, dict) and part else header)

        path = rewrite(one_of(rng, logs), tmp_path / "header.parquet", change)
        accepted.append(not refused(tried(replayed, path)))
    report("logs with another header", accepted)


def test_a_log_with_other_rows_is_refused_in_one_line_or_replayed(logs: list[Path], tmp_path: Path) -> None:
    accepted = []
    for rng in inputs(80):

        def change(header: Header, rows: list[Row], rng: np.random.Generator = rng) -> None:
            row = one_of(rng, range(SLOTS))
            _respoil(rng, rows[row], one_of(rng, list(rows[row])))

        try:
            path = rewrite(one_of(rng, logs), tmp_path / "rows.parquet", change)
        except (pa.ArrowException, TypeError, OverflowError):  # not of the column's type: no such file exists
            continue
        accepted.append(not refused(tried(replayed, path)))
    report("logs with other rows", accepted)


def _respoil(rng: np.random.Generator, row: Row, name: str) -> None:
    if isinstance(row[name], list) and row[name] and rng.random() < 0.9:
        place = int(rng.integers(len(row[name])))
        entry = row[name][place]
        if isinstance(entry, dict):
            field = one_of(rng, list(entry))
            entry[field] = one_of(rng, [-(2**31), -1, 0, 1, 2, 3, 7, 2**31 - 1, None, 0.25, 0.7, 0.9, float("nan")])
        else:
            row[name][place] = one_of(rng, [None, *(n for n in NUMBERS if type(n) is type(entry))])
    else:
        row[name] = one_of(rng, [None, [], [0], "", "zz", *NUMBERS])


def retyped(rng: np.random.Generator, table: pa.Table) -> pa.Table:
    """A table with a column dropped, doubled, renamed, moved, encoded or of another type."""
    place = int(rng.integers(table.num_columns))
    name, column = table.schema.names[place], table[place]
    match int(rng.integers(7)):
        case 0:
            return table.drop_columns([name])
        case 1:
            return table.append_column(name, column)
        case 2:
            return table.rename_columns(["x" if n == name else n for n in table.schema.names])
        case 3:
            return table.select(rng.permutation(table.num_columns).tolist())
        case 4:
            return table.set_column(place, name, pa.nulls(len(table), one_of(rng, [pa.null(), column.type])))
        case 5 if not pa.types.is_nested(column.type):
            return table.set_column(place, name, column.dictionary_encode())
        case 6 if not pa.types.is_nested(column.type):
            types = [pa.int8(), pa.uint64(), pa.float32(), pa.string(), pa.large_string(), pa.binary(),
                     pa.timestamp("s"), pa.date32(), pa.decimal128(20, 2), pa.bool_()]  # fmt: skip
            return table.set_column(place, name, column.cast(one_of(rng, types), safe=False))
    return pa.concat_tables([table.slice(0, 2), table.slice(2)])


def test_a_log_with_other_columns_is_refused_in_one_line_or_replayed(logs: list[Path], tmp_path: Path) -> None:
    tables, path, accepted = [pq.read_table(log) for log in logs], tmp_path / "columns.parquet", []
    for rng in inputs(80):
        try:
            pq.write_table(retyped(rng, tables[int(rng.integers(len(tables)))]), path)
        except pa.ArrowException:  # the type cannot hold the values
            continue
        accepted.append(not refused(tried(replayed, path)))
    report("logs with other columns", accepted)


def test_replay_on_the_command_line_says_one_line_or_a_report(
    logs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, codes = tmp_path / "damaged.parquet", []
    for rng in inputs(20):

        def change(header: Header, rows: list[Row], rng: np.random.Generator = rng) -> None:
            header["policy"] = one_of(rng, ["[/b]", "[red]", "a\nb", "", "\u2028", "é" * 300])
            if rng.random() < 0.5:
                row = rows[int(rng.integers(SLOTS))]
                row["action"] = rng.integers(-3, 9, size=len(row["action"])).tolist()
            if rng.random() < 0.3:
                header[one_of(rng, ["slots", "format", "start"])] = one_of(rng, [1, "x", None])

        codes.append(tried(main, ["replay", str(rewrite(logs[0], path, change))]))
        said = capsys.readouterr()
        assert (codes[-1] == 2) == (len(said.err.splitlines()) == 1)
        assert (codes[-1] == 2) != bool(said.out)
    assert set(codes) == {0, 1, 2}


MB = 2**20
READ = """
import sys
from dpem_env.support.errors import LogError
from dpem_env.logs.format import DIGEST, HEADER
from dpem_env.logs.recorder import read_log, write_table

for path in sys.argv[1:]:
    try:
        read_log(path)
        said = "accepted"
    except LogError as error:
        said = str(error)
    [most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(most) // 1024, said)
"""


def inflated(log: Path, path: Path, columns: dict[str, Any], slots: int = 64, **changed: Any) -> Path:
    """A log of many slots, in 64 groups, in each of which columns hold what they are told to."""
    table = pq.read_table(log)
    header = json.loads(table.schema.metadata[HEADER]) | {"slots": slots} | changed
    schema = table.schema.with_metadata({HEADER: json.dumps(header), DIGEST: "0"})
    rows: dict[str, Any] = table.take([0] * (slots // 64)).to_pydict() | columns
    with pq.ParquetWriter(path, schema) as writer:
        for group in range(64):
            rows["slot"] = range(group * (slots // 64), (group + 1) * (slots // 64))
            writer.write_table(pa.table([pa.array(rows[field.name], field.type) for field in schema], schema))
    return path


def with_footer(path: Path, content: bytes) -> Path:
    path.write_bytes(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1")
    return path


def denied(path: Path, target: Path) -> Path:
    """The file whose summary has three values where it has two million; its pages hold them all the same."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    said, instead = b"\x80\x92\xf4\x01", b"\x86\x80\x80\x00"  # as numbers of four bytes in the compact protocol
    assert content[start:].count(said) >= 64
    target.write_bytes(content[:start] + content[start:].replace(said, instead))
    return target


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux")
def test_what_would_unpack_to_gigabytes_is_refused_without_unpacking_it(logs: list[Path], tmp_path: Path) -> None:
    log = logs[0]
    zeros, requests = np.zeros(2_000_000, np.int64), pq.read_table(log)["requests"].combine_chunks().flatten()[:1]
    many = pa.ListArray.from_arrays(pa.array([0, 500_000], pa.int32()), requests.take(np.zeros(500_000, np.int32)))
    wide = read_log(log).scenario.override(forecast_horizon=10_000)
    horizon = {"scenario": wide.to_toml(), "scenario_hash": wide.hash}
    actions = inflated(log, tmp_path / "actions", {"action": [zeros]})
    bombs = {
        "a gigabyte of actions": actions,
        "the same, denied by the summary": denied(actions, tmp_path / "denied"),
        "32 million requests": inflated(log, tmp_path / "requests", {"requests": many}),
        "forecasts as long as the header says": inflated(
            log, tmp_path / "forecasts", {"forecast": [np.zeros(60_000, np.float32)] * 40}, 2560, **horizon
        ),
        "a summary of a million columns": with_footer(
            tmp_path / "columns", b"\x15\x02\x19\xfc\xff\xff\x3f" + bytes(MB)
        ),
        "a summary of a million groups of rows": with_footer(
            tmp_path / "groups", b"\x15\x02\x19\x1c\x48\x01x\x00\x16\x02\x19\xfc\xff\xff\x3f" + bytes(MB)
        ),
    }
    assert all(path.stat().st_size < 5 * MB for path in bombs.values())
    command = [sys.executable, "-c", READ, str(log), *map(str, bombs.values())]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    print(*zip(["a good log", *bombs], told, strict=True), sep="\n")
    assert "accepted" in told[0]
    assert all("cannot be used: " in line for line in told[1:])
    most = [int(line.split()[0]) for line in told]
    assert most[-1] < most[0] + 100


def test_texts_where_numbers_belong_are_not_spread_out(logs: list[Path], tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        header["network"]["popularity"]["values"] = ["x" * 100_000, *["a"] * 2999]
        header["network"]["names"] = ["n"] * 3000

    outcome, most = peak(read_log, rewrite(logs[0], tmp_path / "a.parquet", change))
    assert refused(outcome)
    assert most < 20 * MB


def test_a_log_of_years_of_nothing_is_written_so_that_it_can_be_read(
    logs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = 2000
    table = pq.read_table(logs[0]).take([0] * slots)
    nothing = pa.array([[]] * slots, table.schema.field("requests").type)
    idle = table.set_column(0, "slot", pa.array(range(slots), pa.int32())).set_column(1, "requests", nothing)
    header = read_log(logs[0]).header | {"slots": slots}
    monkeypatch.setattr(log_format, "ROOM", 1000)
    monkeypatch.setattr(log_format, "PER_BYTE", 1)
    write_table(tmp_path / "a.parquet", header, idle)
    assert len(read_log(tmp_path / "a.parquet").rows) == slots
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "b.parquet", compression="zstd")
    assert "too many for a file of its size" in str(tried(read_log, tmp_path / "b.parquet"))
