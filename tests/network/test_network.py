"""Networks: who talks to whom, how much, and what is left out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import episode_seeds
from dpem_env.network.network import build_network
from dpem_env.network.route_search import Exclusion
from dpem_env.network.routes import reachability
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import Scenario, data
from dpem_env.scenarios.schema import ChainNetwork, Hardware, ReplayDemand, Routing, SessionDemand, TopohubNetwork
from dpem_env.support.errors import DataError, DpemWarning, ScenarioError

seeds = st.integers(0, 2**32)
NAMES = ["chain3-v0", "star8-v0", "mesh20-v0", "mesh100-v0", "surfnet-v0"]
EQUAL = Hardware(generation_rate=(8.0, 8.0), swap_rate=(4.0, 4.0))


def save_trace(folder: Path, mbps: NDArray[np.float64]) -> Path:
    file = folder / data.ABILENE
    file.parent.mkdir(parents=True)
    np.savez(file, tm_mbps=mbps, nodes=np.array([f"n{i}" for i in range(mbps.shape[1])]))
    return folder


def replayed_chain(tmp_path: Path, rows: str, *, max_hops: int = 8, peers: int = 2) -> Scenario:
    (tmp_path / "requests.csv").write_text(f"time,source,destination,fidelity\n{rows}", encoding="utf-8")
    return Scenario(
        name="replayed",
        network=ChainNetwork(nodes=4),
        hardware=EQUAL,
        routing=Routing(max_hops=max_hops),
        demand=ReplayDemand(requests_file=str(tmp_path / "requests.csv"), peers=peers),
    )


@given(st.sampled_from(NAMES), seeds)
@settings(max_examples=25, deadline=None)
def test_peers_are_distinct_reachable_and_as_many_as_there_are_places(name: str, seed: int) -> None:
    scenario = scenarios.get(name)
    network = build_network(scenario, seed)
    reachable = reachability(network.topology, scenario) == Exclusion.REACHABLE
    for i, row in enumerate(network.peers.tolist()):
        peers = [peer for peer in row if peer >= 0]
        assert row == peers + [-1] * (scenario.demand.peers - len(peers))
        assert len(set(peers)) == len(peers) == min(scenario.demand.peers, int(reachable[i].sum()))
        assert reachable[i, peers].all()
        assert i not in peers


@given(st.sampled_from(NAMES), seeds)
@settings(max_examples=25, deadline=None)
def test_gravity_weights_sum_to_one_and_follow_popularity_and_distance(name: str, seed: int) -> None:
    network = build_network(scenarios.get(name), seed)
    topology, chosen = network.topology, network.peers >= 0
    assert network.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.all(network.weights[~chosen] == 0.0)
    i, place = np.nonzero(chosen)
    j = network.peers[i, place]
    apart = topology.distances()[i, j]
    gravity = topology.popularity[i] * topology.popularity[j] * np.exp(-apart / 50.0)
    np.testing.assert_allclose(network.weights[i, place], gravity / gravity.sum(), rtol=1e-9)


def test_peers_are_drawn_without_replacement_by_popularity_and_distance() -> None:
    # Two of the three peers of node 0: p_j at the first draw, p_j / (1 - p_i) at the second after i.
    demand = SessionDemand(peers=2, gravity_length=15.0, popularity_sigma=0.7)
    scenario = Scenario(name="chain", network=ChainNetwork(nodes=4), hardware=EQUAL, demand=demand)
    expected, variance, seen = np.zeros(3), np.zeros(3), np.zeros(3)
    drift, drift_variance = np.zeros(3), np.zeros(3)  # zero unless the popular are drawn too often or too rarely
    for seed in range(1500):
        network = build_network(scenario, seed)
        p = network.topology.popularity[1:] * np.exp(-np.arange(1, 4) * 10.0 / 15.0)
        p /= p.sum()
        second = np.array([sum(p[i] * p[j] / (1.0 - p[i]) for i in range(3) if i != j) for j in range(3)])
        drawn = np.isin([1, 2, 3], network.peers[0])
        log_popularity = np.log(network.topology.popularity[1:])
        expected += p + second
        seen += drawn
        variance += (p + second) * (1.0 - p - second)
        drift += (drawn - p - second) * log_popularity
        drift_variance += (p + second) * (1.0 - p - second) * log_popularity**2
    assert np.all(np.abs(seen - expected) < 5.0 * np.sqrt(variance))
    assert np.all(np.abs(drift) < 5.0 * np.sqrt(drift_variance))


def test_a_network_is_deterministic_in_its_seed_and_differs_between_seeds() -> None:
    scenario = scenarios.get("mesh20-v0")
    one, again, other = (build_network(scenario.override(name=f"copy {i}"), i // 2) for i in range(3))
    np.testing.assert_array_equal(one.peers, again.peers)
    np.testing.assert_array_equal(one.weights, again.weights)
    np.testing.assert_array_equal(one.routes.nodes, again.routes.nodes)
    assert not np.array_equal(one.peers, other.peers)


def test_the_same_network_is_kept_and_cannot_be_changed() -> None:
    network = build_network(scenarios.get("mesh20-v0"), 5)
    assert build_network(scenarios.get("mesh20-v0"), 5) is network
    assert not network.peers.flags.writeable
    assert not network.weights.flags.writeable


@given(st.sampled_from(["mesh100-v0", "surfnet-v0"]), seeds)
@settings(max_examples=6, deadline=None)
def test_every_pair_is_reachable_or_counted_with_its_reason(name: str, seed: int) -> None:
    scenario = scenarios.get(name)
    network = build_network(scenario, seed)
    verdicts = reachability(build_topology(scenario, seed), scenario)
    nodes = network.num_nodes
    assert sum(network.excluded.values()) + np.sum(verdicts == Exclusion.REACHABLE) == nodes * (nodes - 1)
    assert network.excluded.get("weak relay", 0) == np.sum(verdicts == Exclusion.WEAK_RELAY)
    assert network.excluded.get("too many hops", 0) == np.sum(verdicts == Exclusion.TOO_MANY_HOPS) - nodes
    assert all(network.excluded.values())


def test_places_without_a_reachable_peer_are_padded() -> None:
    scenario = Scenario(
        name="chain",
        network=ChainNetwork(nodes=4),
        hardware=EQUAL,
        routing=Routing(max_hops=1),
        demand=SessionDemand(peers=3),
    )
    network = build_network(scenario, 0)
    assert [sorted(row) for row in network.peers.tolist()] == [[-1, -1, 1], [-1, 0, 2], [-1, 1, 3], [-1, -1, 2]]
    assert network.excluded == {"too many hops": 6}


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"generation_rate": (0.0, 0.0)}, "6 weak link; shorten the fibres"),
        ({"swap_rate": (0.0, 0.0), "spacing": 1e9}, "6 weak link"),
        ({"time_to_live": 0.25, "generation_rate": (0.5, 0.5)}, "too slow"),
        ({"link_fidelity": 0.5}, "6 low fidelity; raise hardware.link_fidelity"),
        ({"gravity_length": 1e-9}, "6 no demand; raise demand.gravity_length"),
    ],
)
def test_a_network_in_which_nobody_has_a_peer_is_refused_with_the_reasons(fields: dict[str, Any], reasons: str) -> None:
    scenario = Scenario(name="silent", network=ChainNetwork(nodes=3), hardware=EQUAL).override(**fields, name="silent")
    with pytest.raises(ScenarioError) as error:
        draw_demand(scenario, build_network(scenario, 5), 0, 4)
    said = "silent: only 0 of 3 nodes have a peer; of 6 pairs of nodes these cannot be peers: "
    assert str(error.value).startswith(said)
    assert reasons in str(error.value)


def imported(topology: str, **fields: Any) -> Scenario:
    whole = Scenario(name="imported", network=TopohubNetwork(topology=topology))
    return whole.override(**{"name": "imported"} | fields)


def test_a_real_network_too_long_for_any_pair_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"only 0 of 13 nodes have a peer; .* weak link; shorten the fibres"):
        draw_demand(imported("topozoo/Nsfnet"), build_network(imported("topozoo/Nsfnet"), 2000), 0, 4)


def test_a_network_where_hardly_anybody_has_a_peer_says_so_once() -> None:
    with pytest.warns(DpemWarning, match=r"^imported: topology seed 2000: only 2 of 37 nodes have a peer; .*weak link"):
        build_network(imported("topozoo/Geant2012"), 2000)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            build_network(imported("topozoo/Geant2012", name="again"), 2000)
    assert len(said) == 1


@pytest.mark.parametrize(("length_scale", "warned"), [(1.0, True), (0.02, False)])
def test_half_of_the_nodes_with_a_peer_are_enough(length_scale: float, warned: bool) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        network = build_network(imported("topozoo/Geant2012", length_scale=length_scale), 2001)
    connected = (network.peers >= 0).any(axis=1).sum()
    assert bool(said) == warned == (2 * connected < 37)


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_no_shipped_scenario_needs_a_warning(name: str, data_dir: Path) -> None:
    scenario = scenarios.get(name, data_dir=data_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DpemWarning)
        for split in ("train", "validation", "evaluation"):
            for index in range(4):
                build_network(scenario, episode_seeds(scenario, split, index).topology)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_what_is_no_seed_draws_no_network(seed: Any) -> None:
    with pytest.raises(ScenarioError, match=r"topology seed is .*; expected an int >= 0 and < 2\*\*63"):
        build_network(scenarios.get("chain3-v0"), seed)


def test_the_largest_seed_draws_a_network() -> None:
    assert build_network(scenarios.get("chain3-v0"), 2**63 - 1).num_nodes == 3
    assert build_network(scenarios.get("chain3-v0"), np.uint64(7)) is build_network(scenarios.get("chain3-v0"), 7)


def test_with_a_trace_peers_are_the_partners_of_most_traffic(tmp_path: Path) -> None:
    mbps = np.random.default_rng(0).uniform(1.0, 9.0, size=(28, 12, 12))
    mbps[:, 3, 4] = 0.0
    scenario = scenarios.get("abilene-trace-v0", generation_rate=(8.0, 8.0), swap_rate=(4.0, 4.0), peers=5)
    network = build_network(scenario.override(data_dir=save_trace(tmp_path, mbps)), 0)
    mean = mbps.mean(axis=0) * ~np.eye(12, dtype=bool)
    for i, row in enumerate(network.peers.tolist()):
        assert row == np.argsort(-mean[i])[:5].tolist()
        np.testing.assert_allclose(network.weights[i] / network.weights[i, 0], mean[i, row] / mean[i, row[0]])
    assert network.weights.sum() == pytest.approx(1.0)


def test_pairs_without_traffic_are_no_peers(tmp_path: Path) -> None:
    mbps = np.ones((28, 12, 12))
    mbps[:, 3, 4] = 0.0
    scenario = scenarios.get("abilene-trace-v0", generation_rate=(8.0, 8.0), swap_rate=(4.0, 4.0))
    network = build_network(scenario.override(data_dir=save_trace(tmp_path, mbps)), 0)
    assert sorted(network.peers[3].tolist()) == [-1, 0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert sorted(network.peers[4].tolist()) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def test_a_trace_of_another_size_than_the_topology_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="the trace has 11 nodes, the topology 12") as error:
        build_network(scenarios.get("abilene-trace-v0", data_dir=save_trace(tmp_path, np.ones((28, 11, 11)))), 0)
    assert "\n" not in str(error.value)


def test_a_missing_trace_is_told_with_the_scenario_that_needs_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^mine needs abilene/"):
        build_network(scenarios.get("abilene-trace-v0", name="mine", data_dir=tmp_path), 0)


def test_another_data_folder_gives_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = scenarios.get("abilene-trace-v0", generation_rate=(8.0, 8.0), swap_rate=(4.0, 4.0))
    rng = np.random.default_rng(0)
    folders = [save_trace(tmp_path / name, rng.random((28, 12, 12))) for name in ("one", "other")]
    networks = []
    for folder in folders:
        monkeypatch.setenv("DPEM_DATA", str(folder))
        networks.append(build_network(scenario, 0))
    assert not np.array_equal(networks[0].weights, networks[1].weights)
    assert build_network(scenario.override(data_dir=folders[1]), 0) is networks[1]


def test_in_a_replay_peers_are_the_partners_of_most_requests(tmp_path: Path) -> None:
    rows = "".join(f"{t},0,{j},0.85\n" for t, j in enumerate([3, 1, 3, 2, 3, 1])) + "0,2,1,0.75\n"
    network = build_network(replayed_chain(tmp_path, rows), 0)
    assert network.peers.tolist() == [[3, 1], [-1, -1], [1, -1], [-1, -1]]
    np.testing.assert_allclose(network.weights, [[3 / 6, 2 / 6], [0, 0], [1 / 6, 0], [0, 0]])


def test_in_a_replay_unreachable_partners_are_no_peers(tmp_path: Path) -> None:
    network = build_network(replayed_chain(tmp_path, "0,0,3,0.85\n0,0,3,0.85\n0,0,1,0.85\n", max_hops=2), 0)
    assert network.peers[0].tolist() == [1, -1]
    assert network.weights[0].tolist() == [1.0, 0.0]


def test_a_replay_of_nothing_has_no_peers(tmp_path: Path) -> None:
    network = build_network(replayed_chain(tmp_path, ""), 0)
    assert np.all(network.peers == -1)
    assert np.all(network.weights == 0.0)


def test_coronet_has_a_network(data_dir: Path) -> None:
    network = build_network(scenarios.get("coronet100-v0", data_dir=data_dir), 0)
    assert network.weights.sum() == pytest.approx(1.0)
    assert np.sum(network.peers >= 0) > 400
