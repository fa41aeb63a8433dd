"""Networks of one's own, from files: GraphML, GML, node-link JSON, SeQUeNCe's topology JSON, or CSV tables.

Whatever a file is, it comes to two lists: nodes and links with the fields below, as they were given, each with the
words for where it stands. All are then checked in one place. docs/own-network.md is the page for users.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from dpem_env.network.layout import Floats, Layout, great_circles, on_globe, projected, unfolded
from dpem_env.scenarios.own_files import require_content
from dpem_env.scenarios.schema import LARGEST, LONGEST_NAME, MAX_COUNT, SMALLEST, FileNetwork
from dpem_env.support.errors import DataError, DpemWarning, shown
from dpem_env.support.files import LARGEST_JSON, read_json, read_text, reading
from dpem_env.support.tables import meant_by, read_table

HARDWARE = {  # least and most of what a node may have of its own, and what it is
    "generation_rate": (0.0, LARGEST, "pairs/s"),
    "swap_rate": (0.0, LARGEST, "swaps/s"),
    "memory": (1, MAX_COUNT, "qubits"),
    "coherence_time": (SMALLEST, LARGEST, "s"),
}
PLACES = {"x": LARGEST, "y": LARGEST, "latitude": 90.0, "longitude": 360.0}  # most of a coordinate: km, degrees
ALIASES = {"lat": "latitude", "lon": "longitude"}
OTHERWISE = {"long": "lon", "lng": "lon", "pos": "x and y, or lat and lon"} | dict.fromkeys(
    ("dist", "distance", "length_km", "km"), "length (km)"
)  # what others call them, in whatever units
OF_NODE = ("name", *PLACES, *ALIASES, *HARDWARE)
OF_FIBRE = {  # least and most of what a link may have of its own
    "attenuation": (0.0, LARGEST),
    "link_fidelity": (0.25, 1.0),
}
OF_LINK = ("length", *OF_FIBRE)
ENDS = ("source", "target")
SEQUENCE = ("qconnections", "qchannels")  # what SeQUeNCe's topologies have, and node-link files have not
METRES = 1000.0  # a km
DRAWN = 'yfiles.type="nodegraphics"'  # says that yEd has drawn the file: its x and y are pixels
ZOO, OUTSIDE, DEGREES = "Topology Zoo", (0, False, "0", "False"), ("Latitude", "Longitude")
GRAPH, MULTIGRAPH = re.compile(r"^\s*graph\s*\[", re.MULTILINE), re.compile(r"^\s*multigraph\s+1\b", re.MULTILINE)
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A node or link as it was given."""

    where: str  # in words, such as "line 3" or "nodes[2]"
    fields: Fields
    id: Any = None  # of a node: what links call it
    ends: tuple[Any, Any] = (None, None)  # of a link: the ids of its nodes


def from_files(network: FileNetwork) -> Layout:
    """The layout that files describe; DataError, in one line, says what is wrong with them, and where."""
    require_content(network, network.network_content)
    return _read.__wrapped__(network) if network.network_content is None else _read(network)


@lru_cache(maxsize=8)
def _read(network: FileNetwork) -> Layout:  # the same whatever else is drawn
    path = network.file or network.links_file or ""
    with reading("network file", path, DataError):
        nodes, links = _from_one(path) if network.file is not None else _from_links(path)
    with reading("network file", network.nodes_file or path, DataError):
        if network.nodes_file is not None:
            nodes = _from_nodes(network.nodes_file)
        index = _index(nodes)
        names, place, globe = _names(nodes), *_places(nodes)
        hardware = {name: _own(nodes, name, *limits) for name, limits in HARDWARE.items()}
        hardware = {name: own for name, own in hardware.items() if not np.isnan(own).all()}
    with reading("network file", path, DataError):
        straight = _straight(place, globe)
        fibres = [_fibre(link, index, straight) for link in links]
    shortest: dict[tuple[int, int], Fibre] = {}
    for fibre in fibres:  # of parallel fibres the shortest counts, of a loop nothing
        pair = (min(fibre.ends), max(fibre.ends))
        if len({*pair}) == 2 and (pair not in shortest or fibre.length < shortest[pair].length):
            shortest[pair] = fibre
    ordered = sorted(shortest)
    ends, scale = np.array(ordered, dtype=np.int32).reshape(-1, 2), network.length_scale
    length = np.array([shortest[each].length for each in ordered]) * scale
    return Layout(
        names=names,
        position=unfolded(len(nodes), ends, length) if place is None else place * scale,
        links=ends,
        length=length,
        globe=None if globe is None else globe * scale,
        placed=place is not None,
        hardware=hardware,
        fibres={name: np.array([getattr(shortest[each], name) for each in ordered]) for name in OF_FIBRE},
    )


def _from_one(path: str) -> tuple[list[Entry], list[Entry]]:
    """Nodes and links of a file by its ending."""
    match os.path.splitext(path)[1].lower():
        case ".graphml":
            return _from_graphml(read_text(path, LARGEST_JSON), path)
        case ".gml":
            return _from_gml(read_text(path, LARGEST_JSON), path)
        case ".json":
            record = read_json(path)
            return _from_sequence(record) if any(key in record for key in SEQUENCE) else _from_node_link(record)
        case ".csv":
            raise ValueError(
                "a CSV is a table: name it as links_file, and one of nodes, if there is one, as nodes_file"
            )
        case ending:
            raise ValueError(
                f"it ends in {ending!r}; expected .graphml, .gml or .json (CSV tables: links_file, nodes_file)"
            )


def _from_graphml(text: str, path: str) -> tuple[list[Entry], list[Entry]]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # of which a few bytes can unfold to gigabytes
        raise ValueError("it declares a document type or entities, which GraphML has no use for; remove them")
    with warnings.catch_warnings(action="ignore"):  # networkx's, about what it makes of unknown types
        graph = nx.parse_graphml(text)
    if DRAWN in text:
        for _, data in graph.nodes(data=True):
            for axis in ("x", "y"):
                data.pop(axis, None)
    return _from_graph(graph, path)


def _from_gml(text: str, path: str) -> tuple[list[Entry], list[Entry]]:
    if not MULTIGRAPH.search(text):  # old files have parallel links and do not say so
        text = GRAPH.sub("graph [ multigraph 1 ", text, count=1)
    return _from_graph(nx.parse_gml(text, label="id"), path)


def _from_graph(graph: nx.Graph, path: str) -> tuple[list[Entry], list[Entry]]:
    """Of one that networkx has read; of the Topology Zoo's without the nodes that it says are outside the network."""
    if ZOO in str(graph.graph.get("Creator", "")):
        _make_playable(graph, path)
    nodes = [Entry(f"node {shown(key)}", _known(data), id=key) for key, data in graph.nodes(data=True)]
    links = [
        Entry(f"the edge of {shown(u)} and {shown(v)}", _known(data), ends=(u, v))
        for u, v, data in graph.edges(data=True)
    ]
    return nodes, links


def _make_playable(graph: nx.Graph, path: str) -> None:
    """Leave out other networks, and put nodes without a place amid their neighbours that have one; warn of both."""
    outside = [key for key, data in graph.nodes(data=True) if data.get("Internal") in OUTSIDE]
    graph.remove_nodes_from(outside)
    placed = {key for key, data in graph.nodes(data=True) if data.keys() >= set(DEGREES)}
    known = len(placed)
    while found := {key: near for key in graph.nodes - placed if (near := [o for o in graph.adj[key] if o in placed])}:
        for key, near in found.items():
            for axis in DEGREES:
                graph.nodes[key][axis] = float(np.mean([float(graph.nodes[other][axis]) for other in near]))
        placed |= found.keys()
    told = (
        (len(outside), "of other networks are left out"),
        (len(placed) - known, "without a place are put amid others"),
    )
    if said := ", ".join(f"{number} {what}" for number, what in told if number):
        warnings.warn(DpemWarning(f"network file {path!r}", f"of its nodes, {said}"), stacklevel=2)


def _from_node_link(record: Fields) -> tuple[list[Entry], list[Entry]]:
    """As networkx writes it; edges are called that, or links."""
    edges = "edges" if "edges" in record else "links"
    nodes = [Entry(where, _known(data), id=_of(where, data, "id")) for where, data in _objects(record, "nodes")]
    links = [
        Entry(where, _known(data), ends=(_of(where, data, ENDS[0]), _of(where, data, ENDS[1])))
        for where, data in _objects(record, edges)
    ]
    return nodes, links


def _from_sequence(record: Fields) -> tuple[list[Entry], list[Entry]]:
    """Of SeQUeNCe's topology: routers with their memories, and what connects two of them, be it over a BSM node.

    Lengths are in m there, attenuation in dB/m. Its `distance` of a quantum connection is that of both halves.
    """
    templates = record.get("templates", {})
    nodes: list[Entry] = []
    stations: set[Any] = set()
    for where, data in _objects(record, "nodes"):
        name = _hashable(_of(where, data, "name"))
        if data.get("type") == "BSMNode":
            stations.add(name)
            continue
        lasting = _inside(templates, str(data.get("template")), "MemoryArray", "coherence_time")
        fields = {"name": name, "memory": data.get("memo_size"), "coherence_time": None if lasting == -1 else lasting}
        nodes.append(Entry(where, fields, id=name))  # a time of -1 s stands for ever, as without it
    links = [
        Entry(where, _in_km(where, [data]), ends=(_of(where, data, "node1"), _of(where, data, "node2")))
        for where, data in _objects(record, "qconnections", needed=False)
    ]
    halves: dict[Any, list[tuple[str, Fields, Any]]] = {}
    for where, data in _objects(record, "qchannels", needed=False):
        ends = [_hashable(_of(where, data, end)) for end in ("source", "destination")]
        met = [end for end in ends if end in stations]
        if met:
            halves.setdefault(met[0], []).append((where, data, ends[ends[0] == met[0]]))
        else:
            links.append(Entry(where, _in_km(where, [data]), ends=(ends[0], ends[1])))
    for station, both in halves.items():
        if len(both) != 2:
            raise ValueError(f"{both[0][0]}: {len(both)} channel(s) lead to {shown(station)}; expected one of each end")
        (where, first, here), (_, second, there) = both
        links.append(Entry(where, _in_km(where, [first, second]), ends=(here, there)))
    return nodes, links


def _inside(record: Any, *path: str) -> Any:
    """What lies at the end of a path through objects; None if it does not go so far."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _in_km(where: str, channels: Sequence[Fields]) -> Fields:
    """Length and attenuation of channels one after the other."""
    metres = [_number(_of(where, channel, "distance"), f"{where}: distance", 0.0, LARGEST) for channel in channels]
    lost = [_number(channel.get("attenuation"), f"{where}: attenuation", 0.0, LARGEST) for channel in channels]
    length = sum(metres)
    mean = sum(m * a for m, a in zip(metres, lost, strict=True)) / length if length else lost[0]
    return {"length": length / METRES, "attenuation": None if np.isnan(mean) else mean * METRES}


def _from_links(path: str) -> tuple[list[Entry], list[Entry]]:
    """A table of links, and their ends as the nodes, in order."""
    links = [
        Entry(f"line {line}", _known(cells), ends=(cells.get(ENDS[0], ""), cells.get(ENDS[1], "")))
        for line, cells in read_table(path, ENDS, OF_LINK)
    ]
    first = {end: link.where for link in reversed(links) for end in reversed(link.ends)}
    ordered = dict.fromkeys(end for link in links for end in link.ends)
    return [Entry(first[end], {"name": end}, id=end) for end in ordered], links


def _from_nodes(path: str) -> list[Entry]:
    """A table of nodes, which links call by their names."""
    rows = read_table(path, OF_NODE[:1], OF_NODE[1:])
    return [Entry(f"line {line}", _known(cells), id=cells.get("name", "")) for line, cells in rows]


def _known(data: Fields) -> Fields:
    """Fields by the names they have here; ValueError for one that is likely a misspelt one of these."""
    found = {}
    for name, value in data.items():
        lower = str(name).lower()
        lower = ALIASES.get(lower, lower)
        if meant := OTHERWISE.get(lower) or meant_by(lower, (*OF_NODE, *OF_LINK, *ENDS, "label")):
            raise ValueError(f"unknown field {shown(name)}; did you mean {meant}?")
        found[lower] = value
    if found.get("name") in (None, "") and found.get("label") not in (None, ""):
        found["name"] = found["label"]
    return found


def _objects(record: Fields, what: str, needed: bool = True) -> Iterable[tuple[str, dict[str, Any]]]:
    found = record[what] if needed else record.get(what, [])
    if not isinstance(found, list):
        raise ValueError(f"{what} is a {type(found).__name__}; expected a list")
    for i, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise ValueError(f"{what}[{i}] is {shown(entry)}; expected an object")
        yield f"{what}[{i}]", entry


def _of(where: str, data: Fields, name: str) -> Any:
    if name not in data:
        raise ValueError(f"{where}: no {name!r}")
    return data[name]


def _hashable(key: Any) -> Any:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError(f"a node is called {shown(key)}; expected text or a whole number")
    return key


def _index(nodes: Sequence[Entry]) -> dict[Any, int]:
    if not 2 <= len(nodes) <= MAX_COUNT:
        raise ValueError(f"it has {len(nodes)} node(s); expected 2 to {MAX_COUNT}")
    index: dict[Any, int] = {}
    for i, node in enumerate(nodes):
        if _hashable(node.id) in index:
            raise ValueError(f"{node.where}: another node is called {shown(node.id)}, too")
        index[node.id] = i
    return index


def _names(nodes: Sequence[Entry]) -> tuple[str, ...]:
    """What people call them; with its id where others have the same name."""
    names = [str(node.id if node.fields.get("name") in (None, "") else node.fields["name"]).strip() for node in nodes]
    often = Counter(names)
    names = [name if often[name] == 1 else f"{name} ({node.id})" for name, node in zip(names, nodes, strict=True)]
    often = Counter(names)
    for name, node in zip(names, nodes, strict=True):
        if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            told = f"{shown(name[:50])}; expected 1 to {LONGEST_NAME} characters that can be printed in one line"
            raise ValueError(f"{node.where}: its name is {told}")
        if often[name] > 1:
            raise ValueError(f"{node.where}: another node is called {shown(name)}, too")
    return tuple(names)


def _places(nodes: Sequence[Entry]) -> tuple[Floats | None, Floats | None]:
    """(N, 2) km on a plane or a map, and (N, 3) on the globe, if they are on one; None where nobody says."""
    for axes in (("longitude", "latitude"), ("x", "y")):
        given = np.array([[_optional(node, axis, -PLACES[axis], PLACES[axis]) for axis in axes] for node in nodes])
        unknown = np.isnan(given)
        if unknown.all():
            continue
        if unknown.any():
            node = nodes[int(np.argwhere(unknown)[0][0])]
            raise ValueError(
                f"{node.where} has no {' and '.join(axes)}, and others have: give all nodes a place, or none"
            )
        return (given, None) if axes == ("x", "y") else (projected(given), on_globe(given))
    return None, None


def _straight(place: Floats | None, globe: Floats | None) -> Callable[[int, int], float] | None:
    """The km between two nodes, by their indices; None where nobody knows their places."""
    if globe is not None:
        return lambda u, v: float(great_circles(globe[[u, v]])[0, 1])
    if place is not None:
        return lambda u, v: float(np.linalg.norm(place[u] - place[v]))
    return None


class Fibre(NamedTuple):
    """A link between two nodes, by their indices; NaN stands for what the scenario says."""

    ends: tuple[int, int]
    length: float  # km
    attenuation: float  # dB/km
    link_fidelity: float


def _fibre(link: Entry, index: Mapping[Any, int], straight: Callable[[int, int], float] | None) -> Fibre:
    """What a link is; ValueError for one that ends nowhere or has no length."""
    for end in link.ends:
        if _hashable(end) not in index:
            raise ValueError(f"{link.where}: it ends at {shown(end)}, which is no node")
    u, v = (index[end] for end in link.ends)
    km = _optional(link, "length", 0.0, LARGEST)
    if np.isnan(km):
        if straight is None:
            raise ValueError(f"{link.where}: it has no length (km); give it one, or all nodes a place")
        km = straight(u, v)
    return Fibre((u, v), km, **{name: _optional(link, name, *limits) for name, limits in OF_FIBRE.items()})


def _own(nodes: Sequence[Entry], name: str, low: float, high: float, unit: str) -> Floats:
    """(N,) a kind of hardware; NaN where a node has none of its own."""
    own = np.array([_optional(node, name, low, high, unit) for node in nodes])
    for node, value in zip(nodes, own, strict=True):
        if name == "memory" and value != np.floor(value) and not np.isnan(value):
            raise ValueError(f"{node.where}: memory is {value:g}; expected a whole number of qubits")
        if 0.0 < value < SMALLEST:
            raise ValueError(f"{node.where}: {name} is {value:g}; expected 0 or at least {SMALLEST:g} {unit}")
    return own


def _optional(entry: Entry, name: str, low: float, high: float, unit: str = "") -> float:
    return _number(entry.fields.get(name), f"{entry.where}: {name}", low, high, unit)


def _number(value: Any, what: str, low: float, high: float, unit: str = "") -> float:
    """A number, which may be written as text; NaN where there is none."""
    if value is None or value == "":
        return float("nan")
    number = float("nan")
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{what} is {shown(value)}; expected a number from {low:g} to {high:g}{unit and f' {unit}'}")
    return number
