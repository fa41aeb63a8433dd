"""Base-stock rules: how much they stock, for whom, at what quality, and that pending requests come first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dpem_baselines.base_stock import CentralPredictive, LocalPredictive
from dpem_baselines.local import LocalReactive
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.policies import Decision, NetworkView
from dpem_env.simulator import Tally
from support.hand_made import Always, chosen, expecting, nodes
from support.rollouts import control_of, session_with, view_of, wait


def shortage(mean: float, position: int) -> float:
    """P(X > position) of a Poisson number X, summed by hand."""
    return 1 - sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(position + 1))


@pytest.mark.parametrize("mean", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("position", [0, 1, 3])
@pytest.mark.parametrize("hops", [1, 4])
def test_a_pair_is_stocked_while_a_shortage_is_likelier_than_its_cost(mean: float, position: int, hops: int) -> None:
    seen = nodes({"forecast": {5: expecting(mean)}, "stored_pairs": {5: position}, "hops": {5: hops}})
    worth = shortage(mean, position) / hops
    assert chosen(LocalPredictive(link_cost=worth * 0.999), seen) == [(5, 1)]
    assert chosen(LocalPredictive(link_cost=worth * 1.001), seen) == [None]


def test_the_inventory_position_counts_what_is_stored_or_being_made_less_what_is_pending() -> None:
    forecast = {"forecast": {0: expecting(1.0)}}
    one_pending = {"pending": {0: (1, 0, 0)}}
    seen = nodes(
        forecast | {"stored_pairs": {0: 1}},
        forecast | {"open_allocations": {0: 1}},
        forecast | one_pending | {"open_allocations": {0: 1}},  # that one is for the request
        forecast | one_pending | {"open_allocations": {0: 2}},
    )
    between = (shortage(1.0, 0) + shortage(1.0, 1)) / 2
    assert chosen(LocalPredictive(link_cost=between / 2), seen) == [None, None, (0, 1), None]


def test_pending_requests_come_before_any_stock() -> None:
    pending = {"pending": {2: (0, 1, 0), 3: (0, 0, 1)}, "slack": {2: 3, 3: 2}, "min_quality": {3: (1, 2, 3)}}
    seen = nodes(pending | {"forecast": {7: expecting(9.0)}}, {"forecast": {7: expecting(9.0)}})
    assert chosen(LocalPredictive(), seen) == [(3, 3), (7, 1)]


def test_pending_requests_are_served_whatever_the_load_but_nothing_is_stocked_on_a_loaded_or_broken_route() -> None:
    forecast = {"forecast": {1: expecting(9.0)}}
    loaded, broken = {"route_load": {1: 0.6}}, {"route_up": {1: 0}}
    pending = {"pending": {1: (1, 0, 0)}}
    seen = nodes(forecast | loaded, forecast | broken, forecast | loaded | pending, forecast | broken | pending)
    assert chosen(LocalPredictive(load_limit=0.5), seen) == [None, None, (1, 1), (1, 1)]
    assert chosen(LocalPredictive(load_limit=0.7), seen)[0] == (1, 1)


def test_the_largest_gain_goes_first_and_near_peers_gain_more() -> None:
    seen = nodes(
        {"forecast": {2: expecting(1.0), 6: expecting(2.0)}},
        {"forecast": {2: expecting(1.0), 6: expecting(1.0)}, "hops": {2: 3, 6: 2}},
        {"forecast": {2: expecting(1.0), 6: expecting(1.0)}},
    )
    assert chosen(LocalPredictive(), seen) == [(6, 1), (6, 1), (2, 1)]


def test_only_the_slots_of_the_lookahead_count() -> None:
    seen = nodes({"forecast": {0: (0, 0, 0, 0, 2.0, 2.0, 0, 0)}})
    assert chosen(LocalPredictive(lookahead=4), seen) == [None]
    assert chosen(LocalPredictive(lookahead=5), seen) == [(0, 1)]


@pytest.mark.parametrize(("hardest", "quality"), [(0, 1), (1, 2), (2, 3)])
def test_stock_is_made_for_the_classes_asked_for_and_a_better_quality_costs_more(hardest: int, quality: int) -> None:
    seen = nodes({"forecast": {4: expecting(3.0)}, "min_quality": {4: (1, 2, 3)}, "hops": {4: 1}})
    worth = shortage(3.0, 0) / quality
    assert chosen(LocalPredictive(stock_class=hardest, link_cost=worth * 0.999), seen) == [(4, quality)]
    assert chosen(LocalPredictive(stock_class=hardest, link_cost=worth * 1.001), seen) == [None]


def test_stock_is_made_for_the_hardest_class_that_the_route_can_meet() -> None:
    seen = nodes({"forecast": {4: expecting(9.0)}, "min_quality": {4: (1, 2, 0)}})
    assert chosen(LocalPredictive(stock_class=2, link_cost=0.01), seen) == [(4, 2)]


def test_without_a_forecast_it_is_the_reactive_rule() -> None:
    session = Session(scenarios.get("mesh20-v0", request_rate=6.0))
    session.begin(EpisodeSeeds(3, 3), 100)
    while not session.done:
        seen, masks = session.observer.table.read(session.observations()), session.masks()
        expected = LocalReactive().act(seen, masks).action
        assert np.array_equal(LocalPredictive().act(seen, masks).action, expected)
        session.step(expected)
    assert session.simulator.tally(Tally.SUBMITTED)[0] > 0


def test_a_stocked_pair_serves_the_request_on_arrival() -> None:
    session = session_with([(20, 0, 1, 0, 23)], forecaster=Always({(0, 1): 0.5}), swap_success=1.0)
    policy = LocalPredictive()
    for _ in range(20):
        session.step(policy.act(session.observer.table.read(session.observations()), session.masks()).action)
    assert session.simulator.tally(Tally.FROM_STOCK)[0] == 1
    state = session.simulator.state
    assert state.request_status[0, 0] == 20


# -------------------------------------------------------------------------------------------------- the central form


def decided(view: NetworkView, **options: Any) -> Decision:
    policy = CentralPredictive(**options)
    policy.reset(view.scenario, view.network, 0)
    return policy.act(view)


def ordered(decision: Decision) -> list[tuple[int, int]]:
    """(node, action) of all that is to be made, first admitted first."""
    assert decision.priority is not None
    made = np.flatnonzero(decision.action)
    return [(int(i), int(decision.action[i])) for i in made[np.argsort(decision.priority[made])]]


def test_the_whole_networks_pending_requests_go_before_its_stock() -> None:
    # Leaves 1, 2 and 3 wait with slack 3, 1 and 2; 4 and 5 expect 2 and 3 requests.
    session = session_with(
        [(0, 1, 0, 0, 2), (0, 2, 0, 0, 0), (0, 3, 0, 0, 1)], "star8-v0", silent=True, memory=(20, 20)
    )
    view = view_of(control_of(session, forecaster=Always({(4, 1): 2 / 8, (5, 2): 3 / 8})))
    decision = decided(view, link_cost=0.01, utilisation_limit=10.0)
    assert ordered(decision) == [(2, 1), (3, 1), (1, 1), (5, 7), (4, 4)]
    assert decision.route is not None
    assert decision.route[[1, 2, 3, 4, 5]].tolist() == [0] * 5


def test_the_sources_limit_holds_for_stock_too() -> None:
    expected = Always({(4, 1): 2 / 8, (5, 2): 3 / 8})
    session = session_with([(0, 1, 0, 0, 2)], "star8-v0", silent=True, memory=(20, 20))
    hops = session.network.routes.hops[[1, 4, 5], [0, 1, 2], 0].sum()  # claims on the hub, which emits 32 in a lifetime
    for spare, stocked in ((0, [1, 4, 5]), (-1, [1, 5])):
        view = view_of(control_of(session, forecaster=expected))
        decision = decided(view, link_cost=0.01, utilisation_limit=(hops + spare) / 32)
        assert np.flatnonzero(decision.action).tolist() == stocked


def test_a_node_whose_request_finds_no_room_may_stock_where_there_is() -> None:
    # Node 0 of a chain asks for node 2 over the full relay 1, and expects requests for node 1.
    session = session_with([(1, 0, 1, 0, 4)], silent=True)
    wait(session)
    for qubits, action in ((1, 1), (2, 4)):
        session.simulator.state.free_memory[0, 1] = qubits
        view = view_of(control_of(session, forecaster=Always({(0, 0): 0.5})))
        assert ordered(decided(view, load_limit=1.0, utilisation_limit=10.0)) == [(0, action)]


def test_equal_gains_go_in_random_order() -> None:
    session = session_with([], "star8-v0", silent=True, memory=(20, 20))
    equal = {(i, 0): 0.2 for i in (2, 3, 4) if session.network.routes.hops[i, 0, 0] == 2}
    view = view_of(control_of(session, forecaster=Always(equal)))
    first = []
    for seed in range(60):
        policy = CentralPredictive(link_cost=0.01, utilisation_limit=2 / 32)
        policy.reset(view.scenario, view.network, seed)
        first += np.flatnonzero(policy.act(view).action).tolist()
    assert len(equal) > 1
    assert len(first) == 60
    assert min(first.count(i) for i, _ in equal) > 8


def test_the_same_network_seen_again_gives_the_same_orders() -> None:
    session = session_with([(0, i, 0, 0, 3) for i in (1, 2, 3)], "star8-v0", silent=True, memory=(20, 20))
    view = view_of(control_of(session, forecaster="mean-rates"))
    assert ordered(decided(view)) == ordered(decided(view))
