"""Swapping as soon as possible: runs of swaps, tokens relay by relay, ages and cutoffs, links made again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_env.scenarios import get
from dpem_env.simulator.randomness import SWAP
from dpem_env.simulator.state import Tally
from dpem_env.support.errors import ScenarioError
from phases import Look

from .hand_drawn import Changes, HandDrawn, Hop, Phase, Segment, draw
from .test_swap import finished

NOW = 20  # slot


def line(links: list[Hop], quality: int = 1, **fields: Any) -> HandDrawn:
    """An allocation along a line of nodes from 0 to the last, and a token at every node, which saves up no more."""
    end = len(links)
    given = {"swap_rate": 0.0, "swapping": "asap"} | fields
    drawn = draw([(h, h + 1) for h in range(end)], {0: [end], end: [0]}, **given)
    drawn.at(NOW)
    drawn.open(0, 0, quality=quality, since=NOW, links=links)
    drawn.state.tokens[:] = 1.0
    return drawn


def held(drawn: HandDrawn) -> list[Segment | None]:
    """What the allocation holds, by hop."""
    state = drawn.state
    columns = (state.link_werner, state.link_hops, state.slot[0] - state.link_slot, state.link_rounds)
    hops = drawn.world.route_hops[0, 0, 0]
    found = [Segment(*(column[0, 0, h].item() for column in columns)) for h in range(hops)]
    return [segment if segment.hops else None for segment in found]


def swaps_succeed(drawn: HandDrawn, *succeeding: bool) -> None:
    """Let swaps at relays 1, 2 and 3 come out like this where they are tried, at even odds."""
    drawn.seek_outcomes(
        lambda: [drawn.draw("outcome", SWAP, 0, hop=h) < 0.5 for h in (1, 2, 3)] == [*succeeding],
    )


def at(hop: int, value: float) -> dict[tuple[int, int, int], float]:
    return {(0, 0, hop): value}


def test_a_relay_swaps_before_the_other_links_are_there() -> None:
    drawn = line([Segment(0.9, age=3), Segment(0.8, age=5), None, None], gate_fidelity=0.99)
    assert drawn.play(Phase.SWAP) == {
        "tokens": {1: 0.0},
        "link_rounds": at(1, -1),
        "link_hops": at(0, 2) | at(1, 0),
        "link_werner": at(0, pytest.approx(0.9 * 0.8 * 0.99)) | at(1, 0.0),
        "link_slot": at(0, NOW - 5) | at(1, -1),
        "tally": {"SWAPS": 1},
    }
    assert finished(drawn) == [-1.0]


def test_a_failed_swap_loses_its_run_and_leaves_the_rest_of_the_route() -> None:
    drawn = line([Segment(0.9, age=2), 0.8, None, Segment(0.7, age=1)], swap_success=0.0)
    assert drawn.play(Phase.SWAP) == {
        "tokens": {1: 0.0},
        "alloc_complete": {(0, 0): 1},
        "link_rounds": at(0, -1) | at(1, -1),
        "link_hops": at(0, 0) | at(1, 0),
        "link_werner": at(0, 0.0) | at(1, 0.0),
        "link_slot": at(0, -1) | at(1, -1),
        "tally": {"SWAPS": 1, "SWAPPED_AWAY": 2},
    }


@pytest.mark.parametrize("outcomes", [(True, False, True), (False, True, True), (True, True, False), (False,) * 3])
def test_one_failure_loses_the_whole_run(outcomes: tuple[bool, bool, bool]) -> None:
    drawn = line([1.0] * 4, swap_success=0.5)
    swaps_succeed(drawn, *outcomes)
    changed = drawn.play(Phase.SWAP)
    assert changed["tally"] == {"SWAPS": 3, "SWAPPED_AWAY": 4}
    assert held(drawn) == [None] * 4
    assert drawn.state.alloc_complete[0, 0] == 0
    assert finished(drawn) == [-1.0]


def test_a_run_that_spans_the_route_finishes_the_pair() -> None:
    drawn = line([Segment(0.9), Segment(0.8, hops=2), None, Segment(0.7)], readout_fidelity=0.98)
    assert drawn.play(Phase.SWAP) == {"tokens": {1: 0.0, 3: 0.0}, "tally": {"SWAPS": 2}}
    one_swap = (4 * 0.98**2 - 1) / 3
    assert finished(drawn) == [pytest.approx(0.9 * 0.8 * 0.7 * one_swap**2)]


@pytest.mark.parametrize("lost", [True, False])
def test_a_relay_without_a_token_parts_two_runs(lost: bool) -> None:
    drawn = line([1.0, 1.0, 1.0, 1.0], swap_success=0.5)
    drawn.state.tokens[2] = 0.9
    swaps_succeed(drawn, not lost, False, True)
    changed = drawn.play(Phase.SWAP)
    assert changed["tokens"] == {1: 0.0, 3: 0.0}
    assert changed["tally"] == {"SWAPS": 2} | ({"SWAPPED_AWAY": 2} if lost else {})
    joined = Segment(1.0, hops=2, rounds=0)
    assert held(drawn) == [None if lost else joined, None, joined, None]


def test_swaps_are_decided_on_what_generation_left() -> None:
    """Relay 2 has a pair on one side only until relay 1 has swapped; in this slot it does not swap any more."""
    drawn = line([1.0, 1.0, None, None])
    drawn.play(Phase.SWAP)
    assert held(drawn)[0] == Segment(1.0, hops=2, rounds=0)
    drawn.hold(0, 0, 2, Segment())
    assert drawn.play(Phase.SWAP)["tokens"] == {2: 0.0}
    assert held(drawn) == [Segment(1.0, hops=3, rounds=0), None, None, None]


def test_links_are_pumped_to_their_quality_before_they_are_swapped() -> None:
    drawn = line([(1, 0.9), (0, 0.9), (1, 0.9), None], quality=2)
    assert drawn.play(Phase.SWAP) == {}
    drawn.hold(0, 0, 1, Segment(0.95))
    drawn.play(Phase.SWAP)
    assert held(drawn) == [Segment(pytest.approx(0.9 * 0.95 * 0.9), hops=3, rounds=1), None, None, None]


# ------------------------------------------------------------------------------------------- tokens and contention


def rivals(tokens: float, links: tuple[list[Hop], list[Hop]]) -> tuple[HandDrawn, Changes]:
    """Allocations of nodes 0 and 4 to each other, the first one older, and what swapping changed."""
    drawn = line(links[0])
    drawn.open(4, 0, links=links[1])
    drawn.state.tokens[1:4] = tokens
    return drawn, drawn.play(Phase.SWAP)


def test_the_oldest_allocation_takes_the_last_token_relay_by_relay() -> None:
    drawn, changed = rivals(1.0, ([1.0, 1.0, None, None], [1.0, 1.0, 1.0, 1.0]))  # the second over relays 3, 2, 1
    assert changed["tokens"] == {1: 0.0, 2: 0.0, 3: 0.0}
    assert drawn.state.link_hops[4, 0, :4].tolist() == [3, 0, 0, 1]  # its swap at relay 1 found no token
    assert changed["tally"] == {"SWAPS": 3, "COLLIDED_SWAPS": 1, "CONTENDED_SWAPS": 1}
    assert changed["contended"] == {0: 1, 4: 1}


def test_a_relay_with_a_pair_on_one_side_is_not_claimed() -> None:
    _, changed = rivals(1.0, ([1.0, 1.0, None, None], [1.0, 1.0, 1.0, None]))
    assert changed["tally"] == {"SWAPS": 3}
    assert "contended" not in changed


def test_a_swap_blocked_without_a_rival_is_no_contention() -> None:
    drawn, changed = rivals(0.0, ([1.0, 1.0, None, None], [1.0, 1.0, None, None]))
    assert changed == {}
    assert finished(drawn) == [-1.0, -1.0]


# ------------------------------------------------------------------------------------------------ ages and cutoffs


def test_a_segment_decays_by_the_memories_of_its_ends() -> None:
    drawn = line(
        [Segment(0.9, hops=2, age=4), None, 0.8, None], coherence_time=[10.0, 1.0, 20.0, 40.0, 5.0], slot_duration=0.5
    )
    assert drawn.play(Phase.AGE) == {
        "link_werner": at(0, pytest.approx(0.9 * np.exp(-0.5 / 10 - 0.5 / 20)))
        | at(2, pytest.approx(0.8 * np.exp(-0.5 / 20 - 0.5 / 40))),
    }


def test_what_is_older_than_the_cutoff_is_discarded() -> None:
    drawn = line([Segment(hops=2, age=3), None, Segment(age=2), Segment(age=1)], cutoff=3)
    assert drawn.play(Phase.AGE) == {
        "alloc_complete": {(0, 0): 2},
        "link_rounds": at(0, -1),
        "link_hops": at(0, 0),
        "link_werner": at(0, 0.0),
        "link_slot": at(0, -1),
        "tally": {"CUT_OFF": 2},
    }


@pytest.mark.parametrize("swapping", ["all", "asap"])
def test_links_that_are_still_pumped_are_cut_off_too(swapping: str) -> None:
    drawn = line([(1, 0.9), None, None, None], quality=3, cutoff=0, swapping=swapping)
    assert drawn.play(Phase.AGE)["tally"] == {"CUT_OFF": 1}
    assert held(drawn) == [None] * 4


def test_a_pair_of_the_age_of_the_cutoff_can_be_swapped_and_delivered() -> None:
    drawn = line([Segment(age=1, hops=2), None, None, None], cutoff=2)
    drawn.play(Phase.AGE)
    drawn.at(NOW + 1)
    drawn.hold(0, 0, 2, Segment(hops=2))
    drawn.play(Phase.SWAP)
    assert finished(drawn) == [1.0]


def test_pumping_keeps_the_age_of_the_older_pair() -> None:
    drawn = line([(0, 1.0), None, None, None], quality=2)
    drawn.state.link_slot[0, 0, 0] = NOW - 3
    drawn.emit(n0=1)
    drawn.play(Phase.GENERATE)
    assert held(drawn)[0] == Segment(1.0, age=3, rounds=1)


# ------------------------------------------------------------------------------------------------ links made again


@pytest.mark.parametrize(("regenerate", "wanted"), [(False, {3}), (True, {1, 3})])
def test_inside_a_longer_segment_links_are_made_again_only_where_both_qubits_are_free(
    regenerate: bool, wanted: set[int]
) -> None:
    drawn = line([Segment(hops=3), None, None, None], regenerate=regenerate)
    drawn.emit(n0=1, n1=1, n2=1, n3=1)
    drawn.play(Phase.GENERATE)
    assert {h for h in range(4) if held(drawn)[h] == Segment(1.0, rounds=0)} == wanted
    assert drawn.state.alloc_complete[0, 0] == 4  # the one inside counts no second time


@pytest.mark.parametrize(("regenerate", "backlog"), [(False, [0, 0, 0, 1, 0]), (True, [0, 1, 0, 1, 0])])
def test_telemetry_counts_the_links_that_ask_for_pairs(regenerate: bool, backlog: list[int]) -> None:
    drawn = line([Segment(hops=3), None, None, None], regenerate=regenerate)
    drawn.play(Look.SNAPSHOT)
    assert drawn.work.source_claims.tolist() == backlog


def test_links_inside_a_longer_segment_swap_with_each_other_alone() -> None:
    outer = Segment(0.5, hops=4, rounds=0)
    drawn = line([outer, 0.9, 0.8, None, None], regenerate=True)
    assert drawn.play(Phase.SWAP)["tokens"] == {2: 0.0}
    assert held(drawn) == [outer, Segment(pytest.approx(0.72), hops=2, rounds=0), None, None, None]
    assert drawn.state.alloc_complete[0, 0] == 4


def test_what_lies_inside_a_lost_segment_stays() -> None:
    inside = Segment(0.9, age=1, rounds=0)
    drawn = line([Segment(hops=3), inside, None, 1.0], regenerate=True, swap_success=0.0)
    assert drawn.play(Phase.SWAP)["tally"] == {"SWAPS": 1, "SWAPPED_AWAY": 4}
    assert held(drawn) == [None, inside, None, None]
    assert drawn.state.alloc_complete[0, 0] == 1


def test_what_lies_inside_the_finished_pair_is_left_over() -> None:
    drawn = line([Segment(hops=3), 1.0, None, 1.0], regenerate=True)
    drawn.play(Phase.SWAP)
    changed = drawn.play(Phase.DELIVER)
    assert changed["tally"] == {"FINISHED": 1, "STORED": 1, "LEFT_OVER": 1}
    assert held(drawn) == [None] * 4
    assert drawn.state.free_memory.tolist() == [7, 8, 8, 8, 7]


def test_memory_stays_reserved_until_the_allocation_closes() -> None:
    drawn = line([1.0, 1.0, None, None])
    assert "free_memory" not in drawn.play(Phase.SWAP)


def test_at_the_end_of_its_time_an_allocation_loses_all_pairs_in_its_segments() -> None:
    drawn = line([Segment(hops=3), 1.0, None, 1.0], regenerate=True)
    drawn.at(NOW + 7)
    assert drawn.play(Phase.AGE)["tally"] == {"EXPIRED_ALLOCATIONS": 1, "TIMED_OUT": 5}


# ------------------------------------------------------------------------------------------------- one try per link


@pytest.mark.parametrize("slot_duration", [0.25, 0.125])
def test_a_bernoulli_source_makes_one_try_for_every_link_that_asks(slot_duration: float) -> None:
    one_try = {"emission": "bernoulli", "generation_rate": 2.0, "relay_generation_rate": 2.0, "attenuation": 0.1}
    drawn = line([None, 1.0, None, None], slot_duration=slot_duration, **one_try)
    drawn.open(4, 0)
    success = 2.0 * slot_duration * 10**-0.1
    assert drawn.world.link_transmission[0].tolist() == pytest.approx([success] * 4)
    tallies = drawn.play(Phase.GENERATE)["tally"]
    arrived = int(drawn.state.link_hops.sum()) - 1
    assert tallies["EMITTED"] == 7 == arrived + tallies["LOST_IN_FIBRE"]
    assert drawn.tally(Tally.UNCLAIMED, Tally.CONTENDED_SOURCES) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"regenerate": True},
            'control: regenerate needs another swapping than "all", with which no swap frees a qubit',
        ),
        ({"swapping": "soon"}, "control.swapping: expected 'all', 'asap', 'nested' or 'agents' (given 'soon')"),
        ({"cutoff": -1}, "control.cutoff: expected at least 0 (given -1)"),
        ({"cutoff": 0.5}, "control.cutoff: expected a whole number (given 0.5)"),
        ({"regenerate": 1}, "control.regenerate: expected true or false (given 1)"),
        ({"emission": "laser"}, "hardware.emission: expected 'poisson' or 'bernoulli' (given 'laser')"),
        (
            {"emission": "bernoulli", "generation_rate": (1.0, 5.0)},
            'hardware.generation_rate = 5.0 pairs/s: with emission "bernoulli" at most one pair per slot of 0.25 s',
        ),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        get("mesh20-v0", swapping="all").override(**fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
