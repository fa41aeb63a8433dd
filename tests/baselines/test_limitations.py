"""What the page on limitations measures: by hand where that can be done, and of scenarios as they are."""

from __future__ import annotations

import json
import runpy
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import physics, scenarios
from dpem_env.envs.session import Session
from dpem_env.network.network import build_network
from dpem_env.scenarios.schema import Hardware
from dpem_env.simulator.actions import ActionCode
from support.rollouts import decision, session_with, wait

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "baselines/results/truth"
WERNER, NETWORKS, EPISODES = (
    runpy.run_path(str(ROOT / f"baselines/truth/{name}.py")) for name in ("werner", "networks", "episodes")
)


def fidelity_of_link(quality: int, hardware: Hardware, **kind: bool) -> float:
    return float(WERNER["fidelity"](WERNER["link"](quality, hardware, **kind)))


@pytest.mark.parametrize(("fresh", "pumped"), [(0.98, 0.978254), (0.95, 0.95616), (0.90, 0.91660)])
def test_a_round_with_honest_gates_gives_the_known_fidelities(fresh: float, pumped: float) -> None:
    hardware = Hardware(link_fidelity=fresh, gate_fidelity=0.99, readout_fidelity=0.99)
    assert fidelity_of_link(2, hardware) == pytest.approx(pumped, abs=5e-6)


@pytest.mark.parametrize("quality", [1, 2, 3])
def test_a_link_of_ideal_gates_is_pumped_as_the_formula_says(quality: int) -> None:
    hardware = Hardware(link_fidelity=0.9, gate_fidelity=1.0, readout_fidelity=1.0)
    werner = physics.pumped_werner(physics.werner_from_fidelity(0.9), quality)
    assert fidelity_of_link(quality, hardware) == pytest.approx(physics.fidelity_from_werner(werner))


def test_ideal_rounds_of_both_kinds_agree_on_werner_pairs_and_turns_pay_from_the_second_round() -> None:
    hardware = Hardware(link_fidelity=0.9, gate_fidelity=1.0, readout_fidelity=1.0)
    assert fidelity_of_link(2, hardware, dejmps=True) == pytest.approx(fidelity_of_link(2, hardware))
    assert fidelity_of_link(3, hardware, dejmps=True) > fidelity_of_link(3, hardware) + 0.01


@pytest.mark.parametrize("hops", [2, 5, 8])
def test_twirled_swaps_multiply_werner_parameters_and_untwirled_ones_keep_a_little_more(hops: int) -> None:
    hardware = Hardware(link_fidelity=0.95, gate_fidelity=0.98, readout_fidelity=0.97)
    part = WERNER["link"](1, hardware)
    exact = reduce(lambda left, right: WERNER["swapped"](left, right, hardware), [part] * hops)
    factor = physics.swap_factor(hardware.gate_fidelity, hardware.readout_fidelity)
    model = physics.fidelity_from_werner(physics.werner_from_fidelity(0.95) ** hops * factor ** (hops - 1))
    fidelity = WERNER["fidelity"](exact)
    assert model - 1e-12 <= fidelity < model + 0.01
    assert (fidelity > model + 1e-6) == (hops > 2)
    # Readouts flip bit and phase alike, but seldom both: three correlations, of which the model keeps the mean.
    flips, gates = (2 * hardware.readout_fidelity - 1) ** (hops - 1), hardware.gate_fidelity ** (hops - 1)
    closed = (1 + physics.werner_from_fidelity(0.95) ** hops * gates * (2 * flips + flips**2)) / 4
    assert fidelity == pytest.approx(closed)


def test_storage_with_all_paulis_is_that_of_the_simulator() -> None:
    pair = WERNER["link"](1, Hardware(link_fidelity=0.9))
    stored = WERNER["stored"](pair, np.exp(-2.0 / 10.0), WERNER["PAULIS"])
    werner = physics.werner_from_fidelity(0.9) * physics.decay_factor(2.0, 10.0, 10.0)
    assert WERNER["fidelity"](stored) == pytest.approx(physics.fidelity_from_werner(werner))


def test_distances_and_peers_of_a_chain_drawn_by_hand() -> None:
    found = NETWORKS["measured"](scenarios.get("chain3-v0"), 2)
    assert found["longest_link_km"] == 10.0
    assert found["longest_route_km"] == 20.0
    assert found["message_ms"] == pytest.approx(0.1)
    assert found["of_a_slot"] == pytest.approx(4e-4)
    assert found["heralding"] == pytest.approx(8.0 * 2 * 10.0 / 2e5)  # the relay's 8 pairs/s
    assert found["reciprocal_pairs"] == found["reciprocal_demand"] == 1.0


def test_pairs_are_reciprocal_if_each_node_is_a_peer_of_the_other() -> None:
    network = build_network(scenarios.get("mesh20-v0"), 2000)
    ordered = {(int(i), int(j)) for i, row in enumerate(network.peers) for j in row if j >= 0}
    mutual = [(j, i) in ordered for i, j in ordered]
    assert NETWORKS["reciprocal"](network)[0] == pytest.approx(np.mean(mutual))
    assert 0.0 < np.mean(mutual) < 1.0


def opened(quality: int) -> Session:
    """Node 0 of a chain of three, at quality `quality` and with a request for node 2, and nothing emitted yet."""
    session = session_with([(0, 0, place_of(2), 0, 39)], silent=True, predictability=0.0)
    action = ActionCode.of(session.scenario).encode(place_of(2), quality)
    session.step(*decision(session, {0: action}))
    return session


def place_of(peer: int) -> int:
    return int(np.flatnonzero(build_network(scenarios.get("chain3-v0"), 0).peers[0] == peer)[0])


def watched(session: Session) -> Any:
    watch = EPISODES["Watch"]()
    watch.begin(session, "")
    watch.record(session, None, None)
    return watch


def test_reserved_qubits_are_counted_with_and_without_a_pair() -> None:
    session = opened(quality=2)
    assert (watched(session).paired, watched(session).empty) == (0, 4)
    session.simulator.state.link_rounds[0, 0, 0, 0] = 0
    watch = watched(session)
    assert (watch.paired, watch.empty, watch.stored, watch.memory) == (2, 2, 0, 12)
    assert (watch.purifying, watch.most_purifying) == (2, 1)
    session.simulator.state.link_rounds[0, 0, 0, :2] = 1
    assert (watched(session).purifying, watched(session).empty) == (0, 0)


def test_a_pair_of_the_destination_would_serve_if_it_is_good_enough() -> None:
    session = opened(quality=1)
    state = session.simulator.state
    assert not watched(session).servable.any()
    state.stock_count[0, 2], state.stock_werner[0, 2, 0] = 1, 0.99
    state.stock_peer[0, 2, 0] = np.flatnonzero(session.network.peers[2] == 0)[0]
    watch = watched(session)
    assert watch.servable.tolist() == [True]
    assert watch.stored == 2
    state.stock_werner[0, 2, 0] = 0.1
    assert not watched(session).servable.any()


def test_what_expired_is_counted_when_the_episode_is_over() -> None:
    session = session_with([(0, 0, place_of(2), 0, 3)], silent=True, slots=6)
    watch = EPISODES["Watch"]()
    watch.begin(session, "")
    while not session.done:
        wait(session)
        watch.record(session, None, None)
    assert (watch.requests, watch.expired, watch.elsewhere) == (1, 1, 0)
    assert watch.told()["expired"] == 1.0


def test_ample_memory_leaves_networks_as_they_are() -> None:
    scenario = scenarios.get("mesh20-v0")
    before, after = (build_network(each, 2000) for each in (scenario, EPISODES["with_ample_memory"](scenario)))
    assert np.array_equal(before.weights, after.weights)
    assert np.array_equal(before.topology.generation_rate, after.topology.generation_rate)
    assert np.array_equal(before.topology.memory + EPISODES["AMPLE"], after.topology.memory)


def test_halved_slots_last_as_long_in_all() -> None:
    scenario = scenarios.get("mesh20-v0")
    halved = EPISODES["with_slots_halved"](scenario)
    for each in (scenario, halved):
        assert each.episode.slots * each.control.slot_duration == 100.0
        assert each.control.telemetry_delay * each.control.slot_duration == 0.5


def committed() -> list[dict[str, Any]]:
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        found += [each for each in (told, *told.get("rows", ())) if "hash" in each]
    return found


def test_committed_measurements_are_of_scenarios_as_they_are() -> None:
    assert len(committed()) == 8
    for each in committed():
        assert each["hash"] == scenarios.get(each["scenario"]).hash, each["scenario"]
