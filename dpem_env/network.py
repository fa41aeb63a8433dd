"""A network ready to simulate: topology, peers, gravity weights and candidate routes, drawn from one topology seed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpem_env import traces
from dpem_env.errors import ScenarioError
from dpem_env.network_cache import kept
from dpem_env.route_search import Exclusion
from dpem_env.routes import RouteTable, find_routes, reachability
from dpem_env.scenarios import ReplayDemand, Scenario, SessionDemand, TraceDemand
from dpem_env.seeding import generator
from dpem_env.topology import Topology, build_topology, data_folder


@dataclass(frozen=True, eq=False)
class Network:
    """One topology with everything that stays fixed during its episodes. N nodes, D peer places per node."""

    topology: Topology
    peers: NDArray[np.int32]  # (N, D) node index of each peer, -1 where padded
    weights: NDArray[np.float64]  # (N, D) gravity weight of each pair, sums to 1 over the network
    routes: RouteTable
    excluded: dict[str, int]  # ordered pairs that cannot be peers, counted by reason

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return self.topology.num_nodes


def build_network(scenario: Scenario, topology_seed: int, data_dir: str | os.PathLike[str] | None = None) -> Network:
    """The network of (scenario, topology_seed); the most recent ones are kept in memory, big ones on disk."""
    return _build(scenario, topology_seed, data_folder(data_dir))


@lru_cache(maxsize=128)
def _build(scenario: Scenario, topology_seed: int, data_dir: Path | None) -> Network:
    return kept(scenario, topology_seed, lambda: _draw(scenario, topology_seed, data_dir))


def _draw(scenario: Scenario, topology_seed: int, data_dir: Path | None) -> Network:
    topology = build_topology(scenario, topology_seed, data_dir)
    verdict = reachability(topology, scenario)
    peers, weights = _choose_peers(scenario, topology, verdict == 0, generator("peers", topology_seed), data_dir)
    return with_routes(scenario, topology, peers, weights, _tally(verdict))


def with_routes(
    scenario: Scenario,
    topology: Topology,
    peers: NDArray[np.int32],
    weights: NDArray[np.float64],
    excluded: dict[str, int],
) -> Network:
    """A network from a topology and chosen peers: adds the candidate routes."""
    routes = find_routes(topology, scenario, peers)
    for array in (peers, weights, *vars(routes).values()):
        array.setflags(write=False)
    return Network(topology, peers, weights, routes, excluded)


def _tally(verdict: NDArray[np.int8]) -> dict[str, int]:
    off_diagonal = verdict[~np.eye(len(verdict), dtype=bool)]
    counts = Counter(off_diagonal.tolist())
    return {reason.name.lower().replace("_", " "): counts[reason] for reason in Exclusion if reason and counts[reason]}


def _choose_peers(
    scenario: Scenario,
    topology: Topology,
    reachable: NDArray[np.bool_],
    rng: np.random.Generator,
    data_dir: Path | None,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Up to D reachable peers per node, and the weight of each pair in the demand (summing to 1).

    Sessions: drawn without replacement with probability ∝ popularity_j · exp(-distance/50 km), weighted by
    popularity_i · popularity_j · exp(-distance/50 km). Trace and replay: the D partners with the most demand.
    """
    match scenario.demand:
        case TraceDemand():
            demand = traces.load_abilene(data_dir).mean_matrix()
            _require_size(demand, topology, scenario)
            wanted = demand
        case SessionDemand() as sessions:
            closeness = np.exp(-topology.distances() / sessions.gravity_length)
            demand = topology.popularity[:, None] * topology.popularity * closeness
            # Gumbel top-k: the D largest of log p + Gumbel noise are a draw without replacement with weights p.
            attraction = np.log(topology.popularity) - topology.distances() / sessions.gravity_length
            wanted = np.exp(attraction + rng.gumbel(size=demand.shape))
        case ReplayDemand() as replay:
            demand = traces.request_counts(replay, topology.num_nodes)
            wanted = demand
    n, places = topology.num_nodes, scenario.demand.peers
    peers = np.full((n, places), -1, dtype=np.int32)
    for i in range(n):
        candidates = np.flatnonzero(reachable[i] & (wanted[i] > 0))
        chosen = candidates[np.argsort(-wanted[i, candidates], kind="stable")][:places]
        peers[i, : len(chosen)] = chosen
    weights = np.where(peers >= 0, np.take_along_axis(demand, np.maximum(peers, 0), axis=1), 0.0)
    return peers, weights / max(weights.sum(), np.finfo(float).tiny)


def _require_size(demand: NDArray[np.float64], topology: Topology, scenario: Scenario) -> None:
    if len(demand) != topology.num_nodes:
        raise ScenarioError(
            f"{scenario.name}: the trace has {len(demand)} nodes, the topology {topology.num_nodes}; "
            "use network.topology = 'sndlib/abilene'"
        )
