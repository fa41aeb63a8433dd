"""Phase 0: requests queue by deadline, and usable stored pairs serve at once."""

from __future__ import annotations

from itertools import permutations

import pytest

from .hand_drawn import NOT_ARRIVED, PENDING, HandDrawn, Phase, draw

LOWEST, MIDDLE, HIGHEST = 0, 1, 2  # fidelity 0.70, 0.80, 0.90: w of 0.6, 0.733.., 0.866..
# node 0 talks to nodes 2 and 1, at places 0 and 1
FAR, NEAR = 0, 1


def queue(drawn: HandDrawn, i: int, d: int) -> list[int]:
    """Pending requests, most urgent first."""
    state, found = drawn.state, []
    request = int(state.queue_head[i, d])
    while request >= 0:
        found.append(request)
        request = int(state.queue_next[request])
    assert (found[-1] if found else -1) == state.queue_tail[i, d]
    return found


def test_a_request_joins_the_queue_of_its_pair() -> None:
    drawn = draw(requests=[(3, 0, NEAR, MIDDLE, 6)])
    drawn.at(3)
    assert drawn.play(Phase.ARRIVALS) == {
        "next_arrival": 1,
        "queue_head": {(0, NEAR): 0},
        "queue_tail": {(0, NEAR): 0},
        "pending": {(0, NEAR, MIDDLE): 1},
        "request_status": {0: PENDING},
        "tally": {"ARRIVED": 1},
    }


def test_only_this_slots_requests_arrive() -> None:
    drawn = draw(requests=[(1, 0, FAR, LOWEST, 4), (1, 2, FAR, LOWEST, 4), (2, 0, FAR, LOWEST, 5)])
    drawn.at(1)
    assert drawn.play(Phase.ARRIVALS)["request_status"] == {0: PENDING, 1: PENDING}
    assert drawn.state.request_status[2] == NOT_ARRIVED
    assert drawn.play(Phase.ARRIVALS) == {}


def test_requests_of_one_slot_queue_by_deadline() -> None:
    drawn = draw(requests=[(0, 0, FAR, LOWEST, 7), (0, 0, FAR, MIDDLE, 3), (0, 0, FAR, HIGHEST, 5)])
    assert queue(drawn, 0, FAR) == [1, 2, 0]
    assert queue(drawn, 0, NEAR) == []


def test_a_later_request_passes_those_that_can_wait_longer() -> None:
    drawn = draw(requests=[(0, 0, FAR, LOWEST, 3), (0, 0, FAR, LOWEST, 9), (1, 0, FAR, LOWEST, 5)])
    drawn.at(1)
    drawn.play(Phase.ARRIVALS)
    assert queue(drawn, 0, FAR) == [0, 2, 1]


def test_equally_urgent_requests_queue_in_order_of_arrival() -> None:
    drawn = draw(requests=[(0, 0, FAR, MIDDLE, 6), (0, 0, FAR, HIGHEST, 9), (1, 0, FAR, LOWEST, 6)])
    drawn.at(1)
    drawn.play(Phase.ARRIVALS)
    assert queue(drawn, 0, FAR) == [0, 2, 1]


def test_a_stored_pair_serves_a_request_as_it_arrives() -> None:
    drawn = draw(requests=[(4, 0, FAR, LOWEST, 7)])
    drawn.store(0, FAR, 0.9, hops=2)
    drawn.at(4)
    assert drawn.play(Phase.ARRIVALS) == {
        "free_memory": {0: 8, 2: 8},
        "next_arrival": 1,
        "request_status": {0: 4},
        "request_werner": {0: 0.9},
        "request_from_stock": {0: 1},
        "stock_count": {0: 0},
        "delivered": {0: 1},
        "tally": {"ARRIVED": 1, "DELIVERED": 1, "FROM_STOCK": 1, "DELIVERED_ELEMENTARY": 2},
    }


@pytest.mark.parametrize("stored", [*permutations((0.9, 0.65, 0.75))])
def test_the_weakest_pair_that_is_good_enough_serves(stored: tuple[float, ...]) -> None:
    drawn = draw(requests=[(1, 0, FAR, MIDDLE, 4)])
    for werner in stored:
        drawn.store(0, FAR, werner)
    drawn.at(1)
    assert drawn.play(Phase.ARRIVALS)["request_werner"] == {0: 0.75}
    assert sorted(drawn.state.stock_werner[0, : drawn.state.stock_count[0]]) == [0.65, 0.9]


def test_the_most_urgent_request_chooses_first() -> None:
    drawn = draw(requests=[(1, 0, FAR, LOWEST, 3), (1, 0, FAR, HIGHEST, 6)])
    drawn.store(0, FAR, 0.9)
    drawn.at(1)
    assert drawn.play(Phase.ARRIVALS)["request_status"] == {0: 1, 1: PENDING}
    assert queue(drawn, 0, FAR) == [1]


def test_a_less_urgent_request_takes_what_the_most_urgent_cannot_use() -> None:
    drawn = draw(requests=[(1, 0, FAR, LOWEST, 6), (1, 0, FAR, HIGHEST, 3)])
    drawn.store(0, FAR, 0.7)
    drawn.at(1)
    assert drawn.play(Phase.ARRIVALS)["request_status"] == {0: 1, 1: PENDING}
    assert queue(drawn, 0, FAR) == [1]


def test_a_pair_exactly_at_the_class_is_good_enough() -> None:
    drawn = draw(requests=[(1, 0, FAR, HIGHEST, 4)])
    drawn.store(0, FAR, drawn.simulator.rules.class_werner[HIGHEST])
    drawn.at(1)
    assert drawn.play(Phase.ARRIVALS)["request_status"] == {0: 1}


def test_a_stored_pair_serves_only_its_owner_and_its_peer() -> None:
    drawn = draw(requests=[(1, 0, FAR, LOWEST, 4)])
    drawn.store(0, NEAR, 0.9)
    drawn.store(2, FAR, 0.9)  # the same two nodes, owned by the other
    drawn.at(1)
    changed = drawn.play(Phase.ARRIVALS)
    assert changed["request_status"] == {0: PENDING}
    assert "stock_count" not in changed
