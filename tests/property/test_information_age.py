"""The age of information: two copies of an episode are played on, one with a change at one node, and compared.

Whatever the change, remote features stay equal until a snapshot that holds it can be read, and a node to which nothing
has happened sees and may do the same as in the other copy.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.forecast import FORECASTERS, Seasonal
from dpem_env.demand.requests import Demand, draw_demand, tabulate
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import EpisodeSeeds, Played, Session
from dpem_env.network.network import build_network
from dpem_env.observations.features import NEWS as NEWS_FEATURES
from dpem_env.observations.features import NODE_FEATURES, ROUTE, FeatureTable, Observations, Observer
from dpem_env.policies import NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Simulator
from dpem_env.simulator.state import Status
from support.observers import changed
from support.rollouts import control_of, same

NODES, SLOTS = 20, 40
Actions = NDArray[np.int64]  # (slots, N)

OUTCOMES = ("delivered", "contended")  # of the slot that was played: what rewards tell as well


# ---------------------------------------------------------------------------------------------------------- changes


def fewer_free_qubits(simulator: Simulator, j: int, d: int) -> None:
    """A qubit of node j is lost."""
    simulator.state.free_memory[0, j] = max(simulator.state.free_memory[0, j] - 1, 0)


def another_stored_pair(simulator: Simulator, j: int, d: int) -> None:
    """Node j shares one more pair with its d-th peer, if there is room."""
    state, peer = simulator.state, simulator.world.peers[0, j, d]
    if peer >= 0 and (state.free_memory[0, [j, peer]] > 0).all():
        place = state.stock_count[0, j]
        state.stock_peer[0, j, place], state.stock_werner[0, j, place], state.stock_hops[0, j, place] = d, 0.95, 1
        state.stock_count[0, j] += 1
        state.free_memory[0, [j, peer]] -= 1


def other_tokens(simulator: Simulator, j: int, d: int) -> None:
    """Node j has saved up another number of swaps."""
    simulator.state.tokens[0, j] = 0.0 if simulator.state.tokens[0, j] > 1.0 else 2.0


def complete_links(simulator: Simulator, j: int, d: int) -> None:
    """The allocations of node j suddenly have all their links."""
    state, world = simulator.state, simulator.world
    for row in np.flatnonzero(state.alloc_peer[0, j] >= 0):
        hops = world.route_hops[0, j, state.alloc_peer[0, j, row], state.alloc_route[0, j, row]]
        state.link_rounds[0, j, row, :hops] = state.alloc_quality[0, j, row] - 1
        state.link_hops[0, j, row, :hops] = 1
        state.link_werner[0, j, row, :hops] = 0.97
        state.alloc_complete[0, j, row] = hops


def a_link_toggled(simulator: Simulator, j: int, d: int) -> None:
    """The first link towards node j's d-th peer fails or recovers."""
    link = simulator.world.route_links[0, j, d, 0, 0]
    if simulator.world.peers[0, j, d] >= 0:
        simulator.state.link_up[0, link] ^= 1


def another_fidelity(simulator: Simulator, j: int, d: int) -> None:
    """What waits longest at node j asks for another fidelity."""
    state, world = simulator.state, simulator.world
    for place in np.flatnonzero(state.queue_head[0, j] >= 0)[:1]:
        request = state.queue_head[0, j, place]
        wanted = world.request_class[0, request]
        world.request_class[0, request] = (wanted + 1) % 3
        state.pending[0, j, place, [wanted, (wanted + 1) % 3]] += [-1, 1]


CHANGES: dict[str, Callable[[Simulator, int, int], None]] = {
    "free memory": fewer_free_qubits,
    "stock": another_stored_pair,
    "progress": complete_links,
    "links": a_link_toggled,
    "tokens": other_tokens,
    "requests": another_fidelity,
}
TELLING = ("free memory", "stock", "progress", "links")  # those that enter the load or the state of a route
ANOTHER_ACTION = "action"


@dataclasses.dataclass(frozen=True)
class Case:
    """A change at a node before it decides in a slot, in an episode of random actions."""

    seed: int
    node: int
    slot: int
    change: str  # one of CHANGES, or ANOTHER_ACTION
    place: int
    period: int = 4  # slots between snapshots, or readings
    delay: int = 2  # slots until one can be read
    outages: bool = False
    news: bool = False  # nodes ask those on their routes

    @property
    def scenario(self) -> Scenario:
        """mesh20 with enough going on everywhere."""
        return scenarios.get(
            "mesh20-v0",
            request_rate=16.0,
            predictability=0.0,
            memory=(12, 20),
            **self.clock,
            outages={"mean_up": 10.0, "mean_down": 1.0} if self.outages else None,
        )

    @property
    def clock(self) -> dict[str, Any]:
        """Of news, or of telemetry."""
        period = self.period * 0.25
        if self.news:
            return {"news_period": period, "news_delay": self.delay * 0.25}
        return {"news_period": None, "telemetry_period": period, "telemetry_delay": self.delay}

    @property
    def first_readable(self) -> int:
        """The first slot in which a snapshot taken after the change can be read."""
        taken = next(slot for slot in range(self.slot, SLOTS) if (slot + 1) % self.period == 0)
        return taken + self.delay

    def actions(self) -> tuple[Actions, Actions]:
        """Random actions of a third of the nodes, without and with the change."""
        rng = np.random.default_rng(self.seed)
        action = np.where(rng.random((SLOTS, NODES)) < 1 / 3, rng.integers(1, 25, size=(SLOTS, NODES)), 0)
        otherwise = action.copy()
        if self.change == ANOTHER_ACTION:
            otherwise[self.slot, self.node] = 0 if action[self.slot, self.node] else 1 + 3 * self.place
        return action, otherwise

    def apply(self, simulator: Simulator) -> None:
        """Change the state, if it is the state that changes."""
        if self.change in CHANGES:
            CHANGES[self.change](simulator, self.node, self.place)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    period, news = draw(st.integers(1, 6)), draw(st.booleans())
    return Case(
        seed=draw(st.integers(0, 10_000)),
        node=draw(st.integers(0, NODES - 1)),
        slot=draw(st.integers(1, 24)),
        change=draw(st.sampled_from([*CHANGES, ANOTHER_ACTION])),
        place=draw(st.integers(0, 7)),
        period=period,
        delay=draw(st.integers(1, 2 * period if news else period)),
        outages=draw(st.booleans()),
        news=news,
    )


# -------------------------------------------------------------------------------------------------------- the agents


def remote_columns(table: FeatureTable) -> NDArray[np.int64]:
    """Columns of the observation that come from telemetry."""
    of_routes = tuple(feature.name for feature in table.peer_features if feature.age == ROUTE)
    return np.append(table.offset["telemetry_age"], columns_of(table, of_routes))


def link_columns(table: FeatureTable) -> NDArray[np.int64]:
    """Columns that tell how links and routes fare: unknown before the first snapshot or answer."""
    return columns_of(table, ("route_up", "route_load", "room", "candidate_up"))


def columns_of(table: FeatureTable, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Of these features of all peers."""
    size = {feature.name: table.sizes[feature.size] for feature in table.peer_features}
    return np.array(
        [
            len(NODE_FEATURES) + d * table.peer_width + table.offset[name] + column
            for d, name in product(range(table.scenario.demand.peers), names)
            for column in range(size[name])
        ]
    )


# What is a node's own and can be told to it at once; the claims on its source come from others, too.
OWN = (
    *("free_memory", "tokens", "queue_head", "pending", "verdict", "stock_count", "stock_peer", "stock_werner"),
    *("alloc_peer", "alloc_quality", "alloc_route", "alloc_slot", "alloc_complete"),
    *("link_rounds", "link_hops", "link_werner", "link_slot"),
)


def own_state(simulator: Simulator) -> list[NDArray[Any]]:
    """All that belongs to each node now: (N, ...) arrays."""
    state, world = simulator.state, simulator.world
    waiting = state.request_status[0] == Status.PENDING
    queued = np.where(world.request_source[0] == np.arange(NODES)[:, None], waiting, False)
    claims = np.zeros(NODES, dtype=np.int64)
    for i, row in np.argwhere(state.alloc_peer[0] >= 0):
        route = (0, i, state.alloc_peer[0, i, row], state.alloc_route[0, i, row])
        asks = np.arange(state.link_hops.shape[3]) < world.route_hops[route]
        for h in np.flatnonzero(state.link_rounds[0, i, row] == state.alloc_quality[0, i, row] - 1):
            asks[h : h + state.link_hops[0, i, row, h]] = False  # what lies in a complete segment
        np.add.at(claims, world.link_emitter[0, world.route_links[route][asks]], 1)
    return [*(getattr(state, name)[0] for name in OWN), queued, claims]


def untouched_nodes(one: Simulator, other: Simulator) -> NDArray[np.bool_]:
    """(N,) nodes whose own state is the same."""
    pairs = zip(own_state(one), own_state(other), strict=True)
    return np.all([(a == b).reshape(NODES, -1).all(axis=1) for a, b in pairs], axis=0)


Builder = Callable[[Scenario], EntanglementEnv]


def assert_agents_learn_in_time(case: Case, build: Builder = EntanglementEnv) -> bool:
    """Play both copies to the end; returns whether the change is seen in the first slot in which it may be."""
    env = build(case.scenario)
    env.max_cycles = SLOTS
    env.reset(seed=case.seed)
    plans, agents = case.actions(), env.possible_agents

    def step(played: EntanglementEnv, action: NDArray[np.int64]) -> tuple[Any, Any]:
        observations, *_, infos = played.step(dict(zip(agents, action.tolist(), strict=True)))
        return observations, infos

    for slot in range(case.slot):
        returned = step(env, plans[0][slot])
    other = copy.deepcopy(env)
    case.apply(other.session.simulator)
    both = [returned, other._shown(other.session.played())]  # what the last step would have returned after the change
    remote, width = remote_columns(env.session.observer.table), env.session.observer.table.width
    local = np.setdiff1d(np.arange(width), remote)
    untouched, seen = np.ones(NODES, dtype=np.bool_), False
    for slot in range(case.slot, SLOTS):
        untouched &= untouched_nodes(env.session.simulator, other.session.simulator)
        rows = [np.stack([observations[agent] for agent in agents]) for observations, _ in both]
        changed = rows[0] != rows[1]
        assert not changed[np.ix_(untouched, local)].any(), f"slot {slot}: nodes know more than themselves"
        for i in np.flatnonzero(untouched):
            infos = [{name: told for name, told in info[agents[i]].items() if name not in OUTCOMES} for _, info in both]
            assert data_equivalence(*infos, exact=True), f"slot {slot}: the info of agent {i} differs"
        if slot < case.first_readable:
            assert not changed[:, remote].any(), f"slot {slot}: seen before slot {case.first_readable}"
        if slot == case.first_readable:
            seen = bool(changed[:, remote].any())
        both = [step(played, plan[slot]) for played, plan in zip((env, other), plans, strict=True)]
    return seen


@given(cases())
@settings(max_examples=60, deadline=None)
def test_no_agent_learns_of_a_change_elsewhere_before_its_snapshot_can_be_read(case: Case) -> None:
    assert_agents_learn_in_time(case)


TELEMETRY: dict[str, Any] = {}  # as the shipped scenarios have it
NEWS: dict[str, Any] = {"news": True, "period": 1, "delay": 1}
OLD_NEWS: dict[str, Any] = {"news": True, "period": 2, "delay": 3}


def some_cases(change: str, clock: dict[str, Any] = TELEMETRY) -> list[Case]:
    """Changes of one kind at different nodes and slots."""
    return [Case(seed, seed, 5 + seed % 8, change, seed % 3, **clock) for seed in range(8)]


@pytest.mark.parametrize("clock", [TELEMETRY, NEWS, OLD_NEWS], ids=["telemetry", "news", "old news"])
@pytest.mark.parametrize("change", [*TELLING, ANOTHER_ACTION])
def test_a_change_of_a_load_is_seen_in_the_first_slot_in_which_it_may_be(change: str, clock: dict[str, Any]) -> None:
    assert any(assert_agents_learn_in_time(case) for case in some_cases(change, clock))


@given(cases())
@settings(max_examples=20, deadline=None)
def test_remote_features_are_those_of_the_last_readable_snapshot(case: Case) -> None:
    session = Session(case.scenario)
    session.begin(EpisodeSeeds(case.seed % 64, case.seed), SLOTS)
    table, action = session.observer.table, case.actions()[0]
    remote = remote_columns(table)[1:]
    if not case.news:  # which no snapshot tells
        candidates = columns_of(table, NEWS_FEATURES)
        remote = np.setdiff1d(remote, candidates)
        unasked = session.observations()[:, candidates]
    snapshots = {-1: session.global_state()[:, remote]}
    intact = Session(case.scenario.override(outages=None))
    intact.begin(EpisodeSeeds(case.seed % 64, case.seed), SLOTS)
    first_routes = intact.global_state()[:, remote]  # fixed, so no news
    untold = np.where(np.isin(remote, link_columns(table)), 0.0, first_routes)
    while not session.done:
        slot = session.slot
        readable = [taken for taken in snapshots if slot - taken >= case.delay]
        seen = session.observations()
        age = table.read(seen).telemetry_age
        assert np.array_equal(seen[:, remote], snapshots[max(readable)] if readable else untold)
        assert (age == (slot - max(readable) - 1 if readable else 0)).all()
        assert case.news or np.array_equal(seen[:, candidates], unasked)
        if (slot + 1) % case.period == 0:
            last = copy.deepcopy(session)
            last.simulator.world.horizon[0] = slot + 1  # the last slot of an episode ends with phase 6
            last.step(action[slot])
            snapshots[slot] = last.global_state()[:, remote]
        session.step(action[slot])


# ------------------------------------------------------------------------------------------------- agents that leak


class FreshObserver(Observer):
    def observing(self, forecast: Any = None, fresh: bool = False) -> Any:
        return super().observing(forecast, fresh=True)


class NosyObserver(Observer):
    def observing(self, forecast: Any = None, fresh: bool = False) -> Any:
        return changed(super().observing(forecast, fresh), self.look_around)

    def look_around(self, rows: Any) -> None:
        rows[:, :, 0] = rows[:, :, 0].mean()  # everybody's free memory in place of one's own


class TellingMasks(EntanglementEnv):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        for info in infos.values():
            info["action_mask"] = info["action_mask"].copy()
            info["action_mask"][-1] = self.session.simulator.state.free_memory.sum() % 2
        return observations, infos


class Gossip(EntanglementEnv):
    def _shown(self, played: Played) -> Any:
        observations, infos = super()._shown(played)
        for info in infos.values():
            info["open"] = self.session.simulator.state.num_open[0, 0]
        return observations, infos


def observed_by(observer: type[Observer]) -> Builder:
    def build(scenario: Scenario) -> EntanglementEnv:
        env = EntanglementEnv(scenario)
        env.session.observer = observer(env.session.simulator)
        return env

    return build


def read_a_slot_early(scenario: Scenario) -> EntanglementEnv:
    env = EntanglementEnv(scenario)
    simulator = env.session.simulator
    simulator.rules = simulator.rules._replace(route_delay=simulator.rules.route_delay - 1)
    return env


@pytest.mark.parametrize("clock", [TELEMETRY, OLD_NEWS], ids=["telemetry", "news"])
@pytest.mark.parametrize(
    ("leaky", "found"),
    [
        (observed_by(FreshObserver), "seen before"),
        (read_a_slot_early, "seen before"),
        (observed_by(NosyObserver), "nodes know more than themselves"),
        (TellingMasks, "the info of agent"),
        (Gossip, "the info of agent"),
    ],
)
def test_an_agent_that_knows_too_much_is_found(leaky: Builder, found: str, clock: dict[str, Any]) -> None:
    watched = some_cases("free memory", clock) + some_cases(ANOTHER_ACTION, clock)
    with pytest.raises(AssertionError, match=found):
        assert [assert_agents_learn_in_time(case, leaky) for case in watched]


# ----------------------------------------------------------------------------------------------- a central controller


def arrays_of(view: NetworkView) -> dict[str, NDArray[Any]]:
    """Every array of a view by name."""
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    matrices = {name: value.matrix for name, value in fields.items() if isinstance(value, Observations)}
    return matrices | {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}


Controller = Callable[[Session, float, str], Session]


def assert_the_controller_learns_in_time(case: Case, delay: int, build: Controller = control_of) -> bool:
    """Play both copies on; returns whether the change is seen in the first slot in which it may be."""
    session = Session(case.scenario)
    session.begin(EpisodeSeeds(case.seed % 64, case.seed), SLOTS)
    control, action = build(session, delay * 0.25, "moving-average"), case.actions()[0]
    for slot in range(case.slot):
        control.step(action[slot])
    other = copy.deepcopy(control)
    case.apply(other.simulator)
    # The change comes after the state of its slot was recorded: that of the next slot is the first to hold it.
    first = case.slot + 1 + delay
    for slot in range(case.slot, first + 1):
        views = control.view(), other.view()
        changed = views[0] is not None and views[1] is not None and not same(*map(arrays_of, views))
        assert (views[0] is None) == (views[1] is None)
        assert slot == first or not changed, f"slot {slot}: seen before slot {first}"
        for each in (control, other):
            each.step(action[slot])
    return changed


@given(cases(), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_no_controller_learns_of_a_change_before_its_delay_has_passed(case: Case, delay: int) -> None:
    assert_the_controller_learns_in_time(case, delay)


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_controller_sees_a_change_when_its_delay_has_passed(change: str, delay: int) -> None:
    assert any(assert_the_controller_learns_in_time(case, delay) for case in some_cases(change))


def test_a_controller_that_is_a_slot_early_is_found() -> None:
    def early(session: Session, delay: float, forecaster: str) -> Session:
        return control_of(session, delay - 0.25, forecaster)

    with pytest.raises(AssertionError, match="seen before"):
        assert [assert_the_controller_learns_in_time(case, 3, early) for case in some_cases("free memory")]


# ------------------------------------------------------------------------------------------------------- forecasts


def asked_otherwise(demand: Demand, peers: NDArray[np.int32], j: int, slot: int) -> Demand:
    """Node j's requests from `slot` on are others."""
    columns = np.array(demand.requests[:5])
    columns = columns[:, (columns[1] != j) | (columns[0] < slot)]
    place = int(np.flatnonzero(peers[j] >= 0)[-1])
    others = [(t, j, place, 0, t + 3) for t in range(slot, SLOTS) for _ in range(1 + t % 3)]
    return dataclasses.replace(demand, requests=tabulate(*np.concatenate((columns, np.transpose(others)), axis=1)))


@pytest.mark.parametrize("name", sorted(name for name, kind in FORECASTERS.items() if not kind.clairvoyant))
@given(case=cases())
@settings(max_examples=8, deadline=None)
def test_a_forecast_in_an_observation_depends_on_the_nodes_own_past_requests_alone(name: str, case: Case) -> None:
    network = build_network(case.scenario, case.seed % 64)
    assume((network.peers[case.node] >= 0).any())
    demand = draw_demand(case.scenario, network, case.seed, SLOTS)
    own = FORECASTERS[name]() if name != "seasonal" else Seasonal(period=8)  # one that fits into the episode
    sessions = [Session(case.scenario, forecaster=copy.copy(own)) for _ in range(2)]
    demands = demand, asked_otherwise(demand, network.peers, case.node, case.slot)
    for session, requests in zip(sessions, demands, strict=True):
        session.begin_with(network, requests, EpisodeSeeds(case.seed % 64, case.seed), SLOTS)
    others = np.arange(NODES) != case.node
    own_changed = False
    for slot in range(SLOTS):
        one, other = (session.observer.table.read(session.observations()).forecast for session in sessions)
        assert np.array_equal(one[others], other[others])
        changed = not np.array_equal(one[case.node], other[case.node])
        assert slot >= case.slot or not changed
        own_changed |= changed
        for session in sessions:
            session.step(case.actions()[0][slot])
    assert own_changed == (name != "mean-rates")
