"""The fixed part of networks, as message passing takes it."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_env import CentralEnv, make_vec, parallel_env, scenarios
from dpem_env.envs.graph import graph_of, most_edges
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ScenarioError

MESH = scenarios.get("mesh20-v0")


def on(scenario: Scenario, *topologies: int) -> Session:
    """A session that plays one network for each of these seeds."""
    session = Session(scenario, len(topologies))
    session.begin([EpisodeSeeds(seed, 0) for seed in topologies])
    return session


def test_a_graph_has_both_directions_of_every_fibre_with_what_it_carries() -> None:
    session = on(MESH, 3)
    network, graph = session.network, graph_of(session)
    topology = network.topology
    directed = {(*ends[::way],): link for link, ends in enumerate(topology.links.tolist()) for way in (1, -1)}
    assert graph.edge_index.shape == (2, len(directed))
    for (u, v), (transmission, rate, emits) in zip(graph.edge_index.T.tolist(), graph.edge_attr, strict=True):
        link = directed.pop((u, v))
        g = topology.generation_rate[topology.emitter[link]]
        assert transmission == np.float32(topology.transmission[link])
        assert rate == pytest.approx(g * topology.transmission[link] / MESH.largest_generation_rate)
        assert emits == (topology.emitter[link] == u)
    assert np.array_equal(graph.peers, network.peers)
    assert np.array_equal(graph.routes, network.routes.nodes)


def test_networks_lie_side_by_side_in_the_rows_of_a_vector_environment() -> None:
    envs = make_vec("mesh20-v0", 3)
    envs.reset(seed=0)
    whole = envs.graph()
    alone = [graph_of(on(MESH, seeds.topology)) for seeds in envs.session.all_seeds]
    edges = np.cumsum([0, *(len(each.edge_attr) for each in alone)])
    for e, each in enumerate(alone):
        part = slice(edges[e], edges[e + 1])
        assert np.array_equal(whole.edge_index[:, part], each.edge_index + 20 * e)
        assert np.array_equal(whole.edge_attr[part], each.edge_attr)
        rows = slice(20 * e, 20 * (e + 1))
        assert np.array_equal(whole.peers[rows], np.where(each.peers < 0, -1, each.peers + 20 * e))
        assert np.array_equal(whole.routes[rows], np.where(each.routes < 0, -1, each.routes + 20 * e))


@pytest.mark.parametrize("name", ["chain3-v0", "star8-v0", "mesh20-v0", "surfnet-v0"])
def test_a_padded_graph_has_the_same_shapes_on_every_topology(name: str) -> None:
    scenario = scenarios.get(name)
    sessions = [on(scenario, seed, seed + 1) for seed in range(6)]
    assert len({tuple(part.shape for part in graph_of(session, padded=True)) for session in sessions}) == 1
    plain, padded = (graph_of(sessions[0], padded) for padded in (False, True))
    beyond = 2 * sessions[0].num_nodes
    there = padded.edge_index[0] != beyond
    assert np.array_equal(padded.edge_index[:, there], plain.edge_index)
    assert np.array_equal(padded.edge_attr[there], plain.edge_attr)
    assert (padded.edge_index[1, ~there] == beyond).all()
    assert not padded.edge_attr[~there].any()


def test_no_mesh_has_more_edges_than_are_kept_room_for() -> None:
    apart = MESH.override(links_per_node=0.5)  # nearly all of it is joined afterwards
    for seed in range(50):
        network = build_network(apart, seed)
        assert 2 * network.topology.num_links <= most_edges(apart, network)


def test_a_controller_may_observe_a_graph_of_the_same_rows() -> None:
    flat, graph = (CentralEnv("mesh20-v0", delay=0.5, observation=kind) for kind in ("flat", "graph"))  # type: ignore[arg-type]
    rows, _ = flat.reset(seed=5)
    seen, info = graph.reset(seed=5)
    known = graph.graph()
    rng = np.random.default_rng(0)
    for _ in range(12):
        assert graph.observation_space.contains(seen)
        assert np.array_equal(seen.nodes, rows)
        assert np.array_equal(seen.edges, known.edge_attr)
        assert np.array_equal(seen.edge_links.T, known.edge_index)
        action = np.argmax(rng.random(info["action_mask"].shape) * info["action_mask"], axis=1)
        rows = flat.step(action)[0]
        seen, _, _, _, info = graph.step(action)
    with pytest.raises(ScenarioError, match="observation"):
        CentralEnv("mesh20-v0", observation="dict")  # type: ignore[arg-type]


def test_a_graph_tells_nothing_of_what_happens() -> None:
    env = parallel_env("mesh20-v0", outages={"mean_up": 1.0, "mean_down": 1.0})
    env.reset(seed=0)
    first = env.graph()
    for _ in range(20):
        env.step(dict.fromkeys(env.agents, 1))
        assert all(np.array_equal(a, b) for a, b in zip(first, env.graph(), strict=True))
    assert not env.session.simulator.state.link_up.all()
