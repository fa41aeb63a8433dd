"""Phases 5 and 6: finished pairs serve or are stored, everything ages, and what is in its last slot ends."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_env.simulator.randomness import OUTAGE
from dpem_env.simulator.state import Tally

from .hand_drawn import EXPIRED, NOT_ARRIVED, PENDING, HandDrawn, Phase, draw

FAR, NEAR = 0, 1
LOWEST, MIDDLE, HIGHEST = 0, 1, 2  # w of 0.6, 0.733.., 0.866..


def with_finished(drawn: HandDrawn, werner: float, d: int = FAR) -> HandDrawn:
    """Let node 0 have swapped a pair of that w to its d-th peer."""
    hops = 2 if d == FAR else 1
    drawn.open(0, d, links=[1.0] * hops)
    drawn.work.finished_werner[drawn.state.num_open[0] - 1] = werner
    return drawn


CLOSED = {
    "alloc_peer": {(0, 0): -1},
    "alloc_quality": {(0, 0): -1},
    "alloc_route": {(0, 0): -1},
    "alloc_slot": {(0, 0): -1},
    "alloc_complete": {(0, 0): 0},
    "link_rounds": {(0, 0, 0): -1, (0, 0, 1): -1},
    "link_hops": {(0, 0, 0): 0, (0, 0, 1): 0},
    "link_werner": {(0, 0, 0): 0.0, (0, 0, 1): 0.0},
    "link_slot": {(0, 0, 0): -1, (0, 0, 1): -1},
}


def test_a_finished_pair_serves_a_pending_request_and_all_its_memory_is_freed() -> None:
    drawn = with_finished(draw(requests=[(0, 0, FAR, MIDDLE, 3)]), 0.8)
    drawn.at(2)
    assert drawn.play(Phase.DELIVER) == CLOSED | {
        "free_memory": {0: 8, 1: 8, 2: 8},
        "queue_head": {(0, FAR): -1},
        "queue_tail": {(0, FAR): -1},
        "pending": {(0, FAR, MIDDLE): 0},
        "request_status": {0: 2},
        "request_werner": {0: 0.8},
        "delivered": {0: 1},
        "tally": {"FINISHED": 1, "DELIVERED": 1, "DELIVERED_ELEMENTARY": 2},
    }


def test_a_finished_pair_that_nobody_asked_for_is_stored_in_its_end_qubits() -> None:
    drawn = with_finished(draw(), 0.8)
    assert drawn.play(Phase.DELIVER) == CLOSED | {
        "free_memory": {1: 8},
        "stock_count": {0: 1},
        "stock_peer": {(0, 0): FAR},
        "stock_werner": {(0, 0): 0.8},
        "stock_hops": {(0, 0): 2},
        "tally": {"FINISHED": 1, "STORED": 1},
    }


def test_a_finished_pair_below_the_lowest_class_closes_its_allocation_and_is_waste() -> None:
    drawn = with_finished(draw(requests=[(0, 0, FAR, LOWEST, 3)]), 0.59)
    assert drawn.play(Phase.DELIVER) == CLOSED | {
        "free_memory": {0: 8, 1: 8, 2: 8},
        "tally": {"FINISHED": 1, "DROPPED_PAIRS": 1, "DROPPED_ELEMENTARY": 2},
    }


def test_a_finished_pair_exactly_at_the_lowest_class_is_stored() -> None:
    drawn = draw()
    with_finished(drawn, drawn.simulator.rules.class_werner[LOWEST])
    assert drawn.play(Phase.DELIVER)["tally"] == {"FINISHED": 1, "STORED": 1}


def test_the_most_urgent_request_the_pair_is_good_enough_for_is_served() -> None:
    requests = [(0, 0, FAR, LOWEST, 9), (0, 0, FAR, MIDDLE, 5), (0, 0, FAR, HIGHEST, 3)]
    drawn = with_finished(draw(requests=requests), 0.8)
    assert drawn.play(Phase.DELIVER)["request_status"] == {1: 0}
    assert drawn.state.queue_head[0, FAR] == 2
    assert drawn.state.queue_next[2] == 0
    assert drawn.state.queue_tail[0, FAR] == 0


def test_two_pairs_finished_in_one_slot_serve_two_requests_oldest_allocation_first() -> None:
    requests = [(0, 0, FAR, LOWEST, 9), (0, 0, FAR, MIDDLE, 5)]
    drawn = with_finished(with_finished(draw(requests=requests), 0.9), 0.65)
    changed = drawn.play(Phase.DELIVER)
    assert changed["request_werner"] == {1: 0.9, 0: 0.65}
    assert drawn.state.queue_head[0, FAR] == drawn.state.queue_tail[0, FAR] == -1


def test_a_pair_to_another_peer_is_stored_while_the_request_waits() -> None:
    drawn = with_finished(draw(requests=[(0, 0, FAR, LOWEST, 3)]), 0.9, d=NEAR)
    changed = drawn.play(Phase.DELIVER)
    assert changed["stock_count"] == {0: 1}
    assert "request_status" not in changed


def test_an_unfinished_allocation_stays_open() -> None:
    drawn = draw()
    drawn.open(0, FAR, links=[1.0, None])
    drawn.work.finished_werner[0] = -1.0
    assert drawn.play(Phase.DELIVER) == {}


def test_a_finished_pair_does_not_wait_for_older_allocations() -> None:
    drawn = draw()
    drawn.open(0, FAR, links=[1.0, None])
    drawn.work.finished_werner[0] = -1.0
    with_finished(drawn, 0.8, d=NEAR)
    assert drawn.play(Phase.DELIVER)["stock_werner"] == {(0, 0): 0.8}


def test_links_and_stored_pairs_decay_by_the_same_law() -> None:
    drawn = draw(coherence_time=[10.0, 20.0, 40.0], slot_duration=0.5)
    drawn.open(0, FAR, links=[0.9, None])
    drawn.store(0, FAR, 0.8)
    drawn.store(1, FAR, 0.95)  # with node 0
    assert drawn.play(Phase.AGE) == {
        "link_werner": {(0, 0, 0): pytest.approx(0.9 * np.exp(-0.5 / 10 - 0.5 / 20))},
        "stock_werner": {
            (0, 0): pytest.approx(0.8 * np.exp(-0.5 / 10 - 0.5 / 40)),
            (1, 0): pytest.approx(0.95 * np.exp(-0.5 / 20 - 0.5 / 10)),
        },
    }


def test_a_stored_pair_that_no_class_can_use_is_dropped() -> None:
    drawn = draw(coherence_time=10.0)
    for werner, hops in ((0.62, 1), (0.9, 1), (0.61, 2)):
        drawn.store(0, FAR, werner, hops)
    decay = np.exp(-0.25 / 10 - 0.25 / 10)
    assert 0.62 * decay < 0.6
    changed = drawn.play(Phase.AGE)
    assert changed["tally"] == {"DROPPED_PAIRS": 2, "DROPPED_ELEMENTARY": 3}
    assert changed["free_memory"] == {0: 7, 2: 7}
    assert drawn.state.stock_count[0] == 1
    assert drawn.state.stock_werner[0, 0] == pytest.approx(0.9 * decay)


def test_a_stored_pair_exactly_at_the_lowest_class_is_kept() -> None:
    drawn = draw()
    drawn.store(0, FAR, drawn.simulator.rules.class_werner[LOWEST])
    assert drawn.play(Phase.AGE) == {}


def test_without_a_cutoff_a_link_is_never_dropped_for_its_age() -> None:
    drawn = draw(coherence_time=1.0)
    drawn.open(0, NEAR, quality=2, links=[(0, 0.1)])
    assert drawn.play(Phase.AGE) == {"link_werner": {(0, 0, 0): pytest.approx(0.1 * np.exp(-0.5))}}


@pytest.mark.parametrize(
    ("slot", "status", "from_stock"),
    [(1, 2, 1), (2, 2, 0), (3, 3, 0), (5, 5, 0), (6, EXPIRED, 0)],
)
def test_a_request_is_served_from_its_slot_of_arrival_to_its_last_slot(slot: int, status: int, from_stock: int) -> None:
    drawn = draw(requests=[(2, 0, NEAR, LOWEST, 5)])  # deadline of four slots
    drawn.wait(slot)
    drawn.open(0, NEAR, since=slot, links=[0.9])  # its pair will be finished in `slot`
    drawn.wait(8 - slot)
    assert drawn.state.request_status[0] == status
    assert drawn.state.request_from_stock[0] == from_stock
    assert drawn.tally(Tally.DELIVERED, Tally.EXPIRED) == ((0, 1) if status == EXPIRED else (1, 0))


def test_a_request_expires_at_the_end_of_its_last_slot() -> None:
    drawn = draw(requests=[(0, 0, FAR, LOWEST, 3), (0, 0, FAR, MIDDLE, 2), (0, 0, FAR, HIGHEST, 6)])
    drawn.at(2)
    assert drawn.play(Phase.AGE) == {
        "next_expiry": 1,
        "queue_head": {(0, FAR): 0},
        "pending": {(0, FAR, MIDDLE): 0},
        "request_status": {1: EXPIRED},
        "tally": {"EXPIRED": 1},
    }


def test_a_request_that_has_not_arrived_does_not_expire() -> None:
    drawn = draw(requests=[(3, 0, FAR, LOWEST, 3), (4, 0, FAR, LOWEST, 7)])
    drawn.wait(3)
    assert drawn.state.request_status.tolist() == [PENDING, NOT_ARRIVED]
    drawn.wait(1)
    assert drawn.state.request_status.tolist() == [EXPIRED, PENDING]


@pytest.mark.parametrize("lifetime", [1, 4, 8])
def test_an_allocation_is_torn_down_at_the_end_of_its_last_slot(lifetime: int) -> None:
    drawn = draw(time_to_live=0.25 * lifetime)
    drawn.world.emit(0.0)
    drawn.wait(3)
    command = np.zeros(3)
    command[0] = drawn.action(FAR, 1)
    drawn.simulator.step(command)  # admitted in slot 3
    for _ in range(lifetime - 1):
        assert drawn.state.alloc_peer[0, 0] == FAR
        drawn.wait()
    assert drawn.state.slot[0] == 3 + lifetime
    assert drawn.state.alloc_peer[0, 0] == -1
    assert drawn.tally(Tally.EXPIRED_ALLOCATIONS) == (1,)


@pytest.mark.parametrize(("slot", "stored"), [(9, 1), (10, 1), (11, 0)])
def test_a_pair_can_be_finished_in_the_last_slot_of_its_allocation(slot: int, stored: int) -> None:
    drawn = draw(memory=8)
    drawn.world.emit(0.0)
    drawn.wait(3)
    drawn.open(0, NEAR, since=3)  # acts in slots 3 to 10
    drawn.wait(slot - 3)
    drawn.world.emit([500.0, 0.0, 0.0])
    drawn.wait()
    assert drawn.state.stock_count[0] == stored


def test_an_allocation_at_the_end_of_its_time_frees_its_memory_and_loses_what_it_holds() -> None:
    drawn = draw()
    drawn.open(0, FAR, quality=2, since=0, links=[(0, 0.9), (1, 0.8)])
    drawn.open(0, NEAR, since=1)
    drawn.at(7)
    assert drawn.play(Phase.AGE) == CLOSED | {
        "free_memory": {0: 7, 1: 7, 2: 8},
        "age_order": {0: 1},
        "num_open": 1,
        "tally": {"EXPIRED_ALLOCATIONS": 1, "TIMED_OUT": 2},
    }


def test_the_prompting_request_may_expire_and_the_pair_is_stored() -> None:
    drawn = draw(requests=[(0, 0, NEAR, LOWEST, 1)])
    drawn.world.emit(0.0)
    drawn.open(0, NEAR, since=0)
    drawn.wait(2)
    drawn.world.emit([500.0, 0.0, 0.0])
    drawn.wait()
    assert drawn.state.request_status[0] == EXPIRED
    assert drawn.state.stock_count[0] == 1


def test_links_fail_and_recover_by_the_slots_draws() -> None:
    drawn = draw([(0, i) for i in range(1, 41)], {0: [1]}, outages={"mean_up": 1.0, "mean_down": 0.5})
    fails, recovers = 0.25 / 1.0, 0.25 / 0.5
    seen = set()
    for slot in range(12):
        drawn.at(slot)
        u = [drawn.draw("outage", OUTAGE, link) for link in range(40)]
        up = drawn.state.link_up.tolist()
        drawn.play(Phase.AGE)
        after = [int(u >= fails) if was else int(u < recovers) for was, u in zip(up, u, strict=True)]
        assert drawn.state.link_up.tolist() == after
        seen |= set(zip(up, after, strict=True))
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_links_start_up_or_down_as_in_the_long_run() -> None:
    drawn = draw([(0, i) for i in range(1, 401)], {0: [1]}, outages={"mean_up": 3.0, "mean_down": 1.0})
    assert drawn.state.link_up.mean() == pytest.approx(0.75, abs=0.08)
    drawn.at(-1)  # draws that no slot uses again
    u = [drawn.draw("outage", OUTAGE, link) for link in range(400)]
    assert drawn.state.link_up.tolist() == [int(x >= 0.25) for x in u]


def test_without_outages_links_stay_up() -> None:
    drawn = draw()
    drawn.wait(20)
    assert drawn.state.link_up.tolist() == [1, 1]
