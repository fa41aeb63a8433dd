"""Phase 4: complete allocations swap at every relay or nowhere, oldest first, and pay with tokens."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_env.simulator.randomness import SWAP

from .hand_drawn import HandDrawn, Phase, draw

FAR, NEAR = 0, 1
LINE = [(0, 1), (1, 2), (2, 3)]


def line(**fields: object) -> HandDrawn:
    """Nodes 0-1-2-3; the ends talk to each other over relays 1 and 2, and nobody saves up tokens by himself."""
    return draw(LINE, {0: [3], 3: [0]}, **{"swap_rate": 0.0} | fields)  # type: ignore[arg-type]


def finished(drawn: HandDrawn) -> list[float]:
    """End-to-end w of the open allocations, oldest first; -1 where there is no pair yet."""
    return drawn.work.finished_werner[: drawn.state.num_open[0]].tolist()


def test_every_node_saves_up_tokens_to_the_cap() -> None:
    drawn = draw(swap_rate=[1.0, 4.0, 0.0])
    drawn.state.tokens[:] = [0.5, 1.5, 0.25]
    assert drawn.play(Phase.SWAP) == {"tokens": {0: 0.75, 1: 2.0}}


def test_tokens_start_at_none() -> None:
    assert np.all(draw().state.tokens == 0.0)


def test_a_swap_spends_a_token_at_every_relay_and_multiplies_the_links() -> None:
    drawn = line(gate_fidelity=0.99, readout_fidelity=0.98)
    drawn.open(0, 0, links=[0.9, 0.8, 0.7])
    drawn.state.tokens[:] = [0.0, 1.0, 1.75, 0.0]
    assert drawn.play(Phase.SWAP) == {"tokens": {1: 0.0, 2: 0.75}, "tally": {"SWAPS": 2}}
    one_swap = 0.99 * (4 * 0.98**2 - 1) / 3
    assert finished(drawn) == [pytest.approx(0.9 * 0.8 * 0.7 * one_swap**2)]


def test_this_slots_tokens_can_be_spent() -> None:
    drawn = line(swap_rate=2.0)
    drawn.open(0, 0, links=[1.0, 1.0, 1.0])
    drawn.state.tokens[1:3] = 0.5
    assert drawn.play(Phase.SWAP)["tokens"] == {0: 0.5, 1: 0.0, 2: 0.0, 3: 0.5}
    assert finished(drawn) == [1.0]


@pytest.mark.parametrize("short", [1, 2])
def test_a_relay_without_a_token_blocks_all_and_nothing_is_spent(short: int) -> None:
    drawn = line()
    drawn.open(0, 0, links=[0.9, 0.9, 0.9])
    drawn.state.tokens[:] = 2.0
    drawn.state.tokens[short] = 0.99
    assert drawn.play(Phase.SWAP) == {}
    assert finished(drawn) == [-1.0]


def test_a_failed_swap_spends_the_tokens_and_empties_the_links() -> None:
    drawn = line(swap_success=0.0)
    drawn.open(0, 0, quality=2, links=[(1, 0.9), (1, 0.8), (1, 0.7)])
    drawn.state.tokens[1:3] = 2.0
    assert drawn.play(Phase.SWAP) == {
        "tokens": {1: 1.0, 2: 1.0},
        "alloc_complete": {(0, 0): 0},
        "link_rounds": {(0, 0, h): -1 for h in range(3)},
        "link_hops": {(0, 0, h): 0 for h in range(3)},
        "link_werner": {(0, 0, h): 0.0 for h in range(3)},
        "link_slot": {(0, 0, h): -1 for h in range(3)},
        "tally": {"SWAPS": 2, "SWAPPED_AWAY": 3},
    }
    assert finished(drawn) == [-1.0]


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_one_failure_among_the_relays_is_enough(first: bool, second: bool) -> None:
    drawn = line(swap_success=0.5)
    drawn.open(0, 0, links=[1.0, 1.0, 1.0])
    drawn.state.tokens[1:3] = 1.0
    drawn.seek_outcomes(lambda: [drawn.draw("outcome", SWAP, 0, hop=h) < 0.5 for h in (1, 2)] == [first, second])
    assert drawn.play(Phase.SWAP)["tokens"] == {1: 0.0, 2: 0.0}
    assert finished(drawn) == [1.0 if first and second else -1.0]


def test_after_a_failure_the_allocation_claims_its_sources_again() -> None:
    drawn = line(swap_success=0.0)
    drawn.open(0, 0, links=[1.0, 1.0, 1.0])
    drawn.state.tokens[1:3] = 1.0
    drawn.play(Phase.SWAP)
    drawn.emit(n0=1, n1=1, n2=1)  # equal rates: the lower node of each link emits
    assert drawn.play(Phase.GENERATE)["link_rounds"] == {(0, 0, h): 0 for h in range(3)}


@pytest.mark.parametrize(("older", "younger"), [(0, 2), (2, 0)])
def test_the_oldest_allocation_takes_the_last_token(older: int, younger: int) -> None:
    drawn = draw(swap_rate=0.0)
    drawn.open(older, FAR, links=[0.9, 0.9])
    drawn.open(younger, FAR, links=[0.8, 0.8])
    drawn.state.tokens[1] = 1.5
    assert drawn.play(Phase.SWAP)["tokens"] == {1: 0.5}
    assert finished(drawn) == [pytest.approx(0.81), -1.0]


def test_one_hop_needs_no_token() -> None:
    drawn = draw(swap_rate=0.0)
    drawn.open(0, NEAR, links=[0.7])
    assert drawn.play(Phase.SWAP) == {}
    assert finished(drawn) == [0.7]


@pytest.mark.parametrize("links", [[0.9, None], [None, None], [(0, 0.9), (1, 0.9)]])
def test_an_incomplete_allocation_does_not_swap(links: list[float | tuple[int, float] | None]) -> None:
    drawn = draw(swap_rate=0.0)
    drawn.open(0, FAR, quality=2, links=links)
    drawn.state.tokens[1] = 2.0
    assert drawn.play(Phase.SWAP) == {}
    assert finished(drawn) == [-1.0]
