"""What no policy exceeds, with what pairs really cost; estimates beyond; and what rules that know the rates deliver.

On the first evaluation networks of every scenario, and in the episodes on them. Rules have their tuned options, no
control delay, and the true rates of every slot up to 2 s ahead (`oracle`), sessions included.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dpem_baselines.clairvoyant import clairvoyant_bounds
from dpem_baselines.in_time import InTime
from dpem_baselines.single_route import SingleRoute
from dpem_baselines.tight_bound import TightBounds, tight_bounds
from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.statistics import mean_interval
from dpem_env.experiments.tuning import Tuned
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.files import write_json

DIGITS = 4
KNOWN_RATES = "oracle"
SOLVED = {(1, 1): 40, (2, 1): 40, (2, 2): 8, (3, 1): 8}  # routes to solve, by hops and quality


def bounded(scenario: Scenario, networks: int) -> dict[str, Any]:
    """The bounds in shares of the requests, means over networks, and each network's own."""
    seeds = [scenario.seeds.evaluation.topology[k] for k in range(networks)]
    found = [tight_bounds(scenario, build_network(scenario, seed)) for seed in seeds]
    of_each = {name: [getattr(each, name).share for each in found] for name in TightBounds._fields}
    means = {name: round(float(np.mean(shares)), DIGITS) for name, shares in of_each.items()}
    return means | {"of_each": {name: [round(share, DIGITS) for share in each] for name, each in of_each.items()}}


def foreseen(scenario: Scenario, episodes: int) -> dict[str, Any]:
    """The clairvoyant bounds on the episodes, as scores are measured by and with real costs; mean shares."""
    seeds = [episode_seeds(scenario, "evaluation", k) for k in range(episodes)]
    named = {"episodes": False, "episodes_real_costs": True}
    shares = {n: [each.share for each in clairvoyant_bounds(scenario, seeds, losses=on)] for n, on in named.items()}
    return {name: round(float(np.mean(of_each)), DIGITS) for name, of_each in shares.items()}


def reached(scenario: Scenario, rules: list[str], tuned: Tuned, episodes: int) -> dict[str, Any]:
    """The best of the rules, by its mean delivery rate, with half its 95 % interval."""
    best: dict[str, Any] = {"floor": -1.0}
    for name in rules:
        spec = tuned.policy(scenario, PolicySpec(name, forecaster=KNOWN_RATES))
        policy, seeds = spec.make(), [episode_seeds(scenario, "evaluation", k) for k in range(episodes)]
        played = [run_episode(scenario, policy, each, forecaster=KNOWN_RATES)[0] for each in seeds]
        found = mean_interval([[episode.delivery_rate for episode in played]], np.random.default_rng(0))
        if found.value > best["floor"]:
            half = round((found.high - found.low) / 2, DIGITS)
            best = {"floor": round(found.value, DIGITS), "half": half, "rule": f"{name}+{KNOWN_RATES}"}
    return best


def solved(scenario: Scenario, topology_seed: int) -> list[dict[str, Any]]:
    """The cap on the probability that a route serves in time beside the exact one of a single allocation, alone."""
    network, rng = build_network(scenario, topology_seed), np.random.default_rng(0)
    routes, in_time, rows = network.routes, InTime(scenario, network), []
    for (hops, quality), count in SOLVED.items():
        at = np.argwhere((routes.hops[..., None] == hops) & (routes.quality == quality))
        chosen = rng.permutation(at)[:count].tolist()
        pairs = []
        for node, place, route, wanted in chosen:
            slots = scenario.in_slots(scenario.demand.deadlines[wanted])
            useful = SingleRoute(scenario, network, (node, place, route), quality, wanted).course().useful
            pairs.append((useful[min(slots, len(useful)) - 1], in_time.chance(node, place, route, quality, slots)))
        exact, cap = np.mean(pairs, axis=0).tolist()
        rows.append({"scenario": scenario.name, "hops": hops, "quality": quality, "routes": len(chosen)})
        rows[-1] |= {"exact": round(exact, DIGITS), "cap": round(cap, DIGITS)}
    return rows


def main() -> None:
    """Bound, play, solve, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True, action="append")
    parser.add_argument("--rule", required=True, action="append", help="rules that are told the rates")
    parser.add_argument("--tuned", type=Path, required=True, help="folder of their tuned options")
    parser.add_argument("--networks", type=int, required=True, help="evaluation networks, one episode on each")
    parser.add_argument("--solved", required=True, help="scenario of routes that are solved exactly")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    rows = []
    for scenario in map(scenarios.get, given.scenario):
        found = bounded(scenario, given.networks) | foreseen(scenario, given.networks)
        found |= reached(scenario, given.rule, Tuned(given.tuned), given.networks)
        rows.append({"scenario": scenario.name, "networks": given.networks} | found)
        print(rows[-1], flush=True)
    beside = scenarios.get(given.solved)
    routes = solved(beside, beside.seeds.evaluation.topology[0])
    write_json(given.out, {"rows": rows, "routes": routes})


if __name__ == "__main__":
    main()
