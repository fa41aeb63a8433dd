"""The long-run bound: closed forms on trivial networks, laws it must obey, and a rule that reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_baselines.bound import (
    bounds,
    capacity,
    delivered_bound,
    demand_mix,
    offered_load,
    resources,
    ways_of,
)
from dpem_env import physics, scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.data import data_missing
from dpem_env.support.errors import ScenarioError
from support.worlds import IDEAL

ARRIVES = 10 ** (-0.2)  # η of 10 km at 0.2 dB/km
SWAPS = 0.9  # swap success


def only_pair(scenario: Scenario, node: int, peer: int) -> Network:
    """The scenario's network on which `node` wants pairs with `peer` and nobody else wants anything."""
    topology = build_network(scenario, 0).topology
    peers = np.full((topology.num_nodes, 1), -1, dtype=np.int32)
    peers[node, 0] = peer
    return with_routes(scenario, topology, peers, (peers >= 0).astype(float), {})


def chain3(**fields: Any) -> tuple[Scenario, Network]:
    scenario = scenarios.get("chain3-v0", peers=1, **IDEAL | fields)
    return scenario, only_pair(scenario, 0, 2)


def with_resources(network: Network, factor: float) -> Network:
    topology = network.topology
    rates = {name: getattr(topology, name) * factor for name in ("generation_rate", "swap_rate")}
    return replace(network, topology=replace(topology, **rates))


@pytest.mark.parametrize(("swapping", "failures"), [("all", 2), ("asap", 1)])
def test_failures_cost_what_they_empty_at_least(swapping: str, failures: int) -> None:
    fields = {"nodes": 4, "peers": 1, "swapping": swapping, "relay_generation_rate": 8.0, "relay_swap_rate": 100.0}
    scenario = scenarios.get("chain3-v0", request_rate=100.0, **fields)
    ways = ways_of(scenario, only_pair(scenario, 0, 3))
    pairs = ways.pairs.toarray().sum(axis=0)  # of both relays, which feed all links
    assert pairs.min() == pytest.approx(3 / ARRIVES / SWAPS**failures)
    assert ways.swaps.toarray().max(axis=0) == pytest.approx(SWAPS**-failures)


def test_where_links_share_no_source_there_is_no_bound() -> None:
    scenario, network = chain3(emission="bernoulli", generation_rate=(1.0, 1.0), relay_generation_rate=1.0)
    with pytest.raises(ScenarioError, match="no bound where links share no source"):
        ways_of(scenario, network)
    saturated = scenarios.get("swap-chain3-v0", emission="poisson")
    with pytest.raises(ScenarioError, match=r"saturated demand has no rate of its own; choose another demand\.kind"):
        offered_load(saturated, [0])


@pytest.mark.parametrize("request_rate", [1.0, 2.0, 3.0, 30.0])
def test_a_single_link_delivers_what_is_asked_up_to_what_its_source_gets_across(request_rate: float) -> None:
    scenario = scenarios.get("chain3-v0", nodes=2, peers=1, request_rate=request_rate)
    found = delivered_bound(scenario, build_network(scenario, 0))
    assert found.offered == pytest.approx(request_rate)
    assert found.delivered == pytest.approx(min(request_rate, 4.0 * ARRIVES))


@pytest.mark.parametrize(
    ("request_rate", "source", "engine"), [(1.0, 8.0, 2.0), (9.0, 8.0, 2.0), (9.0, 5.0, 2.0), (9.0, 90.0, 9.0)]
)
def test_two_hops_take_two_pairs_and_one_swap_a_try(request_rate: float, source: float, engine: float) -> None:
    fields = {"relay_generation_rate": source, "relay_swap_rate": engine, "request_rate": request_rate}
    scenario, network = chain3(**fields)
    whole_tokens = 2 / 0.25  # two tokens fit, so two swaps a slot
    expected = min(request_rate, source * ARRIVES * SWAPS / 2, min(engine, whole_tokens) * SWAPS)
    assert delivered_bound(scenario, network).delivered == pytest.approx(expected)


def test_a_class_that_needs_purification_takes_the_pairs_of_every_round() -> None:
    fields: dict[str, Any] = {"link_fidelity": 0.94, "class_weights": (0.0, 0.0, 1.0), "relay_swap_rate": 9.0}
    scenario, network = chain3(request_rate=9.0, **fields)
    assert network.routes.quality[0, 0, 0].tolist() == [1, 1, 3]
    per_link = physics.pairs_per_link(physics.werner_from_fidelity(0.94), 3) / ARRIVES
    assert delivered_bound(scenario, network).delivered == pytest.approx(8.0 * SWAPS / (2 * per_link))


def test_noisy_purification_takes_more_pairs_and_helps_fewer_routes() -> None:
    fields: dict[str, Any] = {"link_fidelity": 0.94, "class_weights": (0.0, 0.0, 1.0), "relay_swap_rate": 9.0}
    noisy = {"purification_gates": "noisy", "gate_fidelity": 0.995, "readout_fidelity": 0.995}
    scenario, network = chain3(request_rate=9.0, fidelity_classes=(0.7, 0.8, 0.89), **fields, **noisy)
    assert network.routes.quality[0, 0, 0].tolist() == [1, 1, 2]
    per_link = physics.pairs_per_link(physics.werner_from_fidelity(0.94), 2, 0.995, 0.995) / ARRIVES
    assert delivered_bound(scenario, network).delivered == pytest.approx(8.0 * SWAPS / (2 * per_link))
    link = physics.pumped_werner(physics.werner_from_fidelity(0.94), 3, 0.995, 0.995)
    freshest = link**2 * physics.swap_factor(0.995, 0.995)
    assert ways_of(scenario, network).freshest == pytest.approx(freshest)


def test_purification_restarts_from_an_empty_link_after_a_failure() -> None:
    link = 0.8
    first, second = link, physics.purified_werner(link, link)
    assert physics.pairs_per_link(link, 1) == 1.0
    # Mean steps to absorption of the chain 0 rounds held, 1 round held, empty (Kemeny & Snell 1960, §3.3).
    success = [physics.purification_success(werner, link) for werner in (first, second)]
    for quality in (2, 3):
        move = np.zeros((quality, quality))  # from empty, 0 rounds, 1 round
        move[0, 1] = 1.0
        for rounds in range(quality - 1):
            move[rounds + 1, 0] = 1.0 - success[rounds]
            if rounds + 2 < quality:
                move[rounds + 1, rounds + 2] = success[rounds]
        steps = np.linalg.solve(np.eye(quality) - move, np.ones(quality))
        assert physics.pairs_per_link(link, quality) == pytest.approx(steps[0])


@pytest.mark.parametrize("request_rate", [2.0, 4.0, 6.0, 8.0, 12.0, 100.0])
@pytest.mark.parametrize("engine", [2.0, 4.0])
def test_star8_is_limited_by_its_hub(request_rate: float, engine: float) -> None:
    # A pair with the hub takes 1/η pairs of the hub, a pair between leaves 2/(η·p) and 1/p swaps: serve the hub first.
    scenario = scenarios.get("star8-v0", **IDEAL, request_rate=request_rate, relay_swap_rate=engine)
    for seed in range(3):
        network = build_network(scenario, seed)
        one_hop = network.routes.hops[:, :, 0] == 1
        near, far = (request_rate * network.weights[mask].sum() for mask in (one_hop, ~one_hop))
        served_near = min(near, 16.0 * ARRIVES)
        served_far = min(far, engine * SWAPS, (16.0 - served_near / ARRIVES) * ARRIVES * SWAPS / 2)
        assert delivered_bound(scenario, network).delivered == pytest.approx(served_near + served_far)


def test_more_capacity_never_delivers_less_and_more_demand_never_a_larger_share() -> None:
    scenario = scenarios.get("mesh20-v0")
    for seed in (1000, 1001):
        network = build_network(scenario, seed)
        loads = [delivered_bound(scenario.override(request_rate=rate), network) for rate in (1.0, 4.0, 16.0, 64.0)]
        assert [b.delivered for b in loads] == sorted(b.delivered for b in loads)
        assert np.diff([b.share for b in loads]).max() < 1e-9
        assert loads[-1].share < 0.9 < loads[0].share
        busy = scenario.override(request_rate=16.0)
        grown = [delivered_bound(busy, with_resources(network, factor)).delivered for factor in (0.5, 1.0, 1.5)]
        assert grown[0] < grown[1] < grown[2]


def test_capacity_is_the_rate_of_which_the_share_can_just_be_delivered() -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 1000)
    for share in (0.9, 0.5, 1.0):
        most = capacity(scenario, network, share)
        at, beyond = (delivered_bound(scenario.override(request_rate=most * f), network).share for f in (1.0, 1.01))
        assert at == pytest.approx(share)
        assert beyond < at - 1e-5
    assert capacity(scenario, with_resources(network, 0.5)) == pytest.approx(capacity(scenario, network) / 2)


def test_offered_load_is_the_median_over_topologies_of_request_rate_over_capacity() -> None:
    scenario = scenarios.get("star8-v0")
    seeds = [1000, 1001, 1002]
    expected = np.median([3.8 / capacity(scenario, build_network(scenario, seed)) for seed in seeds])
    assert offered_load(scenario, seeds) == pytest.approx(expected)
    assert offered_load(scenario.override(request_rate=11.4), seeds) == pytest.approx(3 * expected)
    assert [b.offered for b in bounds(scenario, seeds)] == pytest.approx([3.8] * 3)


def test_nothing_asked_for_is_no_load_and_nothing_made_is_an_endless_one() -> None:
    idle = scenarios.get("chain3-v0", request_rate=0.0)
    assert offered_load(idle, [0]) == 0.0
    (found,) = bounds(idle, [0])
    assert found.delivered == 0.0
    assert np.isnan(found.share)
    scenario, network = chain3(swap_success=0.0)
    assert delivered_bound(scenario, network).delivered == 0.0
    assert capacity(scenario, network) == 0.0
    assert (
        offered_load(scenarios.get("chain3-v0", generation_rate=(0.0, 0.0), relay_generation_rate=0.0), [0]) == np.inf
    )


def test_a_file_of_requests_has_no_long_run(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.write_text("time,source,destination,fidelity\n0.0,0,2,0.75\n")
    scenario = scenarios.get("chain3-v0", kind="replay", requests_file=str(file))
    with pytest.raises(ScenarioError, match="clairvoyant"):
        bounds(scenario, [0])


def test_the_demand_of_the_bound_is_the_demand_that_is_drawn() -> None:
    # Two hops at this fidelity meet only the lower two classes.
    scenario = scenarios.get("chain3-v0", link_fidelity=0.93, qualities=1, request_rate=100.0)
    network = build_network(scenario, 0)
    requests = draw_demand(scenario, network, 0, 2000).requests
    drawn = np.zeros((3, 2, 3))
    np.add.at(drawn, (requests.source, requests.peer, requests.wanted), 1.0)
    mix = demand_mix(scenario, network)
    assert mix.sum() == pytest.approx(1.0)
    assert ((mix > 0) == (drawn > 0)).all()
    assert (mix == 0).any()
    assert np.abs(drawn - mix * len(requests.slot)).max() < 4 * np.sqrt(drawn.max())


def test_every_way_is_a_candidate_route_that_meets_its_class() -> None:
    scenario = scenarios.get("mesh20-v0", swapping="all")
    network = build_network(scenario, 1000)
    ways = ways_of(scenario, network)
    quality = network.routes.quality[ways.node, ways.peer, ways.route, ways.wanted]
    assert (quality > 0).all()
    assert len(ways.node) == (network.routes.quality > 0).sum()
    costs, _ = resources(ways)
    hops = network.routes.hops[ways.node, ways.peer, ways.route]
    assert ways.swaps.sum(axis=0) == pytest.approx((hops - 1) / SWAPS ** (hops - 1))
    assert costs.shape == (40, len(hops))


def test_a_saturated_link_reaches_the_bound_and_does_not_exceed_it() -> None:
    # Both nodes always have requests waiting, so hardly a pair that the source emits finds nobody to take it.
    scenario = scenarios.get("chain3-v0", nodes=2, peers=1, request_rate=8.0, deadline=4.0, slots=200)
    played = [run_episode(scenario, get_policy("local-reactive"), EpisodeSeeds(0, seed))[0] for seed in range(40)]
    rates = np.array([episode.delivered for episode in played]) / 50.0
    bound = delivered_bound(scenario, build_network(scenario, 0)).delivered
    error = rates.std(ddof=1) / np.sqrt(len(rates))
    assert 0.97 * bound < rates.mean() < bound + 3 * error


@pytest.mark.parametrize("name", ["chain3-v0", "star8-v0"])
def test_the_stated_load_of_a_scenario_is_its_offered_load(name: str) -> None:
    assert_load_is_as_stated(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios.OFFERED_LOADS)
def test_the_stated_load_of_every_scenario_is_its_offered_load(name: str) -> None:
    if missing := data_missing(scenarios.get(name)):
        pytest.skip(f"no {missing} data")
    assert_load_is_as_stated(name)


def assert_load_is_as_stated(name: str) -> None:
    scenario = scenarios.get(name)
    assert offered_load(scenario, scenario.seeds.validation.topology) == pytest.approx(
        scenarios.OFFERED_LOADS[name], abs=0.005
    )
