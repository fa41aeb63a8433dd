"""Demand from files: Abilene traffic matrices (rates only), demand matrices, and requests in the paper's four fields.

No public trace of entanglement requests exists. Abilene's matrices are classical traffic standing in for request
*rates*; times and fidelities are drawn. Its files are not shipped: `SOURCES` says where they come from.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios.data import ABILENE, data_file
from dpem_env.scenarios.own_files import require_content
from dpem_env.scenarios.schema import LARGEST, MAX_CELLS, SMALLEST, ReplayDemand, Scenario, SessionDemand
from dpem_env.support.errors import DataError, nearest, shown
from dpem_env.support.files import ArrayFile, reading
from dpem_env.support.tables import Row, read_rows, read_table

INDEX = re.compile(r"([0-9]{1,9})(?:\.0*)?")  # of a node; tables make decimals of whole numbers


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


def read_requests(demand: ReplayDemand, names: Sequence[str]) -> RequestFile:
    """Read and check a request file; DataError names the line, the column, what was given and what was expected.

    Nodes are given by their `names`, or by index.
    """
    require_content(demand, demand.demand_content)
    nodes = _Nodes(names)
    with reading("request file", demand.requests_file, DataError):
        needed = ("time", "source", "destination", "fidelity")
        read = read_table(demand.requests_file, needed, ("deadline",))
        rows = [_checked_row(cells, line, demand, nodes) for line, cells in read]
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    time, source, destination, fidelity, deadline = table[np.argsort(table[:, 0], kind="stable")].T
    return RequestFile(time, source.astype(np.int64), destination.astype(np.int64), fidelity, deadline)


def request_counts(demand: ReplayDemand, names: Sequence[str]) -> NDArray[np.float64]:
    """(N, N) number of requests per ordered pair in a request file."""
    requests = read_requests(demand, names)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (requests.source, requests.destination), 1.0)
    return counts


def demand_matrix(demand: SessionDemand, names: Sequence[str]) -> NDArray[np.float64]:
    """(N, N) demand from row to column, of which only proportions matter; DataError says what is wrong, and where.

    The first line names the destinations, the first cell of every other line a source. Who is not named wants nobody.
    """
    require_content(demand, demand.demand_content)
    matrix, nodes = np.zeros((len(names), len(names))), _Nodes(names)
    path = demand.demand_matrix or ""
    with reading("demand matrix", path, DataError):
        rows = read_rows(path)
        line, head = next(rows, Row(1, {}))
        columns = [(place, nodes.index(cell, f"line {line}")) for place, cell in head.items() if place != "0"]
        _require_once([i for _, i in columns], names, "columns are")
        sources = []
        for line, cells in rows:
            source = nodes.index(cells["0"], f"line {line}")
            sources.append(source)
            if len(cells) > len(columns) + 1:
                raise ValueError(f"line {line}: it has more values than there are columns")
            for place, destination in columns:
                matrix[source, destination] = _weight(cells.get(place, ""), f"line {line}, {names[destination]!r}")
        _require_once(sources, names, "lines are")
        np.fill_diagonal(matrix, 0.0)
        if not matrix.any():
            raise ValueError("it is all zero off the diagonal; expected some demand")
    return matrix


def _require_once(nodes: Sequence[int], names: Sequence[str], what: str) -> None:
    for node, times in Counter(nodes).items():
        if times > 1:
            raise ValueError(f"two {what} called {names[node]!r}")


def _weight(cell: str, where: str) -> float:
    try:
        weight = float(cell or "0")
    except ValueError:
        weight = math.nan
    if weight != 0.0 and not SMALLEST <= weight <= LARGEST:
        raise ValueError(f"{where}: {shown(cell)}; expected 0, or a number from {SMALLEST:g} to {LARGEST:g}")
    return weight


class _Nodes:
    """Nodes as people write them: a name, or else an index."""

    def __init__(self, names: Sequence[str]) -> None:
        self._of_name = {name: i for i, name in enumerate(names)}
        self._count = len(names)

    @property
    def expected(self) -> str:
        return f"a node's name, or its index 0..{self._count - 1}"

    def find(self, written: str) -> int | None:
        """The index; None if no node is called so."""
        if written in self._of_name:
            return self._of_name[written]
        whole = INDEX.fullmatch(written)
        return int(whole[1]) if whole and int(whole[1]) < self._count else None

    def index(self, written: str, where: str) -> int:
        """The index; ValueError, saying where, if no node is called so."""
        found = self.find(written)
        if found is None:
            close = f" ({nearest(written, self._of_name)})" if self._count else ""
            raise ValueError(f"{where}: {shown(written)} is no node; expected {self.expected}{close}")
        return found


def _checked_row(
    row: dict[str, str], line: int, demand: ReplayDemand, nodes: _Nodes
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

    def node(column: str) -> int:
        found = nodes.find(row.get(column, ""))
        if found is None:
            raise fail(column, nodes.expected)
        return found

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
