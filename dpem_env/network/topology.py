"""Topologies: where the nodes are, what hardware they have and which fibres join them.

`build_topology` draws one from a scenario and a topology seed; generators and importers are below it. Routes, peers
and demand are built on top, in their own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.network.layout import (
    Layout,
    along_fibres,
    great_circles,
    on_globe,
    projected,
    shortest_fibres,
)
from dpem_env.network.own_network import from_files
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.data import CORONET, data_file
from dpem_env.scenarios.schema import (
    LARGEST,
    MAX_COUNT,
    ChainNetwork,
    CoronetNetwork,
    FileNetwork,
    Hardware,
    MeshNetwork,
    RelayNetwork,
    StarNetwork,
    TopohubNetwork,
)
from dpem_env.support.errors import DataError, ScenarioError, nearest, shown
from dpem_env.support.files import json_object, read_json, reading
from dpem_env.support.seeding import generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

# Sndlib entries whose coordinates are pixels: their "lengths" are not kilometres.
PIXEL_TOPOLOGIES = frozenset(
    f"sndlib/{name}"
    for name in ("atlanta", "di-yuan", "france", "giul39", "newyork", "norway", "pioro40", "sun", "ta1", "ta2", "zib54")
)


@dataclass(frozen=True, eq=False)
class Topology:
    """Nodes and fibres of one network; arrays are read-only. N nodes, L links."""

    names: tuple[str, ...]  # N
    position: Floats  # (N, 2) km, on a plane or a map
    popularity: Floats  # (N,) lognormal weight as a communication partner
    generation_rate: Floats  # (N,) useful pairs/s at zero distance, g
    swap_rate: Floats  # (N,) swaps/s, c
    memory: Ints  # (N,) qubits, m
    coherence_time: Floats  # (N,) s, T
    links: Ints  # (L, 2) end nodes, lower index first
    length: Floats  # (L,) km of fibre
    emitter: Ints  # (L,) the end whose source feeds the link: the one with the larger g
    transmission: Floats  # (L,) probability that an emitted pair arrives, η
    link_fidelity: Floats  # (L,) of a pair that has just arrived
    link_key: NDArray[np.int64]  # (L,) random tie-break among routes of equal cost and hops
    globe: Floats | None = None  # (N, 3) km from the centre of a globe, where positions are a map of it; not in logs
    placed: bool = True  # False: positions are made up for pictures, and distances run along fibres; not in logs

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.names)

    @property
    def num_links(self) -> int:
        """Number of fibre links, L."""
        return len(self.links)

    def distances(self) -> Floats:
        """(N, N) distances in km: straight on a plane, along great circles on the globe, else along fibres."""
        if not self.placed:
            return along_fibres(self.num_nodes, self.links, self.length)
        if self.globe is not None:
            return great_circles(self.globe)
        delta = self.position[:, None, :] - self.position[None, :, :]
        return np.hypot(delta[..., 0], delta[..., 1])


def build_topology(scenario: Scenario, topology_seed: int) -> Topology:
    """The topology that `topology_seed` draws from the scenario's network and hardware.

    Raises DataError for a missing or malformed file and ScenarioError for a network that is not connected.
    """
    rng = generator("topology", topology_seed)
    layout = _layout(scenario, rng)
    n = len(layout.names)
    if isinstance(scenario.network, TopohubNetwork | CoronetNetwork | FileNetwork):  # others told their size before
        _require_playable(layout, scenario)
    _require_connected(layout, scenario.name)
    hardware, network = scenario.hardware, scenario.network
    generation_rate = rng.uniform(*hardware.generation_rate, size=n)
    swap_rate = rng.uniform(*hardware.swap_rate, size=n)
    memory = rng.integers(hardware.memory[0], hardware.memory[1], size=n, endpoint=True)
    popularity = rng.lognormal(0.0, getattr(scenario.demand, "popularity_sigma", 0.0), size=n)
    if isinstance(network, RelayNetwork) and layout.relays is not None:
        if network.relay_generation_rate is not None:
            generation_rate[layout.relays] = network.relay_generation_rate
        if network.relay_swap_rate is not None:
            swap_rate[layout.relays] = network.relay_swap_rate
    drawn = {
        "generation_rate": generation_rate,
        "swap_rate": swap_rate,
        "memory": memory,
        "coherence_time": np.full(n, hardware.coherence_time),
    }
    drawn = {name: _own_or(layout.hardware.get(name), usual) for name, usual in drawn.items()}
    _require_within_ranges(layout, scenario)
    return assemble(
        layout,
        popularity=popularity,
        generation_rate=drawn["generation_rate"],
        swap_rate=drawn["swap_rate"],
        memory=drawn["memory"].astype(np.int32),
        coherence_time=drawn["coherence_time"],
        node_key=rng.permutation(n),
        link_key=rng.integers(1, 2**48, size=len(layout.links)),
        hardware=hardware,
    )


def assemble(
    layout: Layout,
    *,
    popularity: Floats,
    generation_rate: Floats,
    swap_rate: Floats,
    memory: Ints,
    coherence_time: Floats,
    node_key: NDArray[np.int64],
    link_key: NDArray[np.int64],
    hardware: Hardware,
) -> Topology:
    """A topology from a layout and hardware; each link is fed by its end with the larger g.

    Between ends of equal g the one with the smaller `node_key`, a random key per topology, is the emitter.
    """
    u, v = layout.links[:, 0], layout.links[:, 1]
    ahead = (generation_rate[u] > generation_rate[v]) | (
        (generation_rate[u] == generation_rate[v]) & (node_key[u] < node_key[v])
    )
    emitter = np.where(ahead, u, v).astype(np.int32)
    transmission, link_fidelity = light(layout, hardware, generation_rate[emitter])
    topology = Topology(
        names=layout.names,
        position=layout.position,
        popularity=popularity,
        generation_rate=generation_rate,
        swap_rate=swap_rate,
        memory=memory,
        coherence_time=coherence_time,
        links=layout.links,
        length=layout.length,
        emitter=emitter,
        transmission=transmission,
        link_fidelity=link_fidelity,
        link_key=link_key,
        globe=layout.globe,
        placed=layout.placed,
    )
    for value in vars(topology).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return topology


def light(layout: Layout, hardware: Hardware, rate: Floats) -> tuple[Floats, Floats]:
    """(L,) how probable it is that a pair of the link's source, of `rate` (L,) pairs/s, arrives; its fidelity then.

    Between sources and a station in the middle both photons must come through (η of the whole fibre), or with one click
    either (2α√η, while the pair is as bright as α spoils it); where α is chosen with the quality, it is that of the
    first. A source that waits for `parallel_modes` answers at most makes no more attempts than these allow, and that
    share of its pairs, whichever of equally long links they are for.
    """
    through = physics.transmission(layout.length, _own_or(layout.fibres.get("attenuation"), hardware.attenuation))
    fidelity = _own_or(layout.fibres.get("link_fidelity"), np.full(len(layout.links), hardware.link_fidelity))
    if hardware.link_model == "single-click":
        bright = hardware.bright_states[0]
        through = physics.single_click_success(bright, through)
        fidelity = fidelity * (1.0 - bright)
    if hardware.parallel_modes is not None:
        most = hardware.attempt_success * physics.heralded_attempts(layout.length, hardware.parallel_modes)
        through = through * np.minimum(most / np.maximum(rate, physics.NEGLIGIBLE_RATE), 1.0)
    return through, fidelity


def _own_or(own: Floats | None, usual: Any) -> Any:
    """What nodes or links have of their own, where they do, else the usual."""
    return usual if own is None else np.where(np.isnan(own), usual, own)


def _require_within_ranges(layout: Layout, scenario: Scenario) -> None:
    """ScenarioError if a node's own hardware is beyond the scenario's ranges, from which observations are scaled."""
    for name in ("generation_rate", "swap_rate", "memory"):
        own = layout.hardware.get(name)
        low, high = getattr(scenario.hardware, name)
        if own is not None and (most := np.nanmax(own, initial=0.0)) > high:
            raise ScenarioError(
                f"{scenario.name}: node {layout.names[int(np.nanargmax(own))]!r} has {name} {most:g}, beyond "
                f"hardware.{name} = [{low:g}, {high:g}], the scale of observations; set it to [{low:g}, {most:g}]"
            )


def mesh(network: MeshNetwork, rng: np.random.Generator) -> Layout:
    """Nodes uniform in a square; the shortest pairs linked; node 0's component joined to the rest until connected."""
    n = network.nodes
    position = rng.uniform(0.0, network.side, size=(n, 2))
    u, v = np.triu_indices(n, k=1)
    length = np.hypot(*(position[u] - position[v]).T)
    shortest = np.argsort(length, kind="stable")[: network.num_links]
    near = list(zip(u[shortest].tolist(), v[shortest].tolist(), strict=True))
    links = np.array(sorted([*near, *_joining(position, near)]), dtype=np.int32)
    span = position[links[:, 0]] - position[links[:, 1]]
    return Layout(_numbered(n), position, links, np.hypot(span[:, 0], span[:, 1]))


def _joining(position: Floats, near: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The links that join node 0's component to the rest: again and again the shortest that leaves it (Prim, 1957)."""
    n = len(position)
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(near)
    parts = {node: part for part in nx.connected_components(graph) for node in part}
    outside = np.ones(n, dtype=np.bool_)
    shortest, inner = np.full(n, np.inf), np.zeros(n, dtype=np.int64)  # of every node outside, and where it comes from
    joining: list[tuple[int, int]] = []
    newcomers = parts[0]
    while True:
        outside[list(newcomers)] = False
        for node in sorted(newcomers):
            length = np.hypot(*(position[node] - position).T)
            shorter = length < shortest
            shortest[shorter], inner[shorter] = length[shorter], node
        if not outside.any():
            return joining
        outer = int(np.where(outside, shortest, np.inf).argmin())
        joining.append((min(outer, int(inner[outer])), max(outer, int(inner[outer]))))
        newcomers = parts[outer]


def chain(network: ChainNetwork) -> Layout:
    """Nodes in a line; every interior node is a relay."""
    n = network.nodes
    position = np.stack((np.arange(n) * network.spacing, np.zeros(n)), axis=1)
    links = np.array([(i, i + 1) for i in range(n - 1)], dtype=np.int32)
    relays = np.arange(n) % (n - 1) != 0
    return Layout(_numbered(n), position, links, np.full(n - 1, network.spacing), relays)


def star(network: StarNetwork) -> Layout:
    """Leaves on a circle around hub 0, the only relay."""
    n = network.nodes
    angle = np.arange(1, n) * 2.0 * np.pi / (n - 1)
    leaves = network.spacing * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    links = np.array([(0, i) for i in range(1, n)], dtype=np.int32)
    return Layout(
        _numbered(n), np.vstack((np.zeros((1, 2)), leaves)), links, np.full(n - 1, network.spacing), np.arange(n) == 0
    )


def from_topohub(network: TopohubNetwork) -> Layout:
    """A real topology of the topohub package (MIT licence), fibre lengths in km times `length_scale`."""
    key = network.topology
    file = topohub_file(key)
    with reading("topohub's topology", key, DataError):
        record = json_object(file.read_text(encoding="utf-8"))
        return _from_record(record, _TOPOHUB_PLANE if key.startswith("gabriel/") else _TOPOHUB, network.length_scale)


def topohub_file(key: str) -> Path:
    """Where a topology of the topohub package lies; ScenarioError if the package has none of this name."""
    if key in PIXEL_TOPOLOGIES:
        raise ScenarioError(f"network.topology: link lengths of {key!r} are pixel distances, not km; choose another")
    if key not in topohub_names():  # a name only, never a path to somewhere else
        raise ScenarioError(f"network.topology: topohub has no topology {key!r}; {nearest(key, topohub_names())}")
    return Path(str(files("topohub"))) / "data" / f"{key}.json"


@cache
def topohub_names() -> tuple[str, ...]:
    """Topologies of the topohub package whose lengths are kilometres."""
    data = Path(str(files("topohub"))) / "data"
    names = (file.relative_to(data).with_suffix("").as_posix() for file in data.rglob("*.json"))
    return tuple(sorted(set(names) - PIXEL_TOPOLOGIES))


def from_coronet(network: CoronetNetwork, path: Path) -> Layout:
    """CORONET Global from ``coronet/flat_CORONET_Global_Topology.json`` of the data folder, lengths scaled."""
    with reading("topology file", path, DataError):
        return _from_record(read_json(path), _CORONET, network.length_scale)


@dataclass(frozen=True)
class _Fields:
    """What a kind of node-link file calls its fields."""

    ends: tuple[str, str]
    length: str  # km
    place: tuple[str, ...]  # two numbers, or one field that is a list of both
    id: str | None = None  # what edges call a node; none: its place in the list
    degrees: bool = True  # longitude and latitude; else km on a plane


_TOPOHUB = _Fields(ends=("source", "target"), length="dist", place=("pos",), id="id")
_TOPOHUB_PLANE = replace(_TOPOHUB, degrees=False)  # synthetic ones
_CORONET = _Fields(ends=("u", "v"), length="km", place=("lon", "lat"))


def _from_record(record: dict[str, Any], fields: _Fields, scale: float) -> Layout:
    """A layout from what a node-link file holds; ValueError or KeyError says what is wrong with it, and where."""
    nodes, edges = (_objects(record, what) for what in ("nodes", "edges"))
    if not 2 <= len(nodes) <= MAX_COUNT:
        raise ValueError(f"it has {len(nodes)} node(s); expected 2 to {MAX_COUNT}")
    index: dict[str | int, int] = {}
    names, places = [], []
    for i, node in enumerate(nodes):
        name = node[fields.id] if fields.id else i
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"nodes[{i}] has the id {shown(name)}; expected text or a whole number")
        if name in index:
            raise ValueError(f"nodes[{i}] has the id {shown(name)} of another node")
        index[name] = i
        names.append(str(node.get("name", name)))
        place = node[fields.place[0]] if len(fields.place) == 1 else [node[axis] for axis in fields.place]
        if not isinstance(place, list) or len(place) != 2:
            raise ValueError(f"nodes[{i}] is at {shown(place)}; expected two numbers")
        largest = 360.0 if fields.degrees else LARGEST
        places.append([_number(x, f"a coordinate of nodes[{i}]", -largest, largest) for x in place])
    fibres = []
    for i, edge in enumerate(edges):
        ends = [edge[end] for end in fields.ends]
        for end in ends:
            if isinstance(end, bool) or not isinstance(end, str | int) or end not in index:
                raise ValueError(f"edges[{i}] ends at {shown(end)}, which is no node")
        u, v = (index[end] for end in ends)
        fibres.append((u, v, _number(edge[fields.length], f"{fields.length} of edges[{i}]", 0.0, LARGEST)))
    links, length = shortest_fibres(fibres, scale)
    position = np.array(places, dtype=np.float64)
    if not fields.degrees:
        return Layout(tuple(names), position * scale, links, length)
    return Layout(tuple(names), projected(position) * scale, links, length, globe=on_globe(position) * scale)


def _objects(record: dict[str, Any], what: str) -> list[dict[str, Any]]:
    found = record[what]
    if not isinstance(found, list):
        raise ValueError(f"{what} is a {type(found).__name__}; expected a list")
    for i, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise ValueError(f"{what}[{i}] is {shown(entry)}; expected an object")
    return found


def _number(value: object, what: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{what} is {shown(value)}; expected a number from {low:g} to {high:g}")
    return float(value)


def _layout(scenario: Scenario, rng: np.random.Generator) -> Layout:
    match scenario.network:
        case MeshNetwork() as network:
            return mesh(network, rng)
        case ChainNetwork() as network:
            return chain(network)
        case StarNetwork() as network:
            return star(network)
        case TopohubNetwork() as network:
            return from_topohub(network)
        case FileNetwork() as network:
            return from_files(network)
        case CoronetNetwork() as network:
            return from_coronet(network, data_file(scenario, CORONET))


def _require_playable(layout: Layout, scenario: Scenario) -> None:
    nodes, links = len(layout.names), len(layout.links)
    try:
        scenario.require_playable(nodes, links, int(np.bincount(layout.links.ravel(), minlength=1).max()))
    except ValueError as error:
        raise ScenarioError(f"{scenario.name}: {error}") from None


def _require_connected(layout: Layout, name: str) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(range(len(layout.names)))
    graph.add_edges_from(layout.links.tolist())
    parts = nx.number_connected_components(graph)
    if parts > 1:
        lonely = layout.names[min(sorted(nx.connected_components(graph), key=len)[0])]
        raise ScenarioError(
            f"{name}: the topology is disconnected ({parts} components; {lonely!r} is cut off); add a link"
        )


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(f"node {i}" for i in range(n))
