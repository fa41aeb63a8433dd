"""What shipped networks say of the idealisations: how far messages travel, and whose demand goes both ways."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.files import write_json

LIGHT = 2e5  # km/s in fibre
DIGITS = 4


def within(network: Network) -> NDArray[np.bool_]:
    """(N, D, k, H) which hops candidate routes have."""
    has: NDArray[np.bool_] = np.arange(network.routes.links.shape[-1]) < network.routes.hops[..., None]
    return has


def longest_link(network: Network) -> float:
    """On any candidate route, in km."""
    return float(network.topology.length[network.routes.links[within(network)]].max())


def longest_route(network: Network) -> float:
    """Of all candidates, in km."""
    lengths = np.where(within(network), network.topology.length[network.routes.links], 0.0)
    return float(lengths.sum(axis=-1).max())


def heralding(network: Network) -> float:
    """Largest share of its time for which a source would wait to hear of every useful pair before it makes the next."""
    topology, used = network.topology, network.routes.links[within(network)]
    return float((topology.generation_rate[topology.emitter] * 2 * topology.length / LIGHT)[used].max())


def reciprocal(network: Network) -> tuple[float, float]:
    """Share of the pairs (node, peer) in which the node is a peer of its peer, and their share of the demand."""
    wants = np.zeros((network.num_nodes, network.num_nodes), dtype=bool)
    node, place = np.nonzero(network.peers >= 0)
    wants[node, network.peers[node, place]] = True
    mutual = wants[network.peers[node, place], node]
    return float(mutual.mean()), float(network.weights[node, place] @ mutual)


def measured(scenario: Scenario, count: int) -> dict[str, Any]:
    """The largest of all distances and times, and means of shares, over the first evaluation networks."""
    networks = [build_network(scenario, episode_seeds(scenario, "evaluation", k).topology) for k in range(count)]
    route = max(map(longest_route, networks))
    pairs, demand = zip(*map(reciprocal, networks), strict=True)
    return {
        "scenario": scenario.name,
        "hash": scenario.hash,
        "longest_link_km": round(max(map(longest_link, networks)), 1),
        "longest_route_km": round(route, 1),
        "message_ms": round(1e3 * route / LIGHT, DIGITS),
        "of_a_slot": round(route / LIGHT / scenario.control.slot_duration, DIGITS),
        "heralding": round(max(map(heralding, networks)), DIGITS),
        "reciprocal_pairs": round(float(np.mean(pairs)), DIGITS),
        "reciprocal_demand": round(float(np.mean(demand)), DIGITS),
    }


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", required=True)
    parser.add_argument("--topologies", type=int, required=True, help="evaluation networks of each")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    rows = [measured(scenarios.get(name), given.topologies) for name in given.scenario]
    write_json(given.out, {"topologies": given.topologies, "rows": rows})


if __name__ == "__main__":
    main()
