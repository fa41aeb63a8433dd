"""Phases 1 and 2: illegal actions are waits, routes are reserved whole or not at all, in the slot's random order."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from dpem_env.simulator.randomness import ORDER

from .hand_drawn import ADMITTED, DENIED, ILLEGAL, HandDrawn, bits, draw

FAR, NEAR = 0, 1
NOTHING_DENIED = {"verdict": {0: DENIED}, "tally": {"SUBMITTED": 1, "DENIED": 1}}


def diamond(**fields: object) -> HandDrawn:
    """Node 0 reaches node 3 through relay 1 (route 0) or relay 2 (route 1)."""
    return draw([(0, 1), (1, 3), (0, 2), (2, 3)], {0: [3]}, routes_per_peer=2, **fields)  # type: ignore[arg-type]


def star(**fields: object) -> HandDrawn:
    """Leaves 1, 2 and 3 around hub 0; each leaf talks to the next."""
    return draw([(0, 1), (0, 2), (0, 3)], {1: [2], 2: [3], 3: [1]}, **fields)  # type: ignore[arg-type]


def test_waiting_changes_nothing() -> None:
    assert draw().act({}) == {}


def test_an_admitted_allocation_takes_a_row_and_memory_along_its_route() -> None:
    drawn = draw()
    drawn.at(5)
    assert drawn.act({0: (FAR, 3)}) == {
        "free_memory": {0: 7, 1: 6, 2: 7},
        "alloc_peer": {(0, 0): FAR},
        "alloc_quality": {(0, 0): 3},
        "alloc_route": {(0, 0): 0},
        "alloc_slot": {(0, 0): 5},
        "age_order": {0: 0},
        "num_open": 1,
        "verdict": {0: ADMITTED},
        "tally": {"SUBMITTED": 1},
    }


def test_the_lowest_free_row_is_taken() -> None:
    drawn = draw()
    drawn.open(0, NEAR)
    drawn.open(0, NEAR)
    drawn.state.alloc_peer[0, 0] = -1  # the older one has closed
    assert drawn.act({0: (FAR, 1)})["alloc_peer"] == {(0, 0): FAR}


@pytest.mark.parametrize("d", [FAR, NEAR])
@pytest.mark.parametrize("quality", [1, 2, 3])
def test_every_peer_can_be_asked_for_at_every_quality(d: int, quality: int) -> None:
    changed = draw().act({0: (d, quality)})
    assert (changed["alloc_peer"], changed["alloc_quality"]) == ({(0, 0): d}, {(0, 0): quality})


@pytest.mark.parametrize("action", [-1, 7, 1000])
def test_an_action_beyond_the_last_peer_and_quality_is_an_illegal_wait(action: int) -> None:
    assert draw().act({0: action}) == {"verdict": {0: ILLEGAL}, "tally": {"ILLEGAL": 1}}


def test_naming_a_padded_peer_is_an_illegal_wait() -> None:
    drawn = draw(peers={0: [2, 1], 2: [0]})
    assert drawn.act({2: (1, 1)}) == {"verdict": {2: ILLEGAL}, "tally": {"ILLEGAL": 1}}
    assert drawn.act({2: (0, 3)})["verdict"] == {2: ADMITTED}  # the action before


@pytest.mark.parametrize("route", [1, 2, 3])
def test_naming_a_route_that_does_not_exist_is_an_illegal_wait(route: int) -> None:
    drawn = draw(peers={0: [1]}, routes_per_peer=3)
    drawn.world.route_hops[0, 0, 1:] = 0
    assert drawn.act({0: (0, 1)}, routes={0: route}) == {"verdict": {0: ILLEGAL}, "tally": {"ILLEGAL": 1}}


def test_auto_needs_no_second_route() -> None:
    drawn = draw(peers={0: [1]}, routes_per_peer=3)
    drawn.world.route_hops[0, 0, 1:] = 0
    assert drawn.act({0: (0, 1)})["verdict"] == {0: ADMITTED}


def test_with_every_row_open_an_allocation_is_an_illegal_wait() -> None:
    drawn = draw(rows=2)
    drawn.open(0, NEAR)
    drawn.open(0, NEAR)
    assert drawn.act({0: (FAR, 1)}) == {"verdict": {0: ILLEGAL}, "tally": {"ILLEGAL": 1}}


def test_the_last_step_is_forgotten() -> None:
    drawn = draw()
    drawn.state.delivered[1], drawn.state.contended[2], drawn.state.verdict[0] = 2, 3, DENIED
    assert drawn.act({}) == {"delivered": {1: 0}, "contended": {2: 0}, "verdict": {0: 0}}


def test_auto_takes_the_cheapest_route() -> None:
    assert diamond().act({0: (0, 1)})["alloc_route"] == {(0, 0): 0}


def test_auto_passes_over_a_route_with_a_link_down() -> None:
    drawn = diamond()
    drawn.state.link_up[1] = 0  # 1-3
    changed = drawn.act({0: (0, 1)})
    assert changed["alloc_route"] == {(0, 0): 1}
    assert changed["free_memory"] == {0: 7, 2: 6, 3: 7}


def test_auto_passes_over_a_route_whose_relay_has_one_qubit_left() -> None:
    drawn = diamond(memory=[8, 1, 8, 8])
    changed = drawn.act({0: (0, 1)})
    assert changed["alloc_route"] == {(0, 0): 1}
    assert changed["free_memory"] == {0: 7, 2: 6, 3: 7}


def test_a_named_route_is_taken_though_another_is_cheaper() -> None:
    assert diamond().act({0: (0, 1)}, routes={0: 1})["alloc_route"] == {(0, 0): 1}


def test_a_named_route_is_denied_though_another_would_fit() -> None:
    drawn = diamond(memory=[8, 1, 8, 8])
    assert drawn.act({0: (0, 1)}, routes={0: 0}) == NOTHING_DENIED


def test_an_end_needs_one_qubit_and_a_relay_two() -> None:
    drawn = draw(memory=[1, 2, 1])
    assert drawn.act({0: (FAR, 1)})["free_memory"] == {0: 0, 1: 0, 2: 0}


@pytest.mark.parametrize("memory", [[0, 2, 1], [1, 1, 1], [1, 2, 0]])
def test_a_denied_allocation_changes_nothing(memory: list[int]) -> None:
    drawn = draw()
    drawn.state.free_memory[:] = drawn.world.memory[:] = memory
    assert drawn.act({0: (FAR, 1)}) == NOTHING_DENIED


def test_an_allocation_with_every_route_down_is_denied() -> None:
    drawn = diamond()
    drawn.state.link_up[[0, 2]] = 0
    assert drawn.act({0: (0, 1)}) == NOTHING_DENIED


@pytest.mark.parametrize("slot", range(6))
def test_the_last_qubits_go_to_the_first_in_the_slots_random_order(slot: int) -> None:
    drawn = star(memory=[2, 8, 8, 8])
    drawn.at(slot)
    drawn.act({1: (0, 1), 2: (0, 1), 3: (0, 1)})
    key = {leaf: bits(drawn.world.order_key[0], slot, ORDER, leaf, 0, 0, 0) for leaf in (1, 2, 3)}
    first = min(key, key=key.__getitem__)
    assert {leaf: drawn.state.verdict[leaf] == ADMITTED for leaf in key} == {leaf: leaf == first for leaf in key}


def admitted_order(slot: int, leaves: tuple[int, ...]) -> list[int]:
    drawn = star()
    drawn.at(slot)
    drawn.act(dict.fromkeys(leaves, (0, 1)))
    return (drawn.state.age_order[: drawn.state.num_open[0]] // drawn.state.alloc_peer.shape[1]).tolist()


def test_the_order_of_two_does_not_depend_on_who_else_acts() -> None:
    orders = [admitted_order(slot, (1, 2, 3)) for slot in range(12)]
    for slot, order in enumerate(orders):
        for pair in combinations((1, 2, 3), 2):
            assert admitted_order(slot, pair) == [leaf for leaf in order if leaf in pair]
    assert len({tuple(order) for order in orders}) > 3


def test_a_priority_comes_before_the_random_order() -> None:
    for slot in range(6):
        drawn = star()
        drawn.at(slot)
        drawn.act({1: (0, 1), 2: (0, 1), 3: (0, 1)}, priorities={1: 5, 2: -1, 3: 5})
        owners = (drawn.state.age_order[:3] // drawn.state.alloc_peer.shape[1]).tolist()
        assert owners == [2, *admitted_order(slot, (1, 3))]


def test_every_route_of_the_diamond_is_as_drawn() -> None:
    drawn = diamond()
    assert np.array_equal(drawn.world.route_nodes[0, 0, :, :3], [[0, 1, 3], [0, 2, 3]])
