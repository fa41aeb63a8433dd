"""The optimum of the reduced chain: closed forms, the simulator under its policy, and how tight the bound is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.bound import delivered_bound
from dpem_baselines.local import LocalReactive
from dpem_baselines.optimum import EMPTY, Chain, Optimum, State, solve
from dpem_env import scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Status, Tally

ARRIVES = 10 ** (-0.2)  # η of 10 km at 0.2 dB/km
SLOT = 0.25  # s
CHAIN3 = Chain(
    emission=8.0 * SLOT,
    arrival=ARRIVES,
    swap_success=0.9,
    token_gain=2.0 * SLOT,
    token_cap=2.0,
    time_to_live=8,
    requests=1.0 * SLOT,
    deadline=4,
)
LIMITED_BY = {
    "its requests, few": replace(CHAIN3, requests=0.2 * SLOT),
    "its requests, as many as in chain3": CHAIN3,
    "its source": replace(
        CHAIN3, emission=0.5 * SLOT, token_gain=1.0, time_to_live=160, requests=0.5, deadline=2, queue=2
    ),
    "its swap engine": replace(CHAIN3, emission=40.0 * SLOT, token_gain=0.5 * SLOT, requests=3.0 * SLOT),
}

optimum_of = cache(solve)


def reduced(chain: Chain) -> tuple[Scenario, Network]:
    """The environment's own version of the chain, on which nobody but node 0 wants anything."""
    fields: dict[str, Any] = {"fidelity_classes": (0.75,), "class_weights": (1.0,), "coherence_time": 1e9, "peers": 1}
    scenario = scenarios.get(
        "chain3-v0",
        rows=1,
        qualities=1,
        memory=(chain.memory, chain.memory),
        generation_rate=(0.0, 0.0),
        relay_generation_rate=chain.emission / SLOT,
        relay_swap_rate=chain.token_gain / SLOT,
        time_to_live=chain.time_to_live * SLOT,
        deadline=chain.deadline * SLOT,
        request_rate=chain.requests / SLOT,
        **fields,
    )
    topology = build_network(scenario, 0).topology
    peers = np.array([[2], [-1], [-1]], dtype=np.int32)
    return scenario, with_routes(scenario, topology, peers, (peers >= 0).astype(float), {})


def bound_per_slot(chain: Chain) -> float:
    return delivered_bound(*reduced(chain)).delivered * SLOT


@pytest.mark.parametrize("chain", LIMITED_BY.values(), ids=LIMITED_BY.keys())
def test_the_bound_is_within_five_per_cent_of_the_optimum(chain: Chain) -> None:
    best = optimum_of(chain).delivered
    assert best - 1e-6 <= bound_per_slot(chain) <= best / 0.95


@pytest.mark.parametrize("requests", [0.05, 0.25, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("emission", [0.2, 2.0])
def test_the_optimum_never_exceeds_the_bound(requests: float, emission: float) -> None:
    chain = replace(CHAIN3, requests=requests, emission=emission, queue=2, deadline=3)
    assert optimum_of(chain).delivered <= bound_per_slot(chain) + 1e-6


def test_with_everything_at_hand_one_row_makes_one_try_a_slot() -> None:
    chain = replace(CHAIN3, emission=100.0, token_gain=2.0, requests=6.0)
    assert optimum_of(chain).delivered == pytest.approx(0.9, abs=1e-3)


def test_with_everything_at_hand_two_pairs_are_in_stock_for_every_slot() -> None:
    # Requests last one slot. A try for each of two missing pairs succeeds; what arrives beyond is served if it waits.
    chain = replace(CHAIN3, emission=100.0, token_gain=2.0, swap_success=1.0, requests=0.01, deadline=1)
    assert optimum_of(chain).delivered == pytest.approx(0.01, rel=1e-3)
    assert optimum_of(chain).opens[State(0, 0, 2.0, 1, ())]


def test_the_followers_of_a_state_have_probability_one() -> None:
    for state in (EMPTY, State(0, 0, 1.5, 2, ()), State(7, 1, 0.5, 0, (1, 4)), State(3, 2, 0.0, 1, ())):
        for opens in CHAIN3.decisions(state):
            assert sum(probability for _, probability, _ in CHAIN3.followers(state, opens)) == pytest.approx(1.0)
    assert CHAIN3.decisions(State(0, 0, 1.5, 2, ())) == (False,)
    assert CHAIN3.decisions(State(7, 1, 0.5, 0, ())) == (False,)


def test_the_most_urgent_request_is_served_and_one_in_its_last_slot_expires() -> None:
    quiet = replace(CHAIN3, requests=0.0)

    def outcomes(*waiting: int) -> set[tuple[tuple[int, ...], int]]:
        state = State(age=2, held=1, tokens=2.0, stock=0, waiting=waiting)
        return {(later.waiting, served) for later, _, served in quiet.followers(state, False)}

    assert outcomes(2, 4) == {((1, 3), 0), ((3,), 1)}
    assert outcomes(1, 4) == {((3,), 0), ((3,), 1)}
    assert outcomes(1) == {((), 0), ((), 1)}


Rule = Callable[[Session], NDArray[np.int64]]


def delivered_per_slot(chain: Chain, rule: Rule, episodes: int = 12, slots: int = 1500) -> NDArray[np.float64]:
    """Requests served per slot in the simulator, by episode."""
    scenario, network = reduced(chain)
    session = Session(scenario)
    rates = []
    for seed in range(episodes):
        demand = draw_demand(scenario, network, seed, slots)
        session.begin_with(network, demand, EpisodeSeeds(0, seed), slots)
        while not session.done:
            session.step(rule(session))
        rates.append(session.simulator.tally(Tally.DELIVERED)[0] / slots)
    return np.array(rates)


def state_in(session: Session, queue: int) -> State:
    """The simulator's state in the words of the reduced chain."""
    state, slot, requests = session.simulator.state, session.slot, session.demand.requests
    is_open = state.alloc_peer[0, 0, 0] >= 0
    pending = np.flatnonzero(state.request_status[0, : len(requests.slot)] == Status.PENDING)
    left = sorted(int(requests.last_slot[k]) - slot + 1 for k in pending)
    return State(
        age=slot - int(state.alloc_slot[0, 0, 0]) if is_open else 0,
        held=int(state.alloc_complete[0, 0, 0]) if is_open else 0,
        tokens=float(state.tokens[0, 1]),
        stock=int(state.stock_count[0, 0]),
        waiting=tuple(left[:queue]),
    )


def following(best: Optimum, queue: int) -> Rule:
    return lambda session: np.array([int(best.opens[state_in(session, queue)]), 0, 0])


def reactive(session: Session) -> NDArray[np.int64]:
    return LocalReactive().act(session.observer.table.read(session.observations()), session.masks()).action


@pytest.mark.slow
def test_the_simulator_delivers_the_optimum_under_its_policy_and_less_under_another() -> None:
    chain = replace(CHAIN3, queue=4)
    best = optimum_of(chain)
    rates = delivered_per_slot(chain, following(best, chain.queue))
    error = rates.std(ddof=1) / np.sqrt(len(rates))
    assert error < 0.02 * best.delivered
    assert abs(rates.mean() - best.delivered) < 3 * error
    shortfall = rates - delivered_per_slot(chain, reactive)
    assert shortfall.mean() > 3 * shortfall.std(ddof=1) / np.sqrt(len(shortfall))
