"""MaxWeight: what an allocation weighs, that the heaviest is made, and that waiting weighs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_baselines.local import needed_quality, spare_pairs, stock_quality
from dpem_baselines.maxweight import CentralMaxWeight, MaxWeight, WeightRule
from dpem_baselines.route_choice import by_network
from dpem_env.envs.session import Session
from support.hand_made import Always, chosen, expecting, nodes
from support.rollouts import control_of, session_with, view_of

LINK, LOAD = 0.05, 0.2


def weight(row: dict[str, dict[int, Any]], forecast_weight: float = 1.0) -> float:
    """Of the first peer, over the route that the network would pick."""
    seen = nodes(row)
    weights, _ = WeightRule(LINK, LOAD, lookahead=8, forecast_weight=forecast_weight).judge(seen, by_network(seen))
    return float(weights[0, 0, 0])


ONE_PENDING = {"pending": {0: (1, 0, 0)}}


@pytest.mark.parametrize(
    ("row", "backlog"),
    [
        ({}, 0.0),
        ({"pending": {0: (1, 0, 0)}}, 1.0),
        ({"pending": {0: (1, 2, 1)}}, 4.0),
        ({"pending": {0: (1, 2, 1)}, "open_allocations": {0: 3}}, 1.0),
        ({"pending": {0: (1, 0, 0)}, "open_allocations": {0: 3}}, 0.0),
        ({"forecast": {0: expecting(1.5)}}, 1.5),
        ({"forecast": {0: expecting(1.5)}, "stored_pairs": {0: 1}}, 0.5),
        ({"forecast": {0: expecting(1.5)}, "open_allocations": {0: 1}}, 0.5),
        ({"forecast": {0: expecting(1.5)}, "stored_pairs": {0: 2}}, 0.0),
        ({"forecast": {0: expecting(1.5)}} | ONE_PENDING, 2.5),
        ({"forecast": {0: expecting(1.5)}, "open_allocations": {0: 1}} | ONE_PENDING, 1.5),
        ({"stored_pairs": {0: 2}} | ONE_PENDING, 1.0),  # stock that does not serve what is pending is too weak for it
    ],
)
def test_the_backlog_is_what_no_allocation_covers_and_what_is_expected_beyond_the_stock(
    row: dict[str, dict[int, Any]], backlog: float
) -> None:
    assert weight(row) == pytest.approx(backlog * 0.9 - 2 * LINK, abs=1e-5)  # one swap of 0.9, two links


def test_an_expected_request_may_weigh_less_than_one_that_waits() -> None:
    row = {"forecast": {0: expecting(1.5)}} | ONE_PENDING
    assert weight(row, forecast_weight=0.5) == pytest.approx((1.0 + 0.5 * 1.5) * 0.9 - 2 * LINK, abs=1e-5)


@pytest.mark.parametrize(("hops", "rate"), [(1, 1.0), (2, 0.9), (4, 0.729)])
@pytest.mark.parametrize("load", [0.0, 0.5, 1.0])
def test_longer_and_fuller_routes_weigh_less(hops: int, rate: float, load: float) -> None:
    row = ONE_PENDING | {"hops": {0: hops}, "route_load": {0: load}}
    assert weight(row) == pytest.approx(rate - hops * (LINK + LOAD * load), abs=1e-5)


def test_a_route_that_is_down_serves_nothing() -> None:
    assert weight(ONE_PENDING | {"route_up": {0: 0}}) < 0


@pytest.mark.parametrize(("wanted", "quality"), [((1, 0, 0), 1), ((0, 1, 0), 2), ((1, 0, 1), 3)])
def test_the_quality_is_what_pending_requests_need_and_has_its_price(wanted: tuple[int, ...], quality: int) -> None:
    row = {"pending": {0: wanted}, "min_quality": {0: (1, 2, 3)}}
    assert weight(row) == pytest.approx(sum(wanted) * 0.9 - 2 * quality * LINK, abs=1e-5)
    assert chosen(MaxWeight(LINK, LOAD), nodes(row)) == [(0, quality)]


@pytest.mark.parametrize("options", [{}, {"routes": "ranked", "claims_limit": 1, "lookahead": 4}])
def test_compiled_weights_are_to_the_bit_those_of_the_rule_in_numpy(options: dict[str, Any]) -> None:
    policy = MaxWeight(forecast_weight=0.3, load_price=0.31, **options)
    rule, session = policy.rule, Session("mesh20-v0", forecaster="moving-average", news=policy.news)
    session.reset(0)
    policy.reset(session.scenario, session.network, 0)
    for _ in range(40):
        seen = session.observer.table.read(session.observations())
        offers = policy.choice.offers(seen)
        requests, spare = seen.pending.sum(axis=2), spare_pairs(seen)
        waiting = np.maximum(requests - seen.open_allocations, 0)
        expected = seen.forecast[:, :, : rule.lookahead].sum(axis=2)
        backlog = waiting + rule.forecast_weight * np.maximum(expected - spare, 0)
        needed = needed_quality(seen.pending, offers.min_quality, session.scenario.control.qualities)
        quality = np.where(waiting[..., None] > 0, needed, stock_quality(offers.min_quality, hardest_class=0))
        price = offers.hops * quality * (rule.link_price + rule.load_price * offers.load)
        weight = np.where(offers.taken, backlog[..., None] * offers.chance - price, -np.inf)
        for compiled, plain in zip(rule.judge(seen, offers), (weight, quality), strict=True):
            assert compiled.tobytes() == plain.tobytes()
        session.step(*policy.act(seen, session.masks()))


def test_the_heaviest_is_made_and_nothing_that_weighs_less_than_waiting() -> None:
    seen = nodes(
        {"pending": {1: (1, 0, 0), 4: (2, 0, 0)}},
        {"pending": {1: (1, 0, 0), 4: (1, 0, 0)}, "route_load": {1: 0.3}},
        {"pending": {1: (1, 0, 0), 4: (1, 0, 0)}},
        {"pending": {3: (1, 0, 0)}, "hops": {3: 6}, "route_load": {3: 0.9}},
        {"forecast": {6: expecting(0.2)}},
        {"forecast": {6: expecting(0.1)}},
        {},
    )
    assert chosen(MaxWeight(LINK, LOAD), seen) == [(4, 1), (4, 1), (1, 1), None, (6, 1), None, None]


def test_only_the_slots_of_the_lookahead_count() -> None:
    seen = nodes({"forecast": {0: (0, 0, 0, 0, 2.0, 2.0, 0, 0)}})
    assert chosen(MaxWeight(lookahead=4), seen) == [None]
    assert chosen(MaxWeight(lookahead=5), seen) == [(0, 1)]


# -------------------------------------------------------------------------------------------------- the central form


def central(session: Session, forecaster: Any = None, seed: int = 0, limit: float = 10.0) -> dict[int, int]:
    """Node -> action, in order of admission."""
    policy = CentralMaxWeight(utilisation_limit=limit)
    policy.reset(session.scenario, session.network, seed)
    decision = policy.act(view_of(control_of(session, forecaster=forecaster)))
    assert decision.priority is not None
    made = np.flatnonzero(decision.action)
    return {int(i): int(decision.action[i]) for i in made[np.argsort(decision.priority[made])]}


def test_the_network_is_scheduled_by_descending_weight() -> None:
    session = session_with([(0, 1, 0, 0, 3)], "star8-v0", silent=True, memory=(20, 20))
    expected = Always({(4, 1): 2.4 / 8, (5, 2): 3.2 / 8, (3, 1): 0.05 / 8})
    assert list(central(session, expected)) == [5, 4, 1]


def test_what_finds_no_memory_gives_way_to_the_nodes_next_heaviest() -> None:
    # Node 0 of a chain: heavy to node 2 over relay 1, light to node 1.
    session = session_with([], silent=True)
    expected = Always({(0, 0): 0.5 / 8, (0, 1): 3.0 / 8})
    assert central(session, expected) == {0: 4}
    session.simulator.state.free_memory[0, 1] = 1
    assert central(session, expected) == {0: 1}
    session.simulator.state.free_memory[0, 1] = 0
    assert central(session, expected) == {}


def test_sources_keep_to_their_limit() -> None:
    session = session_with([], "star8-v0", silent=True, memory=(20, 20))
    expected = Always({(4, 1): 2 / 8, (5, 2): 3 / 8})
    hops = session.network.routes.hops[[4, 5], [1, 2], 0]
    assert list(central(session, expected, limit=hops.sum() / 32)) == [5, 4]
    assert list(central(session, expected, limit=(hops.sum() - 1) / 32)) == [5]


def test_a_nodes_number_does_not_favour_it() -> None:
    session = session_with([(0, i, 0, 0, 3) for i in (1, 2, 3)], "star8-v0", silent=True, memory=(20, 20))
    assert len(set(session.network.routes.hops[[1, 2, 3], 0, 0])) == 1
    first = [next(iter(central(session, seed=seed))) for seed in range(60)]
    assert min(first.count(i) for i in (1, 2, 3)) > 8
