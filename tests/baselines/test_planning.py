"""What all planners share: demand, worth, capacity, and following a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planners import limits_of, planned, played, star

from dpem_baselines.limits import Limits
from dpem_baselines.linear_program import CentralLP
from dpem_baselines.planning import PathPlanner
from dpem_baselines.q_cast import QCast
from dpem_baselines.reps import Reps
from dpem_baselines.route_choice import Orders
from dpem_baselines.route_model import Candidates, Load, RouteModel
from dpem_env import physics, scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.policies import available, get_policy
from dpem_env.simulator import Episode, Tally
from support.rollouts import control_of, demand_of, session_with, view_of

PLANNERS = (CentralLP, QCast, Reps)
ALL = pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.__name__)

ETA = 10.0 ** (-0.2)  # of a link of 10 km


def allocations(planner: PathPlanner, session: Session, **changed: Any) -> int:
    return int((planned(planner, session, **changed).action > 0).sum())


def test_planners_are_installed_under_their_names() -> None:
    names = {"central-lp": CentralLP, "q-cast": QCast, "reps": Reps}
    assert {name: type(get_policy(name)) for name in names} == names
    assert names.keys() <= available().keys()


@ALL
def test_every_tunable_parameter_is_an_argument(planner: type[PathPlanner]) -> None:
    for name, values in planner.search_space.items():
        for value in values:
            made = planner(**{name: value})
            assert getattr(made.orders if name in Orders.search_space else made, name) == value


# ------------------------------------------------------------------------------------------------ nothing to plan


@ALL
def test_nothing_is_planned_without_demand(planner: type[PathPlanner]) -> None:
    assert allocations(planner(), star([])) == 0


@ALL
def test_nothing_is_planned_over_links_that_are_down(planner: type[PathPlanner]) -> None:
    session = star()
    assert allocations(planner(), session) == 3
    assert allocations(planner(), session, link_up=np.zeros(7, dtype=np.int8)) == 0


@ALL
def test_nothing_is_planned_where_sources_or_repeaters_do_nothing(planner: type[PathPlanner]) -> None:
    for dead in ("generation_rate", "swap_rate"):
        session = star()
        network = session.network
        known = replace(network, topology=replace(network.topology, **{dead: np.zeros(8)}))
        session.simulator.episodes[0] = Episode(known, session.demand, 0, session.slots)
        assert allocations(planner(least_worth=0.0), session) == 0


# ------------------------------------------------------------------------------------------------ within capacity


@ALL
@pytest.mark.parametrize(
    ("fields", "utilisation", "most"),
    [
        ({}, 0.5, 3),
        ({}, 0.25, 2),  # the hub emits 32 pairs in a time-to-live; an allocation needs 2 / (η · 0.9) = 3.5
        ({}, 0.05, 1),  # an idle source takes one, however much it asks for
        ({"relay_swap_rate": 4.0}, 0.5, 3),
        ({"relay_swap_rate": 1.0}, 0.25, 1),  # so does an idle swap engine
        ({"relay_swap_rate": 4.0}, 0.3, 2),  # 2.4 swaps; an allocation needs 1 / 0.9
        ({"memory": (4, 4)}, 0.5, 2),  # two qubits at the hub each
    ],
)
def test_demand_beyond_a_capacity_waits(
    planner: type[PathPlanner], fields: dict[str, Any], utilisation: float, most: int
) -> None:
    assert allocations(planner(utilisation=utilisation), star(**fields)) == most


@ALL
def test_what_open_allocations_claim_is_taken(planner: type[PathPlanner]) -> None:
    claimed = np.zeros(8, dtype=np.int32)
    for claims, most in ((0, 2), (2, 1), (4, 0)):  # 8 emissions may be planned, a claim takes 1/η = 1.6 of them
        claimed[0] = claims
        assert allocations(planner(utilisation=0.25), star(), source_claims=claimed) == most


@ALL
def test_no_node_is_favoured_by_its_number(planner: type[PathPlanner]) -> None:
    session = star(memory=(2, 2))
    served = [int(np.flatnonzero(planned(planner(), session, seed).action)[0]) for seed in range(40)]
    assert {served.count(i) > 5 for i in (1, 2, 3)} == {True}


@ALL
def test_a_plan_never_exceeds_what_there_is(planner: type[PathPlanner], monkeypatch: pytest.MonkeyPatch) -> None:
    choose = planner.choose
    plans = []

    def checked(self: Any, candidates: Candidates, worth: Any, limits: Limits, load: Load) -> Any:
        chosen = choose(self, candidates, worth, limits, load)
        assert len(set(chosen.tolist())) == len(chosen)
        assert (limits.total(chosen) <= limits.capacity + 1e-6).all()
        plans.append(len(chosen))
        return chosen

    monkeypatch.setattr(planner, "choose", checked)
    scenario = scenarios.get("mesh20-v0", request_rate=8.0, slots=120)
    metrics, session = run_episode(scenario, planner(), EpisodeSeeds(1, 1), forecaster="oracle")
    assert sum(plans) > 100
    assert (metrics.illegal, session.simulator.tally(Tally.DENIED)[0]) == (0, 0)


@ALL
def test_the_same_seed_plans_the_same(planner: type[PathPlanner]) -> None:
    scenario = scenarios.get("mesh20-v0", slots=60)
    first, again = (run_episode(scenario, planner(), EpisodeSeeds(2, 2), forecaster="oracle")[0] for _ in range(2))
    assert first.submitted > 10
    assert first.as_dict() == again.as_dict()


# ----------------------------------------------------------------------------------------------- routes, qualities


@ALL
def test_a_route_whose_sources_are_claimed_is_avoided(planner: type[PathPlanner]) -> None:
    scenario = scenarios.get("mesh20-v0", generation_rate=(8.0, 8.0), swap_rate=(5.0, 5.0))
    network = build_network(scenario, 0)
    emitter = np.where(network.routes.links >= 0, network.topology.emitter[network.routes.links], -1)
    i, d = next(
        (i, d) for i, d in np.argwhere(network.routes.hops[:, :, 1] > 0)
        if not set(emitter[i, d, 0][emitter[i, d, 0] >= 0]) & set(emitter[i, d, 1])
    )  # fmt: skip
    session = Session(scenario)
    session.begin_with(network, demand_of([(0, int(i), int(d), 0, 7)], (20, 8)), EpisodeSeeds(0, 0), 10)
    decision = planned(planner(), session)
    assert decision.route is not None
    assert (decision.action[i], decision.route[i]) == (1 + 3 * d, 0)
    claims = np.zeros(20, dtype=np.int32)
    claims[emitter[i, d, 0][emitter[i, d, 0] >= 0]] = 50
    decision = planned(planner(), session, source_claims=claims)
    assert decision.route is not None
    assert decision.action[i] == 1 + 3 * d
    assert decision.route[i] > 0


@ALL
def test_one_request_takes_one_of_its_routes(planner: type[PathPlanner]) -> None:
    scenario = scenarios.get("mesh20-v0", generation_rate=(8.0, 8.0), swap_rate=(5.0, 5.0))
    network = build_network(scenario, 0)
    i = int(np.flatnonzero(network.routes.hops[:, 0, 2])[0])
    session = Session(scenario)
    session.begin_with(network, demand_of([(0, i, 0, 0, 7)], (20, 8)), EpisodeSeeds(0, 0), 10)
    assert np.count_nonzero(played(planner(period=1.0, redundancy=0.0), session, 4)) == 1


@ALL
def test_the_quality_is_what_the_request_needs_on_the_route(planner: type[PathPlanner]) -> None:
    for wanted, quality in enumerate((1, 1, 3)):  # over two hops with worse links, class 0.9 takes purification
        session = session_with([(0, 0, 1, wanted, 7)], link_fidelity=0.94, relay_generation_rate=20.0)
        assert planned(planner(), session).action[0] == 1 + 3 + quality - 1


# ----------------------------------------------------------------------------------------------------- what for


@ALL
def test_the_most_urgent_request_is_admitted_first(planner: type[PathPlanner]) -> None:
    decision = planned(planner(), star([(0, 1, 0, 0, 3), (0, 2, 0, 0, 1), (0, 3, 0, 0, 2)]))
    assert decision.priority is not None
    assert decision.priority[[2, 3, 1]].tolist() == [0, 1, 2]


@ALL
def test_a_second_pair_for_a_request_is_made_only_if_it_is_worth_it(planner: type[PathPlanner]) -> None:
    for redundancy, made in ((0.0, [1, 0, 0]), (0.5, [1, 1, 0])):
        session = star([(0, 1, 0, 0, 7)])
        actions = played(planner(redundancy=redundancy), session, 3)
        assert [row[1] for row in actions] == made


@ALL
def test_a_second_pair_that_is_not_needed_is_worth_a_late_one(planner: type[PathPlanner]) -> None:
    chosen, session = planner(redundancy=0.5, late_worth=0.2), star([(0, 1, 0, 0, 3)])
    chosen.reset(session.scenario, session.network, 0)
    candidates = chosen.candidates(view_of(control_of(session)))
    assert sorted(candidates.worth_in_time) == pytest.approx([0.5 + 0.5 * 0.2, 1.0])
    assert candidates.worth_late == pytest.approx([0.2, 0.2])


@ALL
def test_a_request_that_is_overdue_when_seen_is_worth_a_late_pair(planner: type[PathPlanner]) -> None:
    for late_worth, made in ((0.0, 0), (0.5, 1)):
        actions = played(planner(late_worth=late_worth), star([(0, 1, 0, 0, 0)]), 4, delay=0.25)
        assert sum(row[1] > 0 for row in actions) == made


class TwoExpected:
    """Two requests in 2 s from node 1 to its first peer, forever."""

    clairvoyant = False

    def reset(self, setting: Any) -> None:
        self._forecast = np.zeros((*setting.peers.shape, setting.horizon))
        self._forecast[1, 0] = 0.25

    def observe(self, requests: Any) -> None: ...

    def predict(self, lead: int = 0) -> Any:
        return self._forecast


@ALL
def test_pairs_are_stored_while_the_next_one_is_likely_to_be_used(planner: type[PathPlanner]) -> None:
    # P(N >= 1, 2, 3) = 0.86, 0.59, 0.32 for two expected; one swap: times 0.9, and the links' own chance near 1.
    for least_worth, made in ((0.4, 2), (0.7, 1), (0.8, 0)):
        options = {"least_worth": least_worth, "utilisation": 10.0}
        actions = played(planner(**options), star([], relay_generation_rate=200.0), 6, forecaster=TwoExpected())
        assert [sum(row[i] > 0 for row in actions) for i in range(8)] == [0, made, 0, 0, 0, 0, 0, 0]
    assert not np.any(played(planner(stocking=0.0), star([]), 3, forecaster=TwoExpected()))


# --------------------------------------------------------------------------------------------------- between plans


@ALL
def test_between_plans_the_plan_is_followed(planner: type[PathPlanner]) -> None:
    session = star([(0, 1, 0, 0, 3), (0, 1, 1, 0, 1), (1, 2, 0, 0, 9)])
    actions = played(planner(period=1.0, redundancy=0.0), session, 6)
    assert [row[1] for row in actions] == [4, 1, 0, 0, 0, 0]  # both at once, the more urgent first
    assert [row[2] for row in actions] == [0, 0, 0, 0, 1, 0]  # came between plans


# -------------------------------------------------------------------------------------------------- the route model


def candidate(node: int, place: int, quality: int = 1) -> Candidates:
    one = np.ones(1, dtype=np.int64)
    return Candidates(node * one, place * one, 0 * one, quality * one, one, 1.0 * one, 0.0 * one, one, one)


def test_success_is_all_links_in_time_and_all_swaps() -> None:
    session = star(relay_swap_rate=4.0)
    model = RouteModel(session.scenario, session.network)
    quiet = Load(np.zeros(8), np.zeros(8), np.zeros(8))
    chance = model.success(candidate(1, 0), np.array([0.5]), quiet)[0]
    assert chance == pytest.approx((1 - np.exp(-16 / 2 * ETA * 0.5)) ** 2 * 0.9)  # the hub feeds both links
    busy = replace(quiet, source_claims=np.array([6.0] + [0.0] * 7))
    chance = model.success(candidate(1, 0), np.array([0.5]), busy)[0]
    assert chance == pytest.approx((1 - np.exp(-16 / 8 * ETA * 0.5)) ** 2 * 0.9)
    relayed = replace(quiet, swap_claims=np.array([1.5] + [0.0] * 7))  # 0.5 of 2 swaps are left
    assert model.success(candidate(1, 0), np.array([0.5]), relayed)[0] == pytest.approx(
        model.success(candidate(1, 0), np.array([0.5]), quiet)[0] / 2
    )


def test_a_link_of_quality_two_completes_after_two_stages() -> None:
    session = star()
    model = RouteModel(session.scenario, session.network)
    stages = 16 / 2 * ETA * 0.5 * 2 / model.pairs_per_link[1]
    quiet = Load(np.zeros(8), np.zeros(8), np.zeros(8))
    chance = model.success(candidate(1, 0, quality=2), np.array([0.5]), quiet)[0]
    assert chance == pytest.approx((1 - np.exp(-stages) * (1 + stages)) ** 2 * 0.9)


def test_purification_takes_the_pairs_that_pumping_takes_on_average() -> None:
    werner = 0.6
    first = (1 + werner**2) / 2  # two pairs a try
    pumped = (2 * werner + 4 * werner**2) / (3 * (1 + werner**2))
    second = (1 + pumped * werner) / 2
    expected = [1.0, 2 / first, (2 / first + 1) / second]
    assert [physics.pairs_per_link(werner, q) for q in (1, 2, 3)] == pytest.approx(expected)
    rng = np.random.default_rng(0)
    spent = 0
    for _ in range(20_000):
        rounds = -1
        while rounds < 2:
            spent += 1
            rounds = rounds + 1 if rounds < 0 or rng.random() < (first, second)[rounds] else -1
    assert spent / 20_000 == pytest.approx(expected[2], rel=0.02)


def test_usage_counts_emissions_swaps_qubits_and_commands() -> None:
    session = star()
    model = RouteModel(session.scenario, session.network)
    resource, need = model.needs(candidate(1, 0))
    usage = np.bincount(resource[0], need[0], minlength=33)[:-1].reshape(4, 8)
    peer = session.network.peers[1, 0]
    expected = np.zeros((4, 8))
    expected[:, 0] = (2 / (ETA * 0.9), 1 / 0.9, 2, 0)
    expected[2, [1, peer]] = 1
    expected[3, 1] = 1
    assert usage == pytest.approx(expected)


def test_usage_adds_up_link_by_link_over_every_route_and_quality() -> None:
    session = session_with([], "mesh20-v0")
    network, routes = session.network, session.network.routes
    model, swap_success = RouteModel(session.scenario, network), session.scenario.hardware.swap_success
    node, place, route = np.nonzero(routes.hops)
    fed_twice = 0
    for quality in (1, 3):
        same = np.full(len(node), quality)
        resource, need = model.needs(replace(candidate(0, 0), node=node, place=place, route=route, quality=same))
        for m, at in enumerate(zip(node, place, route, strict=True)):
            hops = routes.hops[at]
            tries = swap_success ** (1 - hops)
            expected = np.zeros((4, 20))
            for link in routes.links[at][:hops]:
                feeds = network.topology.emitter[link]
                fed_twice += expected[0, feeds] > 0
                arriving = model.pairs_per_link[quality - 1, link]
                expected[0, feeds] += tries * arriving / network.topology.transmission[link]
            path = routes.nodes[at][: hops + 1]
            expected[1, path[1:-1]] = tries
            expected[2, path] = 2
            expected[2, path[[0, -1]]] = 1
            expected[3, at[0]] = 1
            assert np.bincount(resource[m], need[m], minlength=81)[:-1] == pytest.approx(expected.ravel())
    assert fed_twice


def test_first_that_fit_passes_over_what_does_not() -> None:
    limits = limits_of([[2.0, 2.0, 1.0]], [3.0])
    assert limits.first_that_fit(np.array([1, 0, 2])).tolist() == [1, 2]
