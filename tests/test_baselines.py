"""The reactive baselines: what they serve, at which quality, over which route and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_baselines.central import CentralReactive
from dpem_baselines.local import LocalReactive, most_urgent, needed_quality
from dpem_baselines.route_choice import RouteChoice, by_network
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import build_network
from dpem_env.policies import Decision
from dpem_env.simulator import Tally, Verdict
from dpem_env.simulator.actions import ActionCode
from support.hand_made import nodes
from support.rollouts import control_of, demand_of, session_with, view_of, wait


def local_decision(session: Session) -> Decision:
    return LocalReactive().act(session.observer.table.read(session.observations()), session.masks())


def central_decision(session: Session, limit: float = 10.0, seed: int = 0) -> Decision:
    policy = CentralReactive(utilisation_limit=limit)
    policy.reset(session.scenario, session.network, seed)
    view = view_of(control_of(session))
    return policy.act(view)


def ordered(decision: Decision) -> list[int]:
    """Nodes told to allocate, first in order of admission first."""
    nodes = np.flatnonzero(decision.action)
    assert decision.priority is not None
    return nodes[np.argsort(decision.priority[nodes], kind="stable")].tolist()


def test_the_most_urgent_wanted_peer_is_chosen() -> None:
    slack = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    wanted = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert most_urgent(slack, wanted).tolist() == [1, 2, 1, -1]


def test_the_quality_meets_the_hardest_class_that_waits() -> None:
    min_quality = np.array(
        [[[1.0, 2.0, 3.0], [2.0, 2.0, 0.0]]] * 5 + [[[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]] * 2
    )  # (7, R, C)
    pending = np.array([[1, 0, 0], [3, 1, 0], [1, 0, 1], [0, 2, 0], [0, 0, 0], [1, 0, 1], [2, 0, 0]], dtype=float)
    chosen = needed_quality(pending, min_quality, best=3)
    assert chosen.tolist() == [[1, 2], [2, 2], [3, 3], [2, 2], [1, 1], [3, 1], [1, 1]]


def test_what_the_mask_forbids_is_a_wait() -> None:
    seen, masks = nodes({}, {}, {}), np.ones((3, 25), dtype=np.int8)
    masks[1, 1:] = 0

    def actions(places: list[int], qualities: list[int]) -> list[int]:
        place, quality = np.array(places), np.array(qualities)[:, None]
        return RouteChoice().decide(seen, masks, by_network(seen), place, quality, np.ones((3, 1))).action.tolist()

    assert actions([1, 1, -1], [3, 3, 2]) == [6, 0, 0]
    assert actions([0, 0, 0], [1, 1, 2]) == [1, 0, 2]


def test_local_reactive_allocates_for_what_waits_and_nothing_else() -> None:
    session = session_with([(1, 0, 1, 0, 4), (1, 2, 0, 0, 4)])
    assert local_decision(session).action.tolist() == [0, 0, 0]
    wait(session)
    assert local_decision(session).action.tolist() == [4, 0, 1]  # node 0 to place 1, node 2 to place 0, quality 1
    assert local_decision(session).route is None
    assert local_decision(session).priority is None


def test_local_reactive_makes_one_pair_per_request() -> None:
    session = session_with([(1, 0, 1, 0, 20), (1, 0, 1, 0, 20)], silent=True)
    actions = []
    for _ in range(6):
        actions.append(int(local_decision(session).action[0]))
        session.step(local_decision(session).action)
    assert actions == [0, 4, 4, 0, 0, 0]


def test_local_reactive_serves_the_earliest_deadline_first() -> None:
    session = session_with([(1, 0, 0, 0, 4), (1, 0, 1, 0, 3)])
    wait(session)
    assert local_decision(session).action[0] == 4
    session = session_with([(1, 0, 0, 0, 3), (1, 0, 1, 0, 3)])
    wait(session)
    assert local_decision(session).action[0] == 1


def test_local_reactive_asks_for_the_quality_the_request_needs() -> None:
    # Over two hops with worse links, class 0.9 takes purification.
    fields: dict[str, Any] = {"link_fidelity": 0.94}
    quality = build_network(scenarios.get("chain3-v0", **fields), 0).routes.quality[0, 1, 0]
    assert quality.tolist() == [1, 1, 3]
    for wanted, q in enumerate(quality.tolist()):
        session = session_with([(1, 0, 1, wanted, 4)], **fields)
        wait(session)
        assert local_decision(session).action[0] == 1 + 3 + q - 1


def test_local_reactive_asks_for_no_more_in_the_first_slot_than_later() -> None:
    session = session_with([(0, 0, 1, 0, 3)])  # nothing remote has been heard of yet
    code = ActionCode.of(session.scenario)
    assert local_decision(session).action.tolist() == [code.encode(1, 1), 0, 0]


def test_local_reactive_serves_by_episodes_end_only_what_was_asked_for() -> None:
    session = Session(scenarios.get("mesh20-v0"))
    session.begin(EpisodeSeeds(1, 1), 200)
    while not session.done:
        before = session.observer.table.read(session.observations())
        chosen = local_decision(session).action
        place = (chosen - 1) // 3
        for i in np.flatnonzero(chosen):
            assert before.pending[i, place[i]].sum() > before.open_allocations[i, place[i]]
        session.step(chosen)
        assert not (session.simulator.state.verdict == Verdict.ILLEGAL).any()
    assert session.simulator.tally(Tally.DELIVERED)[0] > 0


STAR_REQUESTS = [(0, 1, 0, 0, 3), (0, 2, 0, 0, 1), (0, 3, 0, 0, 2)]  # 1-7, 2-1 and 3-2, each over the hub


def star(**fields: Any) -> Session:
    return session_with(STAR_REQUESTS, "star8-v0", silent=True, **fields)


def test_central_reactive_admits_in_order_of_urgency() -> None:
    decision = central_decision(star(memory=(8, 8)))
    assert ordered(decision) == [2, 3, 1]
    assert decision.route is not None
    assert decision.route[[1, 2, 3]].tolist() == [0, 0, 0]
    assert decision.action[[1, 2, 3]].tolist() == [1, 1, 1]


def test_central_reactive_leaves_out_what_finds_no_memory() -> None:
    session = star()  # four qubits at the hub: two relays
    decision = central_decision(session)
    assert ordered(decision) == [2, 3]
    session.step(*decision)
    assert session.simulator.tally(Tally.DENIED)[0] == 0


@pytest.mark.parametrize(("limit", "admitted"), [(0.05, 1), (0.124, 1), (0.125, 2), (0.187, 2), (0.1875, 3), (1.0, 3)])
def test_central_reactive_keeps_to_its_utilisation_limit(limit: float, admitted: int) -> None:
    # The hub emits 16 pairs/s, 32 in a time-to-live; each allocation claims it twice.
    assert ordered(central_decision(star(memory=(8, 8)), limit)) == [2, 3, 1][:admitted]


def test_claims_already_open_count_against_the_limit() -> None:
    session = star(memory=(8, 8))
    session.step(np.array([0, 0, 1, 0, 0, 0, 0, 0]))  # two claims of node 2
    assert ordered(central_decision(session, limit=0.124)) == []
    assert ordered(central_decision(session, limit=0.125)) == [3]


def test_central_reactive_takes_the_cheapest_route_that_is_up() -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    hops, links = network.routes.hops, network.routes.links
    for i, d in np.argwhere(hops[:, :, 2] > 0)[:5]:
        used = [set(links[i, d, r, : hops[i, d, r]].tolist()) for r in range(3)]
        session = Session(scenario)
        session.begin_with(network, demand_of([(0, int(i), int(d), 0, 3)], (20, 8)), EpisodeSeeds(0, 0), 10)
        for expected in range(3):
            decision = central_decision(session)
            assert decision.route is not None
            assert decision.route[i] == expected
            if not used[expected] - set.union(*used[expected + 1 :], set()):
                break
            session.simulator.state.link_up[0, list(used[expected] - set.union(*used[expected + 1 :], set()))] = 0
        else:
            assert central_decision(session).action[i] == 0  # nothing is up


def test_a_nodes_number_does_not_favour_it() -> None:
    session = session_with([(0, i, 0, 0, 3) for i in (1, 2, 3)], "star8-v0", silent=True)
    first = [ordered(central_decision(session, limit=0.05, seed=seed))[0] for seed in range(60)]
    assert {first.count(i) > 8 for i in (1, 2, 3)} == {True}
    assert ordered(central_decision(session, seed=3)) == ordered(central_decision(session, seed=3))


def test_central_reactive_at_no_delay_is_never_denied() -> None:
    session = Session(scenarios.get("mesh20-v0", request_rate=6.0))
    session.begin(EpisodeSeeds(1, 1), 150)
    policy = CentralReactive(utilisation_limit=1.0)
    policy.reset(session.scenario, session.network, 1)
    control_of(session)
    while not session.done:
        view = view_of(session)
        session.step(*policy.act(view))
    denied, illegal, submitted = (session.simulator.tally(t)[0] for t in (Tally.DENIED, Tally.ILLEGAL, Tally.SUBMITTED))
    assert (denied, illegal) == (0, 0)
    assert submitted > 50
