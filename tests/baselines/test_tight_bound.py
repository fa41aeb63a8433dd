"""The tighter bounds: closed forms, their order, the exact optimum of a small chain, and policies that know rates."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import pytest

from dpem_baselines.bound import ways_of
from dpem_baselines.optimum import Chain, solve
from dpem_baselines.tight_bound import Sessions, TightBounds, tight_bounds
from dpem_env import scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ScenarioError
from support.suites import few

ARRIVES = 10 ** (-0.2)  # η of 10 km at 0.2 dB/km
SLOT = 0.25  # s
STEADY = {"predictability": 0.0}


def chain(hops: int, **fields: Any) -> tuple[Scenario, Network]:
    """Nodes in a line; node 0 wants pairs with the last one, of one class, and nobody else wants anything."""
    usual = {"fidelity_classes": (0.7,), "class_weights": (1.0,), "deadline": 1.0}
    scenario = scenarios.get("chain3-v0", nodes=hops + 1, peers=1, **usual | fields)
    peers = np.full((hops + 1, 1), -1, dtype=np.int32)
    peers[0, 0] = hops
    topology = build_network(scenario, 0).topology
    return scenario, with_routes(scenario, topology, peers, (peers >= 0).astype(float), {})


def shares(scenario: Scenario, network: Network) -> list[float]:
    return [bound.share for bound in tight_bounds(scenario, network)]


def test_a_single_link_serves_what_its_source_brings_in_time() -> None:
    # A time-to-live of two slots: what serves a request without being stored was emitted in five slots at most. Pairs
    # that decay within a slot serve nobody from stock.
    fleeting = {"coherence_time": 0.1, "time_to_live": 0.5, "request_rate": 0.1, "generation_rate": (2.0, 2.0)}
    mean = 2.0 * SLOT * ARRIVES
    found = shares(*chain(1, **fleeting, **STEADY))
    assert found == pytest.approx([1.0, 1.0 - exp(-5 * mean), 1.0 - exp(-5 * mean), 1.0 - exp(-4 * mean)])


def test_the_first_request_of_a_session_is_served_afresh() -> None:
    fleeting = {"coherence_time": 0.1, "time_to_live": 0.5, "request_rate": 0.1, "generation_rate": (2.0, 2.0)}
    scenario, network = chain(1, **fleeting, predictability=1.0, session_duration=0.25, session_share=0.2)
    # Sessions last a slot: they have a request with probability 1 - exp(-0.125), and 0.125 in the mean.
    first = (1.0 - exp(-0.125)) / 0.125
    later, afresh = (1.0 - exp(-slots * 2.0 * SLOT * ARRIVES) for slots in (5, 4))
    assert shares(scenario, network)[2] == pytest.approx(first * afresh + (1.0 - first) * later)


def test_what_is_stored_is_used_only_if_a_request_comes_while_it_lasts() -> None:
    # The pair of fidelity 0.95 is good enough for a slot: of two stored pairs one is used at most. In time alone 0.58
    # of the requests are served, so for the others the source has to emit twice as often.
    fields = {"coherence_time": 2.0, "fidelity_classes": (0.75,), "time_to_live": 0.25, "deadline": 0.25}
    rate = 4.0 * np.log(2.0)
    source = 4.0 * np.log(1.0 / 0.42) / ARRIVES
    scenario, network = chain(1, request_rate=rate, generation_rate=(source, source), **fields, **STEADY)
    shipped, real_costs, *_ = shares(scenario, network)
    assert shipped == pytest.approx(min(1.0, source * ARRIVES / rate))
    arriving = source * ARRIVES / rate
    made = 0.58
    stored = (arriving - made) / 2.0
    assert real_costs == pytest.approx(min(1.0, made + stored))


@pytest.mark.parametrize("swapping", ["asap", "all"])
def test_a_link_between_two_relays_is_lost_at_either_end(swapping: str) -> None:
    fields = {"relay_generation_rate": 8.0, "swapping": swapping, "generation_rate": (0.0, 0.0), "swap_success": 0.8}
    ways = ways_of(*chain(3, **fields))
    of_all = 0.8**-2
    expected = (0.8**-1 + of_all) if swapping == "asap" else 2 * of_all
    assert ways.pairs_with_losses.toarray().max() == pytest.approx(expected / ARRIVES)
    assert (ways.pairs_with_losses - ways.pairs).min() >= -1e-12


@pytest.mark.parametrize(
    ("name", "fields"),
    few(
        [
            ("mesh20-v0", {}),
            ("chain3-v0", {"request_rate": 4.0}),
            ("star8-v0", {"request_rate": 9.0}),
            ("mesh20-v0", {"swapping": "all", "request_rate": 1.0}),
            ("mesh20-v0", {"predictability": 0.5, "pairs_per_request": 2, "coherence_time": 2.0}),
        ]
    ),
)
def test_every_restriction_tightens(name: str, fields: dict[str, Any]) -> None:
    scenario = scenarios.get(name, **fields)
    for seed in (1000, 1001):
        found = tight_bounds(scenario, build_network(scenario, seed))
        delivered = [bound.delivered for bound in found]
        assert (np.diff(delivered) <= 1e-6).all()
        assert 0.0 < delivered[-1] < delivered[0]
        assert {bound.offered for bound in found} == {found.shipped.offered}


def test_first_requests_are_those_that_are_drawn() -> None:
    scenario = scenarios.get("chain3-v0", request_rate=1.0, predictability=1.0, session_duration=5.0, session_share=0.1)
    network, slots = build_network(scenario, 0), 200_000
    demand = draw_demand(scenario, network, 0, slots)
    pieces, requests = demand.pieces, demand.requests
    expected, seen = Sessions(scenario, network), {}
    for node, place in np.argwhere(network.peers >= 0).tolist():
        own = (pieces.node == node) & (pieces.peer == place) & (pieces.start < slots) & (pieces.rate > 0)
        mine = np.sort(requests.slot[(requests.source == node) & (requests.peer == place)])
        held = np.searchsorted(mine, pieces.stop[own]) - np.searchsorted(mine, pieces.start[own])
        seen[node, place] = (held > 0).sum() / len(mine)
        assert expected.first_share((node, place)) == pytest.approx(seen[node, place], rel=0.08)
    assert len(seen) == 6
    busy = network.weights[0, 0] * 1.0 * SLOT / 0.1
    assert expected.request_within((0, 0), 7) == pytest.approx(1.0 - exp(-7 * busy))


@pytest.mark.parametrize("emission", [0.5, 2.0])
@pytest.mark.parametrize("requests", [0.05, 0.25, 1.0])
def test_the_optimum_of_a_small_chain_never_exceeds_it(requests: float, emission: float) -> None:
    fields = {"rows": 1, "qualities": 1, "memory": (2, 2), "generation_rate": (0.0, 0.0), "coherence_time": 1e9}
    scenario, network = chain(
        2,
        relay_generation_rate=emission / SLOT,
        relay_swap_rate=2.0,
        request_rate=requests / SLOT,
        deadline=3 * SLOT,
        **fields,
        **STEADY,
    )
    best = solve(Chain(emission, ARRIVES, 0.9, 2.0 * SLOT, 2.0, 8, requests, deadline=3, queue=2)).delivered
    found = tight_bounds(scenario, network)
    assert best <= found.real_costs.delivered * SLOT + 1e-6
    assert found.real_costs.delivered <= found.shipped.delivered + 1e-9


@pytest.mark.parametrize(("name", "request_rate"), few([("mesh20-v0", 10.0), ("chain3-v0", 6.0), ("star8-v0", 6.0)]))
def test_no_policy_that_knows_the_rates_exceeds_it(name: str, request_rate: float) -> None:
    scenario = scenarios.get(name, request_rate=request_rate, slots=60)
    seeds = [episode_seeds(scenario, "validation", k) for k in range(8)]
    bounds = [tight_bounds(scenario, build_network(scenario, seed.topology)) for seed in seeds]
    most = np.array([bound.real_costs.delivered for bound in bounds]) * 60 * SLOT
    for policy in ("local-predictive", "maxweight"):
        played = [run_episode(scenario, get_policy(policy), seed, forecaster="oracle")[0] for seed in seeds]
        excess = np.array([episode.delivered for episode in played]) - most
        assert excess.mean() <= 3 * excess.std(ddof=1) / np.sqrt(len(excess))


def test_who_stocks_exceeds_what_is_estimated_without() -> None:
    # A weak source, requests every ten seconds, and memories that last: nothing ahead is no bound.
    fields = {"coherence_time": 1e6, "request_rate": 0.1, "generation_rate": (1.0, 1.0), "slots": 2000}
    scenario = scenarios.get(
        "chain3-v0", nodes=2, peers=1, class_weights=(1.0, 0.0, 0.0), deadline=0.5, **fields, **STEADY
    )
    network = build_network(scenario, 0)
    policy = get_policy("local-predictive", link_cost=0.02)
    seeds = episode_seeds(scenario, "validation", 0)
    played, _ = run_episode(scenario, policy, seeds, forecaster="mean-rates")
    found: TightBounds = tight_bounds(scenario, network)
    assert found.nothing_ahead.share < 0.4
    assert found.nothing_ahead.share < played.delivery_rate <= found.real_costs.share


@pytest.mark.parametrize("fields", [{"arrivals": "periodic"}, {"kind": "saturated"}])
def test_requests_that_are_no_poisson_sessions_are_refused(fields: dict[str, Any]) -> None:
    scenario = scenarios.get("chain3-v0", **fields)
    with pytest.raises(ScenarioError, match=r'expected demand\.kind "sessions" and demand\.arrivals "poisson"'):
        tight_bounds(scenario, build_network(scenario, 0))
