"""Networks from a user's files: every format, what is told of a bad one, and that results see their content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.logs.recorder import EpisodeRecorder, read_log
from dpem_env.logs.replay import replay
from dpem_env.network.layout import along_fibres, great_circles, on_globe, unfolded
from dpem_env.network.network import build_network
from dpem_env.network.topology import Topology, build_topology
from dpem_env.physics import werner_from_fidelity
from dpem_env.policies import get_policy
from dpem_env.report.documented import documented_toml
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError, DpemWarning

TOML = 'name = "mine"\n[network]\ngenerator = "file"\n{}\n[demand]\nkind = "sessions"\nrequest_rate = 2.0\n'
NODES = """name,x,y,generation_rate,swap_rate,memory,coherence_time
"Main, Frankfurt",0,0,8,4,12,30
Ulm,3,4,,,,
Köln,3,8,2.5,0,9,
"""
LINKS = 'source,target,length,attenuation\n"Main, Frankfurt",Ulm,,0.5\nUlm,Köln,7,\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def of(fields: str, **files: str) -> Scenario:
    """A scenario of files, whose names have a dot where the keyword has two underscores."""
    for name, content in files.items():
        Path(name.replace("__", ".")).write_text(content, encoding="utf-8")
    Path("my.toml").write_text(TOML.format(fields), encoding="utf-8")
    return scenarios.get("my.toml")


def of_tables(nodes: str = NODES, links: str = LINKS, **overrides: Any) -> Scenario:
    fields = 'nodes_file = "n.csv"\nlinks_file = "l.csv"'
    return of(fields, n__csv=nodes, l__csv=links).override(**overrides)


def message(read: Callable[[], Any]) -> str:
    with pytest.raises(DpemError) as error:
        read()
    assert "\n" not in str(error.value)
    return str(error.value)


def told(scenario: Scenario) -> str:
    return message(lambda: build_topology(scenario, 0))


def test_tables_give_names_places_lengths_and_hardware() -> None:
    built = build_topology(of_tables(), 0)
    assert built.names == ("Main, Frankfurt", "Ulm", "Köln")
    assert built.position.tolist() == [[0, 0], [3, 4], [3, 8]]
    assert built.links.tolist() == [[0, 1], [1, 2]]
    assert built.length.tolist() == [5.0, 7.0]  # of the places, where a link has none
    assert built.generation_rate[[0, 2]].tolist() == [8.0, 2.5]
    assert built.swap_rate[[0, 2]].tolist() == [4.0, 0.0]
    assert built.memory[[0, 2]].tolist() == [12, 9]
    assert built.coherence_time.tolist() == [30.0, 60.0, 60.0]
    np.testing.assert_allclose(built.transmission, [10**-0.25, 10**-0.14], rtol=1e-12)
    assert built.distances()[0].tolist() == [0.0, 5.0, np.hypot(3, 8)]


def test_links_have_fidelities_of_their_own_in_routes_simulator_and_logs() -> None:
    links = 'source,target,length,link_fidelity\n"Main, Frankfurt",Ulm,1,0.8\nUlm,Köln,1,\n'
    scenario = of_tables(NODES.replace("2.5,0,", "2.5,4,"), links)
    assert build_topology(scenario, 0).link_fidelity.tolist() == [0.8, 0.95]
    recorder = EpisodeRecorder()
    policy = get_policy("local-reactive")
    _, session = run_episode(scenario, policy, EpisodeSeeds(0, 0), recorder=recorder, label="x")
    for fresh in session.simulator.world.fresh_werner[0].tolist():  # of every quality
        assert fresh == [werner_from_fidelity(0.8), werner_from_fidelity(0.95)]
    peers, quality = session.network.peers.tolist(), session.network.routes.quality
    over_the_first, over_the_other = (quality[node, peers[node].index(1), 0].tolist() for node in (0, 2))
    assert over_the_first != over_the_other
    recorder.save("log.parquet")
    assert read_log("log.parquet").network().topology.link_fidelity.tolist() == [0.8, 0.95]
    assert replay("log.parquet").verified


def test_what_a_file_does_not_say_is_drawn_as_without_it() -> None:
    built, other = (build_topology(of_tables(nodes), 3) for nodes in (NODES, NODES.replace("8,4,12,30", ",,,")))
    assert built.generation_rate[1] == other.generation_rate[1]
    assert other.generation_rate[0] != 8.0
    assert 0.0 <= other.generation_rate[0] <= 10.0
    assert build_topology(of_tables(), 4).generation_rate[1] != built.generation_rate[1]


def test_lengths_are_scaled_and_the_shortest_of_parallel_fibres_counts() -> None:
    links = LINKS + "Köln,Ulm,6,0.3\nUlm,Ulm,1,\n"
    built = build_topology(of_tables(links=links, length_scale=0.5), 0)
    assert built.length.tolist() == [2.5, 3.0]
    assert built.distances()[0, 1] == 2.5
    np.testing.assert_allclose(built.transmission, [10**-0.125, 10**-0.09], rtol=1e-12)


def test_links_alone_make_a_network_whose_distances_run_along_them() -> None:
    built = build_topology(of('links_file = "l.csv"', l__csv="target;source;length\nb;a;3\nb;c;4\nc;d;5\n"), 0)
    assert built.names == ("a", "b", "c", "d")
    assert built.distances()[0].tolist() == [0.0, 3.0, 7.0, 12.0]
    ends = np.linalg.norm(built.position[built.links[:, 0]] - built.position[built.links[:, 1]], axis=1)
    np.testing.assert_allclose(ends, built.length, rtol=0.1)  # a line can be drawn as it is


def test_latitude_and_longitude_are_on_the_globe() -> None:
    nodes = "Name,Lat,Lon\nBerlin,52.52,13.405\nParis,48.857,2.352\n"
    built = build_topology(of_tables(nodes, "source,target\nBerlin,Paris\n", length_scale=0.1), 0)
    assert built.length[0] == pytest.approx(87.8, rel=0.01)
    assert built.distances()[0, 1] == pytest.approx(built.length[0], rel=1e-9)


def graph() -> nx.Graph:
    """A triangle with something of everything."""
    made = nx.Graph()
    made.add_node(10, label="Bonn", Latitude=50.7, Longitude=7.1, memory=10)
    made.add_node(11, label="Rome", Latitude=41.9, Longitude=12.5, generation_rate=3.5)
    made.add_node(12, Latitude=48.2, Longitude=16.4)
    made.add_edge(10, 11, length=40.0)
    made.add_edge(11, 12, attenuation=0.3, LinkLabel="leased")
    made.add_edge(12, 10)
    return made


def check_graph(built: Topology, names: tuple[str, ...] = ("Bonn", "Rome", "12")) -> None:
    assert built.names == names
    assert {tuple(link) for link in built.links.tolist()} == {(0, 1), (1, 2), (0, 2)}
    far = great_circles(on_globe(np.array([[7.1, 50.7], [12.5, 41.9], [16.4, 48.2]])))
    np.testing.assert_allclose(built.length, [40.0, far[0, 2], far[1, 2]], rtol=1e-9)
    assert (built.memory[0], built.generation_rate[1]) == (10, 3.5)
    np.testing.assert_allclose(built.transmission[2], 10 ** (-0.03 * built.length[2]), rtol=1e-9)


def test_graphml_as_the_topology_zoo_and_networkx_write_it() -> None:
    check_graph(build_topology(of('file = "net.graphml"', net__graphml="\n".join(nx.generate_graphml(graph()))), 0))


@pytest.mark.parametrize("edges", ["edges", "links"])
def test_node_link_json(edges: str) -> None:
    nodes = [{"id": key, **data} for key, data in graph().nodes(data=True)]
    links = [{"source": u, "target": v, **data} for u, v, data in graph().edges(data=True)]
    check_graph(build_topology(of('file = "net.json"', net__json=json.dumps({"nodes": nodes, edges: links})), 0))


ZOO = """graph [
  DateObtained "20/10/10"
  GeoLocation "Nowhere"
  label "Madeup"
  Creator "Topology Zoo Toolset"
  node [
    id 0
    label "Bonn"
    Country "Germany"
    Longitude 7.1
    Internal 1
    Latitude 50.7
    type "Purple Node"
  ]
  node [
    id 1
    label "None"
    hyperedge 1
    Internal 1
  ]
  node [
    id 2
    label "       Rome"
    Longitude 12.5
    Internal 1
    Latitude 41.9
  ]
  node [
    id 3
    label "None"
    Internal 1
  ]
  node [
    id 4
    label "GEANT"
    Internal 0
  ]
  edge [
    source 0
    target 1
    LinkLabel "2 Mbps"
    LinkSpeed "2"
    LinkSpeedUnits "M"
    LinkSpeedRaw 2000000.0
    id "e12"
  ]
  edge [
    source 0
    target 1
    LinkNote "Backup"
  ]
  edge [
    source 1
    target 2
  ]
  edge [
    source 1
    target 3
  ]
  edge [
    source 2
    target 4
  ]
]
"""


@pytest.mark.parametrize("head", ["graph [", "graph [\n  multigraph 1"])
def test_gml_of_the_topology_zoo_is_read_without_what_is_outside_and_with_places_for_all(head: str) -> None:
    said = r"of its nodes, 1 of other networks are left out, 2 without a place are put amid others$"
    with pytest.warns(DpemWarning, match=said):
        built = build_topology(of('file = "net.gml"', net__gml=ZOO.replace("graph [", head)), 0)
    assert built.names == ("Bonn", "None (1)", "Rome", "None (3)")
    assert built.links.tolist() == [[0, 1], [1, 2], [1, 3]]
    assert built.placed
    middle = great_circles(on_globe(np.array([[7.1, 50.7], [9.8, 46.3], [12.5, 41.9]])))
    np.testing.assert_allclose(built.length, [middle[0, 1], middle[1, 2], 0.0], rtol=1e-9, atol=1e-9)


def test_places_that_nobody_can_guess_are_told() -> None:
    apart = ZOO.replace("source 1\n    target 3", "source 0\n    target 2")
    with pytest.warns(DpemWarning, match="1 without a place"):
        assert "node 3 has no longitude and latitude" in told(of('file = "net.gml"', net__gml=apart))


YED = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">
<key for="node" id="d50" yfiles.type="nodegraphics"/>"
<key attr.name="label" attr.type="string" for="node" id="d29" />
<key attr.name="length" attr.type="double" for="edge" id="d30" />
<graph edgedefault="undirected">
{nodes}
<edge source="0" target="1"><data key="d30">{length}</data></edge>
</graph></graphml>
"""
DRAWN = """<node id="{0}"><data key="d50"><y:ShapeNode><y:Geometry height="30.0" width="30.0" x="{0}00.5" y="262.6"/>
<y:NodeLabel>{1}</y:NodeLabel></y:ShapeNode></data><data key="d29">{1}</data></node>"""


def test_pixels_of_a_drawing_are_no_kilometres() -> None:
    nodes = "".join(DRAWN.format(*node) for node in enumerate(("Grodno", "Minsk")))
    built = build_topology(of('file = "n.graphml"', n__graphml=YED.format(nodes=nodes, length=25)), 0)
    assert built.names == ("Grodno", "Minsk")
    assert not built.placed
    assert built.length.tolist() == [25.0]
    without = of('file = "n.graphml"', n__graphml=YED.format(nodes=nodes, length=""))
    assert "it has no length (km); give it one, or all nodes a place" in told(without)


def test_of_nodes_of_one_label_the_ids_are_told() -> None:
    made = graph()
    made.nodes[11]["label"] = "Bonn"
    check_graph(
        build_topology(of('file = "n.graphml"', n__graphml="\n".join(nx.generate_graphml(made))), 0),
        ("Bonn (10)", "Bonn (11)", "12"),
    )


SEQUENCE: dict[str, Any] = {
    "templates": {
        "good": {"MemoryArray": {"coherence_time": 2, "fidelity": 0.9}},
        "ever": {"MemoryArray": {"coherence_time": -1}},
    },
    "nodes": [
        {"name": "r0", "type": "QuantumRouter", "memo_size": 9, "template": "good"},
        {"name": "r1", "type": "QuantumRouter", "memo_size": 10, "template": "ever"},
        {"name": "r2", "type": "QuantumRouter"},
        {"name": "mid", "type": "BSMNode"},
    ],
    "qchannels": [
        {"source": "r0", "destination": "mid", "distance": 2000.0, "attenuation": 0.0002},
        {"source": "r1", "destination": "mid", "distance": 2000.0, "attenuation": 0.0004},
    ],
    "qconnections": [{"node1": "r1", "node2": "r2", "distance": 20000, "attenuation": 1e-5}],
}  # fmt: skip


def test_sequences_topology_is_read_in_its_own_units() -> None:
    built = build_topology(of('file = "s.json"', s__json=json.dumps(SEQUENCE)), 0)
    assert built.names == ("r0", "r1", "r2")
    assert built.links.tolist() == [[0, 1], [1, 2]]
    assert built.length.tolist() == [4.0, 20.0]
    np.testing.assert_allclose(built.transmission, [10 ** (-0.03 * 4), 10 ** (-0.001 * 20)], rtol=1e-12)
    assert built.memory[:2].tolist() == [9, 10]
    assert built.coherence_time.tolist() == [2.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("nodes", "links", "expected"),
    [
        (NODES + "Ulm,1,1,,,,\n", LINKS, "'n.csv' cannot be used: line 5: another node is called 'Ulm', too"),
        (NODES.replace("8,4,12", "fast,4,12"), LINKS, "line 2: generation_rate is 'fast'; expected a number from 0"),
        (NODES.replace("8,4,12", "-1,4,12"), LINKS, "line 2: generation_rate is '-1'"),
        (NODES.replace("8,4,12", "8,4,12.5"), LINKS, "line 2: memory is 12.5; expected a whole number"),
        (NODES.replace("8,4,12", "8,4,0"), LINKS, "line 2: memory is '0'; expected a number from 1 to 10000 qubits"),
        (NODES.replace("8,4,12", "8,4,20"), LINKS, "'Main, Frankfurt' has memory 20, beyond hardware.memory = [8, 16]"),
        (NODES.replace("3,4,,", ",4,,"), LINKS, "line 3 has no x and y, and others have"),
        (NODES.replace("swap_rate", "swaprate"), LINKS, "unknown column 'swaprate'; did you mean 'swap_rate'?"),
        (NODES.replace(",x,y", ",dist,y"), LINKS, "unknown field 'dist'; did you mean length (km)?"),
        (NODES.replace("name", "city"), LINKS, "no column 'name'"),
        ("name\n", LINKS, "it has 0 node(s); expected 2 to 10000"),
        (NODES, LINKS + "Ulm,Wien,1,\n", "'l.csv' cannot be used: line 4: it ends at 'Wien', which is no node"),
        (NODES, LINKS.replace("7", "far"), "line 3: length is 'far'; expected a number from 0"),
        (NODES, LINKS.replace("7", "-7"), "line 3: length is '-7'"),
        (NODES, LINKS.replace("length", "lenght"), "unknown column 'lenght'; did you mean 'length'?"),
        (NODES, LINKS.replace("source", "from"), "no column 'source'; expected source,target[,length]"),
        (NODES, LINKS.replace("attenuation", "link_fidelity").replace("0.5", "0.2"), "line 2: link_fidelity is '0.2'"),
        (NODES, "source,target\nUlm,Köln\n", "disconnected (2 components; 'Main, Frankfurt' is cut off)"),
        ("name\na\nb\n", "source,target\na,b\n", "line 2: it has no length (km); give it one, or all nodes a place"),
    ],
)  # fmt: skip
def test_bad_tables_are_told_in_one_line(nodes: str, links: str, expected: str) -> None:
    assert expected in told(of_tables(nodes, links))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("n.json", "{", "network file 'n.json' cannot be used: Expecting property name"),
        ("n.json", "[]", "it holds a list; expected a JSON object"),
        ("n.json", '{"nodes": 1, "edges": []}', "nodes is a int; expected a list"),
        ("n.json", '{"nodes": [{"id": 1}, {}], "edges": []}', "nodes[1]: no 'id'"),
        ("n.json", '{"nodes": [{"id": 1}, {"id": [2]}], "links": []}', "a node is called [2]; expected text"),
        ("n.json", '{"nodes": [{"id": 1}, {"id": 2}], "edges": [{"source": 1}]}', "edges[0]: no 'target'"),
        ("n.json", json.dumps(SEQUENCE | {"qchannels": SEQUENCE["qchannels"][:1]}), "1 channel(s) lead to 'mid'"),
        ("n.graphml", "<graphml>", "network file 'n.graphml' cannot be used: no element found"),
        ("n.graphml", "<a/>", "network file 'n.graphml' cannot be used"),
        ("n.graphml", '<!DOCTYPE g [<!ENTITY a "aa">]><graphml/>', "it declares a document type or entities"),
        ("n.csv", LINKS, "a CSV is a table: name it as links_file"),
        ("n.txt", "graph []", "it ends in '.txt'; expected .graphml, .gml or .json"),
    ],
)  # fmt: skip
def test_bad_files_are_told_in_one_line(name: str, content: str, expected: str) -> None:
    assert expected in told(of(f'file = "{name}"', **{name.replace(".", "__"): content}))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", "network: expected either file, or links_file (and nodes_file)"),
        ('file = "a"\nlinks_file = "b"', "expected either file, or links_file (and nodes_file)"),
        ('file = "a"\nnodes_file = "b"', "nodes_file goes with links_file, not with file"),
        ('file = ""', "network.file: expected at least 1 character"),
        ('nodes = 3\nfile = "a"', "network.nodes: unknown key"),
    ],
)
def test_a_network_of_files_is_spelt_one_way(fields: str, expected: str) -> None:
    assert expected in message(lambda: of(fields))


def test_a_missing_file_is_told_when_the_network_is_asked_for() -> None:
    assert told(of('file = "none.json"')) == "network file 'none.json' cannot be used: No such file or directory"


def test_the_content_of_files_is_part_of_the_scenario_and_where_they_lie_is_not() -> None:
    first = of_tables()
    assert build_network(first, 0).topology.length[1] == 7.0
    Path("l.csv").write_text(LINKS.replace("7", "8"), encoding="utf-8")
    assert "'n.csv' and 'l.csv' changed: the content is" in told(first)
    second = scenarios.get("my.toml")
    assert second.hash != first.hash
    assert build_network(second, 0).topology.length[1] == 8.0
    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    for name in ("my.toml", "n.csv", "l.csv"):
        Path(name).rename(elsewhere / name)
    moved = scenarios.get("elsewhere/my.toml")  # whose paths lead from where it lies
    assert moved.hash == second.hash
    assert build_network(moved, 0).topology.length[1] == 8.0
    assert scenarios.from_toml(moved.to_toml()) == moved
    Path("l.csv").write_text(LINKS, encoding="utf-8")
    back = scenarios.get(moved, links_file="l.csv")
    assert back.hash == first.hash


def test_a_saved_scenario_leaves_to_its_files_what_they_say() -> None:
    first = of_tables()
    first.save("saved.toml")
    Path("shown.toml").write_text(documented_toml(first), encoding="utf-8")
    Path("l.csv").write_text(LINKS.replace("7", "8"), encoding="utf-8")
    for name in ("saved.toml", "shown.toml"):
        assert build_topology(scenarios.get(name), 0).length[1] == 8.0
    assert first.network.network_content in first.to_toml()  # type: ignore[union-attr]  # as logs hold it


MATRIX = ',Köln,"Main, Frankfurt"\nUlm,3,1\n"Main, Frankfurt",1e-3,\n'


def test_a_demand_matrix_says_who_wants_whom() -> None:
    Path("m.csv").write_text(MATRIX, encoding="utf-8")
    network = build_network(scenarios.get(of_tables(min_link_rate=0.0, min_swap_rate=0.0), demand_matrix="m.csv"), 1)
    wanted = {
        (i, int(j)): float(weight)
        for i in range(3)
        for j, weight in zip(network.peers[i], network.weights[i], strict=True)
        if j >= 0
    }
    assert wanted == pytest.approx({(1, 2): 3 / 4.001, (1, 0): 1 / 4.001, (0, 2): 1e-3 / 4.001})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "it is all zero off the diagonal"),
        (",Ulm,Wien\nKöln,1,1\n", "line 1: 'Wien' is no node; expected a node's name, or its index 0..2"),
        (",Ulm\nWien,1\n", "line 2: 'Wien' is no node"),
        (",Ulm\nKöln,much\n", "line 2, 'Ulm': 'much'; expected 0, or a number from 1e-09 to 1e+09"),
        (",Ulm\nKöln,-1\n", "line 2, 'Ulm': '-1'"),
        (",Ulm\nKöln,nan\n", "line 2, 'Ulm': 'nan'"),
        (",Ulm\nKöln,1,2\n", "line 2: it has more values than there are columns"),
        (",Ulm,1\nKöln,1,2\n", "two columns are called 'Ulm'"),
        (",Ulm\nKöln,1\n2,1\n", "two lines are called 'Köln'"),
        (",Ulm\nUlm,1\n", "it is all zero off the diagonal; expected some demand"),
    ],
)
def test_a_bad_demand_matrix_is_told_in_one_line(content: str, expected: str) -> None:
    scenario = of_tables()
    Path("m.csv").write_text(content, encoding="utf-8")
    said = message(lambda: build_network(scenarios.get(scenario, demand_matrix="m.csv"), 0))
    assert said.startswith("demand matrix 'm.csv' cannot be used: ")
    assert expected in said


def test_demand_between_nodes_that_are_no_peers_is_told() -> None:
    Path("m.csv").write_text(",1,2\n0,3,\n1,,1\n", encoding="utf-8")
    links = LINKS.replace("Ulm,,0.5", "Ulm,200,0.5")
    with pytest.warns(UserWarning, match=r"75.0% of the demand is between no peers .*: 1 pairs weak link; shorten"):
        build_network(scenarios.get(of_tables(links=links, peers=2), demand_matrix="m.csv"), 2)


def test_distances_along_fibres_know_lengths_of_zero() -> None:
    assert along_fibres(3, np.array([[0, 1], [1, 2]], dtype=np.int32), np.array([0.0, 2.0]))[0].tolist() == [0, 0, 2]


def test_a_plane_network_is_unfolded_into_its_own_distances() -> None:
    places = np.random.default_rng(0).uniform(size=(12, 2))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    links = np.argwhere(np.triu(apart)).astype(np.int32)
    found = unfolded(12, links, apart[tuple(links.T)])
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found, axis=-1), apart, atol=0.15)
    assert np.isfinite(unfolded(3, links[:1], np.zeros(1))).all()
    assert unfolded(2000, links, apart[tuple(links.T)]).shape == (2000, 2)
