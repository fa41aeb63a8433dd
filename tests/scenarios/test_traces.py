"""Traffic matrices and request files: what is read, and the one line a malformed file is told in."""

from __future__ import annotations

import io
import math
import re
import zipfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import data, traces
from dpem_env.scenarios.schema import ReplayDemand
from dpem_env.scenarios.traces import TrafficMatrices, read_matrices, read_requests, request_counts
from dpem_env.support.errors import DataError

NODES = ("Bern", "Zürich, HB", "2nd")
HEADER = "time,source,destination,fidelity,deadline"


def message_of(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def write_trace(path: Path, mbps: Any, nodes: Any = ("a", "b")) -> Path:
    np.savez(path, tm_mbps=np.asarray(mbps), nodes=np.asarray(nodes))
    return path


def replay(path: Path, lines: str) -> ReplayDemand:
    path.write_text(lines, encoding="utf-8")
    return ReplayDemand(requests_file=str(path))


def test_matrices_are_read_without_their_diagonal(tmp_path: Path) -> None:
    mbps = np.arange(1.0, 9.0).reshape(2, 2, 2)
    matrices = read_matrices(write_trace(tmp_path / "a.npz", mbps))
    assert matrices.names == ("a", "b")
    assert matrices.mbps.tolist() == [[[0.0, 2.0], [3.0, 0.0]], [[0.0, 6.0], [7.0, 0.0]]]
    assert matrices.mean_matrix().tolist() == [[0.0, 4.0], [5.0, 0.0]]


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "NaN or infinite"), (math.inf, "NaN or infinite"), (-0.5, "negative")]
)
def test_a_bad_matrix_entry_is_told_with_its_place_and_value(tmp_path: Path, value: float, what: str) -> None:
    mbps = np.ones((5, 2, 2))
    mbps[3, 1, 0] = value
    with pytest.raises(DataError, match=what) as error:
        read_matrices(write_trace(tmp_path / "bad.npz", mbps))
    assert f"tm_mbps[3, 1, 0] is {what} ({value})" in message_of(error)
    assert "bad.npz" in message_of(error)


@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 3), (4, 2, 3), (2, 2)])
def test_matrices_of_the_wrong_shape_are_told_with_the_right_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=re.escape("expected (times, N, N) for the N names in nodes (2,)")) as error:
        read_matrices(write_trace(tmp_path / "shape.npz", np.ones(shape)))
    assert str(shape) in message_of(error)


def test_a_trace_of_no_matrices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("shape (0, 2, 2); expected (times, N, N)")) as error:
        read_matrices(write_trace(tmp_path / "none.npz", np.ones((0, 2, 2))))
    message_of(error)


def test_a_trace_without_traffic_between_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all zero off the diagonal") as error:
        read_matrices(write_trace(tmp_path / "idle.npz", np.eye(2)[None]))
    message_of(error)


def test_a_missing_trace_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dpem list says where to get it") as error:
        traces.load_abilene(scenarios.get("abilene-trace-v0", data_dir=tmp_path))
    assert data.ABILENE in message_of(error)


def test_a_folder_in_place_of_a_trace_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used") as error:
        read_matrices(tmp_path)
    message_of(error)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"PK\x03\x04 but no archive", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be used") as error:
        read_matrices(tmp_path / "odd.npz")
    assert "odd.npz" in message_of(error)


def test_a_single_array_in_place_of_an_archive_is_told_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.ones((3, 2, 2)))
    with pytest.raises(DataError, match="cannot be used") as error:
        read_matrices(tmp_path / "array.npy")
    message_of(error)


def test_a_damaged_archive_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, tm_mbps=np.random.default_rng(0).random((50, 2, 2)), nodes=np.array(["a", "b"]))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be used") as error:
        read_matrices(path)
    message_of(error)


@pytest.mark.parametrize(
    "arrays",
    [
        {"tm_mbps": np.ones((2, 2, 2))},
        {"nodes": np.array(["a", "b"])},
        {"tm_mbps": np.full((1, 2, 2), "x"), "nodes": np.array(["a", "b"])},
        {"tm_mbps": np.ones((2, 2, 2)), "nodes": np.array("a")},
        {"tm_mbps": np.array([[{}]]), "nodes": np.array(["a", "b"])},
    ],
)
def test_an_archive_of_other_arrays_is_told_in_one_line(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataError, match="cannot be used") as error:
        read_matrices(tmp_path / "other.npz")
    message_of(error)


@pytest.mark.parametrize("times", [14, 100, 4032])
def test_the_days_of_the_splits_are_disjoint_and_cover_the_trace(times: int) -> None:
    matrices = TrafficMatrices(np.ones((times, 1, 1)), ("a",))
    windows = {split: range(*matrices.window(split)) for split in ("train", "validation", "evaluation")}
    for one, other in combinations(windows.values(), 2):
        assert set(one).isdisjoint(other)
    assert sorted(index for window in windows.values() for index in window) == list(range(times))
    assert max(windows["train"]) < min(windows["validation"]) < min(windows["evaluation"])


def test_the_splits_of_fourteen_days_are_seven_three_and_four_days() -> None:
    matrices = TrafficMatrices(np.ones((14, 1, 1)), ("a",))
    assert matrices.window("train") == (0, 7)
    assert matrices.window("validation") == (7, 10)
    assert matrices.window("evaluation") == (10, 14)


def test_abilene_is_two_weeks_of_its_twelve_nodes(data_dir: Path) -> None:
    matrices = traces.load_abilene(scenarios.get("abilene-trace-v0", data_dir=data_dir))
    assert matrices.mbps.shape == (4032, 12, 12)
    assert matrices.names == build_topology(scenarios.get("abilene-trace-v0"), 0).names
    assert np.all(np.diagonal(matrices.mbps, axis1=1, axis2=2) == 0.0)


def test_the_real_files_are_those_the_sources_name(data_dir: Path) -> None:
    for source in data.SOURCES.values():
        assert data.checksum(data_dir / source.file) == source.sha256


def test_a_request_file_is_read_in_order_of_time(tmp_path: Path) -> None:
    demand = replay(tmp_path / "r.csv", f"{HEADER}\n2.5,0,1,0.91,0.5\n0.0,2,0,0.75,\n1,1,2,0.85,4\n")
    requests = read_requests(demand, NODES)
    assert requests.time.tolist() == [0.0, 1.0, 2.5]
    assert requests.source.tolist() == [2, 1, 0]
    assert requests.destination.tolist() == [0, 2, 1]
    assert requests.fidelity.tolist() == [0.75, 0.85, 0.91]
    assert requests.deadline.tolist() == [1.0, 4.0, 0.5]  # an empty deadline is the scenario's


def test_the_papers_four_fields_suffice(tmp_path: Path) -> None:
    demand = replay(tmp_path / "r.csv", "time,source,destination,fidelity\n0.5,0,1,0.85\n")
    assert read_requests(demand, NODES).deadline.tolist() == [2.0]  # of its class
    by_class = demand.model_copy(update={"deadline": (1.0, 2.0, 4.0)})
    file = Path(demand.requests_file)
    file.write_text("time,source,destination,fidelity\n0,0,1,0.85\n1,0,1,0.91\n2,0,1,0.75\n", encoding="utf-8")
    assert read_requests(by_class, NODES).deadline.tolist() == [2.0, 4.0, 1.0]


def test_columns_may_come_in_any_order_after_a_byte_order_mark(tmp_path: Path) -> None:
    demand = replay(tmp_path / "r.csv", "\ufefffidelity,destination,time,source,remark\n0.85,1,0.5,0,hello\n")
    requests = read_requests(demand, NODES)
    assert (requests.time[0], requests.source[0], requests.destination[0], requests.fidelity[0]) == (0.5, 0, 1, 0.85)


def test_a_request_file_of_no_requests_is_empty(tmp_path: Path) -> None:
    assert len(read_requests(replay(tmp_path / "r.csv", HEADER + "\n"), NODES).time) == 0


def test_requests_are_counted_per_ordered_pair(tmp_path: Path) -> None:
    demand = replay(tmp_path / "r.csv", f"{HEADER}\n0,0,1,0.75,1\n0,0,1,0.85,1\n3,1,0,0.75,1\n")
    assert request_counts(demand, NODES).tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("row", "column", "given", "expected"),
    [
        ("-0.1,0,1,0.85,1", "time", "'-0.1'", "seconds >= 0"),
        ("soon,0,1,0.85,1", "time", "'soon'", "seconds >= 0"),
        ("nan,0,1,0.85,1", "time", "'nan'", "seconds >= 0"),
        ("inf,0,1,0.85,1", "time", "'inf'", "seconds >= 0"),
        (",0,1,0.85,1", "time", "''", "seconds >= 0"),
        ("1,3,1,0.85,1", "source", "'3'", "a node's name, or its index 0..2"),
        ("1,-1,1,0.85,1", "source", "'-1'", "a node's name, or its index 0..2"),
        ("1,0.5,1,0.85,1", "source", "'0.5'", "a node's name, or its index 0..2"),
        ("1,Berlin,1,0.85,1", "source", "'Berlin'", "a node's name, or its index 0..2"),
        ("1,0,99,0.8,1", "destination", "'99'", "a node's name, or its index 0..2"),
        ("1,0,0,0.85,1", "destination", "'0'", "another node than the source"),
        ("1,0,1,0.7,1", "fidelity", "'0.7'", "one of the scenario's fidelity_classes 0.75, 0.85, 0.91"),
        ("1,0,1,1.2,1", "fidelity", "'1.2'", "one of the scenario's fidelity_classes 0.75, 0.85, 0.91"),
        ("1,0,1,high,1", "fidelity", "'high'", "one of the scenario's fidelity_classes 0.75, 0.85, 0.91"),
        ("1,0,1,0.85,0", "deadline", "'0'", "seconds > 0"),
        ("1,0,1,0.85,-2", "deadline", "'-2'", "seconds > 0"),
        ("1,0,1,0.85,nan", "deadline", "'nan'", "seconds > 0"),
        ("1,0,1,0.85,later", "deadline", "'later'", "seconds > 0"),
        ("1,0", "destination", "None", "a node's name, or its index 0..2"),
    ],
)
def test_a_bad_request_is_told_with_file_line_column_value_and_expectation(
    tmp_path: Path, row: str, column: str, given: str, expected: str
) -> None:
    demand = replay(tmp_path / "r.csv", f"{HEADER}\n0,0,1,0.75,1\n{row}\n")
    with pytest.raises(DataError) as error:
        read_requests(demand, NODES)
    assert message_of(error) == (
        f"request file '{tmp_path / 'r.csv'}' cannot be used: line 3: {column} is {given}; expected {expected}"
    )


@pytest.mark.parametrize("column", ["time", "source", "destination", "fidelity"])
def test_a_request_file_without_one_of_the_four_fields_is_refused(tmp_path: Path, column: str) -> None:
    kept = [name for name in HEADER.split(",") if name != column]
    with pytest.raises(DataError, match=f"no column '{column}'") as error:
        read_requests(replay(tmp_path / "r.csv", ",".join(kept) + "\n"), NODES)
    message_of(error)


def test_an_empty_request_file_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'time'") as error:
        read_requests(replay(tmp_path / "r.csv", ""), NODES)
    message_of(error)


def test_a_missing_request_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used") as error:
        read_requests(ReplayDemand(requests_file=str(tmp_path / "absent.csv")), NODES)
    assert "absent.csv" in message_of(error)


def test_a_request_file_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(b"time,source\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be used") as error:
        read_requests(ReplayDemand(requests_file=str(tmp_path / "r.csv")), NODES)
    message_of(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_request_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("time,source,destination,fidelity,Bemerkung\r\n0.5,0,1,0.85,ü\r\n".encode(encoding))
    assert read_requests(ReplayDemand(requests_file=str(path)), NODES).time.tolist() == [0.5]


@pytest.mark.parametrize("content", ["é,1\n".encode("latin-1"), "0.5,0,1,0.85\n".encode("utf-16-le")])
def test_a_request_file_in_no_encoding_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(DataError, match="save it as UTF-8") as error:
        read_requests(ReplayDemand(requests_file=str(tmp_path / "r.csv")), NODES)
    message_of(error)


def test_a_trace_that_declares_more_than_can_be_held_is_refused_unread(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2, 2)})
    names = io.BytesIO()
    np.save(names, np.array(["a", "b"]))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("tm_mbps.npy", header.getvalue())
        archive.writestr("nodes.npy", names.getvalue())
    with pytest.raises(DataError, match=re.escape(f"tm_mbps has shape ({2**40}, 2, 2)")):
        read_matrices(tmp_path / "bomb.npz")


@pytest.mark.parametrize("dtype", ["float32", ">f4", "int16", "uint8", "bool"])
def test_matrices_may_be_of_any_real_type(tmp_path: Path, dtype: str) -> None:
    path = write_trace(tmp_path / f"{dtype}.npz", np.ones((4, 2, 2), dtype=dtype))
    assert read_matrices(path).mbps.sum() == 8.0


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("time,source,destination,fidelity", "1,0,1,0.75,1,99", "line 2: it has more values than there are columns"),
        ("time,time,source,destination,fidelity", "1,1,0,1,0.7", "two columns are called 'time'"),
    ],
)
def test_values_without_a_column_of_their_own_are_refused(tmp_path: Path, header: str, row: str, message: str) -> None:
    (tmp_path / "requests.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_requests(ReplayDemand(requests_file=str(tmp_path / "requests.csv")), NODES)
