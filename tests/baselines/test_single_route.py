"""The exact law of a single route: closed forms, the simulator, and the cap that must lie above it."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.in_time import InTime, any_of, first_success
from dpem_baselines.single_route import Course, SingleRoute
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Tally
from dpem_env.support.errors import ScenarioError
from support.rollouts import demand_of

ROUTE = (0, 0, 0)
ARRIVES = 10 ** (-0.2)  # η of 10 km at 0.2 dB/km
PERIOD = 12  # slots from one request to the next: relays save up all tokens that fit


def chain(hops: int, **fields: Any) -> tuple[Scenario, Network]:
    """Nodes in a line; node 0 wants pairs with the last one, of one class, and nobody else wants anything."""
    usual = {"fidelity_classes": (0.7,), "class_weights": (1.0,), "deadline": 2.0, "relay_swap_rate": 4.0, "rows": 1}
    scenario = scenarios.get("chain3-v0", nodes=hops + 1, peers=1, **usual | fields)
    peers = np.full((hops + 1, 1), -1, dtype=np.int32)
    peers[0, 0] = hops
    topology = build_network(scenario, 0).topology
    return scenario, with_routes(scenario, topology, peers, (peers >= 0).astype(float), {})


def course(hops: int, quality: int = 1, tokens: float | None = None, **fields: Any) -> Course:
    return SingleRoute(*chain(hops, **fields), ROUTE, quality, 0).course(tokens)


def test_a_link_is_there_with_its_first_arrival() -> None:
    mean = 4.0 * 0.25 * ARRIVES
    found = course(1, generation_rate=(4.0, 4.0), coherence_time=1e9)
    assert found.useful == pytest.approx([1.0 - exp(-mean * slot) for slot in range(1, 9)])
    assert found.pairs == pytest.approx((1.0 - exp(-mean * 8)) / ARRIVES)
    assert found.swaps == 0.0


@pytest.mark.parametrize("swapping", ["asap", "all"])
def test_two_links_of_one_source_take_two_arrivals_and_a_swap(swapping: str) -> None:
    fields = {"relay_generation_rate": 8.0, "generation_rate": (0.0, 0.0), "time_to_live": 0.25, "swapping": swapping}
    mean = 8.0 * 0.25 * ARRIVES
    both = 1.0 - exp(-mean) * (1.0 + mean)
    found = course(2, **fields)
    assert found.useful == pytest.approx([both * 0.9])
    assert found.swaps == pytest.approx(both)
    assert course(2, tokens=0.0, relay_swap_rate=3.0, **fields).useful == pytest.approx([0.0])


def test_a_pair_that_waits_too_long_is_of_no_use() -> None:
    # Two fresh links of fidelity 0.95 make a pair of 0.899. It is good enough if it is there at once, and not when one
    # of them has waited for a slot, in which w falls by exp(-1/4).
    fields: dict[str, Any] = {"relay_generation_rate": 8.0, "generation_rate": (0.0, 0.0), "swap_success": 1.0}
    mean = 8.0 * 0.25 * ARRIVES
    none, both = exp(-mean), 1.0 - exp(-mean) * (1.0 + mean)
    found = course(2, fidelity_classes=(0.89,), coherence_time=2.0, time_to_live=0.75, **fields).useful
    assert found == pytest.approx(both * np.cumsum([1.0, none, none**2]))


CHAINS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one link": (1, 1, {"coherence_time": 60.0}),
    "one link, purified, of short memories": (1, 2, {"fidelity_classes": (0.85,), "coherence_time": 8.0}),
    "two links of one source": (2, 1, {"relay_generation_rate": 6.0, "generation_rate": (0.0, 0.0)}),
    "two links, all at once": (2, 1, {"swapping": "all", "swap_success": 0.6, "coherence_time": 6.0}),
    "two links, purified": (2, 2, {"fidelity_classes": (0.8,), "coherence_time": 20.0, "time_to_live": 1.5}),
    "two links, too few tokens": (2, 1, {"relay_swap_rate": 1.0, "token_cap": 1.0, "swap_success": 0.5}),
    "three links": (3, 1, {"swap_success": 0.7, "coherence_time": 10.0, "time_to_live": 1.0, "deadline": 1.0}),
}


def played(
    scenario: Scenario, network: Network, quality: int, requests: int, allocations: int = 1
) -> tuple[NDArray[np.float64], float, float]:
    """Shares of lone requests that are served by the end of each slot; pairs offered and swaps tried for each.

    Allocations are opened when a request arrives, one a slot.
    """
    live = scenario.in_slots(scenario.control.time_to_live)
    slots = (requests + 1) * PERIOD
    asked = [(slot, 0, 0, 0, slot + live - 1) for slot in range(PERIOD, slots, PERIOD)]
    session = Session(scenario)
    session.begin_with(network, demand_of(asked, network.peers.shape), EpisodeSeeds(0, 1), slots)
    opening = np.zeros(network.num_nodes, dtype=np.int64)
    opening[0] = quality
    while not session.done:
        begins = session.slot >= PERIOD and session.slot % PERIOD < allocations
        session.step(opening if begins else np.zeros_like(opening))
    status = session.simulator.state.request_status[0, : len(asked)]
    took = status[status >= 0] % PERIOD
    served = np.array([(took <= slot).sum() for slot in range(live)]) / len(asked)
    tally = [int(session.simulator.tally(name)[0]) for name in (Tally.EMITTED, Tally.UNCLAIMED, Tally.SWAPS)]
    return served, (tally[0] - tally[1]) / len(asked), tally[2] / len(asked)


@pytest.mark.parametrize(("hops", "quality", "fields"), CHAINS.values(), ids=CHAINS.keys())
def test_the_simulator_agrees(hops: int, quality: int, fields: dict[str, Any]) -> None:
    scenario, network = chain(hops, **fields)
    exact = SingleRoute(scenario, network, ROUTE, quality, 0).course()
    requests = 4000
    served, pairs, swaps = played(scenario, network, quality, requests)
    error = np.sqrt(exact.useful * (1.0 - exact.useful) / requests)
    assert (np.abs(served - exact.useful) < 4 * error + 1e-9).all()
    assert pairs == pytest.approx(exact.pairs, rel=0.05)
    assert swaps == pytest.approx(exact.swaps, rel=0.05)
    assert 0.02 < exact.useful[-1] < 0.999


@pytest.mark.parametrize(("hops", "quality", "fields"), CHAINS.values(), ids=CHAINS.keys())
def test_the_cap_lies_above_what_is_exact(hops: int, quality: int, fields: dict[str, Any]) -> None:
    scenario, network = chain(hops, **fields)
    useful = SingleRoute(scenario, network, ROUTE, quality, 0).course().useful
    caps = [InTime(scenario, network).chance(*ROUTE, quality, slots) for slots in range(1, len(useful) + 1)]
    assert (np.array(caps) >= useful - 1e-9).all()


@pytest.mark.parametrize("swap_success", [0.5, 0.9])
def test_several_allocations_for_a_request_do_not_exceed_the_cap(swap_success: float) -> None:
    # What is stored is too weak a slot or two later, so it does not serve the next request.
    fields: dict[str, Any] = {"rows": 3, "memory": (8, 8), "coherence_time": 8.0, "fidelity_classes": (0.85,)}
    scenario, network = chain(2, swap_success=swap_success, relay_swap_rate=8.0, **fields)
    alone, requests = SingleRoute(scenario, network, ROUTE, 1, 0).course().useful, 4000
    served, _, _ = played(scenario, network, 1, requests, allocations=3)
    caps = np.array([InTime(scenario, network).chance(*ROUTE, 1, slots) for slots in range(1, 9)])
    assert (served < caps + 4 * np.sqrt(caps * (1.0 - caps) / requests)).all()
    assert served[-1] > alone[-1] + 0.01


def test_the_cap_is_exact_for_a_link_and_for_two_without_failures() -> None:
    lasting: dict[str, Any] = {"coherence_time": 1e9, "swap_success": 1.0}
    for hops, fields in ((1, {}), (2, {"generation_rate": (0.0, 0.0), "relay_generation_rate": 5.0}), (2, {})):
        scenario, network = chain(hops, **lasting | fields)
        useful = SingleRoute(scenario, network, ROUTE, 1, 0).course().useful
        caps = [InTime(scenario, network).chance(*ROUTE, 1, slots) for slots in range(1, 9)]
        assert caps == pytest.approx(useful.tolist())


def test_a_relay_that_cannot_try_again_succeeds_at_once_or_not_at_all() -> None:
    scenario, network = chain(2, relay_swap_rate=0.001, token_cap=1.0, relay_generation_rate=1900.0, coherence_time=1e9)
    assert InTime(scenario, network).chance(*ROUTE, 1, 8) == pytest.approx(0.9)
    assert first_success(0.9) == pytest.approx([0.9, 0.09, 0.009, 0.001])
    assert any_of([0.5, 0.5, 0.0]) == pytest.approx(0.75)


def test_a_route_of_other_rules_is_refused() -> None:
    bernoulli = {"emission": "bernoulli", "generation_rate": (1.0, 1.0), "relay_generation_rate": 1.0}
    for hops, fields in ((4, {"swapping": "nested"}), (2, {"cutoff": 3}), (2, bernoulli)):
        with pytest.raises(ScenarioError, match="expected swapping"):
            course(hops, **fields)
