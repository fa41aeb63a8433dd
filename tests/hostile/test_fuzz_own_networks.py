"""Network files and demand matrices of one's own: read, or refused in one line; what is read can be played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hostile_input import (
    NUMBERS,
    TEXTS,
    inputs,
    mutated_bytes,
    mutated_number,
    one_of,
    play,
    refused,
    report,
    spoil,
    tried,
)

from dpem_env import scenarios
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import FileNetwork

SMALL = scenarios.get("mesh20-v0", peers=2, max_hops=3)
CSV_TOKENS = (
    b",", b";", b"\t", b"\n", b"\r", b'"', b"\0", b"nan", b"inf", b"-1", b"1e308", b"1_0", b"\xff", b"\xef\xbb\xbf",
    "٣".encode(), b"9" * 5000, b",,,,,", b"name", b"lenght", b'"' + b"x" * 200_000, "\u2028".encode(), b"town 0",
)  # fmt: skip
JSON_TOKENS = (b"[" * 5000, b"1e999", b"NaN", b"9" * 5000, b"{", b"null", b'"\\ud800"', b"qchannels", b"edges")
XML_TOKENS = (b"<", b">", b"</", b"<node", b"<!ENTITY a 'b'>", b"&a;", b"&#0;", b"nan", b'"', b"<graph>", b"double")
NAMES = [f"town {i}" for i in range(6)]


def graph(rng: np.random.Generator) -> nx.Graph:
    """A ring of towns with a chord, some with hardware of their own."""
    made = nx.Graph()
    for i, name in enumerate(NAMES):
        own = {"generation_rate": float(rng.uniform(0, 10)), "memory": int(rng.integers(4, 16))}
        made.add_node(i, label=name, lat=float(rng.uniform(45, 46)), lon=float(rng.uniform(7, 8)), **own)
    for u, v in [*((i, (i + 1) % 6) for i in range(6)), (0, 3)]:
        made.add_edge(u, v, **({"length": float(rng.uniform(1, 30))} if rng.random() < 0.5 else {}))
    return made


def played(fields: dict[str, Any], number: int) -> bool:
    world = scenarios.get(SMALL, generator="file", **fields, name=f"number {number}")
    return not refused(tried(play, world))


def spoilt_table(rng: np.random.Generator, rows: list[list[Any]]) -> bytes:
    """Good rows, most of them with a cell or a few bytes spoilt."""
    for _ in range(int(rng.integers(3))):
        row = rows[int(rng.integers(len(rows)))]
        place = int(rng.integers(len(row)))
        row[place] = one_of(rng, [*NUMBERS, *TEXTS]) if rng.random() < 0.7 else mutated_number(rng, 1.0)
    content = "\n".join(",".join(map(str, row)) for row in rows).encode(errors="replace")
    return mutated_bytes(rng, content, CSV_TOKENS) if rng.random() < 0.4 else content


def test_mutated_tables_are_refused_in_one_line_or_played(tmp_path: Path) -> None:
    nodes, links, accepted = tmp_path / "nodes.csv", tmp_path / "links.csv", []
    for number, rng in enumerate(inputs(200)):
        made = graph(rng)
        of_nodes = [[data["label"], data["lat"], data["lon"], data["memory"]] for _, data in made.nodes(data=True)]
        of_links = [[NAMES[u], NAMES[v], data.get("length", "")] for u, v, data in made.edges(data=True)]
        nodes.write_bytes(spoilt_table(rng, [["name", "lat", "lon", "memory"], *of_nodes]))
        links.write_bytes(spoilt_table(rng, [["source", "target", "length"], *of_links]))
        fields = {"links_file": str(links)} | ({"nodes_file": str(nodes)} if rng.random() < 0.8 else {})
        accepted.append(played(fields, number))
    report("tables of networks", accepted)


def test_mutated_graphml_is_refused_in_one_line_or_played(tmp_path: Path) -> None:
    path, accepted = tmp_path / "network.graphml", []
    for number, rng in enumerate(inputs(200)):
        content = "\n".join(nx.generate_graphml(graph(rng))).encode()
        path.write_bytes(mutated_bytes(rng, content, XML_TOKENS) if rng.random() < 0.8 else content)
        accepted.append(played({"file": str(path)}, number))
    report("GraphML files", accepted)


def record_of(rng: np.random.Generator) -> dict[str, Any]:
    """Node-link, or SeQUeNCe's."""
    made = graph(rng)
    if rng.random() < 0.5:
        return {
            "nodes": [{"id": key, **data} for key, data in made.nodes(data=True)],
            "edges": [{"source": u, "target": v, **data} for u, v, data in made.edges(data=True)],
        }
    ends = list(made.edges)
    return {
        "templates": {"good": {"MemoryArray": {"coherence_time": 2}}},
        "nodes": [{"name": name, "type": "QuantumRouter", "memo_size": 8, "template": "good"} for name in NAMES]
        + [{"name": "mid", "type": "BSMNode"}],
        "qconnections": [
            {"node1": NAMES[u], "node2": NAMES[v], "distance": 9000, "attenuation": 2e-4} for u, v in ends[1:]
        ],
        "qchannels": [
            {"source": NAMES[end], "destination": "mid", "distance": 4000.0, "attenuation": 2e-4} for end in ends[0]
        ],
    }


def test_mutated_json_is_refused_in_one_line_or_played(tmp_path: Path) -> None:
    path, accepted = tmp_path / "network.json", []
    for number, rng in enumerate(inputs(300)):
        record = record_of(rng)
        for _ in range(int(rng.integers(3))):
            if record:
                spoil(rng, record)
        try:
            content = json.dumps(record).encode()
        except (TypeError, ValueError):
            continue
        path.write_bytes(mutated_bytes(rng, content, JSON_TOKENS) if rng.random() < 0.3 else content)
        accepted.append(played({"file": str(path)}, number))
    report("JSON files of networks", accepted)


def test_a_mutated_demand_matrix_is_refused_in_one_line_or_played(tmp_path: Path) -> None:
    path, accepted = tmp_path / "demand.csv", []
    for number, rng in enumerate(inputs(200)):
        weights = np.round(rng.exponential(1.0, size=(20, 20)), 3).tolist()
        rows = [["", *range(20)], *([f"node {i}", *row] for i, row in enumerate(weights))]
        path.write_bytes(spoilt_table(rng, rows))
        world = scenarios.get(SMALL, demand_matrix=str(path), name=f"number {number}")
        accepted.append(not refused(tried(play, world)))
    report("demand matrices", accepted)


@pytest.mark.parametrize("field", ["file", "links_file", "demand_matrix"])
@pytest.mark.parametrize("place", ["none.csv", "none.json", ".", "/dev/null", "/dev/zero", "a\0b", "x" * 999, "\ud800"])
def test_a_file_that_is_none_is_refused(field: str, place: str) -> None:
    kind = {} if field == "demand_matrix" else {"generator": "file"}

    def build() -> Scenario:
        world = scenarios.get(SMALL, **kind, **{field: place}, name="none")
        build_topology(world, 0)
        play(world)
        return world

    assert refused(tried(build))


def test_a_network_of_files_has_one_of_two_spellings() -> None:
    assert FileNetwork(file="a.json").links_file is None
    assert FileNetwork(links_file="a.csv").file is None
