"""Fairness of the rules: labels decide nothing, no choice shifts another's luck, no agent gains by its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dpem_baselines.local import LocalReactive
from dpem_env import scenarios
from dpem_env.demand.requests import Demand, draw_demand, tabulate
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.observations.features import Observations, Observer
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Episode, Simulator, Tally, Verdict
from dpem_env.simulator.state import State
from simulator.hand_drawn import draw

SLOTS, TOPOLOGIES = 120, 16
CONTENDED = [Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS, Tally.CONTENDED_MEMORIES]
Floats = NDArray[np.float64]


# ------------------------------------------------------------------------------------------------------ other labels


class Labels(NamedTuple):
    """New numbers for the nodes of a network, and new places for the peers of each."""

    node: NDArray[np.int64]  # (N,) new index of a node
    place: NDArray[np.int64]  # (N, D) new place of a node's peer


def reversed_labels(network: Network, seed: int) -> Labels:
    """The first node becomes the last; every node's peers are shuffled."""
    rng = np.random.default_rng(seed)
    n, places = network.peers.shape
    return Labels(np.arange(n)[::-1].copy(), rng.permuted(np.tile(np.arange(places), (n, 1)), axis=1))


def relabelled_network(scenario: Scenario, network: Network, labels: Labels) -> Network:
    """The same nodes and fibres under other numbers; the keys that break ties between routes go with their fibres."""
    topology, node = network.topology, labels.node
    old = np.argsort(node)
    links = np.sort(node[topology.links], axis=1)
    by_ends = np.lexsort((links[:, 1], links[:, 0]))
    of_node = ("position", "popularity", "generation_rate", "swap_rate", "memory", "coherence_time")
    moved: dict[str, Any] = {name: getattr(topology, name)[old] for name in of_node}
    moved |= {name: getattr(topology, name)[by_ends] for name in ("length", "transmission", "link_key")}
    moved["names"] = tuple(topology.names[i] for i in old)
    moved["links"] = links[by_ends].astype(np.int32)
    moved["emitter"] = node[topology.emitter[by_ends]].astype(np.int32)
    places = np.argsort(labels.place, axis=1)[old]
    peers, weights = (np.take_along_axis(table[old], places, axis=1) for table in (network.peers, network.weights))
    peers = np.where(peers >= 0, node[peers], -1).astype(np.int32)
    return with_routes(scenario, replace(topology, **moved), peers, weights, network.excluded)


def relabelled_demand(demand: Demand, labels: Labels) -> Demand:
    """The same requests of the same nodes."""
    (slot, source, peer, wanted, last_slot, _), pieces = demand.requests, demand.pieces
    requests = tabulate(slot, labels.node[source], labels.place[source, peer], wanted, last_slot)
    place = labels.place[pieces.node, pieces.peer]
    moved = pieces._replace(node=labels.node[pieces.node].astype(np.int32), peer=place.astype(np.int32))
    return Demand(requests, moved, demand.shape)


class RandomLegal(LocalPolicy):
    """Every node takes a random legal action."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """All legal actions are equally likely, waiting among them."""
        return Decision((self.rng.random(masks.shape) * masks).argmax(axis=1))


class Outcomes(NamedTuple):
    """What came of every episode, each (B,)."""

    delivered: Floats  # requests
    contended: Floats  # resources
    delivered_to_first: Floats  # requests of the half of the nodes that had the lower numbers at first
    charged_to_first: Floats  # contended resources that they claimed


@cache
def crowded_world(seed: int) -> tuple[Scenario, Network, Demand]:
    """More requests than mesh20 can serve, and links that fail."""
    scenario = scenarios.get(
        "mesh20-v0", request_rate=16.0, predictability=0.0, outages={"mean_up": 20.0, "mean_down": 2.0}
    )
    network = build_network(scenario, seed % TOPOLOGIES)
    return scenario, network, draw_demand(scenario, network, seed, SLOTS)


def outcomes(rule: LocalPolicy, relabel: bool, count: int, admit_by_index: bool = False) -> Outcomes:
    """Play episodes 0, 1, ... under their own labels or under others."""
    labels: dict[int, Labels] = {}
    networks: dict[int, Network] = {}
    episodes, first = [], []
    for seed in range(count):
        scenario, network, demand = crowded_world(seed)
        node = np.arange(network.num_nodes)
        if relabel:
            topology = seed % TOPOLOGIES
            if topology not in labels:
                labels[topology] = reversed_labels(network, seed)
                networks[topology] = relabelled_network(scenario, network, labels[topology])
            network, demand, node = networks[topology], relabelled_demand(demand, labels[topology]), node[::-1]
        episodes.append(Episode(network, demand, seed, SLOTS))
        first.append(node[: len(node) // 2])
    simulator = Simulator(scenario, count)
    simulator.begin(episodes)
    observer, state = Observer(simulator), simulator.state
    batch, n = np.arange(count)[:, None], simulator.num_nodes
    delivered, charged = np.zeros((2, count, n))
    for _ in range(SLOTS):
        # A local rule looks at each row alone, so that it can decide for the nodes of all episodes together.
        seen, masks = observer.observe().reshape(count * n, -1), observer.masks().reshape(count * n, -1)
        action = rule.act(observer.table.read(seen), masks).action.reshape(count, n)
        simulator.step(action, priority=np.tile(np.arange(n), (count, 1)) if admit_by_index else None)
        delivered += state.delivered
        charged += state.contended
    of_first = (batch, np.array(first))
    return Outcomes(
        delivered.sum(axis=1),
        state.tally[:, CONTENDED].sum(axis=1).astype(np.float64),
        delivered[of_first].sum(axis=1),
        charged[of_first].sum(axis=1),
    )


def paired_interval(one: Floats, other: Floats) -> tuple[float, float]:
    """Interval (Student's t) of the mean difference, as a share of the mean; 99 % for all quantities at once.

    Bonferroni: each misses zero by chance in 1 of 100 comparisons divided by the number of quantities.
    """
    difference = (other - one) / one.mean()
    half = stats.t.ppf(1.0 - 0.005 / len(Outcomes._fields), len(one) - 1) * stats.sem(difference)
    return float(difference.mean() - half), float(difference.mean() + half)


def assert_labels_decide_nothing(rule: Callable[[int], LocalPolicy], count: int, admit_by_index: bool = False) -> None:
    """Zero lies in every interval of the differences, and every interval is narrow enough to tell."""
    one, other = (outcomes(rule(relabel), bool(relabel), count, admit_by_index) for relabel in (0, 1))
    intervals = dict(zip(Outcomes._fields, map(paired_interval, one, other), strict=True))
    for quantity, (low, high) in intervals.items():
        assert low < 0 < high, f"relabelled, {quantity} differs by {low:.1%} to {high:.1%}"
    for quantity, (low, high) in intervals.items():
        assert high - low < (0.05 if quantity.endswith("first") else 0.035), f"{quantity} is known too badly"


RULES = pytest.mark.parametrize(
    "rule",
    [
        pytest.param(lambda _: LocalReactive(), id="local-reactive"),
        pytest.param(RandomLegal, id="random", marks=pytest.mark.slow),
    ],
)


@pytest.mark.slow
@RULES
def test_relabelled_nodes_fare_the_same_in_distribution(rule: Callable[[int], LocalPolicy]) -> None:
    assert_labels_decide_nothing(rule, 480)


@RULES
def test_an_admission_in_order_of_index_would_be_found_unfair(rule: Callable[[int], LocalPolicy]) -> None:
    with pytest.raises(AssertionError, match="to_first differs by"):
        assert_labels_decide_nothing(rule, 60, admit_by_index=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("equal", [False, True])
def test_relabelled_nodes_have_the_same_routes(seed: int, equal: bool) -> None:
    """Even where all costs are equal, so that the keys of the fibres decide."""
    alike = {"generation_rate": (4.0, 4.0), "swap_rate": (2.0, 2.0), "attenuation": 0.0} if equal else {}
    scenario = scenarios.get("mesh20-v0", **alike)
    network = build_network(scenario, seed)
    labels = reversed_labels(network, seed)
    moved = relabelled_network(scenario, network, labels).routes
    where = labels.node[:, None], labels.place
    nodes = np.where(network.routes.nodes >= 0, labels.node[network.routes.nodes], -1)
    assert np.array_equal(moved.nodes[where], nodes)
    assert np.array_equal(moved.quality[where], network.routes.quality)
    assert np.allclose(moved.build_time[where], network.routes.build_time, rtol=1e-9)


# ------------------------------------------------------------------------------------------------- exogenous draws


class Draws(NamedTuple):
    """What chance gave in one slot."""

    emitted: list[int]  # pairs of every source
    link_up: list[int]  # after the slot
    arrived: int  # requests so far; the table they come from is fixed
    order: dict[int, int]  # nodes that submitted, in order of admission, and their keys


def play_slot(simulator: Simulator, alone: Simulator, action: NDArray[np.int64]) -> Draws:
    """Play a slot. In environment e of `alone` only source e emits: so much it would have emitted here."""
    for name in State._fields:
        getattr(alone.state, name)[:] = getattr(simulator.state, name)
    alone.step(np.tile(action, (simulator.num_nodes, 1)))
    emitted = alone.tally(Tally.EMITTED) - simulator.tally(Tally.EMITTED)
    simulator.step(action)
    work, state = simulator.work, simulator.state
    submitted = int(np.isin(state.verdict, (Verdict.ADMITTED, Verdict.DENIED)).sum())
    keys = zip(work.actor[0, :submitted].tolist(), work.actor_key[0, :submitted].tolist(), strict=True)
    return Draws(emitted.tolist(), state.link_up[0].tolist(), int(state.next_arrival[0, 0]), dict(keys))


@given(st.integers(0, 10_000), st.integers(0, 19), st.integers(0, 29), st.integers(1, 24))
@settings(max_examples=30, deadline=None)
def test_one_choice_of_one_agent_leaves_every_exogenous_draw_as_it_is(
    seed: int, agent: int, slot: int, choice: int
) -> None:
    """Emissions, outages, arrivals and the order of everybody's admissions, up to the end of the episode."""
    scenario, network, demand = crowded_world(seed)
    episode = Episode(network, demand, seed, 40)
    action = np.random.default_rng(seed).integers(0, 25, size=(40, 20))
    action[max(slot - 8, 0) : slot + 1, agent] = 0  # so that a row is free
    otherwise = action.copy()
    otherwise[slot, agent] = choice
    drawn, digests = [], []
    for actions in (action, otherwise):
        simulator, alone = Simulator(scenario), Simulator(scenario, 20)
        simulator.begin([episode])
        alone.begin([episode] * 20)
        alone.world.emit(np.where(np.eye(20, dtype=bool), alone.world.emission_mean, 0.0))
        drawn.append([play_slot(simulator, alone, chosen) for chosen in actions])
        digests.append(simulator.digest())
    assume(digests[0] != digests[1])
    for one, other in zip(*drawn, strict=True):
        assert one[:3] == other[:3]
        both = one.order.keys() & other.order.keys()
        first, second = ([(i, key) for i, key in draws.order.items() if i in both] for draws in (one, other))
        assert first == second


# ------------------------------------------------------------------------------------------------- equal agents


LEAVES = np.arange(1, 8)


def equal_leaves(count: int, slots: int, priority: NDArray[np.int64] | None = None) -> dict[str, Floats]:
    """Seven equal leaves ask in every slot for a pair with the next leaf; what each got, by (episode, leaf).

    The hub feeds all links, relays all pairs and has room for four allocations: every kind of resource is short.
    """
    drawn = draw(
        [(0, leaf) for leaf in LEAVES],
        {leaf: [leaf % 7 + 1] for leaf in LEAVES},
        generation_rate=[30.0] + [1.0] * 7,
        swap_rate=[8.0] + [1.0] * 7,
        memory=[8] + [100] * 7,
        requests=[(slot, leaf, 0, 0, slot + 3) for slot in range(slots) for leaf in LEAVES],
        slots=slots,
        swap_success=0.9,
        rows=8,  # as many as slots in a time-to-live: never full
    ).simulator
    simulator = Simulator(drawn.scenario, count)
    episode = drawn.episodes[0]
    assert episode is not None
    simulator.begin([episode._replace(seed=seed) for seed in range(count)])
    action = np.tile([0] + [1] * 7, (count, 1))
    given = {name: np.zeros((count, 7)) for name in ("admitted", "delivered", "contended")}
    for _ in range(slots):
        simulator.step(action, priority=None if priority is None else np.tile(priority, (count, 1)))
        given["admitted"] += simulator.state.verdict[:, LEAVES] == Verdict.ADMITTED
        given["delivered"] += simulator.state.delivered[:, LEAVES]
        given["contended"] += simulator.state.contended[:, LEAVES]
    assert not simulator.tally(Tally.ILLEGAL).any()
    assert simulator.state.tally[:, CONTENDED].all()
    return given


def assert_equal_agents_fare_alike(given: dict[str, Floats]) -> None:
    """Nothing goes with an agent's index, and no agent's mean stands out (Hotelling, Ann. Math. Stat. 2, 360, 1931).

    Episodes are independent, the slots and the agents of one are not: an episode is one observation of all agents.
    """
    for name, per_episode in given.items():
        count, agents = per_episode.shape
        slopes = per_episode @ (np.arange(agents) - (agents - 1) / 2)
        assert stats.ttest_1samp(slopes, 0.0).pvalue > 1e-3, f"{name} goes with the index"
        contrasts = per_episode[:, 1:] - per_episode[:, :1]
        mean, spread, free = contrasts.mean(axis=0), np.cov(contrasts.T), agents - 1
        statistic = count * mean @ np.linalg.solve(spread, mean) * (count - free) / (free * (count - 1))
        assert stats.f.sf(statistic, free, count - free) > 1e-3, f"{name} is uneven: {per_episode.mean(axis=0)}"


def test_equal_agents_fare_alike_over_forty_thousand_slots() -> None:
    given = equal_leaves(100, 400)
    assert_equal_agents_fare_alike(given)
    for per_episode in given.values():  # and that is known well: a bias of a few percent would have been found
        assert stats.sem(per_episode, axis=0).max() < 0.01 * per_episode.mean()


@pytest.mark.parametrize(
    ("priority", "found"),
    [(np.arange(8), "goes with the index"), (np.where(np.arange(8) == 4, 0, 1), "is uneven")],
    ids=["by index", "one first"],
)
def test_an_admission_that_favours_an_agent_would_be_found(priority: NDArray[np.int64], found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        assert_equal_agents_fare_alike(equal_leaves(100, 100, priority))
