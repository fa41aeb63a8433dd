"""Policies that decide on swaps: the state they see, and the exact mean delivery times, met by the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_baselines.swap_chain import Segment, SwapChain, asap, mean_delivery_time, nested
from dpem_baselines.swapping import JointSwaps, SwapNested, SwapOptimal, chain_of, chain_state, solved
from dpem_env.envs.session import Session
from dpem_env.experiments.delivery_time import delivery_time, first_where_legal
from dpem_env.network.network import build_network
from dpem_env.observations.features import FeatureTable
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario, get
from dpem_env.support.errors import PolicyError

DELIVERIES = 10_000


def relays(nodes: int, p: float, swap_success: float, **fields: object) -> Scenario:
    chain = {"generation_rate": (p, p), "swap_success": swap_success, "swapping": "agents", "news_period": 1.0}
    return get(f"swap-chain{nodes}-v0", **chain | {"slots": 6000} | fields)


def test_a_state_is_what_a_row_tells_of_the_chain() -> None:
    table = FeatureTable(relays(5, 0.9, 0.5))
    rows = np.zeros((5, table.width), dtype=np.float32)
    reach, age = table.offset["chain_reach"], table.offset["chain_age"]
    rows[0, [reach, reach + 2]] = 2 / 4, 1 / 4
    rows[0, [age, age + 2]] = 2 / 2, 1 / 2
    seen = table.read(rows)
    assert chain_state(seen) == (Segment(0, 2, 2), Segment(2, 3, 1))
    assert chain_state(seen, ages=False) == (Segment(0, 2, 0), Segment(2, 3, 0))


def test_the_chain_of_a_scenario_is_that_of_the_model() -> None:
    scenario = relays(4, 0.3, 0.7, cutoff=6)
    assert chain_of(scenario, build_network(scenario, 0)) == SwapChain(4, 0.3, 0.7, 6)
    half = relays(4, 0.3, 0.7, attenuation=0.1, spacing=10 * np.log10(2.0) / 0.1, cutoff=None)
    found = chain_of(half, build_network(half, 0))
    assert found.generation == pytest.approx(0.15)
    assert found.cutoff is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"generation_rate": (0.2, 0.9)}, "links that succeed equally often"),
        ({"emission": "poisson"}, 'hardware.emission = "bernoulli"'),
        ({"swap_rate": (0.5, 0.5)}, "a swap per slot at every relay"),
        ({"outages": {}}, "no outages"),
        ({"silence": {}}, "no silence"),
        ({"fidelity_classes": (0.8,)}, r"requests for pairs of any fidelity \(fidelity_classes of 0.25\)"),
    ],
)
def test_the_optimum_of_other_chains_is_not_known(fields: dict[str, object], said: str) -> None:
    scenario = relays(4, 0.5, 0.5).override(**fields)
    with pytest.raises(PolicyError, match=rf": the optimum is known of chains with {said}$"):
        SwapOptimal().reset(scenario, build_network(scenario, 0), 0)


def test_nested_is_of_five_nodes() -> None:
    scenario = relays(4, 0.5, 0.5)
    with pytest.raises(PolicyError, match=r"^swap-nested is of 5 nodes; swap-chain4.* has 4$"):
        SwapNested().reset(scenario, build_network(scenario, 0), 0)


def simulated(scenario: Scenario, rule: JointSwaps) -> tuple[float, float]:
    """Mean delivery time and its standard error."""
    found = delivery_time(scenario, DELIVERIES, decide=rule.side_by_side(scenario))
    return found.mean, found.error


@pytest.mark.parametrize(("nodes", "p", "swap_success"), [(4, 0.3, 0.5), (5, 0.9, 0.5), (5, 0.9, 1.0)])
def test_the_optimum_is_as_fast_in_the_simulator_as_it_is_exactly(nodes: int, p: float, swap_success: float) -> None:
    mean, error = simulated(relays(nodes, p, swap_success), SwapOptimal())
    assert abs(mean - solved(SwapChain(nodes, p, swap_success, 2)).slots) < 3.0 * error


def test_the_optimum_is_told_apart_from_swapping_as_soon_as_possible() -> None:
    chain = SwapChain(5, 0.9, 0.5, 2)
    mean, error = simulated(relays(5, 0.9, 0.5), SwapOptimal())
    assert abs(mean - mean_delivery_time(chain, asap)) > 5.0 * error


@pytest.mark.parametrize("fields", [{"swapping": "nested"}, {}])
def test_nested_is_as_fast_as_published_by_rule_and_by_decision(fields: dict[str, object]) -> None:
    scenario = relays(5, 0.9, 0.5, **fields)
    if fields:
        found = delivery_time(scenario, DELIVERIES)
        mean, error = found.mean, found.error
    else:
        mean, error = simulated(scenario, SwapNested())
    assert mean_delivery_time(SwapChain(5, 0.9, 0.5, 2), nested) == pytest.approx(8.343781, abs=1e-6)
    assert abs(mean - 8.343781) < 3.0 * error


def test_without_a_cutoff_ages_do_not_count() -> None:
    mean, error = simulated(relays(4, 0.5, 0.5, cutoff=None), SwapOptimal())
    assert abs(mean - solved(SwapChain(4, 0.5, 0.5, None)).slots) < 3.0 * error


def test_swap_asap_does_what_is_first_where_legal() -> None:
    session = Session(relays(5, 0.9, 0.5))
    session.reset(0)
    rule = get_policy("swap-asap")
    for _ in range(50):
        look = session.look()
        seen = session.observer.table.read(look.observations[0])
        decision = rule.act(seen, look.masks[0])  # type: ignore[call-arg, arg-type, union-attr]
        expected = first_where_legal(look)
        assert np.array_equal(decision.action, expected[0])
        session.step(expected)
