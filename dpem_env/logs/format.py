"""What an episode log holds: columns, header and arrays, and the check that a file holds them and no more."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dpem_env.logs.pages import PARTS, Held, held
from dpem_env.scenarios import Scenario, from_toml
from dpem_env.scenarios.schema import MAX_SLOTS, Natural
from dpem_env.simulator import require_rules
from dpem_env.support.files import Part, checked, json_object
from dpem_env.support.provenance import UNKNOWN

FORMAT = "dpem-log-4"
HEADER, DIGEST = b"dpem", b"dpem-digest"  # where they stand in the file's metadata
FINGERPRINTS = ("state", "check")
OPTIONAL = ("condition", "fallback", "forecast")  # columns that are null in slots without any

# Values and requests that any log may hold; a larger one must take a byte for so many of them, whatever it says of
# itself. Runs of one value take no place in a file, and gigabytes in memory.
ROOM, PER_BYTE = 2**26, 16
ROOM_OF_REQUESTS, REQUESTS_PER_BYTE = 2**18, 1

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
    "link_fidelity": ("<f8", ("L",)),
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
            ("condition", pa.list_(pa.int64())),
            ("fallback", pa.list_(pa.int64())),
            ("forecast", pa.list_(pa.float32())),
            ("verdict", pa.list_(pa.int8())),
            ("deliveries", pa.list_(delivery)),
            ("expired", pa.int32()),
            ("delivered", pa.list_(pa.int32())),
            ("contended", pa.list_(pa.int32())),
            ("reward", pa.list_(pa.float64())),
            ("state", pa.binary(8)),
            ("check", pa.binary(8)),
        ]
    )


class _Seeds(Part):
    topology: Natural
    demand: Natural


class _Network(Part):
    names: list[str] = Field(min_length=2)
    excluded: dict[str, int]


class _Header(Part):
    version: dict[str, str]
    stamp: str = UNKNOWN
    policy: str
    scenario: str
    scenario_hash: str
    seeds: _Seeds
    slots: int = Field(ge=1, le=MAX_SLOTS)
    network: _Network
    excluded_requests: int
    start: str
    totals: dict[str, int] = {}  # noqa: RUF012 - of a finished episode


class Rows(Sequence[dict[str, Any]]):
    """The rows of a log, made when they are asked for: all at once they take ten times the memory."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        [row] = self.table.slice(range(len(self))[place], 1).to_pylist()
        return _readable(row)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in self.table.to_batches(max_chunksize=16):
            yield from map(_readable, part.to_pylist())


class Content(NamedTuple):
    """What was read from a file."""

    header: dict[str, Any]
    table: Any  # pyarrow's, of `schema`
    digest: str
    recorded_digest: str


def unpacked(stream: IO[bytes]) -> Content:
    """A log's content, safe to hand to the simulator; to be called inside `dpem_env.support.files.reading`."""
    import pyarrow.parquet as pq

    content = held(stream)
    file = pq.ParquetFile(stream, thrift_container_size_limit=PARTS)
    metadata = file.schema_arrow.metadata or {}
    if HEADER not in metadata:
        raise ValueError("it has no header, so it is no episode log of dpem run")
    header = _checked_header(metadata[HEADER])
    _check_schema(file.schema_arrow)
    if file.metadata.num_rows != header["slots"]:
        raise ValueError(f"it is incomplete: {file.metadata.num_rows} of {header['slots']} slots")
    scenario = from_toml(header["scenario"], "scenario in the header")
    peers = _checked_network(header["network"], scenario)["peers"]
    sizes = _lengths(peers, scenario)
    _check_sizes(content, leaves_of(file.schema_arrow), header["slots"], sizes)
    table = file.read().select(schema().names).replace_schema_metadata(None).cast(schema()).combine_chunks()
    _check_columns(table, header["slots"], sizes)
    _check_requests(table["requests"].combine_chunks(), peers, scenario.demand.fidelity_classes)
    digest = digest_of(metadata[HEADER], table)
    return Content(header, table, digest, metadata[DIGEST].decode("ascii", "replace"))


def digest_of(header: bytes, table: Any) -> str:
    """SHA-256 of a log's content, header and columns, however a file encodes them."""
    digest = hashlib.sha256(header)
    for name in schema().names:
        for part in _leaves(table[name].combine_chunks()):
            digest.update(part)
    return digest.hexdigest()


def has_room(content: Held, columns: Sequence[str]) -> bool:
    """Whether a file holds no more than one of its length may; `columns` as `leaves_of` gives them."""
    room = max(ROOM, PER_BYTE * content.length)
    requests = max(_values_of("requests", content, columns), _values_of("deliveries", content, columns))
    return (
        sum(content.values) <= room
        and content.size <= 8 * room
        and requests <= max(ROOM_OF_REQUESTS, REQUESTS_PER_BYTE * content.length)
    )


def leaves_of(given: Any) -> list[str]:
    """The column that each column without parts belongs to, in the order of an Arrow schema."""

    def count(kind: Any) -> int:
        return sum(count(kind.field(part).type) for part in range(kind.num_fields)) or 1

    return [field.name for field in given for _ in range(count(field.type))]


def _values_of(column: str, content: Held, columns: Sequence[str]) -> int:
    return max(count for name, count in zip(columns, content.values, strict=True) if name == column)


def places_of(peers: NDArray[np.int32], source: NDArray[Any], destination: NDArray[Any]) -> NDArray[np.int64]:
    """(R,) place of each destination among its source's peers, -1 where it is none of them."""
    nodes, places = peers.shape
    pairs = (peers.astype(np.int64) + nodes * np.arange(nodes)[:, None]).ravel()
    order = np.flatnonzero(peers.ravel() >= 0)
    order = order[np.argsort(pairs[order], kind="stable")]
    if len(order) == 0:
        return np.full(len(source), -1)
    wanted = source.astype(np.int64) * nodes + destination
    found = np.minimum(np.searchsorted(pairs[order], wanted), len(order) - 1)
    return np.where(pairs[order[found]] == wanted, order[found] % places, -1)


def table_of(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a table."""
    import pyarrow as pa

    packed = [row | {name: bytes.fromhex(row[name]) for name in FINGERPRINTS} for row in rows]
    return pa.Table.from_pylist(packed, schema=schema())


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: row[name].hex() for name in FINGERPRINTS}


def _leaves(array: Any) -> Iterator[bytes]:
    """The bytes that an Arrow array consists of, whatever its chunks, offsets and what lies under missing values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    yield f"{len(array)}".encode()
    yield np.packbits(pc.is_valid(array).to_numpy(zero_copy_only=False)).tobytes()
    if pa.types.is_list(array.type):
        yield pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype("<i4").tobytes()
        yield from _leaves(array.flatten())
    elif pa.types.is_struct(array.type):
        yield from itertools.chain.from_iterable(map(_leaves, array.flatten()))
    elif pa.types.is_fixed_size_binary(array.type):
        yield b"".join(array.drop_null().to_pylist())
    else:
        values = array.drop_null().to_numpy(zero_copy_only=False)
        yield values.astype(values.dtype.newbyteorder("<")).tobytes()


def _checked_header(text: bytes) -> dict[str, Any]:
    header = json_object(text.decode("utf-8"))
    if header.get("format") != FORMAT:
        raise ValueError(f"the header has format {header.get('format')!r}; expected {FORMAT!r}")
    checked(_Header, header, "header")
    require_rules(header["version"].get("rules", "unknown"), "record the episode again with dpem run")
    return header


def _check_schema(given: Any) -> None:
    """The columns are those of a log, of the same types."""
    for name, kind in zip(schema().names, schema().types, strict=True):
        if (columns := given.names.count(name)) != 1:
            raise ValueError(f"it has {columns or 'no'} column{'s' * (columns > 1)} {name!r}")
        if given.field(name).type != kind:
            raise ValueError(f"column {name!r} is of type {given.field(name).type}; expected {kind}")
    if more := set(given.names) - set(schema().names):
        raise ValueError(f"it has a column {min(more)!r}, which does not belong there")


def _lengths(peers: NDArray[np.int32], scenario: Scenario) -> dict[str, int]:
    """How many values a slot has in the columns of lists of numbers."""
    import pyarrow as pa

    lists = [field for field in schema() if pa.types.is_list(field.type) and not field.type.value_type.num_fields]
    longer = {
        "forecast": peers.size * scenario.observation.forecast_horizon,
        "fallback": len(peers) * (scenario.routing.routes_per_peer - 1),
    }
    return {field.name: longer.get(field.name, len(peers)) for field in lists}


def _check_sizes(content: Held, columns: Sequence[str], slots: int, lengths: dict[str, int]) -> None:
    """What the pages hold is what a log of this network holds; nothing is unpacked yet."""
    for name, length in lengths.items():
        count, expected = _values_of(name, content, columns), slots * length
        if count != expected and not (name in OPTIONAL and count <= max(expected, slots)):
            raise ValueError(f"column {name!r}: {count:,} values; expected {expected:,}")
    if not has_room(content, columns):
        raise ValueError(f"it unpacks to {sum(content.values):,} values, too many for a file of its size")


def _fit(values: object, shape: tuple[int, ...]) -> bool:
    """Whether these are numbers in lists of this shape."""
    if not shape:
        return type(values) in (int, float)
    return isinstance(values, list) and len(values) == shape[0] and all(_fit(each, shape[1:]) for each in values)


def _checked_network(data: dict[str, Any], scenario: Scenario) -> dict[str, NDArray[Any]]:
    """The header's arrays, of the right kind and shape, with no number the simulator could not index or draw with."""
    links = data.get("links")
    size = {
        "N": len(data["names"]),
        "L": len(links["values"]) if isinstance(links, dict) and isinstance(links.get("values"), list) else 0,
        "D": scenario.demand.peers,
    }
    arrays = {}
    for name, (dtype, axes) in NETWORK_ARRAYS.items():
        shape = tuple(size[axis] if isinstance(axis, str) else axis for axis in axes)
        packed = data.get(name)
        fits = isinstance(packed, dict) and packed.get("dtype") == dtype and _fit(packed.get("values"), shape)
        given = np.array(packed["values"] if fits and isinstance(packed, dict) else 0)
        right_kind = given.dtype.kind == "i" or (given.dtype.kind == "f" and "f" in dtype)
        if given.shape != shape or not right_kind or not np.array_equal(given, given.astype(dtype)):
            raise ValueError(f"header.network.{name}: expected finite {dtype} of shape {shape}")
        arrays[name] = given.astype(dtype)
    low, high = arrays["links"].T
    nodes = np.arange(size["N"])[:, None]
    hardware = scenario.hardware
    possible = {
        "links": (low >= 0) & (low < high) & (high < size["N"]),
        "emitter": (arrays["emitter"] == low) | (arrays["emitter"] == high),
        "memory": (arrays["memory"] >= 1) & (arrays["memory"] <= hardware.memory[1]),
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
            raise ValueError(f"header.network.{name}: {arrays[name][np.argwhere(~fine)[0][0]]} is out of range")
    return arrays


def _check_columns(table: Any, slots: int, lengths: dict[str, int]) -> None:
    """Slots are in order, every slot has one value per node, and no value is missing."""
    import pyarrow.compute as pc

    for name in table.schema.names:
        column = table[name].combine_chunks()
        if _has_nulls(column.flatten() if name in OPTIONAL else column):
            raise ValueError(f"column {name!r}: a value is missing")
        if name in lengths:
            for slot, length in enumerate(pc.list_value_length(column).to_pylist()):
                if length not in (lengths[name], None):
                    raise ValueError(f"column {name!r}, slot {slot}: {length} values; expected {lengths[name]}")
    if not np.array_equal(table["slot"].to_numpy(), np.arange(slots)):
        raise ValueError(f"it is incomplete: its {table.num_rows} rows are not slots 0 to {slots - 1}")


def _has_nulls(array: Any) -> bool:
    if array.null_count or not array.type.num_fields:
        return bool(array.null_count)
    parts = array.flatten()
    return any(_has_nulls(part) for part in (parts if isinstance(parts, list) else [parts]))


def _check_requests(column: Any, peers: NDArray[np.int32], classes: tuple[float, ...]) -> None:
    """Every request is one the network and the scenario allow."""
    slot, request = requests_of(column)
    inside = (request["source"] >= 0) & (request["source"] < len(peers)) & (request["destination"] >= 0)
    source = np.where(inside, request["source"], 0)
    possible = (
        inside
        & (places_of(peers, source, request["destination"]) >= 0)
        & np.isin(request["fidelity"], classes)
        & (request["last_slot"] >= slot)
    )
    if not possible.all():
        first = int(np.flatnonzero(~possible)[0])
        shown = {name: values[first].item() for name, values in request.items()}
        raise ValueError(f"column 'requests', slot {slot[first]}: {shown} is impossible in this network")


def requests_of(column: Any) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """(R,) slot and fields of the requests in a column."""
    import pyarrow.compute as pc

    slot = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy())
    entries = column.flatten()
    fields = zip((field.name for field in entries.type), entries.flatten(), strict=True)
    return slot, {name: values.to_numpy() for name, values in fields}
