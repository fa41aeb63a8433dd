"""Networks as graphs for message passing: what never changes about them, as the arrays that graph libraries take.

Rows are those of an observation matrix: row e·N + i is node i of network e, as in `EntanglementVectorEnv`. So a graph
of several networks is their disjoint union, what PyTorch Geometric calls a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.session import Session
from dpem_env.network.network import Network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MeshNetwork

EDGE_FEATURES = ("transmission", "pair_rate", "emits")


class GraphView(NamedTuple):
    """What is fixed about R = B·N nodes: E directed edges, two a fibre, D peer places, k routes of H hops or less.

    It is public: what fibres carry, and who is whose partner over whom. Nothing of the moment is in it.
    """

    edge_index: NDArray[np.int64]  # (2, E) rows that an edge leads from and to; R where padded
    edge_attr: NDArray[np.float32]  # (E, 3) in [0, 1]: η, g·η over the largest g, 1 if the source of "from" feeds it
    peers: NDArray[np.int64]  # (R, D) row of each peer, -1 where padded
    routes: NDArray[np.int64]  # (R, D, k, H + 1) rows of the nodes on each candidate route, in order, -1 where padded


def graph_of(session: Session, padded: bool = False) -> GraphView:
    """The graph of all networks that a session plays, as fresh arrays.

    With `padded` each network has `most_edges`, whatever its topology seed: those that it lacks join row R, one past
    the last, to itself, with features 0. Give the observations a row of zeros there: no other node hears of it.
    """
    session.require_begun()
    scenario, nodes = session.scenario, session.num_nodes
    networks = [episode.network for episode in session.simulator.episodes if episode is not None]
    views = [_of_one(scenario, network) for network in networks]
    if padded:
        views = [_padded(view, most_edges(scenario, network)) for view, network in zip(views, networks, strict=True)]
    index, attributes, peers, routes = zip(*views, strict=True)
    edge_index = np.concatenate([_moved(each, e * nodes) for e, each in enumerate(index)], axis=1)
    return GraphView(
        np.where(edge_index >= 0, edge_index, len(networks) * nodes),
        np.concatenate(attributes),
        np.concatenate([_moved(each, e * nodes) for e, each in enumerate(peers)]),
        np.concatenate([_moved(each, e * nodes) for e, each in enumerate(routes)]),
    )


def most_edges(scenario: Scenario, network: Network) -> int:
    """Edges that no network of the scenario exceeds: what joins a mesh that is apart may be as many as its nodes."""
    links = network.topology.num_links
    if isinstance(scenario.network, MeshNetwork):
        links = scenario.network.num_links + network.num_nodes - 1
    return 2 * links


def _of_one(scenario: Scenario, network: Network) -> GraphView:
    topology = network.topology
    u, v = topology.links.T.astype(np.int64)
    sender, receiver = np.concatenate((u, v)), np.concatenate((v, u))
    rate = topology.generation_rate[topology.emitter] * topology.transmission
    rate /= scenario.largest_generation_rate or 1.0
    features = (np.tile(topology.transmission, 2), np.tile(rate, 2), np.tile(topology.emitter, 2) == sender)
    return GraphView(
        np.stack((sender, receiver)),
        np.stack(features, axis=1).astype(np.float32),
        network.peers.astype(np.int64),
        network.routes.nodes.astype(np.int64),
    )


def _padded(view: GraphView, edges: int) -> GraphView:
    lacking = edges - len(view.edge_attr)
    return view._replace(
        edge_index=np.pad(view.edge_index, ((0, 0), (0, lacking)), constant_values=-1),
        edge_attr=np.pad(view.edge_attr, ((0, lacking), (0, 0))),
    )


def _moved(rows: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    return np.where(rows >= 0, rows + first, -1)
