"""Mean delivery times of swap-asap chains with a cut-off of two slots are the published ones.

Iñesta, Vardoyan, Scavuzzo & Wehner, npj Quantum Inf. 9, 46 (2023): in every slot pairs older than the cut-off are gone,
links whose qubits are free are tried, and then all relays with a pair on either side swap.
"""

from __future__ import annotations

import pytest

from dpem_baselines.swap_chain import SwapChain, asap, mean_delivery_time
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.delivery_time import delivery_time
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario, get
from dpem_env.support.errors import DpemError

FIVE_NODES = {0.5: 9.346904, 1.0: 1.388770}  # slots by probability of a swap, at p = 0.9


def swap_chain(nodes: int, p: float, swap_success: float, slots: int, **fields: object) -> Scenario:
    return get(f"swap-chain{nodes}-v0", generation_rate=(p, p), swap_success=swap_success, slots=slots, **fields)


def three_nodes(p: float) -> float:
    """Where swaps succeed."""
    return (2 * p**3 - 6 * p**2 + 4 * p + 1) / (2 * p**4 - 6 * p**3 + 5 * p**2)


def assert_takes(scenario: Scenario, slots: float, deliveries: int) -> None:
    found = delivery_time(scenario, deliveries)
    assert found.deliveries >= deliveries
    assert abs(found.mean - slots) < 3.0 * found.error


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_three_nodes_deliver_in_the_published_time(p: float) -> None:
    assert_takes(swap_chain(3, p, 1.0, slots=2000), three_nodes(p), 10_000)


@pytest.mark.parametrize("swap_success", FIVE_NODES)
def test_five_nodes_deliver_in_the_published_time(swap_success: float) -> None:
    assert_takes(swap_chain(5, 0.9, swap_success, slots=4000), FIVE_NODES[swap_success], 10_000)


@pytest.mark.parametrize("cutoff", [0, 1, 3])
def test_four_nodes_deliver_in_the_time_of_the_exact_solver(cutoff: int) -> None:
    exact = mean_delivery_time(SwapChain(4, 0.6, 0.7, cutoff), asap)
    assert_takes(swap_chain(4, 0.6, 0.7, slots=6000, cutoff=cutoff), exact, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.3, 0.5, 0.9])
def test_three_nodes_deliver_in_the_published_time_100_000_times(p: float) -> None:
    assert_takes(swap_chain(3, p, 1.0, slots=20_000), three_nodes(p), 200_000)


@pytest.mark.slow
@pytest.mark.parametrize("swap_success", FIVE_NODES)
def test_five_nodes_deliver_in_the_published_time_100_000_times(swap_success: float) -> None:
    assert_takes(swap_chain(5, 0.9, swap_success, slots=40_000), FIVE_NODES[swap_success], 200_000)


@pytest.mark.parametrize("other", [{"cutoff": 0}, {"swapping": "all", "regenerate": False}])
def test_the_sample_tells_other_rules_apart(other: dict[str, object]) -> None:
    found = delivery_time(swap_chain(5, 0.9, 0.5, slots=4000, **other), 10_000)
    assert abs(found.mean - FIVE_NODES[0.5]) > 3.0 * found.error


def test_a_rule_that_anybody_may_follow_delivers_in_that_time() -> None:
    scenario = swap_chain(5, 0.9, 1.0, slots=2000)
    metrics, session = run_episode(scenario, get_policy("local-reactive"), EpisodeSeeds(0, 0))
    assert session.demand.requests.slot.tolist() == list(range(2000))
    assert metrics.delivery_rate == pytest.approx(1 / FIVE_NODES[1.0], abs=0.04)


def test_what_has_no_delivery_time_is_told_in_one_line() -> None:
    with pytest.raises(DpemError, match=r"^chain3-v0: demand.kind is 'sessions'; delivery times need 'saturated'$"):
        delivery_time(get("chain3-v0"), 10)
    with pytest.raises(DpemError, match=r"one of 100 episodes ends after \d+ of 10 deliveries; raise episode.slots$"):
        delivery_time(swap_chain(5, 0.9, 0.5, slots=20), 1000)
