"""The hub of a star that swaps what two leaves have stored with it: hand-drawn states, and the next ones."""

from __future__ import annotations

from typing import Any

import pytest

from dpem_env.envs.session import Session
from dpem_env.network.network import build_network
from dpem_env.scenarios import get
from dpem_env.simulator import Tally
from dpem_env.support.errors import ScenarioError

from .hand_drawn import HandDrawn, Phase, draw

STAR = ((0, 1), (0, 2), (0, 3))
PEERS = {1: (0, 2, 3), 2: (0, 3), 3: (0,)}  # the hub in the first place
ONE_TO_TWO, ONE_TO_THREE, TWO_TO_THREE = (0, 1, 1, 0, 3), (0, 1, 2, 0, 3), (0, 2, 1, 0, 3)


def switch(*requests: tuple[int, int, int, int, int], **fields: Any) -> HandDrawn:
    """A star of three leaves whose hub has tokens to spare."""
    drawn = draw(STAR, PEERS, requests=requests, **{"generator": "star", "nodes": 4, "switch": True} | fields)
    drawn.state.tokens[0] = 2.0
    return drawn


def test_two_stored_pairs_become_one_for_a_request_between_their_leaves() -> None:
    drawn = switch(ONE_TO_TWO)
    drawn.store(1, 0, 0.95)
    drawn.store(2, 0, 0.96)
    changed = drawn.play(Phase.DELIVER)
    assert changed["stock_count"] == {1: 0, 2: 0}
    assert changed["free_memory"] == {0: 8, 1: 8, 2: 8}
    assert changed["delivered"] == {1: 1}
    assert changed["tokens"] == {0: 1.0}
    assert changed["request_status"] == {0: 0}
    assert changed["request_werner"] == {0: pytest.approx(0.95 * 0.96)}
    assert changed["request_from_stock"] == {0: 1}
    assert changed["tally"] == {"DELIVERED": 1, "FROM_STOCK": 1, "DELIVERED_ELEMENTARY": 2, "SWAPS": 1}


@pytest.mark.parametrize("stored", [(1, 1), (1,), (1, 3), (3, 3)])
def test_it_waits_for_a_pair_of_either_leaf(stored: tuple[int, ...]) -> None:
    drawn = switch(ONE_TO_TWO)
    for leaf in stored:
        drawn.store(leaf, 0, 1.0)
    assert drawn.play(Phase.DELIVER) == {}


def test_it_does_nothing_without_a_request_without_a_token_and_where_it_is_no_switch() -> None:
    unasked, spent, relay = switch(), switch(ONE_TO_TWO), switch(ONE_TO_TWO, switch=False)
    spent.state.tokens[0] = 0.9
    for drawn in (unasked, spent, relay):
        drawn.store(1, 0, 1.0)
        drawn.store(2, 0, 1.0)
        assert drawn.play(Phase.DELIVER) == {}


def test_the_weakest_pairs_go_first_which_of_equal_links_are_the_oldest() -> None:
    drawn = switch(ONE_TO_TWO, ONE_TO_THREE, TWO_TO_THREE)
    drawn.state.tokens[0] = 1.0
    drawn.store(1, 0, 1.0)
    drawn.store(2, 0, 0.99)
    drawn.store(3, 0, 0.98)
    drawn.store(3, 0, 1.0)
    changed = drawn.play(Phase.DELIVER)
    assert changed["request_werner"] == {2: pytest.approx(0.99 * 0.98)}
    assert drawn.state.stock_werner[3, 0] == 1.0


def test_of_pairs_that_are_too_weak_it_takes_better_ones_or_none() -> None:
    drawn = switch((0, 1, 1, 2, 3))  # wants a fidelity of 0.9
    drawn.store(1, 0, 0.80)
    drawn.store(2, 0, 0.99)
    assert drawn.play(Phase.DELIVER) == {}
    drawn.store(1, 0, 0.98)
    assert drawn.play(Phase.DELIVER)["request_werner"] == {0: pytest.approx(0.98 * 0.99)}
    assert drawn.state.stock_werner[1, 0] == 0.80


def test_a_swap_that_fails_loses_both_pairs_and_its_token_and_the_request_waits_on() -> None:
    drawn = switch(ONE_TO_TWO, swap_success=0.0)
    drawn.store(1, 0, 1.0)
    drawn.store(2, 0, 1.0)
    changed = drawn.play(Phase.DELIVER)
    assert changed["stock_count"] == {1: 0, 2: 0}
    assert changed["tally"] == {"SWAPPED_AWAY": 2, "SWAPS": 1}
    assert drawn.state.pending[1, 1, 0] == 1


def test_a_switch_needs_a_star() -> None:
    with pytest.raises(ScenarioError, match=r'control.switch needs network.generator = "star"; found \'chain\'$'):
        get("chain3-v0", switch=True)


def test_in_the_shipped_switch_any_two_users_want_a_pair_in_every_slot_and_all_are_next_to_the_hub() -> None:
    scenario = get("switch8-v0", slots=5)
    network = build_network(scenario, 0)
    assert (network.peers[1:, 0] == 0).all()
    assert network.weights[:, 0].sum() == 0.0
    session = Session(scenario)
    session.reset(0)
    requests = session.simulator.episodes[0].demand.requests  # type: ignore[union-attr]
    pairs = {(i, int(network.peers[i, d])) for i, d in zip(requests.source, requests.peer, strict=True)}
    assert pairs == {(i, j) for i in range(1, 9) for j in range(i + 1, 9)}
    assert len(requests.slot) == 5 * len(pairs)
    while not session.done:
        session.step([0] * 9)
    assert session.simulator.tally(Tally.EXPIRED)[0] == 5 * len(pairs)
