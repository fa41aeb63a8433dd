"""Topologies: where the nodes are, what hardware they have and which fibres join them.

`build_topology` draws one from a scenario and a topology seed; generators and importers are below it. Routes, peers
and demand are built on top, in their own modules.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.errors import DataError, ScenarioError
from dpem_env.scenarios import (
    ChainNetwork,
    CoronetNetwork,
    MeshNetwork,
    RelayNetwork,
    Scenario,
    StarNetwork,
    TopohubNetwork,
)
from dpem_env.seeding import generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

EARTH_RADIUS = 6371.0  # km
# Sndlib entries whose coordinates are pixels: their "lengths" are not kilometres.
PIXEL_TOPOLOGIES = frozenset(
    f"sndlib/{name}"
    for name in ("atlanta", "di-yuan", "france", "giul39", "newyork", "norway", "pioro40", "sun", "ta1", "ta2", "zib54")
)


@dataclass(frozen=True, eq=False)
class Topology:
    """Nodes and fibres of one network; arrays are read-only. N nodes, L links."""

    names: tuple[str, ...]  # N
    position: Floats  # (N, 2) km, for drawing and distances
    popularity: Floats  # (N,) lognormal weight as a communication partner
    generation_rate: Floats  # (N,) useful pairs/s at zero distance, g
    swap_rate: Floats  # (N,) swaps/s, c
    memory: Ints  # (N,) qubits, m
    coherence_time: Floats  # (N,) s, T
    links: Ints  # (L, 2) end nodes, lower index first
    length: Floats  # (L,) km of fibre
    emitter: Ints  # (L,) the end whose source feeds the link: the one with the larger g
    transmission: Floats  # (L,) probability that an emitted pair arrives, η
    link_key: NDArray[np.int64]  # (L,) random tie-break among routes of equal cost and hops

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.names)

    @property
    def num_links(self) -> int:
        """Number of fibre links, L."""
        return len(self.links)

    def distances(self) -> Floats:
        """(N, N) straight-line distances in km."""
        delta = self.position[:, None, :] - self.position[None, :, :]
        return np.hypot(delta[..., 0], delta[..., 1])


@dataclass(frozen=True)
class Layout:
    """Places and fibres before hardware is drawn; what generators and importers return."""

    names: tuple[str, ...]
    position: Floats  # (N, 2) km
    links: Ints  # (L, 2)
    length: Floats  # (L,) km
    relays: NDArray[np.bool_] | None = None  # (N,) nodes with hardware of their own (chain, star)


def build_topology(scenario: Scenario, topology_seed: int, data_dir: str | os.PathLike[str] | None = None) -> Topology:
    """The topology that `topology_seed` draws from the scenario's network and hardware.

    `data_dir` holds files that are not shipped (see `dpem list`). Raises DataError for a missing or malformed file and
    ScenarioError for a network that is not connected.
    """
    rng = generator("topology", topology_seed)
    layout = _layout(scenario, rng, data_dir)
    n = len(layout.names)
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
    return assemble(
        layout,
        popularity=popularity,
        generation_rate=generation_rate,
        swap_rate=swap_rate,
        memory=memory.astype(np.int32),
        coherence_time=np.full(n, hardware.coherence_time),
        node_key=rng.permutation(n),
        link_key=rng.integers(1, 2**48, size=len(layout.links)),
        attenuation=hardware.attenuation,
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
    attenuation: float,
) -> Topology:
    """A topology from a layout and per-node hardware; each link is fed by its end with the larger g.

    Between ends of equal g the one with the smaller `node_key`, a random key per topology, is the emitter.
    """
    u, v = layout.links[:, 0], layout.links[:, 1]
    ahead = (generation_rate[u] > generation_rate[v]) | (
        (generation_rate[u] == generation_rate[v]) & (node_key[u] < node_key[v])
    )
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
        emitter=np.where(ahead, u, v).astype(np.int32),
        transmission=physics.transmission(layout.length, attenuation),
        link_key=link_key,
    )
    for value in vars(topology).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return topology


def mesh(network: MeshNetwork, rng: np.random.Generator) -> Layout:
    """Nodes uniform in a square; the shortest pairs linked; node 0's component joined to the rest until connected."""
    n = network.nodes
    position = rng.uniform(0.0, network.side, size=(n, 2))
    u, v = np.triu_indices(n, k=1)
    length = np.hypot(*(position[u] - position[v]).T)
    by_length = np.argsort(length, kind="stable")
    wanted = min(round(network.links_per_node * n), len(by_length))
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(zip(u[by_length[:wanted]].tolist(), v[by_length[:wanted]].tolist(), strict=True))
    while not nx.is_connected(graph):
        reached = np.zeros(n, dtype=bool)
        reached[list(nx.node_connected_component(graph, 0))] = True
        shortest = next(e for e in by_length if reached[u[e]] != reached[v[e]])
        graph.add_edge(int(u[shortest]), int(v[shortest]))
    links = np.array(sorted(tuple(sorted(edge)) for edge in graph.edges), dtype=np.int32)
    span = position[links[:, 0]] - position[links[:, 1]]
    return Layout(_numbered(n), position, links, np.hypot(span[:, 0], span[:, 1]))


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
    import topohub

    key = network.topology
    if key in PIXEL_TOPOLOGIES:
        raise ScenarioError(f"network.topology: link lengths of {key!r} are pixel distances, not km; choose another")
    try:
        record = topohub.get(key)
    except (KeyError, OSError, ValueError):  # ValueError: a name that cannot be part of a path
        raise ScenarioError(f"network.topology: topohub has no topology {key!r}; see topohub.list()") from None
    index = {node["id"]: i for i, node in enumerate(record["nodes"])}
    names = tuple(str(node.get("name", node["id"])) for node in record["nodes"])
    places = np.array([node["pos"] for node in record["nodes"]], dtype=np.float64)
    position = places if key.startswith("gabriel/") else _projected(places)  # synthetic ones lie on a plane, in km
    edges = [(index[e["source"]], index[e["target"]], float(e["dist"])) for e in record["edges"]]
    return _scaled(names, position, edges, network.length_scale)


def from_coronet(network: CoronetNetwork, data_dir: str | os.PathLike[str] | None) -> Layout:
    """CORONET Global from ``coronet/flat_CORONET_Global_Topology.json`` of the data folder, lengths scaled."""
    path = data_file(data_dir, "coronet/flat_CORONET_Global_Topology.json", "coronet100-v0")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        names = tuple(str(node["name"]) for node in record["nodes"])
        degrees = np.array([(node["lon"], node["lat"]) for node in record["nodes"]], dtype=np.float64)
        edges = [(int(e["u"]), int(e["v"]), float(e["km"])) for e in record["edges"]]
        if len(names) < 2 or degrees.shape != (len(names), 2) or not (np.abs(degrees) <= 360.0).all():
            raise ValueError("fewer than two nodes, or a coordinate that is no number of degrees")
        if any(end not in range(len(names)) for u, v, _ in edges for end in (u, v)):
            raise ValueError(f"an edge ends at no node; nodes are 0..{len(names) - 1}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"topology file {path}: not a node-link JSON with nodes and km edges: {error!r}") from None
    return _scaled(names, _projected(degrees), edges, network.length_scale)


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of data that is not shipped: the argument, else ``DPEM_DATA``, else none."""
    folder = data_dir or os.environ.get("DPEM_DATA")
    return Path(folder) if folder else None


def data_file(data_dir: str | os.PathLike[str] | None, relative: str, needed_by: str) -> Path:
    """The path of a file in the data folder (argument, else ``DPEM_DATA``); DataError says how to get it."""
    folder = data_folder(data_dir)
    if folder is None:
        raise DataError(
            f"{needed_by} needs {relative}: pass --data DIR or set DPEM_DATA (dpem list says where to get it)"
        )
    path = folder / relative
    if not path.is_file():
        raise DataError(
            f"{needed_by} needs {relative}, which is not in {os.fspath(folder)!r} (dpem list says where to get it)"
        )
    return path


def _layout(scenario: Scenario, rng: np.random.Generator, data_dir: str | os.PathLike[str] | None) -> Layout:
    match scenario.network:
        case MeshNetwork() as network:
            return mesh(network, rng)
        case ChainNetwork() as network:
            return chain(network)
        case StarNetwork() as network:
            return star(network)
        case TopohubNetwork() as network:
            return from_topohub(network)
        case CoronetNetwork() as network:
            return from_coronet(network, data_dir)


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


def _scaled(names: tuple[str, ...], position: Floats, edges: list[tuple[int, int, float]], scale: float) -> Layout:
    shortest: dict[tuple[int, int], float] = {}
    for u, v, km in edges:
        if not np.isfinite(km) or km < 0:
            raise DataError(f"link {names[u]!r}-{names[v]!r}: length {km} km; expected a finite number >= 0")
        if u != v:  # of parallel fibres the shortest counts
            ends = (min(u, v), max(u, v))
            shortest[ends] = min(km, shortest.get(ends, np.inf))
    links = np.array(sorted(shortest), dtype=np.int32).reshape(-1, 2)
    length = np.array([shortest[u, v] for u, v in links.tolist()]) * scale
    return Layout(names, position * scale, links, length)


def _projected(degrees: Floats) -> Floats:
    """Longitude and latitude in degrees to km on an equirectangular map around the mean latitude."""
    lon, lat = np.radians(degrees).T
    flat = EARTH_RADIUS * np.stack(((lon - lon.mean()) * np.cos(lat.mean()), lat - lat.mean()), axis=1)
    return flat
