"""What nodes with published hardware see: their time scale in slots, whom they reach, and what simple rules deliver."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env import physics
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.network.routes import pairs_per_link, pumped_werner
from dpem_env.policies import get_policy
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario, get
from dpem_env.support.files import write_json

DIGITS = 4


def seen(scenario: Scenario, topologies: int) -> dict[str, Any]:
    """Means of validation networks: of the first and last quality a typical link's wait and its pair's life, in slots.

    The life is that of a fresh pair until no class can use it.
    """
    slot, found = scenario.control.slot_duration, []
    lowest = physics.werner_from_fidelity(scenario.demand.fidelity_classes[0])
    for k in range(topologies):
        network = build_network(scenario, scenario.seeds.validation.topology[k])
        topology = network.topology
        rate = topology.generation_rate[topology.emitter] * topology.transmission
        pairs, fresh = pairs_per_link(topology, scenario), pumped_werner(topology, scenario)
        kept = topology.coherence_time[topology.links].T
        life = physics.cutoff_age(fresh, lowest, *kept) / slot
        peers = network.peers >= 0
        found.append(
            [
                *(np.median(pairs[q] / np.maximum(rate, physics.NEGLIGIBLE_RATE)) / slot for q in (0, -1)),
                *(np.median(life[q]) for q in (0, -1)),
                *(physics.fidelity_from_werner(fresh[q].mean()) for q in (0, -1)),
                peers.sum() / len(peers),
                network.routes.hops[:, :, 0][peers].mean(),
            ]
        )
    names = ("wait", "wait_best", "life", "life_best", "fidelity", "fidelity_best", "peers", "hops")
    return {name: round(float(value), DIGITS) for name, value in zip(names, np.mean(found, axis=0), strict=True)}


def delivered(scenario: Scenario, policy: str, seeds: int) -> float:
    """Mean delivery rate of evaluation episodes."""
    rates = [
        run_episode(scenario, get_policy(policy), episode_seeds(scenario, "evaluation", k))[0].delivery_rate
        for k in range(seeds)
    ]
    return round(float(np.mean(rates)), DIGITS)


def main() -> None:
    """Look and play, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", required=True)
    parser.add_argument("--policy", action="append", required=True)
    parser.add_argument("--topologies", type=int, required=True, help="validation networks")
    parser.add_argument("--seeds", type=int, required=True, help="evaluation episodes")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    rows = []
    with progress() as bar:
        for name in bar.track(given.scenario, description="scenarios"):
            scenario = get(name)
            row = {"scenario": name, "slot": scenario.control.slot_duration} | seen(scenario, given.topologies)
            rows.append(row | {policy: delivered(scenario, policy, given.seeds) for policy in given.policy})
    write_json(given.out, {"topologies": given.topologies, "seeds": given.seeds, "rows": rows})


if __name__ == "__main__":
    main()
