"""Phase 3: sources offer their pairs in rounds; a fresh pair fills an empty link or purifies an aged one."""

from __future__ import annotations

import pytest
from scipy.stats import poisson

from dpem_env.physics import fidelity_from_werner
from dpem_env.simulator.randomness import EMISSION, PURIFICATION, TRANSMISSION
from dpem_env.simulator.state import Tally

from .hand_drawn import HandDrawn, Phase, draw

FAR, NEAR = 0, 1
SPOKES = [(0, 1), (0, 2), (0, 3)]


def hub(**fields: object) -> HandDrawn:
    """Hub 0 feeds the links to its leaves 1, 2 and 3; everybody talks to the next."""
    rates = [9.0, 1.0, 1.0, 1.0]
    return draw(SPOKES, {0: [1, 2, 3], 1: [0], 2: [0], 3: [0]}, generation_rate=rates, **fields)  # type: ignore[arg-type]


def test_pairs_that_nobody_claims_are_lost() -> None:
    drawn = hub()
    drawn.emit(n0=3, n1=2)
    assert drawn.play(Phase.GENERATE) == {"tally": {"EMITTED": 5, "UNCLAIMED": 5}}


def test_one_pair_completes_a_link_and_the_rest_is_unclaimed() -> None:
    drawn = hub(link_fidelity=0.98)
    drawn.open(1, 0)
    drawn.emit(n0=3)
    assert drawn.play(Phase.GENERATE) == {
        "alloc_complete": {(1, 0): 1},
        "link_rounds": {(1, 0, 0): 0},
        "link_hops": {(1, 0, 0): 1},
        "link_werner": {(1, 0, 0): pytest.approx((4 * 0.98 - 1) / 3)},
        "link_slot": {(1, 0, 0): 0},
        "tally": {"EMITTED": 3, "UNCLAIMED": 2},
    }


def test_a_link_is_fed_by_the_end_with_the_larger_rate() -> None:
    drawn = hub()
    drawn.open(1, 0)
    drawn.emit(n1=4)
    assert drawn.play(Phase.GENERATE) == {"tally": {"EMITTED": 4, "UNCLAIMED": 4}}


@pytest.mark.parametrize("slot", [0, 1, 2, 3, 399])
@pytest.mark.parametrize("claimed", [False, True])
def test_the_number_emitted_is_the_slots_poisson_count_whoever_claims(slot: int, claimed: bool) -> None:
    drawn = hub(slot_duration=0.5)
    drawn.at(slot)
    if claimed:
        drawn.open(1, 0)
    rates = [9.0, 1.0, 1.0, 1.0]
    counts = [poisson.ppf(drawn.draw("emission", EMISSION, i), rates[i] * 0.5) for i in range(4)]
    drawn.play(Phase.GENERATE)
    assert drawn.tally(Tally.EMITTED) == (sum(counts),)


@pytest.mark.parametrize(("emitted", "rounds"), [(1, (0, -1)), (2, (0, 0)), (3, (1, 0)), (4, (1, 1)), (9, (1, 1))])
def test_no_link_is_offered_a_second_pair_before_each_has_had_one(emitted: int, rounds: tuple[int, int]) -> None:
    drawn = hub()
    drawn.open(2, 0, quality=2)  # the older allocation comes first in every round
    drawn.open(1, 0, quality=2)
    drawn.emit(n0=emitted)
    drawn.play(Phase.GENERATE)
    assert (drawn.state.link_rounds[2, 0, 0], drawn.state.link_rounds[1, 0, 0]) == rounds


def test_a_completed_link_leaves_the_next_rounds_to_the_others() -> None:
    drawn = hub()
    drawn.open(2, 0, quality=1)
    drawn.open(1, 0, quality=3)
    drawn.emit(n0=4)
    assert drawn.play(Phase.GENERATE) == {
        "alloc_complete": {(2, 0): 1, (1, 0): 1},
        "link_rounds": {(2, 0, 0): 0, (1, 0, 0): 2},
        "link_hops": {(2, 0, 0): 1, (1, 0, 0): 1},
        "link_werner": {(2, 0, 0): 1.0, (1, 0, 0): 1.0},
        "link_slot": {(2, 0, 0): 0, (1, 0, 0): 0},
        "tally": {"COLLIDED_SOURCES": 1, "EMITTED": 4, "PURIFIED_AWAY": 2},
    }


@pytest.mark.parametrize(("owner", "first"), [(0, 0), (2, 1)])
def test_links_of_one_allocation_are_offered_pairs_in_hop_order_from_its_owner(owner: int, first: int) -> None:
    drawn = draw(generation_rate=[1.0, 9.0, 1.0])
    drawn.open(owner, FAR)
    drawn.emit(n1=1)
    assert drawn.play(Phase.GENERATE)["link_rounds"] == {(owner, 0, 0): 0}
    assert drawn.world.route_links[owner, FAR, 0, 0] == first


def test_a_complete_link_takes_no_pair() -> None:
    drawn = draw(generation_rate=[1.0, 9.0, 1.0])
    drawn.open(0, FAR, quality=2, links=[(1, 0.9), (0, 0.8)])
    drawn.emit(n1=1)
    changed = drawn.play(Phase.GENERATE)
    assert changed["link_rounds"] == {(0, 0, 1): 1}
    assert changed["alloc_complete"] == {(0, 0): 2}


def test_a_pair_is_lost_in_the_fibre_and_the_next_arrives() -> None:
    drawn = hub(attenuation=0.3)  # 10 km: half of the pairs arrive
    drawn.open(1, 0)
    half = 10 ** (-0.3 * 10 / 10)
    drawn.seek_outcomes(
        lambda: (
            drawn.draw("outcome", TRANSMISSION, 1, attempt=0) >= half
            and drawn.draw("outcome", TRANSMISSION, 1, attempt=1) < half
        )
    )
    drawn.emit(n0=3)
    assert drawn.play(Phase.GENERATE) == {
        "alloc_complete": {(1, 0): 1},
        "link_rounds": {(1, 0, 0): 0},
        "link_hops": {(1, 0, 0): 1},
        "link_werner": {(1, 0, 0): 1.0},
        "link_slot": {(1, 0, 0): 0},
        "tally": {"EMITTED": 3, "LOST_IN_FIBRE": 1, "UNCLAIMED": 1},
    }


def test_an_opaque_fibre_loses_every_pair_offered() -> None:
    drawn = hub()
    drawn.world.link_transmission[:] = 0.0
    drawn.open(1, 0)
    drawn.emit(n0=4)
    assert drawn.play(Phase.GENERATE) == {"tally": {"EMITTED": 4, "LOST_IN_FIBRE": 4}}


def fidelity_after_bbpssw(aged: float, fresh: float, gate: float, m: float) -> tuple[float, float]:
    """Success probability and fidelity of one BBPSSW round on two Werner pairs (PRL 76, 722, eq. 7).

    Of two ideal CNOTs and two readouts with probability m: an even number of wrong reports keeps what an ideal round
    would keep, an odd number what it would throw away. A lost CNOT leaves every outcome equally likely.
    """
    bad, worse = (1 - aged) / 3, (1 - fresh) / 3
    success = aged * fresh + aged * worse + bad * fresh + 5 * bad * worse
    kept, thrown_away = aged * fresh + bad * worse, aged * worse + bad * worse  # pairs that are Bell pairs afterwards
    right = m**2 + (1 - m) ** 2
    lost = 1 - gate**2
    kept = gate**2 * (right * kept + (1 - right) * thrown_away) + lost / 2 / 4
    success = gate**2 * (right * success + (1 - right) * (1 - success)) + lost / 2
    return success, kept / success


def aged_link(succeeds: bool, quality: int = 2, gates: str = "ideal") -> tuple[HandDrawn, float]:
    """A link of w = 0.6 about to be pumped with a fresh pair of fidelity 0.9; and the fidelity after success."""
    drawn = hub(link_fidelity=0.9, purification_gates=gates, gate_fidelity=0.95, readout_fidelity=0.9)
    drawn.open(1, 0, quality=quality, links=[0.6])
    noise = (0.95, 0.9) if gates == "noisy" else (1.0, 1.0)
    success, fidelity = fidelity_after_bbpssw(fidelity_from_werner(0.6), 0.9, *noise)
    drawn.seek_outcomes(lambda: (drawn.draw("outcome", PURIFICATION, 1) < success) == succeeds)
    return drawn, fidelity


@pytest.mark.parametrize("gates", ["ideal", "noisy"])
def test_pumping_that_succeeds_spends_the_fresh_pair_and_adds_a_round(gates: str) -> None:
    drawn, fidelity = aged_link(succeeds=True, gates=gates)
    drawn.emit(n0=1)
    assert drawn.play(Phase.GENERATE) == {
        "alloc_complete": {(1, 0): 1},
        "link_rounds": {(1, 0, 0): 1},
        "link_werner": {(1, 0, 0): pytest.approx((4 * fidelity - 1) / 3)},
        "tally": {"EMITTED": 1, "PURIFIED_AWAY": 1},
    }


@pytest.mark.parametrize("gates", ["ideal", "noisy"])
def test_pumping_that_fails_empties_the_link(gates: str) -> None:
    drawn, _ = aged_link(succeeds=False, gates=gates)
    drawn.emit(n0=1)
    assert drawn.play(Phase.GENERATE) == {
        "link_rounds": {(1, 0, 0): -1},
        "link_hops": {(1, 0, 0): 0},
        "link_werner": {(1, 0, 0): 0.0},
        "link_slot": {(1, 0, 0): -1},
        "tally": {"EMITTED": 1, "PURIFIED_AWAY": 2},
    }


def test_an_emptied_link_is_filled_again_in_the_next_round() -> None:
    drawn, _ = aged_link(succeeds=False, quality=3)
    drawn.emit(n0=2)
    assert drawn.play(Phase.GENERATE) == {
        "link_werner": {(1, 0, 0): pytest.approx((4 * 0.9 - 1) / 3)},
        "tally": {"EMITTED": 2, "PURIFIED_AWAY": 2},
    }


@pytest.mark.parametrize("quality", [1, 2, 3])
def test_a_link_is_complete_with_one_round_less_than_its_quality(quality: int) -> None:
    for emitted in range(1, 5):
        drawn = hub()
        drawn.open(1, 0, quality=quality)
        drawn.emit(n0=emitted)
        drawn.play(Phase.GENERATE)
        assert drawn.state.alloc_complete[1, 0] == (emitted >= quality)
        assert drawn.state.link_rounds[1, 0, 0] == min(emitted, quality) - 1


def test_a_down_link_gets_no_pair_and_keeps_what_it_holds() -> None:
    drawn = hub()
    drawn.open(1, 0, quality=2, links=[0.7])
    drawn.open(2, 0)
    drawn.state.link_up[0] = 0  # 0-1
    drawn.emit(n0=2)
    assert drawn.play(Phase.GENERATE) == {
        "alloc_complete": {(2, 0): 1},
        "link_rounds": {(2, 0, 0): 0},
        "link_hops": {(2, 0, 0): 1},
        "link_werner": {(2, 0, 0): 1.0},
        "link_slot": {(2, 0, 0): 0},
        "tally": {"EMITTED": 2, "UNCLAIMED": 1},
    }
