"""Snapshots of the network: when they are taken, when they can be read and what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phases import Look

from .hand_drawn import HandDrawn, draw

FAR, NEAR = 0, 1


def chain(**fields: Any) -> HandDrawn:
    """Node 1 feeds both links and relays between nodes 0 and 2; sources are silent."""
    drawn = draw(**{"generation_rate": [1.0, 4.0, 1.0], "swap_rate": 2.0, "memory": 10} | fields)
    drawn.world.emit(0.0)
    return drawn


def test_a_snapshot_is_taken_every_second_and_can_be_read_two_slots_later() -> None:
    drawn = chain()
    seen = []
    for _ in range(12):
        seen.append(drawn.state.seen_slot[0])
        drawn.wait()
    # The first, taken before slot 0, counts as slot -1; -2 is none.
    assert seen == [-2, -1, -1, -1, -1, 3, 3, 3, 3, 7, 7, 7]


@pytest.mark.parametrize(
    ("period", "delay", "expected"),
    [(0.5, 1, [-1, -1, 1, 1, 3, 3]), (0.5, 2, [-2, -1, -1, 1, 1, 3]), (1.0, 4, [-2, -2, -2, -1, -1, -1, -1, 3])],
)
def test_period_and_delay_are_the_scenarios(period: float, delay: int, expected: list[int]) -> None:
    drawn = chain(telemetry_period=period, telemetry_delay=delay)
    seen = []
    for _ in expected:
        seen.append(int(drawn.state.seen_slot[0]))
        drawn.wait()
    assert seen == expected


@pytest.mark.parametrize(
    ("period", "delay", "expected"),
    [
        (0.25, None, [-1, 0, 1, 2, 3, 4, 5]),  # known in every slot: the end of the last one
        (0.25, 0.75, [-2, -2, -1, 0, 1, 2, 3]),
        (0.5, 0.75, [-2, -2, -1, -1, 1, 1, 3]),  # two readings on their way
        (1.0, 0.25, [-1, -1, -1, -1, 3, 3, 3]),
    ],
)
def test_readings_of_routes_have_a_period_and_a_delay_of_their_own(
    period: float, delay: float | None, expected: list[int]
) -> None:
    drawn = chain(news_period=period, news_delay=delay)
    known = []
    for _ in expected:
        known.append(int(drawn.state.seen_slot[0]))
        drawn.wait()
    assert known == expected


def test_a_reading_holds_what_nodes_answer_and_the_last_ones_are_kept() -> None:
    drawn = chain(news_period=0.5, news_delay=0.75, memory=10)
    drawn.wait()
    drawn.open(0, FAR, since=1, links=[None, 1.0])
    drawn.state.link_up[1] = 0
    drawn.wait(1)  # a reading is taken after slot 1, and known from slot 4 on
    assert drawn.state.read_memory.shape[0] == 3
    assert drawn.state.read_memory.tolist() == [[10, 10, 10], [9, 8, 9], [0, 0, 0]]
    assert drawn.state.read_link_up.tolist() == [[1, 1], [1, 0], [0, 0]]
    taken = drawn.state.read_allocations[1]
    assert taken[0, 0].tolist() == [FAR, 0, 0b01, 0b10, 0]  # link 0 asks for a pair, relay 1 has yet to swap
    assert (taken[..., 0] >= 0).sum() == 1


def test_without_news_no_reading_is_kept() -> None:
    assert chain(news_period=None).state.read_allocations.size == 0


@pytest.mark.parametrize(("opened", "first_seen"), [(3, 5), (4, 9), (7, 9)])
def test_nothing_is_seen_before_its_snapshot_is_readable(opened: int, first_seen: int) -> None:
    drawn = chain(time_to_live=10.0)
    for slot in range(12):
        assert (drawn.state.seen_load[0, FAR] > 0) == (slot >= first_seen)
        if slot == opened:
            drawn.open(0, FAR, since=slot)
        drawn.wait()


def test_a_snapshot_is_taken_after_phase_6() -> None:
    drawn = chain()
    drawn.open(0, FAR, since=-4)  # torn down at the end of slot 3
    drawn.wait(5)
    assert drawn.state.seen_slot[0] == 3
    assert np.all(drawn.state.seen_load == 0.0)


def test_a_snapshot_holds_the_first_route_whose_links_are_up() -> None:
    drawn = draw([(0, 1), (1, 3), (0, 2), (2, 3)], {0: [3, 1], 3: [0]}, routes_per_peer=2)
    drawn.state.link_up[1] = 0  # 1-3
    drawn.at(3)
    assert drawn.play(Look.SNAPSHOT) == {
        "flying_slot": 3,
        "flying_route": {(0, 0): 1, (3, 0): 1},
    }
    assert drawn.state.flying_up[[0, 0, 3, 3], [0, 1, 0, 1]].tolist() == [1, 1, 1, 0]  # node 3 has one peer


def test_with_every_route_down_a_snapshot_holds_the_cheapest() -> None:
    drawn = draw([(0, 1), (1, 3), (0, 2), (2, 3)], {0: [3, 1], 3: [0]}, routes_per_peer=2)
    drawn.state.link_up[[1, 3]] = 0
    drawn.at(3)
    assert drawn.play(Look.SNAPSHOT) == {"flying_slot": 3, "flying_up": {(0, 0): 0, (3, 0): 0}}


def load_after(drawn: HandDrawn, i: int, d: int) -> float:
    drawn.play(Look.SNAPSHOT)
    return float(drawn.state.flying_load[i, d])


def test_a_source_is_loaded_by_its_incomplete_links() -> None:
    drawn = chain(memory=1000, swap_rate=1e6)
    drawn.open(0, FAR, quality=2, links=[(1, 0.9), (0, 0.9)])
    drawn.open(2, NEAR)
    assert load_after(drawn, 0, FAR) == pytest.approx(2 / (4.0 * 2.0))  # rate times time-to-live


def test_a_swap_engine_is_loaded_by_the_allocations_it_relays() -> None:
    drawn = chain(memory=1000)
    drawn.open(0, FAR, links=[1.0, 1.0])
    drawn.open(2, FAR, links=[1.0, 1.0])
    drawn.open(2, NEAR, links=[1.0])  # ends at the relay
    drawn.open(1, 0, links=[1.0])  # starts there
    assert load_after(drawn, 0, FAR) == pytest.approx(2 / (2.0 * 2.0))


def test_a_relays_swap_engine_does_not_load_a_route_that_ends_there() -> None:
    drawn = chain(memory=1000)
    drawn.open(2, FAR, links=[1.0, 1.0])
    assert load_after(drawn, 0, NEAR) == pytest.approx(2 / 1000)  # its memory does


def test_a_memory_is_loaded_by_the_share_in_use() -> None:
    drawn = chain(memory=[10, 100, 100])
    for _ in range(3):
        drawn.store(0, NEAR, 0.9)
    assert load_after(drawn, 0, FAR) == pytest.approx(0.3)
    assert load_after(drawn, 1, 1) == pytest.approx(0.03)


def test_a_load_is_at_most_one() -> None:
    drawn = chain(memory=1000, generation_rate=[0.1, 0.2, 0.1])
    drawn.open(0, FAR)
    assert load_after(drawn, 0, FAR) == 1.0


@pytest.mark.parametrize("useless", [{"generation_rate": 0.0}, {"swap_rate": 0.0}])
def test_a_claimed_resource_that_does_nothing_is_fully_loaded(useless: dict[str, float]) -> None:
    drawn = chain(memory=1000, **useless)
    assert load_after(drawn, 0, FAR) == 0.0
    drawn.open(0, FAR, links=[None if "generation_rate" in useless else 1.0] * 2)
    assert load_after(drawn, 0, FAR) == 1.0
