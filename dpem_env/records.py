"""The episode log: one Parquet file that holds all it takes to replay and to analyse an episode.

One row per slot; the file's metadata holds scenario, topology parameters, seeds and versions. What the paper retains:
topology parameters, every request, forecast, decision vector and outcome. Columns (N nodes):

- ``slot``: 0, 1, …; ``requests``: arrivals of the slot (source, destination, fidelity, last_slot);
- ``action``, ``route``, ``priority``: the decision vector, N each (see `dpem_env.policies.Decision`);
- ``forecast``: N·D·H expected requests the decision was based on, null without a forecaster;
- ``verdict``: N outcomes of the decisions (0 wait, 1 admitted, 2 denied, 3 illegal);
- ``deliveries``: requests served since the last row (source, destination, arrival, fidelity, from_stock);
- ``expired``: requests lost so far; ``delivered``, ``contended``, ``reward``: N each;
- ``state``: fingerprint of the simulator's state after the slot; ``check``: fingerprint of the decision vector.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpem_env.demand import Demand, Pieces, tabulate
from dpem_env.errors import DpemError, LogError
from dpem_env.files import whole_file
from dpem_env.network import Network, with_routes
from dpem_env.physics import fidelity_from_werner
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario, from_toml
from dpem_env.session import EpisodeSeeds, Session
from dpem_env.simulator import RULES_VERSION, Status, Tally
from dpem_env.topology import Topology

FORMAT = "dpem-episode-1"


def simulator_version() -> dict[str, str]:
    """Versions a replay must agree with."""
    from dpem_env import __version__

    return {"dpem_env": __version__, "rules": RULES_VERSION}


class EpisodeRecorder:
    """Collects an episode slot by slot (a `dpem_env.evaluation.Recorder`); `save` writes it."""

    def begin(self, session: Session, label: str) -> None:
        """Take down what is fixed."""
        self.header = {
            "format": FORMAT,
            "version": simulator_version(),
            "policy": label,
            "scenario": session.scenario.to_toml(),
            "scenario_hash": session.scenario.hash,
            "seeds": session.seeds._asdict(),
            "slots": session.slots,
            "network": _network_to_json(session.network),
            "excluded_requests": session.demand.excluded_requests,
            "start": session.simulator.digest(),
        }
        self.rows: list[dict[str, Any]] = []
        self._fate = session.simulator.state_of(0)["request_status"]

    def record(self, session: Session, decision: Decision, forecast: NDArray[np.float32] | None) -> None:
        """Take down one slot."""
        state = session.simulator.state_of(0)
        complete = decision.completed(session.network.num_nodes)
        self.rows.append(
            {
                "slot": len(self.rows),
                "requests": _arrivals(session, len(self.rows)),
                **{name: np.asarray(array).tolist() for name, array in complete._asdict().items()},
                "forecast": None if forecast is None else forecast.ravel(),
                "verdict": state["verdict"].tolist(),
                "deliveries": _deliveries(session, self._fate, state),
                "expired": int((state["request_status"] == Status.EXPIRED).sum()),
                "delivered": state["delivered"].tolist(),
                "contended": state["contended"].tolist(),
                "reward": session.rewards().tolist(),
                "state": session.simulator.digest(),
                "check": decision_check(complete),
            }
        )
        self._fate = state["request_status"]
        if session.done:
            self.header["totals"] = {t.name.lower(): int(session.simulator.tally(t)[0]) for t in Tally}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self.rows, schema=_schema()).replace_schema_metadata(
            {"dpem": json.dumps(self.header)}
        )
        with whole_file(path) as partial:
            pq.write_table(table, partial, compression="zstd")


@dataclass(frozen=True)
class EpisodeLog:
    """A log as read back and checked."""

    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario the episode was played in."""
        return from_toml(self.header["scenario"], "scenario in the log")

    @property
    def seeds(self) -> EpisodeSeeds:
        """The episode's seeds."""
        seeds = self.header["seeds"]
        return EpisodeSeeds(seeds["topology"], seeds["demand"])

    def network(self) -> Network:
        """The network, rebuilt from the logged topology parameters."""
        return _network_from_json(self.scenario, self.header["network"])

    def demand(self, network: Network) -> Demand:
        """The demand, rebuilt from the logged requests."""
        requests = [(row["slot"], r) for row in self.rows for r in row["requests"]]
        classes = np.array(self.scenario.demand.fidelity_classes)
        source = np.array([r["source"] for _, r in requests], dtype=np.int32)
        destination = np.array([r["destination"] for _, r in requests], dtype=np.int32)
        table = tabulate(
            np.array([slot for slot, _ in requests], dtype=np.int32),
            source,
            (network.peers[source] == destination[:, None]).argmax(axis=1).astype(np.int32),
            np.searchsorted(classes, [r["fidelity"] for _, r in requests]).astype(np.int32),
            np.array([r["last_slot"] for _, r in requests], dtype=np.int32),
        )
        nothing = np.zeros(0, dtype=np.int32)
        pieces = Pieces(nothing, nothing, nothing, nothing, np.zeros(0))
        return Demand(table, pieces, network.peers.shape, self.header["excluded_requests"])


def read_log(path: str | os.PathLike[str]) -> EpisodeLog:
    """Read and check an episode log; raises LogError with one clear line if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"log {os.fspath(path)!r}"
    try:
        with open(path, "rb") as stream:
            table = pq.ParquetFile(stream).read()
    except OSError as error:
        raise LogError(f"{name} cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise LogError(f"{name} is no episode log of dpem run: {error}") from None
    try:
        return _checked_log(table)
    except (DpemError, pa.ArrowException, UnicodeDecodeError) as error:
        raise LogError(f"{name}: {error}") from None


def decision_check(decision: Decision) -> str:
    """Fingerprint of a complete decision: tells a changed decision from a changed simulator."""
    fingerprint = hashlib.blake2b(digest_size=8)
    for array in decision:
        fingerprint.update(np.asarray(array, dtype=np.int64).tobytes())
    return fingerprint.hexdigest()


def _schema() -> Any:
    import pyarrow as pa

    request = pa.struct(
        [("source", pa.int32()), ("destination", pa.int32()), ("fidelity", pa.float64()), ("last_slot", pa.int32())]
    )
    delivery = pa.struct(
        [
            ("source", pa.int32()),
            ("destination", pa.int32()),
            ("arrival", pa.int32()),
            ("fidelity", pa.float64()),
            ("from_stock", pa.bool_()),
        ]
    )
    return pa.schema(
        [
            ("slot", pa.int32()),
            ("requests", pa.list_(request)),
            ("action", pa.list_(pa.int64())),
            ("route", pa.list_(pa.int64())),
            ("priority", pa.list_(pa.int64())),
            ("forecast", pa.list_(pa.float32())),
            ("verdict", pa.list_(pa.int8())),
            ("deliveries", pa.list_(delivery)),
            ("expired", pa.int32()),
            ("delivered", pa.list_(pa.int32())),
            ("contended", pa.list_(pa.int32())),
            ("reward", pa.list_(pa.float64())),
            ("state", pa.string()),
            ("check", pa.string()),
        ]
    )


def _arrivals(session: Session, slot: int) -> list[dict[str, Any]]:
    table = session.demand.requests
    low, high = np.searchsorted(table.slot, (slot, slot + 1))
    new = session.new_requests(slot)
    return [
        {"source": source, "destination": destination, "fidelity": fidelity, "last_slot": last_slot}
        for source, destination, fidelity, last_slot in zip(
            new.source.tolist(),
            new.destination.tolist(),
            new.fidelity.tolist(),
            table.last_slot[low:high].tolist(),
            strict=True,
        )
    ]


def _deliveries(session: Session, before: NDArray[np.int32], state: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    requests, peers = session.demand.requests, session.network.peers
    served = np.flatnonzero((state["request_status"] >= 0) & (before < 0))
    return [
        {
            "source": int(requests.source[r]),
            "destination": int(peers[requests.source[r], requests.peer[r]]),
            "arrival": int(requests.slot[r]),
            "fidelity": float(fidelity_from_werner(float(state["request_werner"][r]))),
            "from_stock": bool(state["request_from_stock"][r]),
        }
        for r in served
    ]


# What the header holds of a network: dtype and axes (N nodes, L links, D peer places per node)
_TOPOLOGY_ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "position": ("<f8", ("N", 2)),
    "popularity": ("<f8", ("N",)),
    "generation_rate": ("<f8", ("N",)),
    "swap_rate": ("<f8", ("N",)),
    "memory": ("<i4", ("N",)),
    "coherence_time": ("<f8", ("N",)),
    "links": ("<i4", ("L", 2)),
    "length": ("<f8", ("L",)),
    "emitter": ("<i4", ("L",)),
    "transmission": ("<f8", ("L",)),
    "link_key": ("<i8", ("L",)),
}
_NETWORK_ARRAYS = _TOPOLOGY_ARRAYS | {"peers": ("<i4", ("N", "D")), "weights": ("<f8", ("N", "D"))}


def _network_to_json(network: Network) -> dict[str, Any]:
    topology = {name: _pack(getattr(network.topology, name)) for name in _TOPOLOGY_ARRAYS}
    return {
        "names": list(network.topology.names),
        **topology,
        "peers": _pack(network.peers),
        "weights": _pack(network.weights),
        "excluded": network.excluded,
    }


def _network_from_json(scenario: Scenario, data: dict[str, Any]) -> Network:
    topology = Topology(names=tuple(data["names"]), **{name: _unpack(data, name) for name in _TOPOLOGY_ARRAYS})
    return with_routes(scenario, topology, _unpack(data, "peers"), _unpack(data, "weights"), data["excluded"])


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Plain JSON: Python writes floats with all their digits, so they come back bit for bit."""
    return {"dtype": array.dtype.str, "values": array.tolist()}


def _unpack(data: dict[str, Any], name: str) -> NDArray[Any]:
    return np.array(data[name]["values"], dtype=_NETWORK_ARRAYS[name][0])


class _Part(BaseModel):
    """Base of what a header must hold."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Seeds(_Part):
    topology: int = Field(ge=0)
    demand: int = Field(ge=0)


class _Network(_Part):
    names: list[str] = Field(min_length=2)
    excluded: dict[str, int]


class _Header(_Part):
    version: dict[str, str]
    policy: str
    scenario: str
    scenario_hash: str
    seeds: _Seeds
    slots: int = Field(ge=1)
    network: _Network
    excluded_requests: int
    start: str
    totals: dict[str, int] = {}  # of a finished episode


def _checked_log(table: Any) -> EpisodeLog:
    """The log in a Parquet table, safe to hand to the simulator; raises LogError or another DpemError if it is not."""
    metadata = table.schema.metadata or {}
    missing = [name for name in _schema().names if name not in table.schema.names]
    if b"dpem" not in metadata or missing:
        what = f"column {missing[0]!r}" if missing else "header"
        raise LogError(f"no episode log of dpem run: it has no {what}")
    header = _checked_header(metadata[b"dpem"])
    if table.num_rows != header["slots"] or table["slot"].to_pylist() != list(range(header["slots"])):
        raise LogError(f"incomplete: {table.num_rows} of {header['slots']} slots")
    scenario = from_toml(header["scenario"], "scenario in the header")
    arrays = _checked_network(header["network"], scenario)
    columns = table.select(_schema().names).cast(_schema())
    _check_columns(columns, arrays["peers"], scenario.observation.forecast_horizon)
    log = EpisodeLog(header, columns.to_pylist())
    _check_requests(log, arrays["peers"])
    return log


def _checked_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LogError(f"the header is not valid JSON: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise LogError(f"the header has format {found!r}; expected {FORMAT!r}")
    try:
        _Header.model_validate(header)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise LogError(f"header.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return header


def _checked_network(data: dict[str, Any], scenario: Scenario) -> dict[str, NDArray[Any]]:
    """The header's arrays, of the right kind and shape, with no number the simulator could not index or draw with."""
    links = data.get("links")
    size: dict[str | int, int] = {
        "N": len(data["names"]),
        "L": len(links["values"]) if isinstance(links, dict) and isinstance(links.get("values"), list) else 0,
        "D": scenario.demand.peers,
    }
    arrays = {}
    for name, (dtype, axes) in _NETWORK_ARRAYS.items():
        shape = tuple(size.get(axis, axis) for axis in axes)
        packed = data.get(name)
        given = np.zeros(())
        if isinstance(packed, dict) and packed.get("dtype") == dtype:
            with suppress(ValueError):  # a ragged list
                given = np.array(packed.get("values"))
        right_kind = given.dtype.kind == "i" or (given.dtype.kind == "f" and "f" in dtype and np.isfinite(given).all())
        if given.shape != shape or not right_kind or not np.array_equal(given, given.astype(dtype)):
            raise LogError(f"header.network.{name}: expected finite {dtype} of shape {shape}")
        arrays[name] = given.astype(dtype)
    low, high = arrays["links"].T
    nodes = np.arange(size["N"])[:, None]
    hardware = scenario.hardware
    strongest = max(hardware.generation_rate[1], getattr(scenario.network, "relay_generation_rate", None) or 0.0)
    possible = {
        "links": (low >= 0) & (low < high) & (high < size["N"]),
        "emitter": (arrays["emitter"] == low) | (arrays["emitter"] == high),
        "memory": (arrays["memory"] >= hardware.memory[0]) & (arrays["memory"] <= hardware.memory[1]),
        "generation_rate": (arrays["generation_rate"] >= 0) & (arrays["generation_rate"] <= strongest),
        "swap_rate": arrays["swap_rate"] >= 0,
        "coherence_time": arrays["coherence_time"] > 0,
        "length": arrays["length"] >= 0,
        "transmission": (arrays["transmission"] >= 0) & (arrays["transmission"] <= 1),
        "peers": (arrays["peers"] >= -1) & (arrays["peers"] < size["N"]) & (arrays["peers"] != nodes),
        "weights": arrays["weights"] >= 0,
    }
    for name, fine in possible.items():
        if not fine.all():
            raise LogError(f"header.network.{name}: {arrays[name][np.argwhere(~fine)[0][0]]} is out of range")
    return arrays


def _check_columns(table: Any, peers: NDArray[np.int32], horizon: int) -> None:
    """Every slot has one value per node, and no value is missing."""
    import pyarrow.compute as pc

    for name in table.schema.names:
        column = table[name].combine_chunks()
        if name != "forecast" and _has_nulls(column):
            raise LogError(f"column {name!r}: a value is missing")
        if name in ("requests", "deliveries") or column.type.num_fields == 0:
            continue
        expected = peers.size * horizon if name == "forecast" else len(peers)
        for slot, length in enumerate(pc.list_value_length(column).to_pylist()):
            if length not in (expected, None):
                raise LogError(f"column {name!r}, slot {slot}: {length} values; expected {expected}")


def _has_nulls(array: Any) -> bool:
    if array.null_count or not array.type.num_fields:
        return bool(array.null_count)
    parts = array.flatten()
    return any(_has_nulls(part) for part in (parts if isinstance(parts, list) else [parts]))


def _check_requests(log: EpisodeLog, peers: NDArray[np.int32]) -> None:
    """Every request is one the network and the scenario allow."""
    for row in log.rows:
        for request in row["requests"]:
            source, destination = request["source"], request["destination"]
            if (
                not 0 <= source < len(peers)
                or destination < 0
                or destination not in peers[source]
                or request["fidelity"] not in log.scenario.demand.fidelity_classes
                or request["last_slot"] < row["slot"]
            ):
                raise LogError(f"column 'requests', slot {row['slot']}: {request} is impossible in this network")
