"""Episode metrics, on episodes small enough to count by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.requests import NO_PIECES, Demand, tabulate
from dpem_env.envs.metric_labels import HEADLINE, METRICS
from dpem_env.envs.metrics import EpisodeMetrics, episode_metrics, jain_index, messages_per_second
from dpem_env.envs.session import EpisodeSeeds, Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, LocalPolicy, get_policy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Condition, Tally

Request = tuple[int, int, int, int]  # slot, source, class, last slot
FRESH = scenarios.get("chain3-v0").hardware.link_fidelity


def ebits_of(f: float) -> float:
    return 1 + f * math.log2(f) + (1 - f) * math.log2((1 - f) / 3)


def certain_pair(**fields: Any) -> Scenario:
    """Two nodes whose link, for all practical purposes, delivers in the slot it is asked."""
    return scenarios.get("chain3-v0", nodes=2, peers=1, generation_rate=(400.0, 400.0), attenuation=0.0, **fields)


def play(
    requests: list[Request], allocations: dict[tuple[int, int], int], slots: int, **fields: Any
) -> tuple[EpisodeMetrics, NDArray[np.float64]]:
    """An episode of `certain_pair`; `allocations` maps (slot, node) to a quality. Metrics and summed rewards."""
    scenario = certain_pair(**fields)
    session = Session(scenario)
    network = build_network(scenario, 0)
    slot, source, wanted, last_slot = np.array(requests, dtype=np.int32).reshape(-1, 4).T
    table = tabulate(slot, source, np.zeros_like(slot), wanted, last_slot, scenario.demand.pairs_per_request)
    demand = Demand(table, NO_PIECES, (2, 1))
    session.begin_with(network, demand, EpisodeSeeds(0, 0), slots)
    total, charged = np.zeros(2), np.zeros(2, dtype=np.int64)
    while not session.done:
        session.step([allocations.get((session.slot, node), 0) for node in range(2)])
        total += session.rewards()
        charged += session.simulator.state.contended[0]
    return episode_metrics(session, total, charged), total


def test_an_episode_counted_by_hand() -> None:
    requests = [
        (0, 0, 0, 3),  # served at once
        (1, 1, 2, 4),  # served one slot later
        (1, 0, 1, 2),  # expires
        (4, 0, 0, 7),  # served one slot later, but its last slot lies beyond the episode: not counted
        (5, 1, 0, 8),  # served from the pair stored in slot 3; not counted either
    ]
    metrics, rewards = play(requests, {(0, 0): 1, (2, 1): 1, (3, 1): 1, (5, 0): 1}, slots=6)
    assert metrics.requests == 3
    assert metrics.delivered == 4
    assert metrics.submitted == 4
    assert metrics.illegal == 0
    assert metrics.delivery_rate == pytest.approx(2 / 3)
    assert metrics.latency == pytest.approx((0.0 + 0.25 + 0.25 + 0.0) / 4)
    assert metrics.from_stock == pytest.approx(1 / 4)
    # Node 0 got 1 of its 2 counted requests, node 1 its only one.
    assert metrics.fairness == pytest.approx((0.5 + 1.0) ** 2 / (2 * (0.5**2 + 1.0**2)))
    # The stored pair aged for two slots of 0.25 s in two memories of 60 s.
    aged = (1 + 3 * (4 * FRESH - 1) / 3 * math.exp(-2 * 0.25 * 2 / 60)) / 4
    assert metrics.fidelity == pytest.approx((3 * FRESH + aged) / 4)
    assert metrics.weighted_delivery == metrics.delivery_rate
    # Three fresh pairs and the aged one in 1.5 s: 1 - 2h(Q) secret bits each at an error rate Q = 2(1 - F)/3, and
    # 1 + F·log F + (1 - F)·log((1 - F)/3) ebits.
    errors = [2 * (1 - fidelity) / 3 for fidelity in (FRESH, FRESH, FRESH, aged)]
    bits = sum(1 + 2 * (q * math.log2(q) + (1 - q) * math.log2(1 - q)) for q in errors)
    assert metrics.key_rate == pytest.approx(bits / 1.5)
    ebits = sum(ebits_of(fidelity) for fidelity in (FRESH, FRESH, FRESH, aged))
    assert metrics.ebit_rate == pytest.approx(ebits / 1.5)
    assert metrics.delivery_by_class == (1.0, 0.0, 1.0)
    assert metrics.delivery_by_hops[0] == pytest.approx(2 / 3)
    assert all(math.isnan(rate) for rate in metrics.delivery_by_hops[1:])
    assert metrics.waste == 0.0
    assert metrics.denied == 0.0
    assert rewards.tolist() == [2.0, 2.0]
    assert metrics.reward == 2.0


def test_pairs_too_weak_for_a_key_yield_none() -> None:
    metrics, _ = play([(0, 0, 0, 3)], {(0, 0): 1}, slots=4, link_fidelity=0.8)
    assert metrics.delivered == 1
    assert metrics.key_rate == metrics.ebit_rate == 0.0


def test_requests_of_classes_of_value_weigh_more() -> None:
    requests = [(0, 0, 0, 1), (0, 0, 2, 3), (1, 1, 1, 3)]  # the first expires, as the second is served before it
    values = {"class_values": (1.0, 2.0, 5.0), "deadline": 1.0}
    metrics, rewards = play(requests, {(2, 0): 1, (2, 1): 1}, slots=4, **values)
    assert metrics.delivery_rate == pytest.approx(2 / 3)
    assert metrics.weighted_delivery == pytest.approx(7 / 8)
    assert rewards.tolist() == [5.0, 2.0]


def test_a_request_for_two_pairs_is_delivered_when_both_are() -> None:
    requests = [(0, 0, 0, 3), (0, 1, 1, 3)]
    metrics, rewards = play(requests, {(0, 0): 1, (2, 0): 1, (1, 1): 1}, slots=4, pairs_per_request=2)
    assert (metrics.requests, metrics.delivered) == (2, 1)
    assert metrics.delivery_rate == pytest.approx(1 / 2)
    assert metrics.delivery_by_class[:2] == (1.0, 0.0)
    assert metrics.latency == pytest.approx(0.5)  # until the second pair
    assert metrics.fidelity == pytest.approx(FRESH)
    assert metrics.ebit_rate == pytest.approx(3 * ebits_of(FRESH))
    assert rewards.tolist() == [2.0, 1.0]  # each pair earns


@pytest.mark.parametrize(("last_slot", "counted"), [(2, 1), (3, 1), (4, 0), (9, 0)])
def test_a_request_counts_only_if_its_last_slot_lies_in_the_episode(last_slot: int, counted: int) -> None:
    metrics, _ = play([(1, 0, 0, last_slot)], {}, slots=4)
    assert metrics.requests == counted
    assert metrics.delivered == 0
    assert metrics.delivery_rate == 0.0 if counted else math.isnan(metrics.delivery_rate)


def test_rates_of_nothing_are_nan_and_null_in_json() -> None:
    metrics, _ = play([], {}, slots=3)
    plain = metrics.as_dict()
    nothing = (
        "delivery_rate",
        "weighted_delivery",
        "denied",
        "contended_per_delivered",
        "fidelity",
        "latency",
        "fairness",
        "waste",
    )
    for name in (*nothing, "from_stock"):
        assert math.isnan(getattr(metrics, name)), name
        assert plain[name] is None, name
    assert plain["delivery_by_class"] == [None, None, None]
    assert plain["requests"] == plain["delivered"] == 0
    assert plain["contention"] == plain["key_rate"] == plain["ebit_rate"] == 0.0
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_doing_nothing_has_no_contention_and_delivers_nothing() -> None:
    metrics, rewards = play([(0, 0, 0, 3), (0, 1, 0, 3)], {}, slots=5)
    assert metrics.contention == 0.0
    assert metrics.collisions == 0.0
    assert metrics.delivery_rate == 0.0
    assert math.isnan(metrics.contended_per_delivered)
    assert math.isnan(metrics.fairness)  # all rates are zero: no share is larger than another
    assert rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("rates", "index"),
    [
        ([1.0, 1.0, 1.0], 1.0),
        ([0.3, 0.3], 1.0),
        ([1.0, 0.0, 0.0, 0.0], 0.25),
        ([1.0, 0.5], 0.9),
        ([math.nan, 0.5, 0.5], 1.0),  # a node without requests has no rate
    ],
)
def test_jain_index_of_known_rates(rates: list[float], index: float) -> None:
    assert jain_index(np.array(rates)) == pytest.approx(index)


@pytest.mark.parametrize("rates", [[], [0.0, 0.0], [math.nan]])
def test_jain_index_of_nothing_is_nan(rates: list[float]) -> None:
    assert math.isnan(jain_index(np.array(rates)))


def test_shares_are_the_simulators_counts_over_their_denominators() -> None:
    scenario = scenarios.get("mesh20-v0", slots=40, request_rate=16.0)
    seeds = episode_seeds(scenario, "evaluation", 0)
    metrics, session = run_episode(scenario, get_policy("local-reactive"), seeds)

    def count(*which: Tally) -> int:
        return sum(int(session.simulator.tally(t)[0]) for t in which)

    resource_slots = 3 * 20 * 40
    kinds = (Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS, Tally.CONTENDED_MEMORIES)
    assert count(*kinds) > 0
    assert metrics.contention * resource_slots == pytest.approx(count(*kinds))
    assert metrics.contention_sources * resource_slots == pytest.approx(count(kinds[0]))
    assert metrics.contention_swaps * resource_slots == pytest.approx(count(kinds[1]))
    assert metrics.contention_memories * resource_slots == pytest.approx(count(kinds[2]))
    assert metrics.collisions * resource_slots == pytest.approx(count(Tally.COLLIDED_SOURCES, Tally.COLLIDED_SWAPS))
    assert metrics.contended_per_delivered == pytest.approx(count(*kinds) / count(Tally.DELIVERED))
    assert metrics.denied == pytest.approx(count(Tally.DENIED) / count(Tally.SUBMITTED))
    assert metrics.waste == pytest.approx(count(Tally.DROPPED_PAIRS) / count(Tally.FINISHED))
    assert metrics.wasted_elementary == pytest.approx(count(Tally.TIMED_OUT) / count(Tally.EMITTED))
    assert metrics.delivered == count(Tally.DELIVERED)


class OnlyIfFree(LocalPolicy):
    """A rule whose allocations ask only if it is free."""

    def __init__(self) -> None:
        self.rule = get_policy("local-reactive")

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        decision = self.rule.act(observations, masks)
        return decision._replace(condition=np.full(len(masks), Condition.FREE))


def test_refusals_count_as_contention_and_the_lenient_reading_leaves_them_out() -> None:
    scenario = scenarios.get("mesh20-v0", slots=40, request_rate=16.0)
    seeds = episode_seeds(scenario, "evaluation", 0)
    plain, _ = run_episode(scenario, get_policy("local-reactive"), seeds)
    asking, session = run_episode(scenario, OnlyIfFree(), seeds)
    tally = session.simulator.state.tally[0]
    assert plain.contention_lenient == plain.contention
    assert plain.refusals == plain.withheld == asking.withheld == 0
    by_refusal = tally[Tally.CONTENDED_BY_REFUSAL]
    assert by_refusal > 0
    assert asking.contention - asking.contention_lenient == pytest.approx(by_refusal / (3 * 20 * 40))
    assert asking.contention_lenient <= asking.collisions + asking.contention_memories
    assert asking.refusals == pytest.approx(tally[Tally.REFUSED] / (20 * 40 * 0.25))


def test_every_metric_that_is_told_is_one() -> None:
    assert METRICS.keys() <= EpisodeMetrics.__dataclass_fields__.keys()
    assert set(HEADLINE) <= METRICS.keys()
    assert METRICS["latency"].title == "latency (s)"


def test_a_message_is_counted_for_every_other_node_on_a_candidate_route_and_period() -> None:
    scenario = scenarios.get("star8-v0", peers=2)
    network = build_network(scenario, 0)
    # A leaf asks the hub and its peers, the hub its two peers; a hub that is a peer itself is asked once.
    peers = [set(row[row >= 0].tolist()) for row in network.peers]
    asked = sum(len(of_node | ({0} if i else set())) for i, of_node in enumerate(peers))
    assert messages_per_second(scenario, network) == pytest.approx(asked / 8 / 0.25)
    assert messages_per_second(scenario.override(news_period=1.0), network) == pytest.approx(asked / 8)
    assert messages_per_second(scenario.override(news_period=None), network) == 0.0


def test_messages_are_those_of_nodes_that_decide() -> None:
    scenario, seeds = scenarios.get("star8-v0", slots=4), EpisodeSeeds(0, 0)
    assert run_episode(scenario, get_policy("local-reactive"), seeds)[0].messages > 0
    assert run_episode(scenario, get_policy("central-reactive"), seeds)[0].messages == 0.0
