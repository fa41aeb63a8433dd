"""Candidate routes against brute force and by hand, and why a pair of nodes cannot be peers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpem_env import physics, scenarios
from dpem_env.network.network import build_network
from dpem_env.network.route_search import Exclusion
from dpem_env.network.routes import RouteTable, find_routes, reachability
from dpem_env.network.topology import Layout, Topology, assemble, build_topology
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import Control, Hardware, MeshNetwork, Routing, SessionDemand

seeds = st.integers(0, 2**32)
LENIENT = Routing(min_link_rate=0.0, min_swap_rate=0.0)


def draw_by_hand(
    links: Sequence[tuple[int, int]],
    *,
    generation_rate: Sequence[float],
    swap_rate: Sequence[float],
    memory: Sequence[int] | None = None,
    link_key: Sequence[int] | None = None,
    link_fidelity: Sequence[float] | float = 0.95,
) -> Topology:
    """Links of no length, so a link's rate is the larger generation rate of its ends."""
    nodes = len(generation_rate)
    places, ends = np.zeros((nodes, 2)), np.array(links, np.int32)
    own = {"link_fidelity": np.broadcast_to(link_fidelity, len(links)).astype(np.float64)}
    return assemble(
        Layout(tuple(map(str, range(nodes))), places, ends, np.zeros(len(links)), fibres=own),
        popularity=np.ones(nodes),
        generation_rate=np.array(generation_rate, dtype=np.float64),
        swap_rate=np.array(swap_rate, dtype=np.float64),
        memory=np.array(memory or [8] * nodes, dtype=np.int32),
        coherence_time=np.full(nodes, 60.0),
        node_key=np.arange(nodes),
        link_key=np.array(link_key or range(1, len(links) + 1), dtype=np.int64),
        hardware=Hardware(),
    )


def everyone_else(nodes: int) -> NDArray[np.int32]:
    return np.array([[j for j in range(nodes) if j != i] for i in range(nodes)], dtype=np.int32)


def node_sequences(table: RouteTable, node: int, place: int) -> list[list[int]]:
    routes = ([int(v) for v in route if v >= 0] for route in table.nodes[node, place])
    return [route for route in routes if route]


def nanoseconds(rate: float) -> int:
    return max(1, round(1e9 / max(rate, 1e-6)))


def all_simple_routes(topology: Topology, max_hops: int) -> dict[tuple[int, int], list[list[int]]]:
    """Every simple route of every ordered pair: by cost in whole nanoseconds, then hops, then key."""
    graph = nx.Graph()
    graph.add_nodes_from(range(topology.num_nodes))
    for link, (u, v) in enumerate(topology.links.tolist()):
        rate = topology.generation_rate[topology.emitter[link]] * topology.transmission[link]
        graph.add_edge(u, v, cost=nanoseconds(rate), key=int(topology.link_key[link]))

    def rank(route: list[int]) -> tuple[int, int, int]:
        fibres = [graph.edges[pair] for pair in pairwise(route)]
        relays = sum(nanoseconds(topology.swap_rate[relay]) for relay in route[1:-1])
        return sum(fibre["cost"] for fibre in fibres) + relays, len(fibres), sum(fibre["key"] for fibre in fibres)

    nodes = range(topology.num_nodes)
    return {
        (i, j): sorted(nx.all_simple_paths(graph, i, j, cutoff=max_hops), key=rank)
        for i in nodes
        for j in nodes
        if i != j
    }


@given(seeds, st.integers(4, 9), st.sampled_from([0.5, 1.0, 1.5, 2.5]), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_the_three_routes_are_the_cheapest_simple_ones_of_brute_force(
    seed: int, nodes: int, links_per_node: float, max_hops: int
) -> None:
    scenario = Scenario(
        name="small",
        network=MeshNetwork(nodes=nodes, links_per_node=links_per_node),
        routing=Routing(max_hops=max_hops),
    )
    topology = build_topology(scenario, seed)
    peers = everyone_else(nodes)
    table = find_routes(topology, scenario, peers)
    expected = all_simple_routes(topology, max_hops)
    for i in range(nodes):
        for place, j in enumerate(peers[i].tolist()):
            assert node_sequences(table, i, place) == expected[i, j][:3]


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_routes_of_equal_cost_are_those_of_brute_force_too(seed: int) -> None:
    # Whole-number rates on a grid: nearly every pair has ties, broken by hops and then by key.
    rng = np.random.default_rng(seed)
    links = [(i, i + 1) for i in range(9) if i % 3 < 2] + [(i, i + 3) for i in range(6)]
    topology = draw_by_hand(
        links,
        generation_rate=rng.choice([1.0, 2.0], size=9).tolist(),
        swap_rate=[2.0] * 9,
        link_key=rng.integers(1, 2**48, size=len(links)).tolist(),
    )
    table = find_routes(topology, Scenario(name="grid"), everyone_else(9))
    expected = all_simple_routes(topology, 8)
    for i in range(9):
        for place, j in enumerate(everyone_else(9)[i].tolist()):
            assert node_sequences(table, i, place) == expected[i, j][:3]


def test_a_detour_that_returns_to_where_it_left_is_no_route() -> None:
    # From 0 the second-cheapest walk to 1 goes out to leaf 2 and back; the second-cheapest route goes round by 3.
    topology = draw_by_hand(
        [(0, 1), (0, 2), (0, 3), (1, 3)], generation_rate=[9.0, 9.0, 9.0, 0.5], swap_rate=[9.0, 9.0, 9.0, 0.5]
    )
    table = find_routes(topology, Scenario(name="detour"), everyone_else(4))
    assert node_sequences(table, 0, 0) == [[0, 1], [0, 3, 1]]


@given(seeds)
@settings(max_examples=6, deadline=None)
def test_routes_of_mesh100_are_loopless_connected_and_within_the_hop_limit(seed: int) -> None:
    scenario = scenarios.get("mesh100-v0")
    network = build_network(scenario, seed)
    links = [set(link) for link in network.topology.links.tolist()]
    table = network.routes
    for i, place in np.argwhere(network.peers >= 0).tolist():
        routes = node_sequences(table, i, place)
        assert 1 <= len(routes) <= 3
        assert len({tuple(route) for route in routes}) == len(routes)
        for r, route in enumerate(routes):
            hops = int(table.hops[i, place, r])
            assert hops == len(route) - 1 <= 8
            assert len(set(route)) == len(route)
            assert (route[0], route[-1]) == (i, network.peers[i, place])
            fibres = table.links[i, place, r]
            assert [links[fibre] for fibre in fibres[:hops]] == [set(pair) for pair in pairwise(route)]
            assert fibres[hops:].tolist() == [-1] * (8 - hops)


@pytest.mark.parametrize("max_hops", [1, 2, 3])
def test_the_hop_limit_cuts_longer_routes_off(max_hops: int) -> None:
    ring = draw_by_hand([(0, 1), (1, 2), (2, 3), (0, 3)], generation_rate=[4.0] * 4, swap_rate=[2.0] * 4)
    scenario = Scenario(name="ring", routing=Routing(max_hops=max_hops))
    table = find_routes(ring, scenario, everyone_else(4))
    to_neighbour, to_opposite = node_sequences(table, 0, 0), node_sequences(table, 0, 1)
    assert to_neighbour == [[0, 1], [0, 3, 2, 1]][: 2 if max_hops == 3 else 1]
    assert to_opposite == ([] if max_hops == 1 else [[0, 1, 2], [0, 3, 2]])


def test_the_cheaper_of_two_routes_weighs_links_and_relays() -> None:
    # 0-1-3: links 1/4 + 1/4, relay 1/1; 0-2-3: links 1/2 + 1/2, relay 1/4.
    topology = draw_by_hand(
        [(0, 1), (0, 2), (1, 3), (2, 3)], generation_rate=[0.0, 4.0, 2.0, 0.0], swap_rate=[9.0, 1.0, 4.0, 9.0]
    )
    table = find_routes(topology, Scenario(name="diamond"), everyone_else(4))
    assert node_sequences(table, 0, 2) == [[0, 2, 3], [0, 1, 3]]


def test_of_routes_of_equal_cost_the_one_of_fewer_hops_leads() -> None:
    # The direct link takes 1/1 s; over node 2: 1/4 + 1/2 + 1/4 s.
    topology = draw_by_hand([(0, 1), (0, 2), (1, 2)], generation_rate=[1.0, 1.0, 4.0], swap_rate=[2.0] * 3)
    table = find_routes(topology, Scenario(name="triangle"), everyone_else(3))
    assert node_sequences(table, 0, 0) == [[0, 1], [0, 2, 1]]


@pytest.mark.parametrize(("link_key", "first"), [([1, 5, 1, 5], 1), ([5, 1, 5, 1], 2)])
def test_of_routes_of_equal_cost_and_length_the_random_key_decides(link_key: list[int], first: int) -> None:
    topology = draw_by_hand(
        [(0, 1), (0, 2), (1, 3), (2, 3)], generation_rate=[4.0] * 4, swap_rate=[2.0] * 4, link_key=link_key
    )
    table = find_routes(topology, Scenario(name="diamond"), everyone_else(4))
    assert node_sequences(table, 0, 2) == [[0, first, 3], [0, 3 - first, 3]]


@given(seeds, st.permutations(range(8)))
@settings(max_examples=15, deadline=None)
def test_routes_do_not_depend_on_the_numbering_of_nodes(seed: int, number: list[int]) -> None:
    scenario = Scenario(name="small", network=MeshNetwork(nodes=8, links_per_node=1.5))
    one = build_topology(scenario, seed)
    old = np.argsort(number)
    renumbered = np.sort(np.array(number)[one.links], axis=1).astype(np.int32)
    other = assemble(
        Layout(one.names, one.position[old], renumbered, one.length),
        popularity=one.popularity[old],
        generation_rate=one.generation_rate[old],
        swap_rate=one.swap_rate[old],
        memory=one.memory[old],
        coherence_time=one.coherence_time[old],
        node_key=np.arange(8),
        link_key=one.link_key,
        hardware=Hardware(),
    )
    peers = everyone_else(8)
    table, renumbered_table = find_routes(one, scenario, peers), find_routes(other, scenario, peers)
    for i in range(8):
        for place, j in enumerate(peers[i].tolist()):
            same_place = peers[number[i]].tolist().index(number[j])
            expected = [[number[v] for v in route] for route in node_sequences(table, i, place)]
            assert node_sequences(renumbered_table, number[i], same_place) == expected
    np.testing.assert_array_equal(reachability(one, scenario), reachability(other, scenario)[np.ix_(number, number)])


def test_routes_of_chain3_by_hand() -> None:
    network = build_network(scenarios.get("chain3-v0"), 0)
    routes = {
        (i, int(network.peers[i, place])): node_sequences(network.routes, i, place)
        for i in range(3)
        for place in range(2)
    }
    assert routes == {
        (0, 1): [[0, 1]],
        (0, 2): [[0, 1, 2]],
        (1, 0): [[1, 0]],
        (1, 2): [[1, 2]],
        (2, 0): [[2, 1, 0]],
        (2, 1): [[2, 1]],
    }
    rate = 8.0 * 10.0**-0.2
    two_hops = network.routes.hops[..., 0] == 2
    np.testing.assert_allclose(network.routes.build_time[..., 0][two_hops], 1.5 / rate)
    np.testing.assert_allclose(network.routes.build_time[..., 0][~two_hops], 1.0 / rate)
    expected = np.where(two_hops[..., None], [1, 1, 2], 1)  # two hops meet 0.91 after a round alone
    assert np.array_equal(network.routes.quality[..., 0, :], expected)


def test_routes_of_star8_by_hand() -> None:
    network = build_network(scenarios.get("star8-v0"), 0)
    rate = 16.0 * 10.0**-0.2
    for i, place in np.argwhere(network.peers >= 0).tolist():
        j = int(network.peers[i, place])
        direct = 0 in (i, j)
        assert node_sequences(network.routes, i, place) == [[i, j] if direct else [i, 0, j]]
        assert network.routes.build_time[i, place, 0] == pytest.approx((1.0 if direct else 1.5) / rate)
    assert np.all(network.routes.hops[..., 1:] == 0)
    assert np.all(network.routes.links[..., 1:, :] == -1)
    assert np.all(network.routes.quality[..., 1:, :] == 0)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_the_build_time_of_a_route_is_that_of_its_links(seed: int) -> None:
    network = build_network(scenarios.get("mesh20-v0"), seed)
    topology, table = network.topology, network.routes
    rate = topology.generation_rate[topology.emitter] * 10.0 ** (-0.02 * topology.length)
    for place in np.argwhere(table.hops > 0).tolist():
        index = tuple(place)
        fibres = table.links[index][: table.hops[index]]
        assert table.build_time[index] == pytest.approx(physics.expected_build_time(rate[fibres]), rel=1e-9)


def test_the_build_time_of_a_route_is_infinite_where_a_source_is_silent() -> None:
    topology = draw_by_hand([(0, 1), (0, 2), (1, 2)], generation_rate=[0.0, 0.0, 1.0], swap_rate=[2.0] * 3)
    table = find_routes(topology, Scenario(name="silent"), everyone_else(3))
    assert node_sequences(table, 0, 0) == [[0, 2, 1], [0, 1]]
    assert table.build_time[0, 0, :2].tolist() == [pytest.approx(1.5), math.inf]


def test_a_route_of_a_hopelessly_long_fibre_is_merely_slow() -> None:
    layout = Layout(("a", "b", "c"), np.zeros((3, 2)), np.array([[0, 1], [0, 2], [1, 2]], np.int32), np.ones(3))
    layout.length[0] = 8000.0
    topology = assemble(
        layout,
        popularity=np.ones(3),
        generation_rate=np.full(3, 10.0),
        swap_rate=np.ones(3),
        memory=np.full(3, 8, dtype=np.int32),
        coherence_time=np.full(3, 60.0),
        node_key=np.arange(3),
        link_key=np.arange(3),
        hardware=Hardware(),
    )
    scenario = Scenario(name="ocean", routing=LENIENT)
    table = find_routes(topology, scenario, everyone_else(3))
    assert node_sequences(table, 0, 1) == [[0, 2], [0, 1, 2]]
    assert table.build_time[0, 1, 1] == np.inf
    assert np.all(reachability(topology, scenario) == np.where(np.eye(3), Exclusion.TOO_MANY_HOPS, 0))


# Smallest quality per class 0.75/0.85/0.91 by hops, from F = 1/4 + 3/4 · 0.989699^(h - 1) · ((4F_q - 1)/3)^h with link
# fidelities F_q = 0.95, 0.9609246, 0.9649477.
BY_HAND = {
    1: [1, 1, 1],
    2: [1, 1, 2],
    3: [1, 2, 0],
    4: [1, 3, 0],
    5: [1, 0, 0],
    6: [2, 0, 0],
    7: [3, 0, 0],
    8: [0, 0, 0],
}


@pytest.mark.parametrize(("hops", "expected"), BY_HAND.items())
def test_the_smallest_quality_of_each_class_by_hops(hops: int, expected: list[int]) -> None:
    chain = draw_by_hand(
        [(i, i + 1) for i in range(hops)], generation_rate=[4.0] * (hops + 1), swap_rate=[2.0] * (hops + 1)
    )
    peers = np.full((hops + 1, 1), -1, dtype=np.int32)
    peers[0, 0] = hops
    table = find_routes(chain, Scenario(name="chain"), peers)
    assert table.quality[0, 0].tolist() == [expected, [0, 0, 0], [0, 0, 0]]


@given(
    st.floats(0.6, 1.0),
    st.floats(0.9, 1.0),
    st.sampled_from(["ideal", "noisy"]),
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from([0.6, 0.75, 0.9]),
)
@settings(max_examples=40, deadline=None)
def test_the_smallest_quality_is_the_fewest_rounds_that_make_the_class_fresh(
    link_fidelity: float,
    gate_fidelity: float,
    purification_gates: Literal["ideal", "noisy"],
    qualities: int,
    hops: int,
    wanted: float,
) -> None:
    scenario = Scenario(
        name="chain",
        hardware=Hardware(gate_fidelity=gate_fidelity, purification_gates=purification_gates),
        control=Control(qualities=qualities),
        demand=SessionDemand(fidelity_classes=(wanted,), class_weights=(1.0,), deadline=1.0),
    )
    chain = draw_by_hand(
        [(i, i + 1) for i in range(hops)],
        generation_rate=[4.0] * (hops + 1),
        swap_rate=[2.0] * (hops + 1),
        link_fidelity=link_fidelity,
    )
    table = find_routes(chain, scenario, np.array([[hops]] + [[-1]] * hops, dtype=np.int32))

    def meets(quality: int) -> bool:
        noise = (gate_fidelity, 0.998) if purification_gates == "noisy" else (1.0, 1.0)
        link = physics.pumped_werner(physics.werner_from_fidelity(link_fidelity), quality, *noise)
        fresh = link**hops * physics.swap_factor(gate_fidelity, 0.998) ** (hops - 1)
        return fresh >= physics.werner_from_fidelity(wanted)

    smallest = next((quality for quality in range(1, qualities + 1) if meets(quality)), 0)
    assert table.quality[0, 0, 0, 0] == smallest


def verdict(topology: Topology, scenario: Scenario, source: int = 0, target: int = 2) -> Exclusion:
    table = reachability(topology, scenario)
    assert table[source, target] == table[target, source]
    return Exclusion(table[source, target])


def three_in_a_line(
    generation_rate: Sequence[float] = (4.0, 4.0, 4.0),
    swap_rate: Sequence[float] = (2.0, 2.0, 2.0),
    memory: Sequence[int] = (8, 8, 8),
    link_fidelity: Sequence[float] = (0.95, 0.95),
) -> Topology:
    return draw_by_hand(
        [(0, 1), (1, 2)],
        generation_rate=generation_rate,
        swap_rate=swap_rate,
        memory=memory,
        link_fidelity=link_fidelity,
    )


def test_a_peer_over_good_links_and_a_good_relay_is_reachable() -> None:
    assert verdict(three_in_a_line(), Scenario(name="line")) == Exclusion.REACHABLE


def test_a_peer_beyond_the_hop_limit_is_excluded() -> None:
    scenario = Scenario(name="line", routing=Routing(max_hops=1))
    assert verdict(three_in_a_line(), scenario) == Exclusion.TOO_MANY_HOPS
    assert verdict(three_in_a_line(), scenario, target=1) == Exclusion.REACHABLE


@pytest.mark.parametrize("rate", [0.0, 0.099])
def test_a_peer_behind_a_weak_link_is_excluded(rate: float) -> None:
    topology = three_in_a_line(generation_rate=(4.0, rate, rate))
    assert verdict(topology, Scenario(name="line")) == Exclusion.WEAK_LINK
    assert verdict(topology, Scenario(name="line"), target=1) == Exclusion.REACHABLE


def test_a_link_without_pairs_is_weak_whatever_the_limit() -> None:
    assert verdict(three_in_a_line((4.0, 0.0, 0.0)), Scenario(name="line", routing=LENIENT)) == Exclusion.WEAK_LINK


@pytest.mark.parametrize("rate", [0.0, 0.099])
def test_a_peer_behind_a_weak_relay_is_excluded(rate: float) -> None:
    assert verdict(three_in_a_line(swap_rate=(2.0, rate, 2.0)), Scenario(name="line")) == Exclusion.WEAK_RELAY


def test_nodes_that_swap_nothing_are_leaves_not_outcasts() -> None:
    assert verdict(three_in_a_line(swap_rate=(0.0, 2.0, 0.0)), Scenario(name="line")) == Exclusion.REACHABLE


def test_a_peer_behind_a_relay_of_one_qubit_is_excluded() -> None:
    assert verdict(three_in_a_line(memory=(8, 1, 8)), Scenario(name="line")) == Exclusion.LITTLE_MEMORY
    assert verdict(three_in_a_line(memory=(1, 2, 1)), Scenario(name="line")) == Exclusion.REACHABLE


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.74, Exclusion.TOO_SLOW), (0.76, Exclusion.REACHABLE)]
)  # two links take 1.5/rate on average, against 2 s to live
def test_a_peer_that_takes_longer_than_the_time_to_live_is_excluded(rate: float, expected: Exclusion) -> None:
    assert verdict(three_in_a_line(generation_rate=(rate,) * 3), Scenario(name="line")) == expected


@pytest.mark.parametrize(("generation", "swap"), [(0.5, 2.0), (4.0, 0.1)])
def test_the_limits_themselves_are_good_enough(generation: float, swap: float) -> None:
    # At 0.5/s one link takes just 2 s.
    topology = three_in_a_line((generation,) * 3, swap_rate=(swap,) * 3)
    assert verdict(topology, Scenario(name="line"), target=1 if generation == 0.5 else 2) == Exclusion.REACHABLE


def test_a_peer_whose_best_pairs_are_below_the_lowest_class_is_excluded() -> None:
    noisy = three_in_a_line(link_fidelity=(0.76, 0.76))  # over two hops 0.59, pumped twice 0.67
    assert verdict(noisy, Scenario(name="line")) == Exclusion.LOW_FIDELITY
    assert verdict(noisy, Scenario(name="line"), target=1) == Exclusion.REACHABLE
    assert verdict(three_in_a_line(link_fidelity=(0.76, 0.95)), Scenario(name="line")) == Exclusion.REACHABLE
    assert verdict(three_in_a_line(link_fidelity=(0.95, 0.3)), Scenario(name="line")) == Exclusion.LOW_FIDELITY


def test_every_link_of_a_route_counts_with_its_own_fidelity() -> None:
    scenario = Scenario(name="line")
    line = three_in_a_line(link_fidelity=(0.9, 0.97))
    table = find_routes(line, scenario, np.array([[2], [2], [1]], dtype=np.int32))
    noise, swapped = scenario.hardware.purification_fidelities, physics.swap_factor(0.995, 0.998)

    def smallest(*fidelities: float) -> list[int]:
        links = np.array([physics.werner_from_fidelity(fidelity) for fidelity in fidelities])
        fresh = [
            np.prod(physics.pumped_werner(links, quality, *noise)) * swapped ** (len(links) - 1)
            for quality in range(1, scenario.control.qualities + 1)
        ]
        wanted = [physics.werner_from_fidelity(each) for each in scenario.demand.fidelity_classes]
        return [next((q for q, w in enumerate(fresh, start=1) if w >= least), 0) for least in wanted]

    assert table.quality[0, 0, 0].tolist() == smallest(0.9, 0.97)
    assert table.quality[1, 0, 0].tolist() == table.quality[2, 0, 0].tolist() == smallest(0.97)
    assert smallest(0.9, 0.97) != smallest(0.97)


def test_purification_can_make_a_peer_reachable() -> None:
    # Over two hops 0.897, pumped once 0.917.
    demand = SessionDemand(fidelity_classes=(0.91,), class_weights=(1.0,), deadline=1.0)
    assert verdict(three_in_a_line(), Scenario(name="line", demand=demand)) == Exclusion.REACHABLE
    once = Scenario(name="line", demand=demand, control=Control(qualities=1))
    assert verdict(three_in_a_line(), once) == Exclusion.LOW_FIDELITY


def test_reachability_is_judged_on_the_cheapest_route_alone() -> None:
    # Over node 1 is cheaper, but its memory holds no relaying pair; over node 2 all would be well.
    topology = draw_by_hand(
        [(0, 1), (0, 2), (1, 3), (2, 3)],
        generation_rate=[1.0, 4.0, 3.0, 1.0],
        swap_rate=[2.0] * 4,
        memory=[8, 1, 8, 8],
    )
    assert verdict(topology, Scenario(name="diamond"), target=3) == Exclusion.LITTLE_MEMORY


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_pair_is_reachable_exactly_if_its_cheapest_brute_force_route_is_good(seed: int) -> None:
    scenario = Scenario(
        name="small",
        network=MeshNetwork(nodes=8, links_per_node=1.2, side=120.0),
        hardware=Hardware(generation_rate=(0.0, 4.0), swap_rate=(0.0, 1.0), memory=(1, 6), link_fidelity=0.95),
        routing=Routing(max_hops=4),
    )
    topology = build_topology(scenario, seed)
    rate = topology.generation_rate[topology.emitter] * topology.transmission
    rate_between = {frozenset(link): rate[index] for index, link in enumerate(topology.links.tolist())}
    link = physics.pumped_werner(physics.werner_from_fidelity(0.95), 3, 0.995, 0.998)
    verdicts = reachability(topology, scenario)
    for (i, j), routes in all_simple_routes(topology, 4).items():
        good = False
        if routes:
            route = routes[0]
            rates = np.array([rate_between[frozenset(pair)] for pair in pairwise(route)])
            fresh = link ** len(rates) * physics.swap_factor(0.995, 0.998) ** (len(rates) - 1)
            good = (
                rates.min() >= 0.1
                and all(topology.swap_rate[relay] >= 0.1 and topology.memory[relay] >= 2 for relay in route[1:-1])
                and physics.expected_build_time(rates) <= 2.0
                and fresh >= physics.werner_from_fidelity(0.75)
            )
        assert (verdicts[i, j] == Exclusion.REACHABLE) == good
    assert np.all(np.diag(verdicts) != Exclusion.REACHABLE)


def test_padded_peers_have_no_routes() -> None:
    table = find_routes(three_in_a_line(), Scenario(name="line"), np.array([[1, -1], [-1, -1], [0, 1]], dtype=np.int32))
    assert table.hops[..., 0].tolist() == [[1, 0], [0, 0], [2, 1]]
    assert np.all(table.nodes[0, 1] == -1)
    assert np.all(table.links[1] == -1)
    assert np.all(table.build_time[1] == 0.0)
