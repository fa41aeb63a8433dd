"""Episode logs, damaged in every layer: refused in one line, or replayed to a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_input import NUMBERS, inputs, mutated_bytes, one_of, refused, report, small, spoil, tried

from dpem_env import scenarios
from dpem_env.cli import main
from dpem_env.records import read_log
from dpem_env.replay import ReplayReport, replay_log
from episode_logs import Header, Row, record_episode, rewrite

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
