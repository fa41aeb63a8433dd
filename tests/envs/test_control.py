"""Central control: how late it sees, what it may know, and that at no delay it is the network's equal."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.central import CentralReactive
from dpem_baselines.local import LocalReactive
from dpem_env import scenarios
from dpem_env.demand.forecast import NewRequests, Persistence
from dpem_env.envs.control import delay_in_slots
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Centralized, CentralPolicy, Decision, LocalPolicy, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import ReplayDemand
from dpem_env.simulator import Condition, Tally, Verdict
from dpem_env.support.errors import ScenarioError
from support.rollouts import control_of, decision, session_with, view_of, wait


def content(view: NetworkView) -> dict[str, NDArray[Any]]:
    """Every array of a view."""
    arrays = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    return {
        name: value.matrix if isinstance(value, Observations) else value
        for name, value in arrays.items()
        if isinstance(value, Observations | np.ndarray)
    }


def differing(a: NetworkView, b: NetworkView) -> set[str]:
    left, right = content(a), content(b)
    return {name for name in left if not np.array_equal(left[name], right[name])}


@pytest.mark.parametrize(
    ("delay", "slots"),
    [(0.0, 0), (0.1, 0), (0.125, 0), (0.126, 1), (0.25, 1), (0.374, 1), (0.375, 1), (0.376, 2), (0.5, 2), (2.0, 8)],
)
def test_a_delay_goes_to_the_nearest_slot_halves_down(delay: float, slots: int) -> None:
    assert delay_in_slots(scenarios.get("chain3-v0"), delay) == slots


@pytest.mark.parametrize("n", range(1, 40))
def test_halves_go_down_whatever_the_rounding_of_the_quotient(n: int) -> None:
    scenario = scenarios.get("chain3-v0", slot_duration=0.1, telemetry_period=1.0, news_period=0.1)
    assert delay_in_slots(scenario, (n + 0.5) * 0.1) == n
    assert delay_in_slots(scenario, n * 0.1) == n


@pytest.mark.parametrize("delay", [-0.25, float("nan"), float("inf"), "0.5", None, True])
def test_a_delay_is_a_number_of_seconds(delay: Any) -> None:
    with pytest.raises(ScenarioError, match=r"delay is .*; expected seconds >= 0"):
        delay_in_slots(scenarios.get("chain3-v0"), delay)


@pytest.mark.parametrize(("delay", "blind"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_nothing_is_seen_before_it_is_old_enough(delay: float, blind: int) -> None:
    control = control_of(session_with([]), delay)
    for slot in range(6):
        assert (control.view() is None) == (slot < blind)
        wait(control)


def test_the_view_at_no_delay_is_what_nodes_and_simulator_hold() -> None:
    session = session_with([(0, 0, 1, 0, 3), (2, 7, 0, 1, 5)], "star8-v0", forecaster="persistence")
    control = control_of(session, 0.0, "persistence")
    rng = np.random.default_rng(1)
    for _ in range(12):
        view, state = view_of(control), session.simulator.state
        assert np.array_equal(view.local_observations.matrix, session.observations())
        assert np.array_equal(view.observations.matrix, session.global_state())
        assert np.array_equal(view.masks, session.masks())
        assert np.array_equal(view.free_memory, state.free_memory[0])
        assert np.array_equal(view.swap_tokens, state.tokens[0])
        assert np.array_equal(view.link_up, state.link_up[0, :7])
        assert (view.slot, view.delay) == (session.slot, 0)
        control.step(*Decision(np.array([int(rng.choice(np.flatnonzero(mask))) for mask in view.masks])))


def test_a_request_is_seen_after_the_delay() -> None:
    control = control_of(session_with([(3, 0, 1, 2, 12)]), 0.5)
    wait(control, 2)
    seen = {}
    for slot in range(2, 16):
        view = view_of(control)
        assert view.overdue[0, 1].tolist() == ([0, 0, 1] if slot in (13, 14) else [0, 0, 0])
        seen[slot] = view.observations.pending[0, 1].tolist(), view.observations.slack[0, 1]
        wait(control)
    unseen, overdue = ([0, 0, 0], 0), ([0, 0, 1], 0)
    # Of ten slots that are left on arrival four, the deadline's normal length, is the most the feature shows.
    waiting = {slot: ([0, 0, 1], min(13 - slot, 4)) for slot in range(5, 13)}
    assert seen == dict.fromkeys((2, 3, 4), unseen) | waiting | {13: overdue, 14: overdue, 15: unseen}


def test_requests_past_their_deadline_are_marked_and_the_slack_is_of_those_alive() -> None:
    control = control_of(session_with([(2, 0, 1, 0, 3), (2, 0, 1, 1, 4)]), 0.5)
    wait(control, 4)
    assert control.slot == 4
    view = view_of(control)
    assert view.observations.pending[0, 1].tolist() == [1, 1, 0]
    assert view.overdue[0, 1].tolist() == [1, 0, 0]
    assert view.observations.slack[0, 1] == 1
    wait(control)
    view = view_of(control)
    assert view.overdue[0, 1].tolist() == view.observations.pending[0, 1].tolist() == [1, 1, 0]
    assert view.observations.slack[0, 1] == 0
    assert view.overdue.sum() == 2


def test_what_is_brought_forward_is_the_view_and_not_the_network() -> None:
    session = session_with([(2, 0, 1, 0, 3), (2, 0, 1, 1, 4)])
    control, unwatched = control_of(session, 0.5), copy.deepcopy(session)
    for slot in range(8):
        control.view()
        command = decision(session, {0: 4} if slot == 3 else {})
        control.step(*command)
        unwatched.step(command.action)
        assert session.simulator.digest() == unwatched.simulator.digest()


def test_own_commands_count_as_open_until_they_show_up() -> None:
    session = session_with([], silent=True)  # so that nothing is ever finished
    control = control_of(session, 0.5)
    wait(control, 2)
    control.step(*decision(session, {0: 4}))  # slot 2: node 0 to place 1, node 2, over node 1, quality 1
    for slot in range(3, 7):
        view = view_of(control)
        assert session.slot == slot
        for seen in (view.observations, view.local_observations):
            assert seen.open_allocations.tolist() == [[0, 1], [0, 0], [0, 0]]
            assert seen.open_rows.tolist() == [1, 0, 0]
            assert seen.source_backlog.tolist() == [0, 2, 0]
            assert seen.free_memory.tolist() == [3, 2, 3]
        assert view.free_memory.tolist() == [3, 2, 3]
        assert view.source_claims.tolist() == [0, 2, 0]
        assert view.swap_claims.tolist() == [0, 1, 0]
        wait(control)


def test_what_must_have_timed_out_is_closed_in_the_view_before_the_news() -> None:
    session = session_with([], silent=True)
    control = control_of(session, 2.0)  # eight slots, the time-to-live
    wait(control, 8)
    control.step(*decision(session, {0: 4}))
    open_rows, free = [], []
    for _ in range(9):
        view = view_of(control)
        open_rows.append(int(view.observations.open_rows[0]))
        free.append(view.free_memory.tolist())
        wait(control)
    assert open_rows == [1] * 7 + [0, 0]  # it acts in slots 8 to 15; the news of its end comes in slot 24
    assert free == [[3, 2, 3]] * 7 + [[4, 4, 4]] * 2


def test_an_own_command_that_was_denied_counts_until_the_news() -> None:
    session = session_with([], silent=True)
    control = control_of(session, 0.5)
    wait(control, 2)
    session.simulator.state.free_memory[0, 1] = 0
    control.step(*decision(session, {0: 4}))
    assert session.simulator.state.verdict[0, 0] == Verdict.DENIED
    rows = []
    for _ in range(3):
        rows.append(view_of(control).observations.open_rows[0])
        wait(control)
    assert rows == [1, 1, 0]


@pytest.mark.parametrize(("rows", "commands", "may"), [(1, 1, 0), (2, 1, 1), (2, 2, 0)])
def test_own_commands_fill_rows_in_the_mask(rows: int, commands: int, may: int) -> None:
    session = session_with([], silent=True, rows=rows)
    control = control_of(session, 0.5)
    wait(control, 2)
    for _ in range(commands):
        control.step(*decision(session, {0: 1}))
    masks = view_of(control).masks
    assert masks[0].tolist() == [1] + [may] * 6
    assert masks[1].tolist() == [1] * 7


@pytest.mark.parametrize(("action", "route"), [(7, -1), (-1, -1), (4, 1), (4, 99), (0, 0)])
def test_commands_the_simulator_would_not_accept_do_not_count(action: int, route: int) -> None:
    session = session_with([], silent=True)
    control, untouched = control_of(session, 0.5), control_of(session_with([], silent=True), 0.5)
    for each in (control, untouched):
        wait(each, 2)
    control.step(*decision(session, {0: action}, {0: route}))
    assert session.simulator.tally(Tally.SUBMITTED)[0] == 0
    wait(untouched)
    assert differing(view_of(control), view_of(untouched)) == set()


def test_a_command_counts_on_the_route_it_names() -> None:
    session = session_with([], "mesh20-v0", silent=True)
    hops, nodes = session.network.routes.hops, session.network.routes.nodes
    i, d = np.argwhere((hops[:, :, 1] > 1) & (hops[:, :, 0] > 1))[0]
    for route in (0, 1):
        session = session_with([], "mesh20-v0", silent=True)
        control = control_of(session, 0.25)
        wait(control)
        control.step(*decision(session, {i: 1 + 3 * d}, {i: route}))
        relays = np.bincount(nodes[i, d, route, 1 : hops[i, d, route]], minlength=20)
        assert view_of(control).swap_claims.tolist() == relays.tolist()
        assert (view_of(control).free_memory < session.network.topology.memory).sum() == hops[i, d, route] + 1


@pytest.mark.parametrize("ranked", [None, (0, 1), (2, 1), (1, 0)])
def test_a_command_counts_on_the_first_route_that_is_up_in_the_view(ranked: tuple[int, int] | None) -> None:
    session = session_with([], "mesh20-v0", silent=True)
    routes = session.network.routes
    i, d = np.argwhere((routes.hops[:, :, 1] > 1) & (routes.hops[:, :, 0] > 1))[0]
    links = [set(routes.links[i, d, r, : routes.hops[i, d, r]].tolist()) for r in (0, 1)]
    session.simulator.state.link_up[0, min(links[0] - links[1])] = 0
    control = control_of(session, 0.25)
    wait(control)
    ordered = decision(session, {i: 1 + 3 * d}, {i: ranked[0]} if ranked else None)
    if ranked:
        fallback = np.full((20, 2), -1)
        fallback[i, 0] = ranked[1]
        ordered = ordered._replace(fallback=fallback)
    control.step(*ordered)
    relays = np.bincount(routes.nodes[i, d, 1, 1 : routes.hops[i, d, 1]], minlength=20)
    assert view_of(control).swap_claims.tolist() == relays.tolist()


def test_a_withheld_command_counts_until_the_news_and_where_nodes_read_nothing_it_is_obeyed() -> None:
    rows, verdicts = [], []
    for news_period in (0.25, None):
        session = session_with([], silent=True, news_period=news_period)
        control = control_of(session, 0.25)
        wait(control)
        condition = np.full(3, Condition.READ_PENDING)
        control.step(*decision(session, {0: 1})._replace(condition=condition))
        verdicts.append(session.simulator.state.verdict[0, 0])
        rows.append([])
        for _ in range(2):
            rows[-1].append(view_of(control).observations.open_rows[0])
            wait(control)
    assert verdicts == [Verdict.WITHHELD, Verdict.ADMITTED]
    assert rows == [[1, 0], [1, 1]]


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_nothing_in_a_view_is_younger_than_the_delay(delay: int) -> None:
    session = session_with([(3, 0, 1, 0, 20)], "star8-v0")
    control = control_of(session, delay * 0.25)
    wait(control, 6)
    other = copy.deepcopy(control)
    state = other.simulator.state
    state.free_memory[0] -= 1
    state.tokens[0] += 0.25
    state.link_up[0, 2] = 0
    state.pending[0, 0, 1] += 1
    state.stock_count[0, 4], state.stock_peer[0, 4, 0], state.stock_werner[0, 4, 0] = 1, 0, 0.9
    # The change comes after slot 6 was recorded, so slot 7 is the first state that holds it.
    for slot in range(6, 10 + delay):
        changed = differing(view_of(control), view_of(other))
        if slot < 7 + delay:
            assert changed == set()
        else:
            assert changed >= {"observations", "local_observations", "free_memory", "link_up"}
        for each in (control, other):
            wait(each)


def test_a_change_of_the_network_at_the_views_time_is_seen_whole() -> None:
    session = session_with([], "star8-v0")
    control = control_of(session, 0.5)
    wait(control, 5)
    session.simulator.state.link_up[0, 2] = 0
    wait(control, 3)
    view = view_of(control)
    assert view.link_up.tolist() == [1, 1, 0, 1, 1, 1, 1]
    down = ((session.network.peers == 3) | (np.arange(8)[:, None] == 3)) & (session.network.peers >= 0)
    assert np.array_equal(view.observations.route_up == 0, down)
    assert not view.observations.telemetry_age.any()


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_requests_reach_the_controllers_forecaster_after_the_delay_and_forecasts_reach_further(delay: int) -> None:
    observed, leads = [], []

    class Spy(Persistence):
        def observe(self, requests: NewRequests) -> None:
            observed.append(requests.slot)
            super().observe(requests)

        def predict(self, lead: int = 0) -> NDArray[np.float64]:
            leads.append(lead)
            return super().predict(lead)

    control = control_of(session_with([(2, 0, 1, 0, 20)], slots=8), delay * 0.25, Spy())
    for slot in range(9):
        assert observed == list(range(min(slot - delay + 1, 8)))
        view = control.view()
        if view is not None:
            assert view.observations.forecast[0, 1, 0] == (min(slot, 7 + delay) - delay == 2)
            assert np.array_equal(view.observations.forecast, view.local_observations.forecast)
        if slot < 8:
            wait(control)
    assert set(leads) == {delay}


def test_the_oracle_is_shifted_to_the_slots_that_follow_the_decision() -> None:
    session = Session(scenarios.get("mesh20-v0"))
    session.begin(EpisodeSeeds(0, 0), 40)
    control = control_of(session, 1.0, "oracle")
    wait(control, 10)
    forecast = view_of(control).observations.forecast
    assert np.allclose(forecast, np.moveaxis(session.demand.rates(11, 19), 0, 2), atol=1e-6)
    assert forecast.any()


def test_the_view_after_the_last_slot_is_the_state_after_the_last_slot() -> None:
    session = session_with([], slots=4, silent=True)
    control = control_of(session, 0.0)
    wait(control, 3)
    control.step(*decision(session, {0: 1}))
    assert session.done
    assert view_of(control).observations.open_rows[0] == 1
    assert np.array_equal(view_of(control).observations.matrix, session.global_state())


def test_a_controller_may_join_a_session_that_has_played_before() -> None:
    scenario = scenarios.get("mesh20-v0", request_rate=8.0)
    used, fresh = Session(scenario), Session(scenario)
    used.begin(EpisodeSeeds(1, 1), 400)  # needs more room than what follows
    controls = []
    for session in (used, fresh):
        session.begin(EpisodeSeeds(2, 2), 30)
        controls.append(control_of(session, 0.5))
    for _ in range(10):
        for control in controls:
            wait(control)
    assert differing(view_of(controls[0]), view_of(controls[1])) == set()


class ForecastGreedy(LocalPolicy):
    """Stocks a pair with the peer of the highest forecast."""

    forecaster = "moving-average"

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Allocate at quality 2 where most is expected, else wait."""
        expected = observations.forecast.sum(axis=2) - observations.stored_pairs
        action = 1 + 3 * expected.argmax(axis=1) + 1
        free = masks[np.arange(len(masks)), action] == 1
        return Decision(np.where(free & (expected.max(axis=1) > 0), action, 0))


class SeededRandom(LocalPolicy):
    """Acts at random over named routes and asks for an order of admission, which nodes have no say in."""

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Seed the policy's own numbers."""
        self.rng = np.random.default_rng(seed)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """A random legal action for a third of the nodes."""
        scores = self.rng.random(masks.shape) * masks
        action = np.where(self.rng.random(len(masks)) < 1 / 3, scores.argmax(axis=1), 0)
        route = self.rng.integers(-1, 1, size=len(masks))
        return Decision(action, route, np.arange(len(masks))[::-1].copy())


class Conditional(SeededRandom):
    """The same over ranked routes, only if free; it asks nodes to read, too, which have done so by then."""

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """A random decision on a condition."""
        decision = super().act(observations, masks)
        condition = self.rng.choice([0, Condition.FREE, Condition.FREE | Condition.READ_FREE], size=len(masks))
        route = np.where(self.rng.random(len(masks)) < 0.5, 0, -1)
        return decision._replace(route=route, condition=condition, fallback=np.ones((len(masks), 1)))


@pytest.mark.parametrize("rule", [LocalReactive, ForecastGreedy, SeededRandom, Conditional])
@pytest.mark.parametrize("scenario", ["chain3-v0", "star8-v0", "mesh20-v0", "mesh100-outages-v0"])
def test_at_no_delay_a_local_rule_under_central_control_reproduces_its_own_episode(
    rule: type[LocalPolicy], scenario: str
) -> None:
    chosen = scenarios.get(scenario, predictability=0.5)
    local, central = Session(chosen, forecaster=rule.forecaster), Session(chosen)
    for session in (local, central):
        session.begin(EpisodeSeeds(5, 6), 120)
    own, wrapped = rule(), Centralized(rule())
    own.reset(chosen, local.network, 6)
    wrapped.reset(chosen, central.network, 6)
    control = control_of(central, 0.0, wrapped.forecaster)
    for _ in range(120):
        chose = own.act(local.observer.table.read(local.observations()), local.masks())
        local.step(*chose.of_nodes())
        control.step(*wrapped.act(view_of(control)))
        assert local.simulator.digest() == central.simulator.digest()
        assert np.array_equal(local.rewards(), central.rewards())
    assert local.simulator.tally(Tally.SUBMITTED)[0] > 0
    asked = rule is Conditional and scenario != "star8-v0"  # where leaves feed what they use
    assert (local.simulator.tally(Tally.REFUSED)[0] > 0) == asked


def test_a_local_rule_half_a_second_late_decides_otherwise() -> None:
    chosen = scenarios.get("mesh20-v0")
    digests = []
    for delay in (0.0, 0.5):
        session = Session(chosen)
        session.begin(EpisodeSeeds(5, 6), 60)
        control, rule = control_of(session, delay), Centralized(LocalReactive())
        rule.reset(chosen, session.network, 6)
        while not session.done:
            view = control.view()
            control.step(*decision(session, {}) if view is None else rule.act(view))
        digests.append(session.simulator.digest())
    assert digests[0] != digests[1]


def commands(session: Session, policy: CentralPolicy, delay: float, slots: int) -> dict[int, list[int]]:
    """Slot -> nodes that were ordered to allocate."""
    policy.reset(session.scenario, session.network, 0)
    control = control_of(session, delay)
    ordered = {}
    for slot in range(slots):
        view = control.view()
        chosen = decision(session, {}) if view is None else policy.act(view)
        if chosen.action.any():
            ordered[slot] = np.flatnonzero(chosen.action).tolist()
        control.step(*chosen)
    return ordered


@pytest.mark.parametrize(("delay", "slot"), [(0.0, 3), (0.25, 4), (0.5, 5), (0.75, 6)])
@pytest.mark.parametrize("policy", [CentralReactive, lambda: Centralized(LocalReactive())])
def test_one_request_gives_one_command(policy: Any, delay: float, slot: int) -> None:
    session = session_with([(3, 0, 1, 0, 6)], silent=True)
    assert commands(session, policy(), delay, 12) == {slot: [0]}


def test_one_replayed_request_gives_one_command(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.write_text("time,source,destination,fidelity,deadline\n0.8,0,2,0.75,1.0\n", encoding="utf-8")
    chain = scenarios.get("chain3-v0")
    session = Session(chain.model_copy(update={"demand": ReplayDemand(peers=2, requests_file=str(file))}))
    session.begin(EpisodeSeeds(0, 0), 12)
    assert commands(session, CentralReactive(), 0.5, 12) == {5: [0]}


def test_a_request_that_is_overdue_when_it_is_seen_gives_one_command_for_the_next() -> None:
    assert commands(session_with([(3, 0, 1, 0, 4)], silent=True), CentralReactive(), 0.5, 12) == {5: [0]}


def test_what_can_still_be_served_goes_before_what_is_overdue() -> None:
    requests = [(3, 0, 1, 0, 4), (3, 0, 0, 0, 6)]  # of node 0: seen in slot 5, the first too late
    given = {}
    for kept in ([0], [1], [0, 1]):
        session = session_with([requests[k] for k in kept], silent=True)
        control, policy = control_of(session, 0.5), CentralReactive()
        policy.reset(session.scenario, session.network, 0)
        wait(control, 5)
        given[tuple(kept)] = int(policy.act(view_of(control)).action[0])
    assert given[0, 1] == given[1,] != given[0,] > 0


def test_serving_from_stock_stays_local() -> None:
    session = session_with([(3, 0, 0, 0, 6)], silent=True)
    control = control_of(session, 1.0)
    wait(control, 2)
    state = session.simulator.state
    state.stock_count[0, 0], state.stock_peer[0, 0, 0], state.stock_werner[0, 0, 0] = 1, 0, 0.9
    state.free_memory[0, :2] -= 1
    wait(control)
    assert session.simulator.tally(Tally.FROM_STOCK)[0] == 1  # on arrival, though the controller sees it a second later


def test_an_order_of_admission_is_obeyed() -> None:
    for first, last in ((0, 2), (2, 0)):
        session = session_with([], silent=True)
        session.simulator.state.free_memory[0, 1] = 3  # room for one relay and one end
        control = control_of(session, 0.0)
        chosen = decision(session, {0: 4, 2: 1})  # both over node 1, two qubits each
        priority = np.zeros(3, dtype=np.int64)
        priority[last] = 1
        control.step(*chosen._replace(priority=priority))
        verdict = session.simulator.state.verdict[0]
        assert (verdict[first], verdict[last]) == (Verdict.ADMITTED, Verdict.DENIED)


def test_a_second_episode_remembers_nothing_of_the_first() -> None:
    session = session_with([(1, 0, 1, 0, 9)], silent=True)
    control = control_of(session, 0.5, "moving-average")
    wait(control, 3)
    control.step(*decision(session, {0: 1}))
    session.begin_with(session.network, session_with([]).demand, EpisodeSeeds(0, 0), 40)
    assert control.view() is None
    wait(control, 2)
    seen = view_of(control).observations
    assert not seen.open_rows.any()
    assert not seen.forecast.any()
    assert not seen.pending.any()
