"""Request files, traffic matrices and topology files: read, or refused in one line; what is read can be played."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import topohub
from hostile_input import (
    NUMBERS,
    TEXTS,
    THINGS,
    inputs,
    mutated_bytes,
    mutated_number,
    one_of,
    play,
    refused,
    report,
    tried,
)

from dpem_env import scenarios
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import data, traces
from dpem_env.scenarios.schema import ReplayDemand

HEADER = "time,source,destination,fidelity,deadline"
TOKENS = (
    b",", b"\n", b"\r", b'"', b"\0", b"nan", b"inf", b"-1", b"1e308", b"1e-308", b"1_0", b"0x1", b"\xff",
    b"\xef\xbb\xbf",
    "٣".encode(), b"9" * 5000, b",,,,,", b"time", b"0,0,1,0.75,1\n", b'"' + b"x" * 200_000,
)  # fmt: skip


def request_file(rng: np.random.Generator) -> bytes:
    """Good requests of a three-node chain, most of them with a cell or a few bytes spoilt."""
    rows = [[round(float(t), 3), s, d, f, 1.0] for t, s, d, f in zip(
        np.sort(rng.uniform(0.0, 1.0, 8)), *rng.permuted([[0, 1, 2] * 3] * 2, axis=1)[:, :8].tolist(),
        rng.choice([0.75, 0.85, 0.91], 8).tolist(), strict=True) if s != d]  # fmt: skip
    for _ in range(int(rng.integers(3))):
        if rows:
            row = rows[int(rng.integers(len(rows)))]
            place = int(rng.integers(len(row)))
            row[place] = one_of(rng, [*NUMBERS, *TEXTS]) if rng.random() < 0.7 else mutated_number(rng, 1.0)
    content = "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]).encode()
    return mutated_bytes(rng, content, TOKENS) if rng.random() < 0.5 else content


def test_a_mutated_request_file_is_refused_in_one_line_or_played(tmp_path: Path) -> None:
    chain, accepted = scenarios.get("chain3-v0"), []
    for number, rng in enumerate(inputs(300)):
        path = tmp_path / f"{number}.csv"  # networks are remembered by scenario
        path.write_bytes(request_file(rng))
        accepted.append(not refused(tried(play, chain.override(kind="replay", requests_file=str(path)))))
        path.unlink()
    report("request files", accepted)


@pytest.mark.parametrize("place", ["", "none.csv", ".", "/dev/null", "a\0b", "x" * 5000, "\ud800"])
def test_a_request_file_that_is_none_is_refused(place: str) -> None:
    assert refused(tried(traces.read_requests, ReplayDemand.model_construct(requests_file=place), ("a", "b", "c")))


ABILENE = scenarios.get("abilene-trace-v0")


def matrices(rng: np.random.Generator, times: int) -> dict[str, np.ndarray[Any, Any]]:
    """Traffic of the size of Abilene, perhaps with an entry, a type or a shape spoilt."""
    mbps = rng.exponential(1.0, size=(times, 12, 12)).astype(np.float32)
    arrays: dict[str, Any] = {"tm_mbps": mbps, "nodes": np.array([f"n{i}" for i in range(12)])}
    match int(rng.integers(8)):
        case 0:
            mbps = mbps.astype(np.float64)
            value = mutated_number(rng, 1.0)
            mbps[tuple(rng.integers(mbps.shape))] = float(value) if isinstance(value, int | float) else -1.0
            arrays["tm_mbps"] = mbps
        case 1:
            arrays["tm_mbps"] = mbps.astype(one_of(rng, ["i4", "c16", "f2", "?", "S3", "M8[s]", "m8[s]", "f8", ">f4"]))
        case 2:
            arrays["tm_mbps"] = mbps[one_of(rng, [0, slice(0), (slice(None), slice(3)), None, slice(1), slice(3)])]
        case 3:
            arrays["nodes"] = one_of(
                rng, [np.arange(12), np.zeros((12, 1)), np.array("x"), np.array([]), np.array([None] * 12)]
            )
        case 4:
            mbps *= one_of(rng, [0.0, 1e30, 1e-38, -1.0, 1e-3])
    return arrays


def test_mutated_matrices_are_refused_in_one_line_or_played(tmp_path: Path) -> None:
    path, accepted = tmp_path / data.ABILENE, []
    path.parent.mkdir(parents=True)
    for number, rng in enumerate(inputs(150)):
        stream = io.BytesIO()
        save = np.savez_compressed if rng.random() < 0.5 else np.savez
        save(stream, **matrices(rng, int(rng.integers(1, 30))))
        content = stream.getvalue()
        path.write_bytes(mutated_bytes(rng, content) if rng.random() < 0.5 else content)
        traces.read_matrices.cache_clear()
        world = ABILENE.override(summary=str(number), data_dir=tmp_path)  # networks are remembered by scenario
        accepted.append(not refused(tried(play, world)))
    traces.read_matrices.cache_clear()
    report("matrices files", accepted)


JSON_TOKENS = (b"[" * 5000, b"1e999", b"NaN", b"9" * 5000, b"{", b"null", b'"\\ud800"')
CORONET = scenarios.get("coronet100-v0", peers=2)


def node_link(rng: np.random.Generator) -> dict[str, Any]:
    """A ring of towns with a few chords."""
    nodes = [
        {"name": f"town {i}", "lon": float(rng.uniform(5, 10)), "lat": float(rng.uniform(45, 50))} for i in range(8)
    ]
    ends = [*((i, (i + 1) % 8) for i in range(8)), (0, 4), (2, 6)]
    return {"nodes": nodes, "edges": [{"u": u, "v": v, "km": float(rng.uniform(50, 500))} for u, v in ends]}


def spoilt(rng: np.random.Generator, record: Any) -> None:
    """Another value, an entry less or an entry more, at any depth."""
    key = one_of(rng, list(record)) if isinstance(record, dict) else int(rng.integers(len(record)))
    inside = record[key]
    if isinstance(inside, dict | list) and inside and rng.random() < 0.9:
        spoilt(rng, inside)
    elif rng.random() < 0.2:
        del record[key]
    else:
        record[key] = mutated_number(rng, inside) if isinstance(inside, int | float) else one_of(rng, [*THINGS, None])


def test_a_mutated_topology_file_is_refused_in_one_line_or_played(tmp_path: Path) -> None:
    path, accepted = tmp_path / data.SOURCES["coronet"].file, []
    path.parent.mkdir(parents=True)
    for number, rng in enumerate(inputs(300)):
        record = node_link(rng)
        for _ in range(int(rng.integers(3))):
            spoilt(rng, record)
        content = json.dumps(record).encode()
        path.write_bytes(mutated_bytes(rng, content, JSON_TOKENS) if rng.random() < 0.3 else content)
        accepted.append(not refused(tried(play, CORONET.override(summary=str(number), data_dir=tmp_path))))
    report("topology files", accepted)


@pytest.mark.parametrize(
    "name", ["", "x", "topozoo", "topozoo/", "../__init__", "a\0b", "é", "gabriel/25", "x" * 5000, "."]
)
def test_a_topology_that_topohub_has_not_is_refused(name: str) -> None:
    assert refused(tried(lambda: build_topology(scenarios.get("surfnet-v0", topology=name), 0)))


def test_topologies_of_topohub_are_refused_in_one_line_or_played() -> None:
    folder = Path(topohub.__file__).parent / "data"
    names = sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.json"))
    names += ["sndlib/norway", "topozoo/none"] * 50
    worlds = [scenarios.get("surfnet-v0", topology=one_of(rng, names), max_hops=3, peers=2) for rng in inputs(25)]
    report("topohub topologies", [not refused(tried(play, world)) for world in worlds])
