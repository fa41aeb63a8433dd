"""Topologies: generators, importers, hardware, emitters, and what cannot be imported."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import topohub
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.network import topology
from dpem_env.network.layout import EARTH_RADIUS, Layout
from dpem_env.network.topology import (
    PIXEL_TOPOLOGIES,
    Topology,
    assemble,
    build_topology,
    topohub_names,
)
from dpem_env.scenarios import Scenario, schema
from dpem_env.scenarios.schema import ChainNetwork, CoronetNetwork, Hardware, MeshNetwork, StarNetwork, TopohubNetwork
from dpem_env.support.errors import DataError, DpemError, ScenarioError
from dpem_env.support.files import write_json

seeds = st.integers(0, 2**32)
WriteCoronet = Callable[[dict[str, Any] | str], Path]


def coronet_like(edges: list[tuple[int, int, float]], nodes: int = 4) -> dict[str, Any]:
    return {
        "nodes": [{"id": i, "name": f"city {i}", "lat": 50.0 + i, "lon": 8.0} for i in range(nodes)],
        "edges": [{"u": u, "v": v, "km": km} for u, v, km in edges],
    }


@pytest.fixture
def write_coronet(tmp_path: Path) -> WriteCoronet:
    def write(record: dict[str, Any] | str) -> Path:
        file = tmp_path / "coronet" / "flat_CORONET_Global_Topology.json"
        file.parent.mkdir()
        file.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
        return tmp_path

    return write


def coronet(scale: float = 1.0) -> Scenario:
    return Scenario(name="cities", network=CoronetNetwork(length_scale=scale))


def mesh(nodes: int, links_per_node: float = 2.5) -> Scenario:
    return Scenario(name="mesh", network=MeshNetwork(nodes=nodes, links_per_node=links_per_node))


def graph_of(built: Topology) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(built.num_nodes))
    graph.add_edges_from(built.links.tolist())
    return graph


def pairs_by_length(position: NDArray[np.float64]) -> list[tuple[int, int]]:
    points = position.tolist()
    pairs = [(i, j) for i in range(len(points)) for j in range(i + 1, len(points))]
    return sorted(pairs, key=lambda pair: math.dist(points[pair[0]], points[pair[1]]))


def message_of(error: pytest.ExceptionInfo[DpemError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@given(seeds, st.integers(2, 30), st.sampled_from([0.4, 1.0, 2.5]))
@settings(max_examples=40, deadline=None)
def test_a_mesh_has_the_shortest_pairs_as_links_and_joins_the_component_of_node_0(
    seed: int, nodes: int, links_per_node: float
) -> None:
    built = build_topology(mesh(nodes, links_per_node), seed)
    by_length = pairs_by_length(built.position)
    expected = nx.Graph()
    expected.add_nodes_from(range(nodes))
    expected.add_edges_from(by_length[: round(links_per_node * nodes)])
    while len(reached := nx.node_connected_component(expected, 0)) < nodes:
        expected.add_edge(*next(pair for pair in by_length if len(reached.intersection(pair)) == 1))
    assert {(u, v) for u, v in built.links.tolist()} == {(min(edge), max(edge)) for edge in expected.edges}


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_mesh100_is_connected_and_contains_the_250_shortest_pairs(seed: int) -> None:
    built = build_topology(scenarios.get("mesh100-v0"), seed)
    links = [tuple(link) for link in built.links.tolist()]
    assert set(pairs_by_length(built.position)[:250]) <= set(links)
    assert len(set(links)) == len(links)
    assert nx.is_connected(graph_of(built))
    kept = graph_of(built).edge_subgraph(pairs_by_length(built.position)[:250]).copy()
    kept.add_nodes_from(range(100))
    assert built.num_links == 250 + nx.number_connected_components(kept) - 1


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_mesh_links_run_straight_within_the_square(seed: int) -> None:
    built = build_topology(scenarios.get("mesh100-v0"), seed)
    assert built.position.min() >= 0.0
    assert built.position.max() <= 100.0
    u, v = built.links.T
    np.testing.assert_allclose(built.length, built.distances()[u, v], rtol=1e-12)
    np.testing.assert_allclose(built.transmission, 10.0 ** (-0.02 * built.length), rtol=1e-12)


def test_the_hardware_of_mesh100_fills_its_ranges_uniformly() -> None:
    built = [build_topology(scenarios.get("mesh100-v0"), seed) for seed in range(20)]
    for name, low, high in (("generation_rate", 0.0, 10.0), ("swap_rate", 0.0, 5.0)):
        drawn = np.concatenate([getattr(one, name) for one in built])
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high >= drawn.max() > high - 0.05 * (high - low)
        error = (high - low) / math.sqrt(12.0 * len(drawn))
        assert abs(drawn.mean() - (low + high) / 2.0) < 5.0 * error
    memory, counts = np.unique(np.concatenate([one.memory for one in built]), return_counts=True)
    assert memory.tolist() == list(range(8, 17))
    assert np.all(np.abs(counts - 2000 / 9) < 5.0 * math.sqrt(2000 / 9))
    assert {*np.concatenate([one.coherence_time for one in built]).tolist()} == {60.0}


def test_popularity_is_lognormal_with_its_sigma() -> None:
    logs = np.log([build_topology(scenarios.get("mesh100-v0"), seed).popularity for seed in range(20)]).ravel()
    assert abs(logs.mean()) < 5.0 * 0.5 / math.sqrt(len(logs))
    assert abs(logs.std() - 0.5) < 5.0 * 0.5 / math.sqrt(2.0 * len(logs))


def test_popularity_is_equal_without_spread() -> None:
    built = build_topology(scenarios.get("mesh20-v0", popularity_sigma=0.0), 0)
    assert built.popularity.tolist() == [1.0] * 20


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_the_emitter_of_a_link_is_its_end_with_the_larger_generation_rate(seed: int) -> None:
    built = build_topology(scenarios.get("mesh20-v0"), seed)
    for (u, v), emitter in zip(built.links.tolist(), built.emitter.tolist(), strict=True):
        assert emitter in (u, v)
        assert built.generation_rate[emitter] == max(built.generation_rate[u], built.generation_rate[v])


@pytest.mark.parametrize(("node_key", "emitters"), [([0, 1, 2], [0, 1]), ([2, 1, 0], [1, 2]), ([1, 0, 2], [1, 1])])
def test_between_ends_of_equal_rate_the_smaller_node_key_emits(node_key: list[int], emitters: list[int]) -> None:
    layout = Layout(("a", "b", "c"), np.zeros((3, 2)), np.array([[0, 1], [1, 2]], dtype=np.int32), np.ones(2))
    built = assemble(
        layout,
        popularity=np.ones(3),
        generation_rate=np.full(3, 4.0),
        swap_rate=np.ones(3),
        memory=np.full(3, 4, dtype=np.int32),
        coherence_time=np.full(3, 60.0),
        node_key=np.array(node_key),
        link_key=np.arange(2),
        hardware=Hardware(),
    )
    assert built.emitter.tolist() == emitters


def test_equal_ends_take_turns_as_emitters_over_topology_seeds() -> None:
    scenario = Scenario(
        name="pair", network=ChainNetwork(nodes=2), hardware=schema.Hardware(generation_rate=(4.0, 4.0))
    )
    emitters = [build_topology(scenario, seed).emitter[0] for seed in range(200)]
    assert abs(sum(emitters) - 100) < 5.0 * math.sqrt(50)


@pytest.mark.parametrize("name", ["chain3-v0", "star8-v0", "mesh20-v0", "mesh100-v0", "surfnet-v0", "abilene-trace-v0"])
def test_a_topology_is_deterministic_in_its_seed_and_differs_between_seeds(name: str) -> None:
    one, same, other = (build_topology(scenarios.get(name), seed) for seed in (7, 7, 8))
    for field, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(same, field))
    assert not np.array_equal(one.popularity, other.popularity)
    assert not np.array_equal(one.link_key, other.link_key)


def test_demand_does_not_change_the_topology() -> None:
    one = build_topology(scenarios.get("mesh20-v0"), 3)
    other = build_topology(scenarios.get("mesh20-v0", request_rate=99.0, peers=2, popularity_sigma=0.1), 3)
    for field in ("position", "generation_rate", "swap_rate", "memory", "links", "emitter", "link_key"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_the_arrays_of_a_topology_are_read_only() -> None:
    built = build_topology(scenarios.get("mesh20-v0"), 0)
    arrays = [value for value in vars(built).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 12
    assert not any(array.flags.writeable for array in arrays)


def test_a_chain_is_a_line_whose_interior_nodes_have_their_own_hardware() -> None:
    network = ChainNetwork(nodes=4, spacing=5.0, relay_generation_rate=8.0, relay_swap_rate=3.0)
    built = build_topology(Scenario(name="chain", network=network, hardware=_equal_hardware()), 0)
    assert built.links.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert built.length.tolist() == [5.0] * 3
    assert built.generation_rate.tolist() == [4.0, 8.0, 8.0, 4.0]
    assert built.swap_rate.tolist() == [2.0, 3.0, 3.0, 2.0]
    assert built.distances()[0].tolist() == [0.0, 5.0, 10.0, 15.0]


def test_a_chain_of_two_nodes_has_no_relay() -> None:
    network = ChainNetwork(nodes=2, relay_generation_rate=8.0)
    built = build_topology(Scenario(name="pair", network=network, hardware=_equal_hardware()), 0)
    assert built.generation_rate.tolist() == [4.0, 4.0]


def test_a_star_is_leaves_around_a_hub_with_its_own_hardware() -> None:
    network = StarNetwork(nodes=5, spacing=10.0, relay_generation_rate=16.0, relay_swap_rate=4.0)
    built = build_topology(Scenario(name="star", network=network, hardware=_equal_hardware()), 0)
    assert built.links.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert built.generation_rate.tolist() == [16.0, 4.0, 4.0, 4.0, 4.0]
    assert built.swap_rate.tolist() == [4.0, 2.0, 2.0, 2.0, 2.0]
    assert built.emitter.tolist() == [0] * 4
    np.testing.assert_allclose(built.distances()[0, 1:], 10.0)
    assert built.distances()[1, 3] == pytest.approx(20.0)


def test_relays_without_hardware_of_their_own_are_like_the_others() -> None:
    built = build_topology(Scenario(name="chain", network=ChainNetwork(nodes=3), hardware=_equal_hardware()), 0)
    assert built.generation_rate.tolist() == [4.0] * 3
    assert built.swap_rate.tolist() == [2.0] * 3


@pytest.mark.parametrize(("name", "nodes", "links"), [("surfnet-v0", 50, 68), ("abilene-trace-v0", 12, 15)])
def test_real_topologies_of_topohub_have_their_published_size(name: str, nodes: int, links: int) -> None:
    built = build_topology(scenarios.get(name), 0)
    assert (built.num_nodes, built.num_links) == (nodes, links)
    assert nx.is_connected(graph_of(built))


@pytest.mark.parametrize("key", ["topozoo/Surfnet", "sndlib/germany50", "gabriel/25/0"])
def test_fibre_lengths_of_imported_topologies_match_the_map(key: str) -> None:
    built = build_topology(Scenario(name="real", network=TopohubNetwork(topology=key)), 0)
    u, v = built.links.T
    assert built.length.sum() == pytest.approx(built.distances()[u, v].sum(), rel=0.05)


def test_a_network_across_the_dateline_is_near_on_the_map_and_in_distance(
    of_topohub: Callable[[Any], Topology],
) -> None:
    record = topohub_like()
    for node, place in zip(record["nodes"], ([179.0, 0.0], [-179.0, 0.0], [-179.0, 60.0]), strict=True):
        node["pos"] = place
    built = of_topohub(record)
    degree = np.pi * EARTH_RADIUS / 180.0
    # Right angles: from the equator 2 degrees east of it, 60 degrees north, and cos a cos b by Pythagoras on a sphere.
    third = np.degrees(np.arccos(np.cos(np.radians(2.0)) * np.cos(np.radians(60.0))))
    assert built.distances()[[0, 1, 0], [1, 2, 2]] == pytest.approx(degree * np.array([2.0, 60.0, third]))
    assert np.abs(built.distances() - built.distances().T).max() == 0.0
    assert np.ptp(built.position[:, 0]) == pytest.approx(2.0 * degree * np.cos(np.radians(20.0)))


def test_no_fibre_of_coronet_is_shorter_than_the_way_between_its_ends(data_dir: Path) -> None:
    built = build_topology(scenarios.get("coronet100-v0", length_scale=1.0, data_dir=str(data_dir)), 0)
    u, v = built.links.T
    assert (built.length >= built.distances()[u, v]).all()
    honolulu, sydney = (built.names.index(name) for name in ("Honolulu", "Sydney"))
    assert built.distances()[honolulu, sydney] == pytest.approx(8171.0, abs=1.0)
    assert abs(built.position[honolulu, 0] - built.position[sydney, 0]) < 6000.0


def test_the_length_scale_shrinks_fibres_and_map_alike() -> None:
    whole, half = (
        build_topology(Scenario(name="real", network=TopohubNetwork(length_scale=scale)), 0) for scale in (1.0, 0.5)
    )
    np.testing.assert_allclose(half.length, whole.length / 2.0)
    np.testing.assert_allclose(half.distances(), whole.distances() / 2.0)


@pytest.mark.parametrize("key", sorted(PIXEL_TOPOLOGIES))
def test_topologies_measured_in_pixels_are_refused(key: str) -> None:
    with pytest.raises(ScenarioError, match="pixel") as error:
        build_topology(Scenario(name="pixels", network=TopohubNetwork(topology=key)), 0)
    assert repr(key) in message_of(error)


def test_eleven_topologies_are_known_to_be_in_pixels() -> None:
    assert len(PIXEL_TOPOLOGIES) == 11


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("sndlib/atlantis", "did you mean 'sndlib/"),
        ("topozoo/Geant2011", "did you mean 'topozoo/Geant201"),
        ("surfnet", "did you mean 'topozoo/Surfnet'?"),
        ("", "known: 'backbone/africa' and "),
        ("topozoo/", "did you mean 'topozoo/"),
        ("topozoo/../topozoo/Surfnet", "did you mean 'topozoo/Surfnet'?"),
        ("topozoo//Surfnet", "did you mean 'topozoo/Surfnet'?"),
        ("Topozoo/Surfnet", "did you mean 'topozoo/Surfnet'?"),
        ("../../../elsewhere", "known: 'backbone/africa' and "),
        ("/etc/passwd", "known: 'backbone/africa' and "),
        ("a\0b", "known: 'backbone/africa' and "),
    ],
)
def test_an_unknown_topohub_key_is_told_with_the_nearest_real_one(key: str, hint: str) -> None:
    with pytest.raises(ScenarioError, match="topohub has no topology") as error:
        build_topology(imported(key), 0)
    assert repr(key) in message_of(error)
    assert hint in message_of(error)


def test_the_names_of_topohub_are_those_of_its_files_in_kilometres() -> None:
    names = topohub_names()
    assert len(names) > 600
    assert {"topozoo/Surfnet", "sndlib/abilene", "gabriel/25/0"} <= set(names)
    assert not PIXEL_TOPOLOGIES & set(names)


def test_a_file_elsewhere_is_no_topology(tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", topohub_like())
    for key in (str(tmp_path / "mine"), os.path.relpath(tmp_path / "mine", Path(topohub.__file__).parent / "data")):
        with pytest.raises(ScenarioError, match="topohub has no topology"):
            build_topology(imported(key), 0)


def imported(key: str, scale: float = 1.0) -> Scenario:
    return Scenario(name="real", network=TopohubNetwork(topology=key, length_scale=scale))


def topohub_like() -> dict[str, Any]:
    places = ([8.0, 50.0], [9.0, 51.0], [10.0, 50.0])
    return {
        "graph": {"name": "three"},
        "nodes": [{"id": i, "name": f"city {i}", "pos": place} for i, place in enumerate(places)],
        "edges": [{"source": u, "target": v, "dist": 20.0} for u, v in ((0, 1), (1, 2))],
    }


@pytest.fixture
def of_topohub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Topology]]:
    """The topology that a file in topohub's folder becomes."""
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.setattr(topology, "files", lambda package: tmp_path)
    topohub_names.cache_clear()

    def build(record: Any) -> Topology:
        text = record if isinstance(record, str) else json.dumps(record)
        (tmp_path / "data" / "mine" / "net.json").write_text(text, encoding="utf-8")
        return build_topology(imported("mine/net"), 0)

    yield build
    topohub_names.cache_clear()


def test_a_topohub_file_becomes_a_topology(of_topohub: Callable[[Any], Topology]) -> None:
    built = of_topohub(topohub_like())
    assert built.names == ("city 0", "city 1", "city 2")
    assert built.links.tolist() == [[0, 1], [1, 2]]
    nameless = topohub_like()
    for node, name in zip(nameless["nodes"], ("a", "b", 7), strict=True):
        node["id"] = name
        del node["name"]
    nameless["edges"] = [{"source": "a", "target": 7, "dist": 1}, {"source": 7, "target": "b", "dist": 2}]
    built = of_topohub(nameless)
    assert (built.names, built.links.tolist()) == (("a", "b", "7"), [[0, 2], [1, 2]])


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ([], "[]", "it holds a list; expected a JSON object"),
        ([], "[" * 100_000, "nested too deeply"),
        ([], "{", "Expecting property name"),
        ([], "5", "it holds a int"),
        (["nodes"], None, "nodes is a NoneType; expected a list"),
        (["nodes"], {"a": 1}, "nodes is a dict; expected a list"),
        (["nodes"], [], "it has 0 node(s); expected 2 to 10000"),
        (["nodes"], [{"id": 0, "pos": [0.0, 0.0]}], "it has 1 node(s); expected 2 to 10000"),
        (["nodes", 1], None, "nodes[1] is None; expected an object"),
        (["nodes", 1], 5, "nodes[1] is 5; expected an object"),
        (["nodes", 1, "id"], 0, "nodes[1] has the id 0 of another node"),
        (["nodes", 1, "id"], None, "nodes[1] has the id None; expected text or a whole number"),
        (["nodes", 1, "id"], [1], "nodes[1] has the id [1]"),
        (["nodes", 1, "id"], True, "nodes[1] has the id True"),
        (["nodes", 1, "pos"], "8,50", "nodes[1] is at '8,50'; expected two numbers"),
        (["nodes", 1, "pos"], [8.0], "nodes[1] is at [8.0]; expected two numbers"),
        (["nodes", 1, "pos"], ["8", "50"], "a coordinate of nodes[1] is '8'; expected a number from -360 to 360"),
        (["nodes", 1, "pos"], [8.0, math.nan], "it holds NaN, which is no finite number"),
        (["nodes", 1, "pos"], [8.0, None], "a coordinate of nodes[1] is None"),
        (["nodes", 1, "pos"], [8.0, 1e6], "a coordinate of nodes[1] is 1000000.0"),
        (["edges"], "none", "edges is a str; expected a list"),
        (["edges", 0], None, "edges[0] is None; expected an object"),
        (["edges", 0, "source"], 9, "edges[0] ends at 9, which is no node"),
        (["edges", 0, "target"], "0", "edges[0] ends at '0', which is no node"),
        (["edges", 0, "target"], [0], "edges[0] ends at [0], which is no node"),
        (["edges", 0, "target"], True, "edges[0] ends at True, which is no node"),
        (["edges", 0, "dist"], "20 km", "dist of edges[0] is '20 km'; expected a number from 0 to 1e+09"),
        (["edges", 0, "dist"], -1.0, "dist of edges[0] is -1.0"),
        (["edges", 0, "dist"], 1e300, "dist of edges[0] is 1e+300"),
        (["edges", 0, "dist"], None, "dist of edges[0] is None"),
        (["edges", 0, "dist"], True, "dist of edges[0] is True"),
    ],
)  # fmt: skip
def test_a_malformed_topohub_file_is_told_in_one_line(
    of_topohub: Callable[[Any], Topology], path: list[Any], value: Any, told: str
) -> None:
    record: Any = topohub_like()
    if path:
        section = record
        for step in path[:-1]:
            section = section[step]
        section[path[-1]] = value
    with pytest.raises(DataError) as error:
        of_topohub(record if path else value)
    assert message_of(error).startswith("topohub's topology 'mine/net' cannot be used: ")
    assert told in message_of(error)


@pytest.mark.parametrize(
    "missing", [("nodes",), ("edges",), ("nodes", 1, "id"), ("nodes", 1, "pos"), ("edges", 0, "dist")]
)
def test_a_topohub_file_without_a_field_names_it(
    of_topohub: Callable[[Any], Topology], missing: tuple[Any, ...]
) -> None:
    record: Any = topohub_like()
    section = record
    for step in missing[:-1]:
        section = section[step]
    del section[missing[-1]]
    with pytest.raises(DataError, match=f"'{missing[-1]}' is missing"):
        of_topohub(record)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_extremes_of_lengths_stay_finite(scale: float) -> None:
    worlds = [
        imported("topozoo/Surfnet", scale),
        imported("gabriel/25/0", scale),
        Scenario(name="mesh", network=MeshNetwork(nodes=20, side=scale)),
        Scenario(name="chain", network=ChainNetwork(nodes=20, spacing=scale)),
        Scenario(name="star", network=StarNetwork(nodes=20, spacing=scale)),
    ]
    for world in worlds:
        built = build_topology(world, 0)
        assert all(np.isfinite(x).all() for x in (built.position, built.length, built.transmission, built.distances()))


def test_a_real_network_too_big_to_search_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"real: too big: .* steps to find the routes"):
        build_topology(imported("backbone/world").override(name="real", peers=100), 0)


def test_a_mesh_without_near_links_is_joined_in_no_time() -> None:
    built = build_topology(mesh(2000, links_per_node=1e-9), 0)
    assert built.num_links == 1999


def test_coronet_has_one_hundred_cities_and_scaled_fibres(data_dir: Path) -> None:
    scenario = scenarios.get("coronet100-v0", data_dir=data_dir)
    built = build_topology(scenario, 0)
    full = build_topology(scenario.override(length_scale=1.0), 0)
    assert (built.num_nodes, built.num_links) == (100, 136)
    assert "Abilene" in built.names
    np.testing.assert_allclose(built.length, full.length * 0.04)


def test_a_node_link_file_becomes_a_topology(write_coronet: WriteCoronet) -> None:
    folder = write_coronet(coronet_like([(1, 0, 30.0), (1, 2, 40.0), (3, 2, 50.0), (0, 1, 20.0), (2, 2, 1.0)]))
    built = build_topology(coronet(0.5).override(data_dir=folder), 0)
    assert built.names == ("city 0", "city 1", "city 2", "city 3")
    assert built.links.tolist() == [[0, 1], [1, 2], [2, 3]]  # the shorter of two parallel fibres, and no loop
    assert built.length.tolist() == [10.0, 20.0, 25.0]
    assert built.distances()[0, 1] == pytest.approx(0.5 * math.radians(1.0) * 6371.0, rel=1e-9)


def test_a_disconnected_topology_is_refused_naming_who_is_cut_off(write_coronet: WriteCoronet) -> None:
    folder = write_coronet(coronet_like([(0, 1, 30.0), (1, 2, 30.0)]))
    with pytest.raises(ScenarioError, match="disconnected") as error:
        build_topology(coronet().override(data_dir=folder), 0)
    assert "2 components" in message_of(error)
    assert "'city 3'" in message_of(error)


@pytest.mark.parametrize(
    "record",
    [
        "{not json",
        "[]",
        '{"nodes": []}',
        coronet_like([], nodes=0),
        coronet_like([], nodes=1),
        coronet_like([(0, 9, 30.0)]),
        coronet_like([(0, -1, 30.0)]),
        coronet_like([(0, 1, math.nan)]),
        coronet_like([(0, 1, -5.0)]),
        {"nodes": [{"name": "a", "lat": math.nan, "lon": 0.0}] * 2, "edges": [{"u": 0, "v": 1, "km": 1.0}]},
        {"nodes": [{"name": "a", "lat": 1.0, "lon": 0.0}] * 2, "edges": [{"u": math.inf, "v": 1, "km": 1.0}]},
        {"nodes": [{"name": "a", "lat": 1.0, "lon": 0.0}] * 2, "edges": [{"u": 0, "v": 1}]},
        {"nodes": [None, None], "edges": []},
        {"nodes": [{"name": "a", "lat": "1", "lon": "0"}] * 2, "edges": [{"u": 0, "v": 1, "km": 1.0}]},
        {"nodes": [{"name": "a", "lat": 1.0, "lon": 0.0}] * 2, "edges": [{"u": 0, "v": 1, "km": "1"}]},
        {"nodes": [{"name": "a", "lat": 1.0, "lon": 0.0}] * 2, "edges": [{"u": 0, "v": 0.5, "km": 1.0}]},
        {"nodes": [{"name": "a", "lat": 1.0, "lon": 0.0}] * 2, "edges": [{"u": 0, "v": True, "km": 1.0}]},
    ],
)
def test_a_malformed_topology_file_is_told_in_one_line(
    write_coronet: WriteCoronet, record: dict[str, Any] | str
) -> None:
    with pytest.raises(DataError) as error:
        build_topology(coronet().override(data_dir=write_coronet(record)), 0)
    message_of(error)


def test_a_missing_topology_file_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dpem list says where to get it") as error:
        build_topology(coronet().override(data_dir=tmp_path), 0)
    assert message_of(error).startswith("cities needs coronet/flat_CORONET_Global_Topology.json")


def test_without_a_data_folder_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPEM_DATA", raising=False)
    with pytest.raises(DataError, match="set DPEM_DATA") as error:
        build_topology(coronet(), 0)
    message_of(error)


def test_the_data_folder_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, write_coronet: WriteCoronet
) -> None:
    folder = write_coronet(coronet_like([(0, 1, 30.0)], nodes=2))
    monkeypatch.setenv("DPEM_DATA", str(folder))
    assert build_topology(coronet(), 0).num_nodes == 2


def _equal_hardware() -> schema.Hardware:
    return schema.Hardware(generation_rate=(4.0, 4.0), swap_rate=(2.0, 2.0), memory=(4, 4))


LINE = {"nodes": 3, "spacing": 50.0, "attenuation": 0.2, "link_fidelity": 0.98}


def test_with_one_click_a_link_is_as_probable_as_half_of_its_fibre_and_as_pure_as_it_is_dark() -> None:
    topology = build_topology(scenarios.get("chain3-v0", **LINE, link_model="single-click", bright_state=0.1), 0)
    assert topology.transmission == pytest.approx([0.2 * 10**-0.5] * 2)  # 2α·10^(-0.2·25/10)
    assert topology.link_fidelity == pytest.approx([0.98 * 0.9] * 2)
    usual = build_topology(scenarios.get("chain3-v0", **LINE), 0)
    assert usual.transmission == pytest.approx([0.1] * 2)
    assert usual.link_fidelity == pytest.approx([0.98] * 2)


def test_a_link_makes_no_more_attempts_than_it_may_wait_for() -> None:
    # 50 km are answered after 0.5 ms: one mode makes 2,000 attempts/s, of which a thousandth succeeds at no distance.
    waiting = {**LINE, "attempt_success": 0.001, "generation_rate": (4.0, 4.0)}
    for modes, share in ((1, 0.5), (2, 1.0), (3, 1.0)):
        topology = build_topology(
            scenarios.get("chain3-v0", **waiting, parallel_modes=modes, relay_generation_rate=4.0), 0
        )
        assert topology.transmission == pytest.approx([0.1 * share] * 2)


def test_links_of_no_length_wait_for_nothing() -> None:
    topology = build_topology(scenarios.get("swap-chain3-v0", parallel_modes=1, spacing=1e-9), 0)
    assert topology.transmission == pytest.approx([1.0] * 2)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"bright_state": 0.2}, 'bright_state = 0.2 does nothing without link_model = "single-click"'),
        ({"attempt_success": 0.5}, "attempt_success = 0.5 does nothing without parallel_modes"),
        ({"link_model": "single-click", "bright_state": 0.6}, "bright_state"),
        ({"parallel_modes": 0}, "parallel_modes"),
        ({"link_model": "single-click", "bright_state": (0.1, 0.2, 0.3)}, "bright_state must be decreasing"),
        ({"link_model": "single-click", "bright_state": ()}, "bright_state must be decreasing"),
        ({"link_model": "single-click", "bright_state": (0.2, 0.1)}, "bright_state needs one number, or one per qual"),
        ({"bright_state": (0.3, 0.2, 0.1)}, "does nothing without link_model"),
    ],
)
def test_what_says_nothing_of_a_link_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenarios.get("mesh100-v0", **fields)


def test_links_as_they_were_leave_a_scenario_what_it_was() -> None:
    same = scenarios.get("mesh100-v0", name="mesh100-v0", link_model="midpoint", parallel_modes=None)
    assert same.hash == scenarios.get("mesh100-v0").hash
    assert scenarios.get("mesh100-v0", link_model="single-click").hash != same.hash
