"""What a scenario comes to, before anything is run on it: who can be partners, at what cost, and how much is asked for.

Everything is of one network, the first of a split. What is slow comes last, so that reading can begin at once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.bound import capacity, delivered_bound
from dpem_baselines.local import LocalReactive
from dpem_baselines.swapping import SwapAsap
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import NO_DEMAND, REMEDIES, Network, build_network, in_words
from dpem_env.network.route_search import Exclusion
from dpem_env.network.routes import reachability
from dpem_env.policies import LocalPolicy
from dpem_env.report.network_map import save_map
from dpem_env.report.tables import working
from dpem_env.scenarios import Scenario, Split
from dpem_env.scenarios.schema import ReplayDemand, SessionDemand
from dpem_env.support.errors import DpemError
from dpem_env.support.files import whole_file

SHORT = 100  # slots of an episode to estimate from
SHOWN = 15  # pairs
COLUMNS = ("source", "destination", "verdict", "share_of_demand", "hops", "build_time_s", "best_class")


def survey(scenario: Scenario, split: Split, episodes: int, out: Path) -> Iterator[str]:
    """Lines for people; a map and a table of all pairs of nodes are written to `out`."""
    seeds = episode_seeds(scenario, split, 0)
    network = build_network(scenario, seeds.topology)
    yield f"{scenario.name} ({scenario.hash}), network of topology seed {seeds.topology}"
    yield from _hardware(network)
    pairs = _pairs(scenario, network)
    with whole_file(out / "pairs.csv") as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerows([COLUMNS, *pairs])
    with working("drawing …"), whole_file(out / "map.png") as partial:
        save_map(partial, network, scenario.routing.min_link_rate)
    yield from _partners(network, pairs)
    yield f"wrote {out / 'map.png'} and {out / 'pairs.csv'}, with a line for every pair"
    yield from _demand(scenario, network, seeds)
    yield from _delivery(scenario, split, episodes)


def _hardware(network: Network) -> Iterator[str]:
    topology = network.topology
    yield f"{topology.num_nodes} nodes, {topology.num_links} links, each"
    arriving = topology.generation_rate[topology.emitter] * topology.transmission
    found: dict[str, NDArray[Any]] = {
        "km long": topology.length,
        "pairs/s over a link": arriving,
        "swaps/s at a node": topology.swap_rate,
        "qubits at a node": topology.memory,
        "s of coherence at a node": topology.coherence_time,
    }
    for what, values in found.items():
        low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
        yield f"  {low:.3g} to {high:.3g} {what}, {middle:.3g} in the middle"


def _pairs(scenario: Scenario, network: Network) -> list[tuple[object, ...]]:
    """Every ordered pair of nodes, as `COLUMNS` say; those that are partners first, by what they want of each other."""
    names, routes, classes = network.topology.names, network.routes, scenario.demand.fidelity_classes
    verdict = reachability(network.topology, scenario)
    partners: list[tuple[object, ...]] = []
    node, place = np.nonzero(network.peers >= 0)
    for i, d in zip(node.tolist(), place.tolist(), strict=True):
        j, met = int(network.peers[i, d]), routes.quality[i, d, 0] > 0
        best = classes[int(np.flatnonzero(met)[-1])] if met.any() else ""
        time = round(float(routes.build_time[i, d, 0]), 3)
        share = float(network.weights[i, d])
        partners.append((names[i], names[j], "partners", round(share, 6), int(routes.hops[i, d, 0]), time, best))
    partners.sort(key=lambda pair: -float(str(pair[3])))
    apart = verdict.copy()
    apart[node, network.peers[node, place]] = -1
    np.fill_diagonal(apart, -1)
    others = [
        (names[i], names[j], _verdict(int(apart[i, j])), 0.0, "", "", "")
        for i, j in zip(*(index.tolist() for index in np.nonzero(apart >= 0)), strict=True)
    ]
    return [*partners, *others]


def _verdict(exclusion: int) -> str:
    return "reachable, but no partners" if exclusion == Exclusion.REACHABLE else in_words(exclusion)


def _partners(network: Network, pairs: list[tuple[object, ...]]) -> Iterator[str]:
    partners = [pair for pair in pairs if pair[2] == "partners"]
    nodes = network.num_nodes
    yield f"{len(partners)} of {nodes * (nodes - 1)} pairs of nodes are partners, of {network.num_connected} nodes"
    for source, destination, _, share, hops, time, best in partners[:SHOWN]:
        yield (
            f"  {source} -> {destination}: {float(str(share)):.1%} of the demand, {hops} hop(s), "
            f"{time} s to build, fidelity up to class {best}"
        )
    if len(partners) > SHOWN:
        yield f"  … and {len(partners) - SHOWN} more"
    for reason, number in sorted(network.excluded.items(), key=lambda item: -item[1]):
        if reason == NO_DEMAND:
            yield f"{number} pairs could be partners, and want nothing of each other"
        else:
            yield f"{number} pairs cannot be partners: {reason}; {REMEDIES[reason]}"
    times = np.array([float(str(pair[5])) for pair in partners])
    if len(times):
        low, middle, high = np.quantile(times, (0.0, 0.5, 1.0))
        yield f"build time of the cheapest route: {low:.3g} to {high:.3g} s, {middle:.3g} s in the middle"


def _demand(scenario: Scenario, network: Network, seeds: EpisodeSeeds) -> Iterator[str]:
    """How much is asked for, and against what could be served."""
    demand = draw_demand(scenario, network, seeds.demand, scenario.episode.slots)
    yield f"{len(demand.requests.slot) // scenario.demand.pairs_per_request} requests in the first episode"
    if isinstance(scenario.demand, ReplayDemand):
        yield "load: a file of requests has no mean rate"
    elif isinstance(scenario.demand, SessionDemand):
        with working("solving linear programs …"):
            yield from _load(scenario, scenario.demand, network)


def _load(scenario: Scenario, demand: SessionDemand, network: Network) -> Iterator[str]:
    try:
        most, bound = capacity(scenario, network), delivered_bound(scenario, network)
    except DpemError as error:
        yield f"load: {error}"
        return
    load = demand.request_rate * demand.pairs_per_request / most if most > 0 else np.inf
    yield (
        f"load ρ = {load:.2f}: {demand.request_rate:g} requests/s are asked for, and of {most:.3g} pairs/s at most 0.8 "
        "could be delivered (mesh100-v0: 0.60)"
    )
    yield f"no policy delivers more than {bound.share:.1%} of them in the long run"


def _delivery(scenario: Scenario, split: Split, episodes: int) -> Iterator[str]:
    """What a reactive rule delivers in a few episodes; short ones, unless requests are those of a file."""
    name, rule = ("swap-asap", SwapAsap()) if scenario.control.relays_decide else ("local-reactive", LocalReactive())
    slots = scenario.episode.slots
    if not isinstance(scenario.demand, ReplayDemand):
        slots = min(slots, SHORT)
    played = scenario.override(name=scenario.name, slots=slots)
    with working("playing (compiles the simulator once) …"):
        rates = [_rate(played, rule, episode_seeds(scenario, split, index)) for index in range(episodes)]
    known = np.array([rate for rate in rates if np.isfinite(rate)])
    if not len(known):
        yield f"no request was over within {slots} slots; raise demand.request_rate or episode.slots"
        return
    spread = f", from {known.min():.1%} to {known.max():.1%}" if len(known) > 1 else ""
    counted = f"{len(known)} of {episodes} episode(s) of {slots} slots had requests{spread}"
    yield f"{name} delivers about {known.mean():.1%} of the requests: {counted}"


def _rate(scenario: Scenario, rule: LocalPolicy, seeds: EpisodeSeeds) -> float:
    metrics, _ = run_episode(scenario, rule, seeds)
    return metrics.delivery_rate
