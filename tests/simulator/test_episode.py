"""Whole episodes: nothing is lost, batches are as many single environments, and runs repeat bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_env.demand.requests import draw_demand
from dpem_env.network.network import build_network
from dpem_env.scenarios import get
from dpem_env.simulator import WHERE_PAIRS_GO, Episode, Simulator, Tally

from .hand_drawn import EXPIRED, NOT_ARRIVED, PENDING, draw

SLOTS = 80


def episode(topology_seed: int = 0, demand_seed: int = 0, seed: int = 0, slots: int = SLOTS) -> Episode:
    """A busy episode of mesh20 with outages and short memories."""
    network = build_network(SCENARIO, topology_seed)
    return Episode(network, draw_demand(SCENARIO, network, demand_seed, slots), seed, slots)


SCENARIO = get(
    "mesh20-v0", request_rate=40.0, predictability=0.0, coherence_time=5.0, outages={"mean_up": 20.0, "mean_down": 5.0}
)


def random_actions(seed: int, slots: int = SLOTS) -> NDArray[np.int64]:
    """(slots, 20) waits and allocations, a few of them illegal."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 26, size=(slots, 20))
    return np.where(rng.random(action.shape) < 0.5, action, 0)


def begun(*episodes: Episode) -> Simulator:
    """A simulator about to play the episodes."""
    simulator = Simulator(SCENARIO, len(episodes))
    simulator.begin(episodes)
    return simulator


@pytest.fixture(scope="module")
def history() -> list[dict[str, NDArray[np.int64]]]:
    """Copies of the state after every slot of one episode of random actions."""
    simulator = begun(episode())
    states = []
    for action in random_actions(1):
        simulator.step(action)
        states.append(simulator.state_of(0))
    return states


def test_random_actions_bring_about_every_kind_of_event(history: list[dict[str, NDArray[np.int64]]]) -> None:
    absent = {Tally(t) for t in np.flatnonzero(history[-1]["tally"] == 0)}
    rare = {Tally.CONTENDED_SWAPS, Tally.COLLIDED_SWAPS}  # without a plan
    conditional = {Tally.REFUSED, Tally.CONTENDED_BY_REFUSAL, Tally.WITHHELD, Tally.COMMAND_MESSAGES}
    # The scenario has no cutoff and swaps all at once; actions bear no conditions.
    assert absent <= rare | {Tally.CUT_OFF, Tally.LEFT_OVER} | conditional


def test_every_emitted_pair_is_somewhere(history: list[dict[str, NDArray[np.int64]]]) -> None:
    for state in history:
        stored = sum(state["stock_hops"][i, :count].sum() for i, count in enumerate(state["stock_count"]))
        held = state["link_hops"].sum()
        assert state["tally"][Tally.EMITTED] == state["tally"][list(WHERE_PAIRS_GO)].sum() + stored + held


def test_every_finished_pair_is_delivered_dropped_or_stored(history: list[dict[str, NDArray[np.int64]]]) -> None:
    for state in history:
        tally = state["tally"]
        gone = tally[Tally.DELIVERED] + tally[Tally.DROPPED_PAIRS]
        assert tally[Tally.FINISHED] == gone + state["stock_count"].sum()


def test_every_request_that_arrived_is_pending_served_or_expired(history: list[dict[str, NDArray[np.int64]]]) -> None:
    for state in history:
        status, tally = state["request_status"], state["tally"]
        assert tally[Tally.ARRIVED] == np.sum(status != NOT_ARRIVED) == state["next_arrival"][0]
        assert tally[Tally.DELIVERED] == np.sum(status >= 0)
        assert tally[Tally.EXPIRED] == np.sum(status == EXPIRED)
        assert state["pending"].sum() == np.sum(status == PENDING)


def test_every_qubit_is_free_or_held(history: list[dict[str, NDArray[np.int64]]]) -> None:
    network = build_network(SCENARIO, 0)
    routes = network.routes
    for state in history:
        held = np.zeros(20, dtype=np.int64)
        for i, row in np.argwhere(state["alloc_peer"] >= 0):
            d, r = state["alloc_peer"][i, row], state["alloc_route"][i, row]
            nodes = routes.nodes[i, d, r, : routes.hops[i, d, r] + 1]
            held[nodes[[0, -1]]] += 1
            held[nodes[1:-1]] += 2
        for i, count in enumerate(state["stock_count"]):
            held[i] += count
            np.add.at(held, network.peers[i, state["stock_peer"][i, :count]], 1)
        assert np.array_equal(state["free_memory"] + held, network.topology.memory)
        assert np.all(state["free_memory"] >= 0)


def test_every_submission_is_answered() -> None:
    simulator = begun(episode())
    for action in random_actions(2):
        before = simulator.state.tally[0].copy()
        simulator.step(action)
        verdict = simulator.state.verdict[0]
        submitted, denied, illegal = (simulator.state.tally[0] - before)[[Tally.SUBMITTED, Tally.DENIED, Tally.ILLEGAL]]
        assert np.array_equal(verdict == 0, action == 0)
        assert submitted == np.sum((verdict == 1) | (verdict == 2))
        assert (denied, illegal) == (np.sum(verdict == 2), np.sum(verdict == 3))


def test_a_batch_evolves_as_its_environments_alone() -> None:
    episodes = [episode(0, 5, 1, 50), episode(1, 6, 2, 30), episode(2, 7, 3, 80)]  # unequal in links and requests
    together, alone = begun(*episodes), [begun(e) for e in episodes]
    actions = np.stack([random_actions(seed, 50) for seed in (1, 2, 3)], axis=1)
    for action in actions:
        together.step(action)
        for b, simulator in enumerate(alone):
            simulator.step(action[b])
        assert [together.digest(b) for b in range(3)] == [simulator.digest() for simulator in alone]


def test_environments_begin_one_by_one() -> None:
    """An environment that starts anew, with more requests than the tables had room for, leaves the others alone."""
    short, long = episode(0, 1, 1, 10), episode(1, 2, 2, 400)
    simulator = begun(short, short)
    for action in random_actions(3, 5):
        simulator.step(np.stack((action, action)))
    before = simulator.digest(0)
    simulator.begin([None, long])
    assert simulator.digest(0) == before
    assert simulator.digest(1) == begun(long).digest()
    simulator.begin([None, None])
    assert [simulator.digest(b) for b in range(2)] == [before, begun(long).digest()]


def test_an_episode_does_not_remember_the_one_before() -> None:
    simulator, fresh = begun(episode(0, 4, 4)), begun(episode(0, 1, 2))
    for action in random_actions(5):
        simulator.step(action)
    simulator.begin([episode(0, 1, 2)])
    for action in random_actions(6, 20):
        assert simulator.digest() == fresh.digest()
        simulator.step(action)
        fresh.step(action)


@pytest.mark.parametrize("different", ["seed", "demand_seed", "topology_seed"])
def test_every_seed_makes_a_difference(different: str) -> None:
    one, other = begun(episode()), begun(episode(**{different: 1}))
    for action in random_actions(1, 10):
        one.step(action)
        other.step(action)
    assert one.digest() != other.digest()


def replayed_digest() -> str:
    """Fingerprint after an episode that is the same in every process."""
    simulator = begun(episode(1, 2, 3))
    for action in random_actions(4):
        simulator.step(action)
    return simulator.digest()


def test_the_same_seed_and_actions_end_in_the_same_state_in_a_fresh_process() -> None:
    tests = Path(__file__).parents[1]
    program = "from simulator.test_episode import replayed_digest; print(replayed_digest())"
    path = os.pathsep.join((str(tests.parent), str(tests)))
    there = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == replayed_digest()


def test_the_last_step_runs_no_phase_0() -> None:
    drawn = draw(requests=[(1, 0, 0, 0, 4), (2, 0, 0, 0, 5)], slots=2)
    drawn.wait(2)
    assert drawn.state.slot[0] == 2
    assert drawn.state.request_status.tolist() == [PENDING, NOT_ARRIVED]
    assert drawn.tally(Tally.ARRIVED) == (1,)


def test_a_delivery_from_stock_belongs_to_the_step_that_led_to_it() -> None:
    drawn = draw(requests=[(1, 0, 0, 0, 4)])
    drawn.store(0, 0, 0.9)
    drawn.wait()
    assert drawn.state.delivered.tolist() == [1, 0, 0]
    drawn.wait()
    assert drawn.state.delivered.tolist() == [0, 0, 0]


def test_an_episode_begins_with_an_empty_network_and_the_requests_of_slot_0() -> None:
    drawn = draw(requests=[(0, 0, 0, 0, 3)], memory=[3, 4, 5])
    assert drawn.state.free_memory.tolist() == [3, 4, 5]
    assert drawn.state.num_open[0] == drawn.state.stock_count.sum() == drawn.state.tokens.sum() == 0
    assert drawn.state.request_status.tolist() == [PENDING]


def test_environments_of_a_batch_need_equally_many_nodes() -> None:
    chain, star = get("chain3-v0"), get("star8-v0")
    networks = [build_network(scenario, 0) for scenario in (chain, star)]
    simulator = Simulator(SCENARIO, 2)
    with pytest.raises(ValueError, match="same number of nodes"):
        simulator.begin(
            [Episode(n, draw_demand(s, n, 0, 4), 0, 4) for s, n in zip((chain, star), networks, strict=True)]
        )
