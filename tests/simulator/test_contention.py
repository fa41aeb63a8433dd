"""What counts as contention and as a collision, and whom it is charged to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_env.simulator.state import Tally

from .hand_drawn import Changes, HandDrawn, Phase, draw

SPOKES = [(0, i) for i in range(1, 6)]
LEAVES = {0: [1, 2], 1: [2, 0], 2: [3, 0], 3: [4, 0], 4: [5, 0], 5: [1, 0]}
NEXT, HUB = 0, 1  # places of a leaf's peers
KINDS = (Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS, Tally.CONTENDED_MEMORIES)
COLLISIONS = (Tally.COLLIDED_SOURCES, Tally.COLLIDED_SWAPS)


def star(**fields: Any) -> HandDrawn:
    """Leaves 1 to 5 around hub 0, which feeds every link; a leaf talks to the next leaf and to the hub."""
    rates = {"generation_rate": [9.0, 1, 1, 1, 1, 1], "swap_rate": 0.0, "memory": 40}
    return draw(SPOKES, LEAVES, **rates | fields)


def contention(changed: Changes) -> tuple[dict[str, int], dict[int, int]]:
    """Contended and collided resources by kind, and what each agent is charged."""
    kinds = {name: count for name, count in changed.get("tally", {}).items() if name.startswith(("CONT", "COLL"))}
    return kinds, changed.get("contended", {})


# ------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("emitted", [0, 1])
def test_a_source_is_contended_when_a_link_of_two_agents_gets_no_pair(emitted: int) -> None:
    drawn = star()
    drawn.open(1, HUB)
    drawn.open(2, HUB)
    drawn.emit(n0=emitted)
    changed = drawn.play(Phase.GENERATE)
    assert contention(changed) == ({"CONTENDED_SOURCES": 1, "COLLIDED_SOURCES": 1}, {1: 1, 2: 1})


def test_a_source_with_a_pair_for_every_link_has_a_collision_and_no_contention() -> None:
    drawn = star()
    drawn.open(1, HUB, quality=3)
    drawn.open(2, HUB, quality=3)
    drawn.emit(n0=2)
    assert contention(drawn.play(Phase.GENERATE)) == ({"COLLIDED_SOURCES": 1}, {})


def test_a_source_that_only_one_agent_waits_for_is_not_contended() -> None:
    drawn = star()
    drawn.open(1, NEXT)
    drawn.open(1, HUB)
    drawn.emit(n0=0)
    assert contention(drawn.play(Phase.GENERATE)) == ({}, {})


def test_a_contended_source_is_charged_once_to_each_agent_however_many_links_it_has_there() -> None:
    drawn = star()
    drawn.open(1, NEXT)
    drawn.open(1, HUB)
    drawn.open(2, NEXT)
    drawn.emit(n0=4)
    changed = drawn.play(Phase.GENERATE)
    assert contention(changed) == ({"CONTENDED_SOURCES": 1, "COLLIDED_SOURCES": 1}, {1: 1, 2: 1})


def test_a_complete_link_claims_no_source() -> None:
    drawn = star()
    drawn.open(1, HUB, links=[1.0])
    drawn.open(2, HUB)
    drawn.emit(n0=0)
    assert contention(drawn.play(Phase.GENERATE)) == ({}, {})


def test_a_source_is_claimed_though_the_link_completes_in_this_slot() -> None:
    drawn = star()
    for leaf in (1, 2, 3):
        drawn.open(leaf, HUB)
    drawn.emit(n0=2)
    changed = drawn.play(Phase.GENERATE)
    assert changed["alloc_complete"] == {(1, 0): 1, (2, 0): 1}
    assert changed["contended"] == {1: 1, 2: 1, 3: 1}


def test_two_contended_sources_are_two_resources() -> None:
    drawn = draw(generation_rate=[9.0, 1.0, 9.0])  # each end feeds its own link
    drawn.open(0, 0)
    drawn.open(2, 0)
    drawn.emit()
    changed = drawn.play(Phase.GENERATE)
    assert contention(changed) == ({"CONTENDED_SOURCES": 2, "COLLIDED_SOURCES": 2}, {0: 2, 2: 2})


# -------------------------------------------------------------------------------------------------- swap engines


def complete(drawn: HandDrawn, *leaves: int) -> HandDrawn:
    for leaf in leaves:
        drawn.open(leaf, NEXT, links=[1.0, 1.0])
    return drawn


def test_a_swap_engine_out_of_tokens_is_contended_and_charged_to_all_that_claim_it() -> None:
    drawn = complete(star(), 1, 3)
    drawn.state.tokens[0] = 1.0
    changed = drawn.play(Phase.SWAP)
    assert contention(changed) == ({"CONTENDED_SWAPS": 1, "COLLIDED_SWAPS": 1}, {1: 1, 3: 1})


def test_a_swap_engine_with_a_token_for_everyone_has_a_collision_and_no_contention() -> None:
    drawn = complete(star(), 1, 3)
    drawn.state.tokens[0] = 2.0
    assert contention(drawn.play(Phase.SWAP)) == ({"COLLIDED_SWAPS": 1}, {})


def test_a_swap_engine_is_counted_once_however_many_allocations_it_blocks() -> None:
    drawn = complete(star(), 1, 2, 3, 3)
    changed = drawn.play(Phase.SWAP)
    assert contention(changed) == ({"CONTENDED_SWAPS": 1, "COLLIDED_SWAPS": 1}, {1: 1, 2: 1, 3: 1})


def test_a_swap_engine_that_blocks_only_one_agents_allocations_is_not_contended() -> None:
    drawn = complete(star(), 1, 1)
    assert contention(drawn.play(Phase.SWAP)) == ({}, {})


def test_an_incomplete_allocation_claims_no_swap_engine() -> None:
    drawn = complete(star(), 1)
    drawn.open(2, NEXT, links=[1.0, None])
    assert contention(drawn.play(Phase.SWAP)) == ({}, {})


def test_ends_claim_no_swap_engine() -> None:
    drawn = complete(star(), 1)
    drawn.open(2, HUB, links=[1.0])
    assert contention(drawn.play(Phase.SWAP)) == ({}, {})


def test_of_a_blocked_route_only_the_relays_without_a_token_are_contended() -> None:
    drawn = draw([(0, 1), (1, 2), (2, 3)], {0: [3], 3: [0]}, swap_rate=0.0, memory=20)
    for end in (0, 3):
        drawn.open(end, 0, links=[1.0, 1.0, 1.0])
    drawn.state.tokens[:] = [0.0, 0.0, 2.0, 0.0]
    changed = drawn.play(Phase.SWAP)
    assert contention(changed) == ({"CONTENDED_SWAPS": 1, "COLLIDED_SWAPS": 2}, {0: 1, 3: 1})


def test_every_relay_without_a_token_is_contended() -> None:
    drawn = draw([(0, 1), (1, 2), (2, 3)], {0: [3], 3: [0]}, swap_rate=0.0, memory=20)
    for end in (0, 3):
        drawn.open(end, 0, links=[1.0, 1.0, 1.0])
    changed = drawn.play(Phase.SWAP)
    assert contention(changed) == ({"CONTENDED_SWAPS": 2, "COLLIDED_SWAPS": 2}, {0: 2, 3: 2})


def test_a_relay_that_only_the_blocked_agent_claims_is_not_contended() -> None:
    drawn = draw([(0, 1), (1, 2), (2, 3)], {0: [3], 1: [3]}, swap_rate=0.0, memory=20)
    drawn.open(1, 0, links=[1.0, 1.0])  # over relay 2
    drawn.open(0, 0, links=[1.0, 1.0, 1.0])  # over relays 1 and 2
    drawn.state.tokens[2] = 2.0
    assert contention(drawn.play(Phase.SWAP)) == ({"COLLIDED_SWAPS": 1}, {})


# ------------------------------------------------------------------------------------------------------ memories


def test_a_memory_full_of_another_agents_allocation_is_contended() -> None:
    drawn = star(memory=[2, 8, 8, 8, 8, 8])
    drawn.open(3, NEXT)
    assert contention(drawn.act({1: (NEXT, 1)})) == ({"CONTENDED_MEMORIES": 1}, {1: 1, 3: 1})


def test_a_memory_full_of_another_agents_stored_pair_is_contended() -> None:
    drawn = star(memory=[2, 8, 8, 8, 8, 8])
    drawn.store(4, HUB, 0.9)
    assert contention(drawn.act({1: (NEXT, 1)})) == ({"CONTENDED_MEMORIES": 1}, {1: 1, 4: 1})


def test_a_memory_full_of_ones_own_allocations_and_pairs_is_not_contended() -> None:
    drawn = star(memory=[4, 8, 8, 8, 8, 8])
    drawn.open(1, NEXT)
    drawn.store(1, HUB, 0.9)
    assert contention(drawn.act({1: (NEXT, 1)})) == ({}, {})


def test_a_memory_that_nobody_holds_and_fits_nobody_is_not_contended() -> None:
    drawn = star(memory=[1, 8, 8, 8, 8, 8])
    assert contention(drawn.act({1: (NEXT, 1)})) == ({}, {})


def test_a_memory_that_refuses_two_agents_is_contended_though_nobody_holds_it() -> None:
    drawn = star(memory=[1, 8, 8, 8, 8, 8])
    changed = drawn.act({1: (NEXT, 1), 4: (NEXT, 1)})
    assert contention(changed) == ({"CONTENDED_MEMORIES": 1}, {1: 1, 4: 1})


def test_a_memory_whose_last_qubits_went_to_another_new_allocation_is_contended() -> None:
    drawn = star(memory=[2, 8, 8, 8, 8, 8])
    changed = drawn.act({1: (NEXT, 1), 4: (NEXT, 1)})
    assert changed["tally"]["DENIED"] == 1
    assert contention(changed) == ({"CONTENDED_MEMORIES": 1}, {1: 1, 4: 1})


def test_a_contended_memory_is_charged_once_to_each_agent_however_much_it_holds_there() -> None:
    drawn = star(memory=[5, 8, 8, 8, 8, 8])
    drawn.open(3, NEXT)
    drawn.open(3, NEXT)
    drawn.store(3, HUB, 0.9)
    assert contention(drawn.act({1: (NEXT, 1)})) == ({"CONTENDED_MEMORIES": 1}, {1: 1, 3: 1})


def diamond(memory: list[int]) -> HandDrawn:
    """Nodes 0 and 4 reach node 3 through relay 1 (route 0) or relay 2 (route 1); relays talk to node 3."""
    fibres = [(0, 1), (1, 3), (0, 2), (2, 3), (1, 4), (2, 4)]
    return draw(fibres, {0: [3], 1: [3], 2: [3], 4: [3]}, routes_per_peer=2, memory=memory)


def test_with_auto_the_first_node_refusing_on_each_route_is_contended() -> None:
    drawn = diamond([8, 2, 2, 8, 8])
    drawn.open(1, 0)
    drawn.open(2, 0)
    assert contention(drawn.act({0: (0, 1)})) == ({"CONTENDED_MEMORIES": 2}, {0: 2, 1: 1, 2: 1})


def test_a_named_route_makes_only_its_own_nodes_contended() -> None:
    drawn = diamond([8, 2, 2, 8, 8])
    drawn.open(1, 0)
    drawn.open(2, 0)
    assert contention(drawn.act({0: (0, 1)}, routes={0: 1})) == ({"CONTENDED_MEMORIES": 1}, {0: 1, 2: 1})


def test_only_the_first_node_that_refuses_on_a_route_is_contended() -> None:
    drawn = diamond([8, 2, 8, 1, 8])
    drawn.open(1, 0)  # fills node 3, too
    assert contention(drawn.act({0: (0, 1)}, routes={0: 0})) == ({"CONTENDED_MEMORIES": 1}, {0: 1, 1: 1})


def test_a_memory_that_refuses_one_agent_on_two_routes_is_not_contended() -> None:
    drawn = diamond([8, 8, 8, 1, 8])
    drawn.store(0, 0, 0.9)  # fills node 3
    changed = drawn.act({0: (0, 1)})
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1}
    assert contention(changed) == ({}, {})


def test_a_refusal_on_the_way_to_an_admission_is_no_contention() -> None:
    drawn = diamond([8, 2, 8, 8, 8])
    drawn.open(1, 0)
    changed = drawn.act({0: (0, 1)})
    assert changed["alloc_route"] == {(0, 0): 1}
    assert contention(changed) == ({}, {})


@pytest.mark.parametrize("first", [0, 4])
def test_a_refusal_is_a_claim_even_of_an_allocation_admitted_elsewhere(first: int) -> None:
    drawn = diamond([8, 1, 8, 8, 8])
    changed = drawn.act({0: (0, 1), 4: (0, 1)}, routes={0: 0}, priorities={first: -1})
    assert changed["verdict"] == {0: 2, 4: 1}
    assert contention(changed) == ({"CONTENDED_MEMORIES": 1}, {0: 1, 4: 1})


def test_a_route_that_is_down_refuses_nothing() -> None:
    drawn = star(memory=[2, 8, 8, 8, 8, 8])
    drawn.open(3, NEXT)
    drawn.state.link_up[0] = 0
    changed = drawn.act({1: (NEXT, 1)})
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1}
    assert contention(changed) == ({}, {})


# ------------------------------------------------------------------------------------------------------ together


def test_source_swap_engine_and_memory_of_one_node_are_three_resources() -> None:
    drawn = star(memory=[10, 8, 8, 8, 8, 8])
    drawn.emit(n0=0)
    complete(drawn, 1, 2)
    drawn.open(1, NEXT)
    drawn.open(2, NEXT)
    drawn.store(5, HUB, 0.9)
    command = np.zeros(6)
    command[4] = drawn.action(NEXT, 1)
    drawn.simulator.step(command)
    assert drawn.tally(*KINDS) == (1, 1, 1)
    assert drawn.tally(*COLLISIONS) == (1, 1)
    # The denied agent and the owner of the stored pair claim the memory only.
    assert drawn.state.contended.tolist() == [0, 3, 3, 0, 1, 1]


def test_contention_is_charged_for_one_slot_and_counted_for_good() -> None:
    drawn = star()
    drawn.emit(n0=0)
    drawn.open(1, HUB)
    drawn.open(2, HUB)
    drawn.wait()
    assert drawn.state.contended.tolist() == [0, 1, 1, 0, 0, 0]
    drawn.state.alloc_peer[2, 0], drawn.state.num_open[0] = -1, 1
    drawn.wait()
    assert drawn.state.contended.tolist() == [0, 0, 0, 0, 0, 0]
    assert drawn.tally(*KINDS) == (1, 0, 0)


def test_a_network_in_which_nobody_acts_has_no_contention() -> None:
    requests = [(slot, leaf, NEXT, 0, slot + 3) for slot in range(30) for leaf in range(1, 6)]
    drawn = star(requests=requests)
    for _ in range(30):
        drawn.wait()
        assert not drawn.state.contended.any()
    assert drawn.tally(*KINDS, *COLLISIONS) == (0, 0, 0, 0, 0)
    assert drawn.tally(Tally.ARRIVED) == (150,)
