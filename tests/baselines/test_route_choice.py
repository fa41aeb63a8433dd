"""Over which routes pairs are asked for: what nodes rank and name, and how controllers word their commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dpem_baselines.acp import AdaptiveContinuous
from dpem_baselines.base_stock import CentralPredictive, LocalPredictive
from dpem_baselines.central import CentralReactive
from dpem_baselines.hybrid import HybridMaxWeight
from dpem_baselines.linear_program import CentralLP
from dpem_baselines.local import LocalReactive, LocalRule
from dpem_baselines.maxweight import CentralMaxWeight, MaxWeight
from dpem_baselines.q_cast import QCast
from dpem_baselines.reps import Reps
from dpem_baselines.route_choice import READ, Orders, RouteChoice, in_front
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.policies import CentralPolicy, Decision, Policy
from dpem_env.simulator import Condition
from dpem_env.simulator.actions import ActionCode
from support.hand_made import SCENARIO, expecting, free, nodes

NETWORK = build_network(SCENARIO, 0)
CODE = ActionCode.of(SCENARIO)
LOCAL = [LocalReactive, LocalPredictive, AdaptiveContinuous, MaxWeight]
CENTRAL = [CentralReactive, CentralPredictive, CentralMaxWeight, CentralLP, QCast, Reps]
PENDING = {"pending": {0: (1, 0, 0)}}
FREE = Condition.READ_FREE | Condition.FREE
THREE = {"candidate_hops": {0: (1, 2, 3)}, "useful_in_time": {0: (0.4, 0.8, 0.6)}}


def decided(rule: LocalRule, *rows: dict[str, dict[int, Any]], quality: Any = 1) -> Decision:
    """What the rule decides where every route meets every class at `quality` (k, C), or what is broadcast to it."""
    seen = nodes(*rows)
    rule.reset(SCENARIO, NETWORK, 0)
    rule.choice._quality = np.broadcast_to(quality, (len(rows), *NETWORK.routes.quality.shape[1:]))
    return rule.act(seen, free(seen))


def tried(decision: Decision, i: int = 0) -> list[int]:
    """The routes that node i names."""
    assert decision.route is not None
    assert decision.fallback is not None
    return [int(decision.route[i]), *(int(r) for r in decision.fallback[i] if r >= 0)]


@pytest.mark.parametrize("rule", LOCAL)
def test_by_default_the_network_picks_and_nothing_is_read(rule: type[LocalRule]) -> None:
    decision = decided(rule(), PENDING)
    assert rule().news == ()
    assert (decision.route, decision.condition, decision.fallback) == (None, None, None)
    assert decision.action.tolist() == [1]


@pytest.mark.parametrize("rule", LOCAL)
def test_ranked_routes_are_named_by_their_chance_to_finish_best_first(rule: type[LocalRule]) -> None:
    used = rule(routes="ranked")  # type: ignore[call-arg]
    assert used.news == READ
    assert tried(decided(used, PENDING | THREE)) == [1, 2, 0]


@pytest.mark.parametrize("rule", LOCAL)
def test_a_route_that_is_down_or_absent_is_not_named(rule: type[LocalRule]) -> None:
    used = rule(routes="ranked")  # type: ignore[call-arg]
    row = PENDING | THREE | {"useful_in_time": {0: (0.4, 0.0, 0.6)}}
    assert tried(decided(used, row)) == [2, 0]


@pytest.mark.parametrize(("limit", "routes"), [(None, [1, 2, 0]), (2, [1, 2, 0]), (1, [2, 0]), (0, [0])])
@pytest.mark.parametrize("rule", [LocalReactive, LocalPredictive, AdaptiveContinuous])
def test_what_others_claim_beyond_the_limit_is_not_asked_for(
    rule: type[LocalRule], limit: int | None, routes: list[int]
) -> None:
    used = rule(routes="ranked", claims_limit=limit)  # type: ignore[call-arg]
    claimed = {"source_claims_sum": {0: (0, 1, 1)}, "swap_claims_sum": {0: (0, 1, 0)}}
    assert tried(decided(used, PENDING | THREE | claimed)) == routes


@pytest.mark.parametrize("rule", LOCAL)
def test_a_peer_with_no_route_to_ask_for_waits_and_lets_the_next_one_by(rule: type[LocalRule]) -> None:
    used = rule(routes="ranked", claims_limit=0)  # type: ignore[call-arg]
    both = {"pending": {0: (1, 0, 0), 3: (1, 0, 0)}, "slack": {0: 1, 3: 4}}
    there = {name: values | {3: values[0]} for name, values in THREE.items()}
    claimed = {"source_claims_sum": {0: (1, 1, 1)}}
    assert CODE.decode(decided(used, both | there | claimed).action[0])[0] == 3
    assert decided(used, PENDING | THREE | claimed).action.tolist() == [0]


@pytest.mark.parametrize("rule", LOCAL)
def test_asking_only_if_free_is_a_condition_on_every_allocation(rule: type[LocalRule]) -> None:
    decision = decided(rule(only_if_free=True), PENDING)  # type: ignore[call-arg]
    assert decision.condition is not None
    assert decision.condition.tolist() == [Condition.FREE]


def test_each_route_has_the_quality_it_needs_and_one_that_needs_more_is_no_alternative() -> None:
    quality = np.array([[1, 3, 3], [1, 2, 2], [1, 1, 3]])  # (k, C)
    row = {"pending": {0: (0, 1, 0)}} | THREE
    decision = decided(LocalReactive(routes="ranked"), row, quality=quality)
    assert CODE.decode(decision.action[0])[1] == 2
    assert tried(decision) == [1, 2]


def test_stock_is_ranked_by_its_gain_and_stays_where_others_claim_little() -> None:
    row = {"forecast": {2: expecting(2.0)}, "candidate_hops": {2: (1, 2, 3)}, "useful_in_time": {2: (0.4, 0.8, 0.6)}}
    claimed = {"source_claims_sum": {2: (0, 1, 3)}}  # 0, 0.5 and 1 per link
    assert tried(decided(LocalPredictive(routes="ranked", load_limit=0.5), row | claimed)) == [0, 1]
    assert decided(LocalPredictive(load_limit=0.5), row | {"route_load": {2: 0.6}}).action.tolist() == [0]


def test_maxweight_ranks_by_weight_and_claims_by_others_have_a_price() -> None:
    row = PENDING | THREE
    claimed = {"source_claims_sum": {0: (0, 4, 0)}}
    assert tried(decided(MaxWeight(routes="ranked"), row | claimed)) == [2, 0]  # 0.8 - 2·(0.05 + 0.2·2) < 0.4 - 0.05
    assert tried(decided(MaxWeight(0.05, 0.01, routes="ranked"), row | claimed)) == [1, 2, 0]


def test_numbers_kept_move_to_the_front_in_their_order() -> None:
    numbers, kept = np.array([[4, 5, 6], [1, 2, 3]]), np.array([[False, True, True], [False, False, False]])
    assert in_front(numbers, kept).tolist() == [[5, 6, -1], [-1, -1, -1]]


# ------------------------------------------------------------------------------------------------------- commands


def worded(orders: Orders, quality: int = 2, route: int = 1, waited_for: bool = True) -> Decision:
    """A command to node 0 of a network of two nodes, whose routes need the qualities below."""
    network = build_network(SCENARIO, 0)
    needed = np.zeros_like(network.routes.quality[:2])
    needed[0, 4] = [[1, 1, 2], [1, 2, 3], [1, 3, 0]]  # (k, C)
    changed = replace(network, peers=network.peers[:2], routes=replace(network.routes, quality=needed))
    decision = Decision(np.array([CODE.encode(4, quality), 0]), np.array([route, -1]))
    return orders.worded(decision, changed, SCENARIO.control.qualities, np.array([waited_for, False]))


@pytest.mark.parametrize(
    ("quality", "route", "others"),
    [(2, 1, [0]), (1, 1, [0, 2]), (3, 1, [0]), (3, 2, [0, 1]), (1, 0, []), (2, 0, []), (3, 0, [1])],
)
def test_a_command_falls_back_to_routes_that_are_good_for_what_the_named_one_is(
    quality: int, route: int, others: list[int]
) -> None:
    decision = worded(Orders(fallbacks=True), quality, route)
    assert decision.fallback is not None
    assert [r for r in decision.fallback[0].tolist() if r >= 0] == others
    assert (decision.fallback[1] == -1).all()


@pytest.mark.parametrize(
    ("orders", "waited_for", "condition"),
    [
        (Orders(), True, 0),
        (Orders(only_if_free=True), False, FREE),
        (Orders(only_if_pending=True), True, Condition.READ_PENDING),
        (Orders(only_if_pending=True), False, 0),
        (Orders(only_if_free=True, only_if_pending=True), True, FREE | Condition.READ_PENDING),
    ],
)
def test_a_command_is_bound_to_a_request_only_if_it_is_for_one(
    orders: Orders, waited_for: bool, condition: int
) -> None:
    decision = worded(orders, waited_for=waited_for)
    assert decision.fallback is None
    assert decision.condition is not None
    assert decision.condition[0] == condition


# -------------------------------------------------------------------------------------------------- whole episodes


@pytest.mark.parametrize("rule", [*LOCAL, *CENTRAL, HybridMaxWeight])
def test_all_options_are_in_the_search_space_and_play(rule: type[Policy]) -> None:
    shared = Orders.search_space if issubclass(rule, CentralPolicy) else RouteChoice.search_space
    space: dict[str, tuple[Any, ...]] = rule.search_space  # type: ignore[attr-defined]
    assert {*shared} - {*space} == ({"routes"} if rule is HybridMaxWeight else set())
    options = {name: values[1] for name, values in shared.items() if name in space}
    scenario = scenarios.get("mesh20-v0", request_rate=12.0, slots=60)
    metrics, _ = run_episode(scenario, rule(**options), EpisodeSeeds(3, 4), delay=0.5)
    assert metrics.illegal == 0
    assert metrics.delivered > 0
    assert (metrics.withheld > 0) == issubclass(rule, CentralPolicy)
    assert (metrics.refusals > 0) == (not issubclass(rule, CentralPolicy))
