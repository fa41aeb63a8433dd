"""Real traces as demand: Abilene traffic matrices (rates only) and request files in the paper's four fields.

No public trace of entanglement requests exists. Abilene's matrices are classical traffic standing in for request
*rates*; times and fidelities are drawn. The files are not shipped: `SOURCES` says where they come from.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios.data import ABILENE, data_file
from dpem_env.scenarios.schema import LARGEST, MAX_CELLS, SMALLEST, ReplayDemand, Scenario
from dpem_env.support.errors import DataError, shown
from dpem_env.support.files import ArrayFile, read_text, reading


@dataclass(frozen=True, eq=False)
class TrafficMatrices:
    """Traffic between N nodes over time, T matrices; the diagonal is zero."""

    mbps: NDArray[np.float64]  # (T, N, N)
    names: tuple[str, ...]  # N

    def mean_matrix(self) -> NDArray[np.float64]:
        """(N, N) mean over time."""
        mean: NDArray[np.float64] = self.mbps.mean(axis=0)
        return mean

    def window(self, split: str) -> tuple[int, int]:
        """First and last + 1 matrix of a split: days 1-7 train, 8-10 validation, 11-14 evaluation."""
        edges = {"train": (0.0, 0.5), "validation": (0.5, 10 / 14), "evaluation": (10 / 14, 1.0)}
        first, stop = (round(edge * len(self.mbps)) for edge in edges[split])
        if first == stop:
            raise DataError(f"a trace of {len(self.mbps)} matrices has none for {split}; expected at least 4")
        return first, stop


def load_abilene(scenario: Scenario) -> TrafficMatrices:
    """The Abilene matrices from the scenario's data folder; DataError if missing or malformed."""
    return read_matrices(data_file(scenario, ABILENE))


@lru_cache(maxsize=4)
def read_matrices(path: Path) -> TrafficMatrices:
    """Traffic matrices from an .npz with tm_mbps (T, N, N) and nodes (N); finite and not negative."""
    with reading("trace", path, DataError), ArrayFile(path) as archive:
        shape, _ = archive.declared("tm_mbps")
        nodes, kind = archive.declared("nodes")
        if len(nodes) != 1 or len(shape) != 3 or shape[1:] != nodes * 2 or not 0 < math.prod(shape) <= MAX_CELLS:
            raise ValueError(f"tm_mbps has shape {shape}; expected (times, N, N) for the N names in nodes {nodes}")
        mbps = np.asarray(archive.read("tm_mbps", shape, "fiub"), dtype=np.float64)
        names = tuple(map(str, archive.read("nodes", nodes, kind).tolist()))
        _require_possible(mbps)
        off_diagonal = mbps * ~np.eye(len(names), dtype=bool)
        if off_diagonal.sum() == 0:
            raise ValueError("tm_mbps is all zero off the diagonal; expected some traffic")
    return TrafficMatrices(off_diagonal, names)


def _require_possible(mbps: NDArray[np.float64]) -> None:
    impossible = {
        "NaN or infinite": ~np.isfinite(mbps),
        "negative": mbps < 0,
        "beyond measure": (mbps > LARGEST) | ((mbps > 0) & (mbps < SMALLEST)),
    }
    for what, bad in impossible.items():
        if bad.any():
            t, i, j = (int(x) for x in np.argwhere(bad)[0])
            raise ValueError(f"tm_mbps[{t}, {i}, {j}] is {what} ({mbps[t, i, j]}); expected a number >= 0")


@dataclass(frozen=True, eq=False)
class RequestFile:
    """Requests as recorded: R rows ordered by time."""

    time: NDArray[np.float64]  # (R,) s
    source: NDArray[np.int64]  # (R,) node index
    destination: NDArray[np.int64]  # (R,) node index
    fidelity: NDArray[np.float64]  # (R,)
    deadline: NDArray[np.float64]  # (R,) s after arrival


def read_requests(demand: ReplayDemand, num_nodes: int) -> RequestFile:
    """Read and check a request file; DataError names the line, the column, what was given and what was expected."""
    path = Path(demand.requests_file)
    needed = ("time", "source", "destination", "fidelity")
    with reading("request file", path, DataError):
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        missing = [column for column in needed if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"no column {missing[0]!r}; expected time,source,destination,fidelity[,deadline]")
        repeated = [column for column in needed if (reader.fieldnames or ()).count(column) > 1]
        if repeated:
            raise ValueError(f"two columns are called {repeated[0]!r}")
        rows = [_checked_row(row, reader.line_num, demand, num_nodes) for row in reader]
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    time, source, destination, fidelity, deadline = table[np.argsort(table[:, 0], kind="stable")].T
    return RequestFile(time, source.astype(np.int64), destination.astype(np.int64), fidelity, deadline)


def request_counts(demand: ReplayDemand, num_nodes: int) -> NDArray[np.float64]:
    """(N, N) number of requests per ordered pair in a request file."""
    requests = read_requests(demand, num_nodes)
    counts = np.zeros((num_nodes, num_nodes))
    np.add.at(counts, (requests.source, requests.destination), 1.0)
    return counts


def _checked_row(
    row: dict[str, str], line: int, demand: ReplayDemand, num_nodes: int
) -> tuple[float, float, float, float, float]:
    def fail(column: str, expected: str) -> ValueError:
        return ValueError(f"line {line}: {column} is {shown(row.get(column))}; expected {expected}")

    def number(column: str, expected: str) -> float:
        try:
            value = float(row[column])
        except (TypeError, ValueError):
            raise fail(column, expected) from None
        if not np.isfinite(value):
            raise fail(column, expected)
        return value

    def node(column: str) -> float:
        expected = f"a node index 0..{num_nodes - 1}"
        value = number(column, expected)
        if value != int(value) or not 0 <= value < num_nodes:
            raise fail(column, expected)
        return value

    if None in row:  # where DictReader puts them
        raise ValueError(f"line {line}: it has more values than there are columns")
    time = number("time", "seconds >= 0")
    if time < 0:
        raise fail("time", "seconds >= 0")
    source, destination = node("source"), node("destination")
    if source == destination:
        raise fail("destination", "another node than the source")
    classes = ", ".join(map(str, demand.fidelity_classes))
    fidelity = number("fidelity", f"one of the scenario's fidelity_classes {classes}")
    if fidelity not in demand.fidelity_classes:
        raise fail("fidelity", f"one of the scenario's fidelity_classes {classes}")
    usual = demand.deadlines[demand.fidelity_classes.index(fidelity)]
    deadline = number("deadline", "seconds > 0") if row.get("deadline") else usual
    if deadline <= 0:
        raise fail("deadline", "seconds > 0")
    return time, source, destination, fidelity, deadline
