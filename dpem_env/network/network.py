"""A network ready to simulate: topology, peers, gravity weights and candidate routes, drawn from one topology seed."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpem_env.network.cache import kept
from dpem_env.network.route_search import Exclusion
from dpem_env.network.routes import RouteTable, find_routes, reachability
from dpem_env.network.topology import Topology, build_topology
from dpem_env.scenarios import Scenario, traces
from dpem_env.scenarios.data import data_folder
from dpem_env.scenarios.schema import SMALLEST, ReplayDemand, SaturatedDemand, SessionDemand, TraceDemand
from dpem_env.support.errors import DpemWarning, ScenarioError
from dpem_env.support.seeding import generator, require_seed

Floats = NDArray[np.float64]

TINY = np.finfo(float).tiny
NO_DEMAND = "no demand"


@dataclass(frozen=True, eq=False)
class Network:
    """One topology with everything that stays fixed during its episodes. N nodes, D peer places per node."""

    topology: Topology
    peers: NDArray[np.int32]  # (N, D) node index of each peer, -1 where padded
    weights: Floats  # (N, D) gravity weight of each pair, sums to 1 over the network
    routes: RouteTable
    excluded: dict[str, int]  # ordered pairs that cannot be peers, counted by reason

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return self.topology.num_nodes

    @property
    def num_connected(self) -> int:
        """Number of nodes that have a peer to make requests for."""
        return int((self.weights > 0).any(axis=1).sum())


def build_network(scenario: Scenario, topology_seed: int) -> Network:
    """The network of (scenario, topology_seed); the most recent ones are kept in memory, big ones on disk.

    Warns where fewer than half of the nodes have a peer. Raises ScenarioError where it is too big, or not connected.
    """
    require_seed("topology seed", topology_seed)
    network = _build(scenario, int(topology_seed), data_folder(scenario.data_dir))
    # Of a file every request is accounted for when demand is drawn; saturated demand is that of few pairs.
    of_few = isinstance(scenario.demand, ReplayDemand | SaturatedDemand)
    lost = _lost_demand(scenario, network)
    if lost:
        said = f"topology seed {topology_seed}: {lost}"
        warnings.warn(DpemWarning(scenario.name, said), stacklevel=2)
    elif not of_few and 0 < 2 * network.num_connected < network.num_nodes:  # where none has, nothing can be played
        said = f"topology seed {topology_seed}: {peers_in_words(network)}"
        warnings.warn(DpemWarning(scenario.name, said), stacklevel=2)
    return network


def _lost_demand(scenario: Scenario, network: Network) -> str | None:
    """What to say of demand in a matrix between nodes that are no peers; None if there is none."""
    if not isinstance(scenario.demand, SessionDemand) or scenario.demand.demand_matrix is None:
        return None
    matrix = traces.demand_matrix(scenario.demand, network.topology.names)
    node, place = np.nonzero(network.peers >= 0)
    lost = 1.0 - matrix[node, network.peers[node, place]].sum() / matrix.sum()
    if lost < SMALLEST:
        return None
    verdict = reachability(network.topology, scenario)[matrix > 0]
    reasons = Counter(in_words(each) for each in verdict.tolist() if each != Exclusion.REACHABLE)
    told = ", ".join(f"{number} pairs {reason}" for reason, number in reasons.most_common()) or "too many partners"
    remedy = REMEDIES[reasons.most_common(1)[0][0]] if reasons else "raise demand.peers"
    file = f"demand matrix {scenario.demand.demand_matrix!r}"
    return f"{file}: {lost:.1%} of the demand is between no peers and is shared out among the rest: {told}; {remedy}"


@lru_cache(maxsize=128)
def _build(scenario: Scenario, topology_seed: int, data: Path | None) -> Network:  # data: equal scenarios, other files
    return kept(scenario, topology_seed, Network, lambda: _draw(scenario, topology_seed))


def _draw(scenario: Scenario, topology_seed: int) -> Network:
    topology = build_topology(scenario, topology_seed)
    verdict = reachability(topology, scenario)
    excluded, reachable = _tally(verdict), verdict == Exclusion.REACHABLE
    demand, wanted = _demand_between(scenario, topology, generator("peers", topology_seed))
    unasked = int((reachable & (demand < TINY)).sum())
    if unasked and isinstance(scenario.demand, SessionDemand):
        excluded[NO_DEMAND] = unasked
    peers, weights = _choose_peers(demand, wanted, reachable, scenario.demand.peers)
    return with_routes(scenario, topology, peers, weights, excluded)


# What makes peers of a pair of nodes, by what it lacks.
REMEDIES = {
    "too many hops": "raise routing.max_hops",
    "weak link": (
        "shorten the fibres (network.length_scale, side or spacing) or raise hardware.generation_rate or parallel_modes"
    ),
    "weak relay": "raise hardware.swap_rate",
    "little memory": "raise hardware.memory",
    "too slow": "raise hardware.generation_rate, parallel_modes or control.time_to_live",
    "low fidelity": "raise hardware.link_fidelity, lower bright_state or demand.fidelity_classes",
    NO_DEMAND: "raise demand.gravity_length, or read a trace or matrix with demand between them",
}


def in_words(exclusion: int) -> str:
    """An Exclusion, as people read it."""
    return Exclusion(exclusion).name.lower().replace("_", " ")


def peers_in_words(network: Network) -> str:
    """How many nodes have a peer, why not more, and what helps."""
    nodes, excluded = network.num_nodes, Counter(network.excluded).most_common()
    reasons = ", ".join(f"{number} {reason}" for reason, number in excluded)
    remedy = REMEDIES[excluded[0][0] if excluded else NO_DEMAND]
    return (
        f"only {network.num_connected} of {nodes} nodes have a peer; of {nodes * (nodes - 1)} pairs of nodes these "
        f"cannot be peers: {reasons}; {remedy}"
    )


def with_routes(
    scenario: Scenario,
    topology: Topology,
    peers: NDArray[np.int32],
    weights: Floats,
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
    return {in_words(reason): counts[reason] for reason in Exclusion if reason and counts[reason]}


def _demand_between(scenario: Scenario, topology: Topology, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(N, N) demand of each pair, up to a factor, and how much each node wants each other one as its peer.

    Sessions: popularity_i · popularity_j · exp(-distance/50 km); peers are drawn without replacement with probability
    ∝ popularity_j · exp(-distance/50 km). Matrix, trace and replay: those with the most demand. Saturated: the
    ends of a chain, or any two leaves of a switch, whose hub is everybody's peer.
    """
    match scenario.demand:
        case TraceDemand():
            demand = traces.load_abilene(scenario).mean_matrix()
            _require_size(demand, topology, scenario)
            return demand, demand
        case SessionDemand(demand_matrix=str()) as given:
            demand = traces.demand_matrix(given, topology.names)
            return demand, demand
        case SessionDemand() as sessions:
            closeness = np.exp(-topology.distances() / sessions.gravity_length)
            demand = topology.popularity[:, None] * topology.popularity * closeness
            # Gumbel top-k: the D largest of log p + Gumbel noise are a draw without replacement with weights p.
            attraction = np.log(topology.popularity) - topology.distances() / sessions.gravity_length
            return demand, np.exp(attraction + rng.gumbel(size=demand.shape))
        case ReplayDemand() as replay:
            demand = traces.request_counts(replay, topology.names)
            return demand, demand
        case SaturatedDemand():
            demand = np.zeros((topology.num_nodes, topology.num_nodes))
            if not scenario.control.switch:
                demand[0, -1] = 1.0
                return demand, demand
            demand[1:, 1:] = np.triu(np.ones_like(demand[1:, 1:]), k=1)
            wanted = demand.copy()
            wanted[1:, 0] = 2.0  # the hub in the first place
            return demand, wanted


def _choose_peers(
    demand: Floats, wanted: Floats, reachable: NDArray[np.bool_], places: int
) -> tuple[NDArray[np.int32], Floats]:
    """The reachable peers that each node wants most, at most `places`; each pair's share of the network's demand."""
    n = len(demand)
    peers = np.full((n, places), -1, dtype=np.int32)
    for i in range(n):
        candidates = np.flatnonzero(reachable[i] & (wanted[i] > 0))
        chosen = candidates[np.argsort(-wanted[i, candidates], kind="stable")][:places]
        peers[i, : len(chosen)] = chosen
    weights = np.where(peers >= 0, np.take_along_axis(demand, np.maximum(peers, 0), axis=1), 0.0)
    total = weights.sum()
    return peers, weights / total if total >= TINY else np.zeros_like(weights)


def _require_size(demand: Floats, topology: Topology, scenario: Scenario) -> None:
    if len(demand) != topology.num_nodes:
        raise ScenarioError(
            f"{scenario.name}: the trace has {len(demand)} nodes, the topology {topology.num_nodes}; "
            "use network.topology = 'sndlib/abilene'"
        )
