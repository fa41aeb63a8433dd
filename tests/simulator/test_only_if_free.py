"""Allocations that open only where nobody else has a claim, commands that nodes withhold, and who is charged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.network.network import build_network
from dpem_env.simulator import Condition, Tally, Verdict
from dpem_env.simulator.state import State
from dpem_env.support.errors import ActionError

from .admission_reference import Command, Contention, Outcome, Slot, memories, sources, swaps
from .hand_drawn import ADMITTED, DENIED, ILLEGAL, WITHHELD, Changes, HandDrawn, Phase, draw
from .test_contention import HUB, NEXT, complete, contention, star

FREE, READ_FREE, READ_PENDING = Condition
CONDITIONS = (0, FREE, FREE, FREE, READ_FREE, READ_FREE | READ_PENDING, FREE | READ_PENDING)
CLAIMED = {"CONTENDED_SOURCES": 1, "CONTENDED_BY_REFUSAL": 1}  # with a pair for every link


def diamond(**fields: Any) -> HandDrawn:
    """Nodes 0 and 4 reach node 3 over relay 1 (route 0) or relay 2 (route 1), 1 and 2 directly; relays feed links."""
    fibres = [(0, 1), (1, 3), (0, 2), (2, 3), (1, 4), (2, 4)]
    rates = {"generation_rate": [1.0, 9, 9, 1, 1], "routes_per_peer": 2, "memory": 40}
    return draw(fibres, {0: [3], 1: [3], 2: [3], 4: [3]}, **{"news_period": 0.25} | rates | fields)


def conditional(drawn: HandDrawn, i: int, d: int = 0, **also: Any) -> Changes:
    """Node i asks for a pair, only if the way is free."""
    return drawn.act({i: (d, 1)}, conditions={i: FREE}, **also)


# ------------------------------------------------------------------------------------------------------- admission


def test_a_source_that_another_agent_waits_for_refuses() -> None:
    drawn = star()
    drawn.open(1, HUB)
    changed = conditional(drawn, 2, HUB)
    assert changed["verdict"] == {2: DENIED}
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1, "REFUSED": 1}
    assert "alloc_peer" not in changed


@pytest.mark.parametrize("condition", [0, FREE])
def test_without_the_condition_and_where_nobody_waits_it_is_admitted(condition: int) -> None:
    drawn = star()
    if not condition:
        drawn.open(1, HUB)
    assert drawn.act({2: (HUB, 1)}, conditions={2: condition})["verdict"] == {2: ADMITTED}


def test_ones_own_claims_refuse_nothing() -> None:
    drawn = star()
    drawn.open(2, NEXT)
    assert conditional(drawn, 2, HUB)["verdict"] == {2: ADMITTED}


def test_ones_own_claims_beside_anothers_help_nothing() -> None:
    drawn = star()
    drawn.open(2, HUB)
    drawn.open(1, HUB)
    assert conditional(drawn, 2, HUB)["verdict"] == {2: DENIED}


def test_claims_of_the_same_slot_are_not_seen_and_collide() -> None:
    drawn = star()
    drawn.emit(n0=0)
    changed = drawn.act({1: (HUB, 1), 2: (HUB, 1)}, conditions={1: FREE, 2: FREE})
    assert changed["verdict"] == {1: ADMITTED, 2: ADMITTED}
    kinds = {"CONTENDED_SOURCES": 1, "COLLIDED_SOURCES": 1}
    assert contention(drawn.play(Phase.GENERATE)) == (kinds, {1: 1, 2: 1})


def test_a_complete_link_and_one_that_is_down_claim_no_source() -> None:
    drawn = star()
    drawn.open(1, HUB, links=[1.0])
    drawn.open(3, HUB)
    drawn.state.link_up[2] = 0
    assert conditional(drawn, 2, HUB)["verdict"] == {2: ADMITTED}


def test_a_swap_engine_at_which_another_agent_waits_to_swap_refuses() -> None:
    drawn = complete(star(generation_rate=[1.0, 9, 9, 9, 9, 9]), 1)  # leaves feed their links themselves
    changed = conditional(drawn, 3, NEXT)
    assert changed["verdict"] == {3: DENIED}
    assert contention(drawn.play(Phase.SWAP)) == ({"CONTENDED_SWAPS": 1, "CONTENDED_BY_REFUSAL": 1}, {1: 1, 3: 1})


def test_a_swap_engine_that_only_an_incomplete_allocation_will_need_is_free() -> None:
    drawn = star(generation_rate=[1.0, 9, 9, 9, 9, 9])
    drawn.open(1, NEXT, links=[1.0, None])
    assert conditional(drawn, 3, NEXT)["verdict"] == {3: ADMITTED}


def test_the_end_of_a_route_needs_no_swap_engine() -> None:
    drawn = complete(star(generation_rate=[1.0, 9, 9, 9, 9, 9]), 1)
    assert conditional(drawn, 4, HUB)["verdict"] == {4: ADMITTED}


def test_with_auto_the_next_route_is_tried_and_nothing_is_contended() -> None:
    drawn = diamond()
    drawn.open(1, 0)
    drawn.emit(n1=5, n2=5)
    changed = conditional(drawn, 0)
    assert changed["alloc_route"] == {(0, 0): 1}
    assert changed["tally"] == {"SUBMITTED": 1, "REFUSED": 1}
    assert contention(drawn.play(Phase.GENERATE)) == ({}, {})


def test_memory_refuses_first_and_by_its_own_rule() -> None:
    drawn = star(memory=[2, 8, 8, 8, 8, 8])
    drawn.open(3, NEXT)  # fills the hub and waits for its source
    changed = conditional(drawn, 1, NEXT)
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1, "CONTENDED_MEMORIES": 1}
    drawn.emit(n0=5)
    assert contention(drawn.play(Phase.GENERATE)) == ({}, {})


# ------------------------------------------------------------------------------------------------------ contention


def test_a_refusal_makes_a_source_contended_though_every_link_gets_a_pair() -> None:
    drawn = star()
    drawn.open(1, HUB)
    conditional(drawn, 2, HUB)
    drawn.emit(n0=9)
    assert contention(drawn.play(Phase.GENERATE)) == (CLAIMED, {1: 1, 2: 1})


def test_a_source_that_is_contended_anyway_counts_once_and_charges_the_refused_too() -> None:
    drawn = star()
    drawn.open(1, HUB)
    drawn.open(3, HUB)
    conditional(drawn, 2, HUB)
    drawn.emit(n0=0)
    kinds = {"CONTENDED_SOURCES": 1, "COLLIDED_SOURCES": 1}
    assert contention(drawn.play(Phase.GENERATE)) == (kinds, {1: 1, 2: 1, 3: 1})


def test_who_is_refused_and_waits_there_already_is_charged_once() -> None:
    drawn = star()
    drawn.open(2, HUB)
    drawn.open(1, HUB)
    conditional(drawn, 2, HUB)
    drawn.emit(n0=9)
    assert contention(drawn.play(Phase.GENERATE)) == (CLAIMED | {"COLLIDED_SOURCES": 1}, {1: 1, 2: 1})


def test_every_route_that_was_tried_has_a_contended_resource() -> None:
    drawn = diamond()
    drawn.open(1, 0)
    drawn.open(2, 0)
    changed = conditional(drawn, 0)
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1, "REFUSED": 2}
    drawn.emit(n1=9, n2=9)
    both = {"CONTENDED_SOURCES": 2, "CONTENDED_BY_REFUSAL": 2}
    assert contention(drawn.play(Phase.GENERATE)) == (both, {0: 2, 1: 1, 2: 1})


def test_two_routes_that_one_source_refuses_make_it_contended_once() -> None:
    drawn = diamond(generation_rate=[99.0, 9, 9, 1, 1])  # node 0 feeds its own first links
    drawn.open(0, 0)
    drawn.open(0, 0)
    drawn.state.alloc_peer[4, 0], drawn.state.alloc_quality[4, 0], drawn.state.alloc_route[4, 0] = 0, 1, 0
    drawn.world.link_emitter[:] = 0  # every link draws on one source
    changed = conditional(drawn, 4)
    assert changed["tally"] == {"SUBMITTED": 1, "DENIED": 1, "REFUSED": 2}
    drawn.emit(n0=99)
    assert contention(drawn.play(Phase.GENERATE)) == (CLAIMED, {0: 1, 4: 1})


def test_a_refusal_of_an_allocation_admitted_elsewhere_is_charged_to_nobody() -> None:
    drawn = diamond()
    drawn.open(1, 0)
    drawn.act({0: (0, 1), 4: (0, 1)}, routes={4: 0}, conditions={0: FREE, 4: FREE})  # node 0 goes over relay 2
    drawn.emit(n1=9, n2=9)
    assert contention(drawn.play(Phase.GENERATE)) == (CLAIMED, {1: 1, 4: 1})


def test_the_flags_of_one_slot_are_gone_in_the_next() -> None:
    drawn = star()
    drawn.open(1, HUB, quality=3)
    drawn.emit(n0=1)
    action = np.zeros(6)
    action[2] = drawn.action(HUB, 1)
    drawn.simulator.step(action, condition=np.full(6, FREE))
    assert drawn.state.contended.tolist() == [0, 1, 1, 0, 0, 0]
    drawn.emit(n0=1)
    drawn.wait()
    assert drawn.state.contended.tolist() == [0] * 6
    assert drawn.tally(Tally.CONTENDED_SOURCES, Tally.CONTENDED_BY_REFUSAL) == (1, 1)


# --------------------------------------------------------------------------------------------------- ranked routes


def test_routes_are_tried_in_the_order_given() -> None:
    drawn = diamond()
    assert drawn.act({0: (0, 1)}, routes={0: 1}, fallbacks={0: [0]})["alloc_route"] == {(0, 0): 1}
    assert drawn.act({4: (0, 1)}, routes={4: 0}, fallbacks={4: [1]})["alloc_peer"] == {(4, 0): 0}


def test_what_the_first_choice_refuses_the_next_may_take() -> None:
    drawn = diamond()
    drawn.open(2, 0)
    changed = conditional(drawn, 0, routes={0: 1}, fallbacks={0: [0]})
    assert "alloc_route" in changed
    assert drawn.state.alloc_route[0, 0] == 0
    assert changed["tally"] == {"SUBMITTED": 1, "REFUSED": 1}


def test_a_first_choice_alone_has_no_other() -> None:
    drawn = diamond()
    drawn.open(2, 0)
    assert conditional(drawn, 0, routes={0: 1})["verdict"] == {0: DENIED}


@pytest.mark.parametrize(("first", "then"), [(0, [0]), (1, [1]), (0, [2]), (2, [0]), (0, [99])])
def test_a_route_that_is_named_twice_or_does_not_exist_is_illegal(first: int, then: list[int]) -> None:
    assert diamond().act({0: (0, 1)}, routes={0: first}, fallbacks={0: then})["verdict"] == {0: ILLEGAL}


def test_more_routes_than_there_can_be_are_an_error_in_one_line() -> None:
    told = "^fallback has 3 routes for each node; expected at most 1, besides the first$"
    with pytest.raises(ActionError, match=told):
        diamond().simulator.step(np.zeros(5), fallback=np.full((5, 3), -1))


def test_after_auto_there_is_nothing_to_fall_back_to() -> None:
    assert diamond().act({0: (0, 1)}, fallbacks={0: [1]})["alloc_route"] == {(0, 0): 0}


# ---------------------------------------------------------------------------------------------- withheld commands


def test_a_command_is_withheld_where_another_agent_waits_and_costs_messages_alone() -> None:
    drawn = diamond()
    drawn.open(1, 0)
    changed = drawn.act({0: (0, 1)}, routes={0: 0}, conditions={0: READ_FREE})
    assert changed == {"verdict": {0: WITHHELD}, "tally": {"WITHHELD": 1, "COMMAND_MESSAGES": 2}}
    drawn.emit(n1=9)
    assert contention(drawn.play(Phase.GENERATE)) == ({}, {})


def test_of_ranked_routes_the_first_that_reads_free_is_tried() -> None:
    drawn = diamond()
    drawn.open(1, 0)
    changed = drawn.act({0: (0, 1)}, routes={0: 0}, fallbacks={0: [1]}, conditions={0: READ_FREE})
    assert changed["alloc_route"] == {(0, 0): 1}
    assert changed["tally"] == {"SUBMITTED": 1, "COMMAND_MESSAGES": 3}  # the end of both routes is asked once


def test_what_is_full_or_down_as_it_is_read_does_not_do() -> None:
    drawn = diamond()
    drawn.state.free_memory[1] = 1
    drawn.state.link_up[2] = 0
    changed = drawn.act({0: (0, 1)}, conditions={0: READ_FREE})
    assert changed["verdict"] == {0: WITHHELD}
    assert contention(changed) == ({}, {})


@pytest.mark.parametrize(("waited", "verdict"), [(0, ADMITTED), (2, ADMITTED), (3, WITHHELD)])
def test_a_node_withholds_by_what_it_knows_however_old_that_is(waited: int, verdict: Verdict) -> None:
    drawn = diamond(news_delay=0.75)
    drawn.emit()
    drawn.wait(4)
    drawn.open(1, 0, since=4)
    drawn.wait(waited)
    ordered = {"routes": {0: 0}, "conditions": {0: READ_FREE}}
    assert drawn.act({0: (0, 1)}, **ordered, read=False)["verdict"] == {0: verdict}


def test_memory_that_is_gone_since_it_was_read_denies() -> None:
    drawn = diamond(memory=[8, 2, 8, 8, 8])
    changed = drawn.act({0: (0, 1), 4: (0, 1)}, dict.fromkeys((0, 4), 0), {0: 1}, dict.fromkeys((0, 4), READ_FREE))
    assert changed["verdict"] == {0: DENIED, 4: ADMITTED}
    assert contention(changed) == ({"CONTENDED_MEMORIES": 1}, {0: 1, 4: 1})


def test_a_command_for_a_request_is_withheld_once_none_is_left() -> None:
    drawn = diamond(requests=[(0, 4, 0, 0, 3)])
    changed = drawn.act({0: (0, 1), 4: (0, 1)}, conditions=dict.fromkeys((0, 4), READ_PENDING))
    assert changed["verdict"] == {0: WITHHELD, 4: ADMITTED}
    assert changed["tally"] == {"SUBMITTED": 1, "WITHHELD": 1}


def test_both_conditions_hold_and_no_message_is_sent_for_what_is_not_wanted() -> None:
    drawn = diamond(requests=[(0, 4, 0, 0, 3)])
    drawn.open(1, 0)
    both = READ_FREE | READ_PENDING
    changed = drawn.act({0: (0, 1), 4: (0, 1)}, dict.fromkeys((0, 4), 0), conditions=dict.fromkeys((0, 4), both))
    assert changed["verdict"] == {0: WITHHELD, 4: WITHHELD}
    assert changed["tally"] == {"WITHHELD": 2, "COMMAND_MESSAGES": 2}


def test_an_illegal_command_is_illegal_before_it_is_withheld() -> None:
    drawn = diamond()
    assert drawn.act({0: (0, 1)}, routes={0: 7}, conditions={0: READ_PENDING})["verdict"] == {0: ILLEGAL}


# --------------------------------------------------------------------------------------------- against a reference

WORLDS: dict[str, dict[str, Any]] = {
    "star8-v0": {"request_rate": 4.0},
    "mesh20-v0": {"request_rate": 8.0, "memory": (4, 10), "swap_rate": (0.5, 3.0), "generation_rate": (5.0, 30.0)},
    "chain3-v0": {"nodes": 6, "peers": 4, "swap_rate": (0.5, 1.0), "swapping": "all", "memory": (6, 20)},
    "mesh100-outages-v0": {"nodes": 15, "routes_per_peer": 4, "regenerate": True, "cutoff": 3, "swap_rate": (0.2, 0.5)},
}
KINDS = ("memory", "source", "swap engine")


def world(name: str, seed: int, slots: int) -> HandDrawn:
    """An episode of a busy world."""
    scenario = scenarios.get(name, **WORLDS[name])
    network = build_network(scenario, seed)
    return HandDrawn(scenario, network, draw_demand(scenario, network, seed, slots), slots, seed)


def drawn_commands(drawn: HandDrawn, rng: np.random.Generator) -> list[Command]:
    """Anything that can be ordered, seldom with routes that are none or named twice."""
    routes = drawn.work.tries.shape[1]
    places, qualities = drawn.world.peers.shape[1], drawn.simulator.rules.qualities
    commands = []
    for i in range(len(drawn.world.memory)):
        if rng.random() < 0.5:
            commands.append(Command())
            continue
        existing = [np.flatnonzero(drawn.world.route_hops[i, d]) for d in range(places)]
        d = int(rng.integers(places))
        ranked = rng.permutation(existing[d])[: rng.integers(1, routes + 1)]
        if rng.random() < 0.05:
            ranked = rng.integers(0, routes + 1, size=routes)
        commands.append(
            Command(
                place=d,
                quality=int(rng.integers(1, qualities + 1)),
                routes=() if rng.random() < 0.4 else tuple(ranked.tolist()),
                condition=int(rng.choice(CONDITIONS)),
                priority=int(rng.integers(2)),
            )
        )
    return commands


def played(drawn: HandDrawn, commands: list[Command]) -> Changes:
    """Decisions and admission."""
    given = {i: command for i, command in enumerate(commands) if command.place is not None}
    return drawn.act(
        {i: (command.place or 0, command.quality) for i, command in given.items()},
        {i: command.routes[0] for i, command in given.items() if command.routes},
        {i: command.priority for i, command in given.items()},
        {i: command.condition for i, command in given.items()},
        {i: command.routes[1:] for i, command in given.items()},
    )


def copied(state: State) -> State:
    return State(*(array.copy() for array in state))


def expected_tally(outcome: Outcome, found: list[Contention]) -> dict[str, int]:
    """What the reference counts in a slot."""
    count = Counter(verdict.name for verdict in outcome.verdicts)
    refusals = [kind for refused in outcome.refusals.values() for kind, _ in refused]
    names = ("CONTENDED_MEMORIES", "CONTENDED_SOURCES", "CONTENDED_SWAPS")
    tally = {
        "SUBMITTED": count["ADMITTED"] + count["DENIED"],
        "DENIED": count["DENIED"],
        "ILLEGAL": count["ILLEGAL"],
        "WITHHELD": count["WITHHELD"],
        "COMMAND_MESSAGES": outcome.asked,
        "REFUSED": len(refusals) - refusals.count("memory"),
        "CONTENDED_BY_REFUSAL": sum(len(each.by_refusal) for each in found),
        "COLLIDED_SOURCES": len(found[1].collided),
        "COLLIDED_SWAPS": len(found[2].collided),
    }
    return tally | {name: len(each.charged) for name, each in zip(names, found, strict=True)}


@pytest.mark.parametrize("name", WORLDS)
def test_admission_and_contention_are_those_of_the_reference(name: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(4):
        drawn, rng = world(name, seed, 60), np.random.default_rng(seed)
        rules, state = drawn.simulator.rules, drawn.state
        for number in range(60):
            before = copied(state)
            slot, commands = Slot(rules, drawn.world, before), drawn_commands(drawn, rng)
            outcome = slot.admit(before, commands)
            where = f"{name}, seed {seed}, slot {number}"
            changed = played(drawn, commands)
            assert state.verdict.tolist() == outcome.verdicts, where
            routes = {i: route for (i, _), route in changed.get("alloc_route", {}).items()}
            opened = np.argwhere((before.alloc_peer < 0) & (state.alloc_peer >= 0)).tolist()
            assert {i: int(state.alloc_route[i, row]) for i, row in opened} == outcome.opened, where
            assert routes.items() <= outcome.opened.items(), where
            for i, route in outcome.opened.items():  # where others claimed, it is not
                if commands[i].condition & (FREE | READ_FREE):
                    nodes, links = slot.path(i, commands[i].place or 0, route)
                    claimed = [("source", int(drawn.world.link_emitter[link])) for link in links]
                    claimed += [("swap engine", relay) for relay in nodes[1:-1]]
                    assert not [each for each in claimed if {*slot.frozen.get(each, ())} - {i}], where
            found = [memories(slot, state, outcome)]
            for phase, contended in ((Phase.GENERATE, sources), (Phase.SWAP, swaps)):
                found.append(contended(slot, copied(state), outcome))
                drawn.play(phase)
            charged = sum((each.per_agent() for each in found), Counter())
            assert state.contended.tolist() == [charged[i] for i in range(len(commands))], where
            for phase in (Phase.DELIVER, Phase.AGE):
                drawn.play(phase)
            expected = expected_tally(outcome, found)
            counted = {tally: int(state.tally[Tally[tally]] - before.tally[Tally[tally]]) for tally in expected}
            assert counted == expected, where
            seen += Counter({tally: count for tally, count in counted.items() if count})
            seen += Counter(f"by {kind}" for refused in outcome.refusals.values() for kind, _ in refused)
            drawn.at(number + 1)
            drawn.play(Phase.ARRIVALS)
    assert seen.keys() >= {"DENIED", "WITHHELD", "REFUSED", "CONTENDED_BY_REFUSAL", "by source", "by memory"}
    assert name == "star8-v0" or "by swap engine" in seen


@pytest.mark.parametrize("name", WORLDS)
def test_refusals_are_what_parts_the_strict_reading_from_the_lenient_one(name: str) -> None:
    for conditions in (False, True):
        drawn, rng = world(name, 9, 60), np.random.default_rng(9)
        simulator = drawn.simulator
        for _ in range(60):
            action = rng.integers(0, 1 + drawn.world.peers.shape[1] * simulator.rules.qualities, simulator.num_nodes)
            simulator.step(action, condition=np.full(len(action), FREE) if conditions else None)
        contended = sum(drawn.tally(Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS))
        refused, by_refusal = drawn.tally(Tally.REFUSED, Tally.CONTENDED_BY_REFUSAL)
        assert 0 <= by_refusal <= min(contended, refused)
        assert (by_refusal > 0) == (refused > 0) == conditions
        assert Verdict.WITHHELD not in drawn.state.verdict
