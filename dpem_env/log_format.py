"""What an episode log holds: columns, header and arrays, and the check that a file holds them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpem_env.errors import LogError
from dpem_env.scenarios import Scenario, from_toml

FORMAT = "dpem-episode-1"

# What the header holds of a network: dtype and axes (N nodes, L links, D peer places per node)
TOPOLOGY_ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
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
NETWORK_ARRAYS = TOPOLOGY_ARRAYS | {"peers": ("<i4", ("N", "D")), "weights": ("<f8", ("N", "D"))}


def schema() -> Any:
    """Arrow schema of the rows."""
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


def checked(table: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and rows of a Parquet table, safe to hand to the simulator; raises a DpemError if they are not."""
    metadata = table.schema.metadata or {}
    for name in schema().names:
        if (columns := table.schema.names.count(name)) != 1:
            raise LogError(f"no episode log of dpem run: it has {columns or 'no'} column{'s' * (columns > 1)} {name!r}")
    if b"dpem" not in metadata:
        raise LogError("no episode log of dpem run: it has no header")
    header = _checked_header(metadata[b"dpem"])
    if table.num_rows != header["slots"] or table["slot"].to_pylist() != list(range(header["slots"])):
        raise LogError(f"incomplete: {table.num_rows} of {header['slots']} slots")
    scenario = from_toml(header["scenario"], "scenario in the header")
    peers = _checked_network(header["network"], scenario)["peers"]
    columns = table.select(schema().names).cast(schema())
    _check_columns(columns, peers, scenario.observation.forecast_horizon)
    rows = columns.to_pylist()
    _check_requests(rows, peers, scenario.demand.fidelity_classes)
    return header, rows


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
    for name, (dtype, axes) in NETWORK_ARRAYS.items():
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
    possible = {
        "links": (low >= 0) & (low < high) & (high < size["N"]),
        "emitter": (arrays["emitter"] == low) | (arrays["emitter"] == high),
        "memory": (arrays["memory"] >= hardware.memory[0]) & (arrays["memory"] <= hardware.memory[1]),
        "generation_rate": (arrays["generation_rate"] >= 0)
        & (arrays["generation_rate"] <= scenario.largest_generation_rate),
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


def _check_requests(rows: list[dict[str, Any]], peers: NDArray[np.int32], classes: tuple[float, ...]) -> None:
    """Every request is one the network and the scenario allow."""
    for row in rows:
        for request in row["requests"]:
            source, destination = request["source"], request["destination"]
            if (
                not 0 <= source < len(peers)
                or destination < 0
                or destination not in peers[source]
                or request["fidelity"] not in classes
                or request["last_slot"] < row["slot"]
            ):
                raise LogError(f"column 'requests', slot {row['slot']}: {request} is impossible in this network")
