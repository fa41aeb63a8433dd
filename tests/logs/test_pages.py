"""Pages of Parquet files are counted without unpacking them, and nobody is believed who says otherwise."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpem_env import scenarios
from dpem_env.logs.pages import _Reader, held
from support.episode_logs import record_episode


def written(table: pa.Table, **how: Any) -> io.BytesIO:
    stream = io.BytesIO()
    pq.write_table(table, stream, **how)
    stream.seek(0)
    return stream


STRUCT = pa.struct([("a", pa.int64()), ("b", pa.bool_())])
TABLE = pa.table(
    {
        "slot": pa.array(range(6), pa.int32()),
        "lists": pa.array([[1.0] * 5, [], None, [2.0, None], [3.0], []], pa.list_(pa.float64())),
        "structs": pa.array([[{"a": 1, "b": True}] * n for n in range(6)], pa.list_(STRUCT)),
        "bytes": pa.array([b"12345678"] * 6, pa.binary(8)),
    }
)
COUNTS = [6, 11, 16, 16, 6]  # empty and missing lists take a place; structs have two parts


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"data_page_size": 1, "write_batch_size": 1},
        {"row_group_size": 2, "write_statistics": False},
        {"write_page_index": True, "write_page_checksum": True},
    ],
    ids=str,
)
def test_all_values_are_counted_however_a_file_is_written(how: dict[str, Any], compression: str) -> None:
    stream = written(TABLE, compression=compression, **how)
    content = held(stream)
    assert content.values == COUNTS
    assert content.length == len(stream.getvalue())
    metadata = pq.ParquetFile(stream).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(c) for group in groups for c in range(5)]
    assert 0 < content.size < sum(chunk.total_uncompressed_size for chunk in chunks)  # which counts headers, too


def test_a_file_of_no_rows_holds_nothing() -> None:
    assert held(written(TABLE.slice(0, 0))).values == [0] * 5


@pytest.mark.parametrize("how", [{}, {"data_page_version": "2.0"}], ids=str)
def test_a_column_in_runs_counts_in_full(how: dict[str, Any]) -> None:
    ones = pa.table({"x": pa.array([np.zeros(1_000_000, np.int8)] * 3, pa.list_(pa.int8()))})
    stream = written(ones, **how)
    assert len(stream.getvalue()) < 10_000
    assert held(stream).values == [3_000_000]


@pytest.mark.parametrize(
    ("column", "encoding"),
    [(pa.array(range(100), pa.int64()), "DELTA_BINARY_PACKED"), (pa.array(np.arange(100.0)), "BYTE_STREAM_SPLIT")],
)
def test_encodings_that_logs_do_not_use_are_refused(column: Any, encoding: str) -> None:
    stream = written(pa.table({"x": column}), use_dictionary=False, column_encoding={"x": encoding})
    with pytest.raises(ValueError, match="encoded in a way that logs do not use"):
        held(stream)


def varint(number: int, length: int | None = None) -> bytes:
    """A number folded and written in as few bytes as it takes, or in so many."""
    folded, written = number << 1 ^ number >> 63, []
    while folded or not written or (length is not None and len(written) < length):
        written.append(folded & 127 | 128)
        folded >>= 7
    return bytes([*written[:-1], written[-1] & 127])


def lying(stream: io.BytesIO, count: int, claimed: int) -> io.BytesIO:
    """The file whose summary says `claimed` wherever it says `count`; pages are left as they are."""
    content = stream.getvalue()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    said = varint(count)
    assert said in content[start:]
    return io.BytesIO(content[:start] + content[start:].replace(said, varint(claimed, len(said))))


def test_a_summary_that_says_less_than_the_pages_is_not_believed() -> None:
    stream = written(pa.table({"x": pa.array([np.zeros(1_234_567, np.int8)], pa.list_(pa.int8()))}))
    liar = lying(stream, 1_234_567, 3)
    assert pq.ParquetFile(liar).metadata.row_group(0).column(0).num_values == 3
    assert len(pq.ParquetFile(liar).read()["x"][0]) == 1_234_567  # what a reader that believes it unpacks
    with pytest.raises(ValueError, match="its pages hold 1,234,567 values of a column that has 3"):
        held(liar)


FLIPPED = """
import random, sys
from dpem_env.support.errors import LogError
from dpem_env.logs.recorder import read_log

whole, path, dice, refused = open(sys.argv[1], "rb").read(), sys.argv[2], random.Random(0), 0
summary = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for trial in range(400):
    damaged = bytearray(whole)
    place = dice.randrange(summary, len(whole)) if trial % 2 else dice.randrange(len(whole))
    damaged[place] ^= 1 << dice.randrange(8)
    with open(path, "wb") as stream:
        stream.write(damaged)
    try:
        read_log(path)
    except LogError as error:
        refused += 1
        assert len(str(error).splitlines()) == 1
print(refused)
"""


def test_no_flipped_bit_of_a_log_ends_the_process(tmp_path: Path) -> None:
    record_episode(tmp_path / "whole.parquet", scenarios.get("chain3-v0", slots=4, request_rate=8.0))
    table = pq.read_table(tmp_path / "whole.parquet")
    pq.write_table(table, tmp_path / "pages.parquet", data_page_size=1, write_batch_size=1, write_page_index=True)
    command = [sys.executable, "-c", FLIPPED, str(tmp_path / "pages.parquet"), str(tmp_path / "damaged.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 100 < int(done.stdout) < 400


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x15\x04\x15\x06\x00", {1: 2, 2: 3, 3: None}),
        (b"\x05\x04\x05\x00", {1: None, 2: -3, 3: None}),  # a field's number in full
        (b"\x11\x12\x15\x02\x00", {1: None, 2: None, 3: 1}),  # true and false
        (b"\x1c\x15\x02\x00\x15\x02\x00", {1: {1: 1}, 2: 1, 3: None}),
        (b"\x18\x03abc\x15\x02\x00", {1: None, 2: 1, 3: None}),
        (b"\x19\x35\x02\x04\x06\x15\x02\x00", {1: [1, 2, 3], 2: 1, 3: None}),
        (b"\x19\x2c\x15\x02\x00\x00\x15\x02\x00", {1: [{1: 1}, {1: None}], 2: 1, 3: None}),
        (b"\x17" + bytes(8) + b"\x13\x05\x00", {1: None, 2: 5, 3: None}),
        (b"\x95\x02\x00", {1: None, 2: None, 3: None}),  # a field that nobody needs
    ],
)  # fmt: skip
def test_the_compact_protocol_is_read_as_it_is_specified(content: bytes, expected: dict[int, Any]) -> None:
    reader = _Reader(content)
    assert reader.struct({1: {1: None}, 2: None, 3: None}) == expected
    assert reader.at == len(content)


@pytest.mark.parametrize(
    "content",
    [
        b"\x15\x04\x05\x02\x06\x00",  # field 1 twice
        b"\x15\x80\x80\x80\x80\x80\x01\x00",  # a number beyond 32 bits, of which some keep the last
        b"\x05\x80\x80\x08\x02\x00",  # a field of a number beyond 16 bits
        b"\x1d\x00",
        b"\x1b\x00\x00",
        b"\x19\xf3\xff\xff\xff\x07",
    ],
)  # fmt: skip
def test_what_others_may_understand_otherwise_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="a struct"):
        _Reader(content).struct({})


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_no_content_does_anything_but_end(content: bytes) -> None:
    with suppress(ValueError, IndexError, RecursionError):
        _Reader(content).struct({1: {1: None}, 2: None})
    with suppress(ValueError):
        held(io.BytesIO(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"))
