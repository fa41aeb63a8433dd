"""Extreme but legal worlds: they keep the contract, nothing is lost, and nothing comes where nothing can come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_env import physics, scenarios
from dpem_env.demand.requests import NO_PIECES, Demand, tabulate
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.simulator import WHERE_PAIRS_GO, Tally
from dpem_env.support.errors import ContractError, ScenarioError
from dpem_env.testing import check_env

GOOD = {"link_fidelity": 1.0, "gate_fidelity": 1.0, "readout_fidelity": 1.0, "swap_success": 1.0}
BUSY = scenarios.get("chain3-v0", request_rate=8.0, slots=40)

WORLDS = {
    "two nodes": BUSY.override(nodes=2),
    "one peer": scenarios.get("mesh20-v0", peers=1, slots=40),
    "deadline of one slot": BUSY.override(deadline=0.25),
    "memory of one qubit": BUSY.override(memory=(1, 1)),
    "swap rate zero": BUSY.override(swap_rate=(0.0, 0.0), min_swap_rate=0.0),
    "episode of one slot": BUSY.override(slots=1),
    "time-to-live of one slot": BUSY.override(time_to_live=0.25, generation_rate=(40.0, 40.0), swap_rate=(8.0, 8.0)),
    "qualities 16": BUSY.override(qualities=16, generation_rate=(400.0, 400.0), attenuation=0.0),
    "rows 255": BUSY.override(rows=255, memory=(2000, 2000)),
    "hop limit 1": scenarios.get("mesh20-v0", max_hops=1, slots=40),
    "hop limit 16": BUSY.override(nodes=17, max_hops=16, peers=16, spacing=1.0, generation_rate=(400.0, 400.0),
                                  relay_generation_rate=400.0, swap_rate=(50.0, 50.0), memory=(64, 64), **GOOD),
    "coherence tiny": BUSY.override(coherence_time=1e-9),
    "coherence huge": BUSY.override(coherence_time=1e9, request_rate=1.0),
    "largest Poisson mean": BUSY.override(generation_rate=(2000.0, 2000.0), relay_generation_rate=2000.0),
    "no requests": BUSY.override(request_rate=0.0),
}  # fmt: skip


def begun(world: Scenario, demand: Demand | None = None, silent: bool = False) -> Session:
    """A session at slot 0; `silent` sources emit nothing."""
    session = Session(world)
    session.begin(EpisodeSeeds(0, 0))
    if demand is not None:
        session.begin_with(session.network, demand, EpisodeSeeds(0, 0), world.episode.slots)
    if silent:
        session.simulator.world.emit(0.0)
    return session


def step(session: Session, action: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Play a slot; every request and every pair is somewhere afterwards."""
    session.step(action)
    state = session.simulator.state_of(0)
    tally = state["tally"]
    pending = int(state["pending"].sum())
    assert tally[Tally.ARRIVED] == tally[Tally.DELIVERED] + tally[Tally.EXPIRED] + pending
    stored = np.arange(state["stock_hops"].shape[1]) < state["stock_count"][:, None]
    held = state["link_hops"].sum() + state["stock_hops"][stored].sum()
    assert tally[Tally.EMITTED] == tally[list(WHERE_PAIRS_GO)].sum() + held
    assert (state["free_memory"] >= 0).all()
    return state


def played(session: Session) -> list[dict[str, NDArray[Any]]]:
    """The states of a whole episode of random legal actions."""
    rng, states = np.random.default_rng(0), []
    while not session.done:
        masks = session.masks()
        states.append(step(session, (rng.random(masks.shape) * masks).argmax(axis=1)))
    return states


def tally(session: Session, which: Tally) -> int:
    return int(session.simulator.tally(which)[0])


@pytest.mark.parametrize("name", WORLDS)
def test_every_extreme_world_keeps_the_contract(name: str) -> None:
    try:
        check_env(EntanglementEnv(WORLDS[name], max_cycles=min(6, WORLDS[name].episode.slots)), processes=False)
    except ContractError as error:
        if not str(error).startswith("seeds:"):  # where nothing happens, every seed plays the same
            raise


def test_two_nodes_deliver_over_their_one_link_without_a_swap() -> None:
    session = begun(WORLDS["two nodes"])
    played(session)
    assert tally(session, Tally.DELIVERED) > 0
    assert tally(session, Tally.SWAPS) == 0
    assert tally(session, Tally.FINISHED) > 0


def test_with_one_peer_all_requests_are_for_it() -> None:
    session = begun(WORLDS["one peer"])
    played(session)
    assert session.masks().shape[1] == 1 + 3
    assert (session.demand.requests.peer == 0).all()
    assert tally(session, Tally.ARRIVED) > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"generation_rate": (0.0, 0.0), "relay_generation_rate": 0.0, "min_link_rate": 0.0},
        {"attenuation": 1e9},
        {"spacing": 1e9},
    ],
)
def test_where_no_pair_can_arrive_nobody_is_reachable_and_nothing_is_played(fields: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match=r"only 0 of 3 nodes have a peer; .* 6 weak link"):
        EntanglementEnv(BUSY.override(**fields)).reset(seed=0)


def test_a_deadline_of_one_slot_leaves_only_the_newest_requests_pending() -> None:
    session = begun(WORLDS["deadline of one slot"])
    for slot, state in enumerate(played(session)):
        pending = state["request_status"] == -1
        assert (session.demand.requests.slot[pending] == slot + 1).all()
    assert 0 < tally(session, Tally.DELIVERED) < tally(session, Tally.ARRIVED)


def test_with_a_memory_of_one_qubit_nobody_relays_and_nobody_holds_two_pairs() -> None:
    session = begun(WORLDS["memory of one qubit"])
    states = played(session)
    assert session.network.excluded == {"little memory": 2}
    assert session.network.routes.hops.max() == 1
    assert all(((state["alloc_peer"] >= 0).sum(axis=1) + state["stock_count"] <= 1).all() for state in states)
    assert tally(session, Tally.DELIVERED) > 0


def test_without_swaps_only_direct_pairs_are_finished() -> None:
    session = begun(WORLDS["swap rate zero"])
    hops = session.network.routes.hops[:, :, 0]
    played(session)
    requests = session.demand.requests
    served = session.simulator.state_of(0)["request_status"] >= 0
    assert hops.max() == 2
    assert (hops[requests.source[served], requests.peer[served]] == 1).all()
    assert served.sum() > 0
    assert tally(session, Tally.SWAPS) == 0


def test_an_episode_of_one_slot_ends_after_one_step() -> None:
    env = EntanglementEnv(WORLDS["episode of one slot"])
    env.reset(seed=0)
    truncated = env.step(dict.fromkeys(env.agents, 1))[3]
    assert all(truncated.values())
    assert env.agents == []
    step_of_requests = env.session.demand.requests.slot
    assert (step_of_requests == 0).all()
    assert env.session.simulator.tally(Tally.ARRIVED)[0] == len(step_of_requests)


def test_a_time_to_live_of_one_slot_leaves_no_allocation_open() -> None:
    session = begun(WORLDS["time-to-live of one slot"])
    for state in played(session):
        assert state["num_open"] == 0
        assert (state["alloc_peer"] == -1).all()
    assert tally(session, Tally.EXPIRED_ALLOCATIONS) > 0
    assert tally(session, Tally.FINISHED) > 0


def test_sixteen_qualities_purify_fifteen_times() -> None:
    world = WORLDS["qualities 16"]
    session = begun(world)
    assert session.observer.code.num_actions == 1 + 2 * 16
    best = np.where(session.network.peers[:, 0] >= 0, 16, 0)  # quality 16 to the first peer
    werner = 0.0
    while not session.done:
        werner = max(werner, step(session, best)["stock_werner"].max())
    fresh = physics.werner_from_fidelity(world.hardware.link_fidelity)
    noise = world.hardware.gate_fidelity, world.hardware.readout_fidelity
    assert physics.pumped_werner(fresh, 15, *noise) * 0.99 < werner <= physics.pumped_werner(fresh, 16, *noise)
    assert tally(session, Tally.FINISHED) > 0


def test_two_hundred_and_fifty_five_rows_fill_up_one_by_one() -> None:
    session = begun(WORLDS["rows 255"].override(time_to_live=100.0, slots=260), silent=True)
    ones = np.ones(3, dtype=np.int64)
    while not session.done:
        state = step(session, ones)
        assert ((state["alloc_peer"] >= 0).sum(axis=1) == min(session.slot, 255)).all()
        assert (session.masks().sum(axis=1) == 1).all() == (session.slot >= 255)
    assert tally(session, Tally.ILLEGAL) == 3 * 5


def test_a_hop_limit_of_one_allows_neighbours_only() -> None:
    session = begun(WORLDS["hop limit 1"])
    played(session)
    assert session.network.routes.hops.max() == 1
    assert tally(session, Tally.SWAPS) == 0
    assert tally(session, Tally.FINISHED) > 0


def test_a_pair_is_made_over_sixteen_hops() -> None:
    session = begun(WORLDS["hop limit 16"])
    place = int(np.flatnonzero(session.network.peers[0] == 16)[0])
    assert session.network.routes.hops[0, place, 0] == 16
    action = np.zeros(17, dtype=np.int64)
    action[0] = 1 + place * 3
    state = step(session, action)
    while not session.done and state["tally"][Tally.FINISHED] == 0:
        state = step(session, np.zeros(17, dtype=np.int64))
    assert state["tally"][Tally.FINISHED] == 1
    assert state["tally"][Tally.SWAPS] == 15


def test_with_a_tiny_coherence_time_nothing_stays_in_stock() -> None:
    session = begun(WORLDS["coherence tiny"].override(request_rate=0.0))
    assert all((state["stock_count"] == 0).all() for state in played(session))
    assert tally(session, Tally.STORED) > 0


def test_with_a_huge_coherence_time_nothing_is_dropped() -> None:
    session = begun(WORLDS["coherence huge"])
    played(session)
    assert tally(session, Tally.STORED) > 0
    assert tally(session, Tally.DROPPED_PAIRS) == 0


def test_the_largest_poisson_mean_is_500_pairs_a_slot() -> None:
    session = begun(WORLDS["largest Poisson mean"])
    played(session)
    emissions = 3 * session.slots
    assert abs(tally(session, Tally.EMITTED) / emissions - 500.0) < 4 * np.sqrt(500.0 / emissions)


def test_without_requests_every_useful_pair_is_stored() -> None:
    session = begun(WORLDS["no requests"])
    played(session)
    assert tally(session, Tally.ARRIVED) == tally(session, Tally.DELIVERED) == tally(session, Tally.EXPIRED) == 0
    assert 0 < tally(session, Tally.STORED) <= tally(session, Tally.FINISHED)


MILLION = 10**6


def rush(world: Scenario, slot: int, requests: int = MILLION) -> Demand:
    """Requests in one slot, spread evenly over node pairs and classes."""
    network = build_network(world, 0)
    number = np.arange(requests)
    source, peer, wanted = number % 3, number // 3 % 2, number // 6 % 3
    source, peer = (column.astype(np.int32) for column in (source, peer))
    lifetime = np.array([world.in_slots(deadline) for deadline in world.demand.deadlines], dtype=np.int32)
    last_slot = slot + lifetime[wanted] - 1
    table = tabulate(np.full(requests, slot, dtype=np.int32), source, peer, wanted.astype(np.int32), last_slot)
    return Demand(table, NO_PIECES, network.peers.shape)


def test_a_million_requests_in_one_slot_are_all_counted() -> None:
    session = begun(BUSY.override(slots=8), rush(BUSY, 0))
    assert session.simulator.state.pending.sum() == MILLION
    state = played(session)[-1]
    counts = state["tally"]
    assert counts[Tally.ARRIVED] == MILLION
    assert counts[Tally.DELIVERED] > 0
    assert counts[Tally.DELIVERED] + counts[Tally.EXPIRED] == MILLION


def test_a_thousand_nodes_play_an_episode() -> None:
    world = scenarios.get("mesh100-v0", nodes=1000, side=316.0, request_rate=80.0, slots=40)
    session = begun(world)
    played(session)
    assert session.network.num_nodes == 1000
    assert tally(session, Tally.ARRIVED) > 400
    assert tally(session, Tally.DELIVERED) > 0
    assert tally(session, Tally.SWAPS) > 0
