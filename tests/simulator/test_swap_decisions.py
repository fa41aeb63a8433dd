"""Relays that decide on swaps: the same slots as without them, and what they may do, hand-drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.swap_chain import Segment, nested
from dpem_baselines.swapping import SwapNested, chain_state
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.session import Look, Session
from dpem_env.observations.features import Observations
from dpem_env.scenarios import get
from dpem_env.simulator import Tally
from dpem_env.simulator.actions import Choice
from dpem_env.support.errors import ActionError, ScenarioError

WAIT, SWAP, DISCARD = Choice
SLOTS = 300


class Told(NamedTuple):
    """What an episode came to, bit by bit."""

    served: NDArray[np.int32]  # slot of every request
    tally: NDArray[np.int64]


def first(look: Look) -> NDArray[np.int64]:
    return look.masks[:, :, 1].astype(np.int64)


def told(decide: Callable[[Look], NDArray[np.int64]] = first, **fields: Any) -> Told:
    session = Session(get("swap-chain5-v0", slots=SLOTS, **fields), 4)
    session.reset(0)
    look = session.look()
    while not session.done:
        look = session.play(decide(look))
    state = session.simulator.state
    return Told(state.request_status[:, :SLOTS].copy(), state.tally.copy())


def assert_same(one: Told, other: Told) -> None:
    assert (one.served >= 0).sum() > 40
    assert np.array_equal(one.served, other.served)
    assert np.array_equal(one.tally, other.tally)


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_relays_that_swap_when_they_can_play_the_slots_of_asap_bit_by_bit(nodes: int) -> None:
    chain = {"nodes": nodes, "generation_rate": (0.7, 0.7)}
    assert_same(told(**chain, swapping="asap"), told(**chain, swapping="agents"))


def test_nested_is_what_relays_decide_that_know_the_chain() -> None:
    decide = SwapNested().side_by_side(get("swap-chain5-v0", swapping="agents", news_period=1.0))
    asked = told(decide, swapping="agents", news_period=1.0)
    assert_same(told(swapping="nested"), asked)
    assert not np.array_equal(told(swapping="asap").served, asked.served)


class Drawn:
    """A chain of five nodes in slot 20 whose links make no more pairs, and the segments it holds."""

    def __init__(self, *segments: Segment, **fields: Any) -> None:
        given = {"swapping": "agents", "swap_success": 1.0, "cutoff": 9}
        self.session = Session(get("swap-chain5-v0", **given | fields))
        self.session.reset(0)
        self.simulator = self.session.simulator
        self.simulator.world.link_transmission[:] = 0.0
        state = self.simulator.state
        state.slot[:], state.link_rounds[:], state.link_hops[:] = 20, -1, 0
        for left, right, age in segments:
            state.link_rounds[0, 0, 0, left], state.link_hops[0, 0, 0, left] = 0, right - left
            state.link_werner[0, 0, 0, left], state.link_slot[0, 0, 0, left] = 1.0, 20 - age
        state.alloc_complete[:] = len(segments)  # more than any rule asks for
        state.request_status[0, :20], state.next_arrival[:], state.next_expiry[:] = -2, 21, 20
        state.request_status[0, 20] = -1
        state.queue_head[0, 0, 0] = state.queue_tail[0, 0, 0] = 20
        state.pending[0, 0, 0, 0], state.alloc_slot[0, 0, 0] = 1, 10

    def masks(self) -> list[list[int]]:
        found: list[list[int]] = self.session.masks().tolist()
        return found

    def play(self, *choices: int) -> None:
        self.session.step(np.array([choices]))

    @property
    def held(self) -> tuple[Segment, ...]:
        state = self.simulator.state
        hops, since, now = state.link_hops[0, 0, 0], state.link_slot[0, 0, 0], state.slot.item()
        lefts = np.flatnonzero(hops).tolist()
        return tuple(Segment(left, left + hops[left].item(), now - since[left].item()) for left in lefts)

    def tally(self, count: Tally) -> int:
        return int(self.simulator.tally(count)[0])


HALVES = (Segment(0, 1, 2), Segment(1, 2, 1), Segment(2, 3, 0))


def test_relays_may_swap_what_they_hold_on_both_sides_and_ends_only_wait() -> None:
    assert Drawn(*HALVES).masks() == [[1, 0], [1, 1], [1, 1], [1, 0], [1, 0]]
    assert Drawn(Segment(0, 3, 0), Segment(1, 2, 0)).masks() == [[1, 0]] * 5


def test_relays_may_discard_what_they_hold_where_the_scenario_has_that() -> None:
    may = Drawn(*HALVES, discard=True).masks()
    assert may == [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("choices", "left"),
    [
        ((0, 0, 0, 0, 0), [Segment(0, 1, 3), Segment(1, 2, 2), Segment(2, 3, 1)]),
        ((0, 1, 0, 0, 0), [Segment(0, 2, 3), Segment(2, 3, 1)]),
        ((0, 0, 1, 0, 0), [Segment(0, 1, 3), Segment(1, 3, 2)]),
        ((0, 1, 1, 0, 0), [Segment(0, 3, 3)]),
    ],
)
def test_those_swap_who_decide_to_and_then_the_slot_ends(choices: Sequence[int], left: list[Segment]) -> None:
    drawn = Drawn(*HALVES)
    drawn.play(*choices)
    assert list(drawn.held) == left
    assert drawn.tally(Tally.SWAPS) == sum(choices)


def test_a_pair_of_the_ends_is_delivered_in_its_slot_and_the_next_is_asked_for_in_the_next() -> None:
    drawn = Drawn(Segment(0, 2, 3), Segment(2, 4, 1))
    drawn.play(0, 0, 1, 0, 0)
    state = drawn.simulator.state
    assert state.delivered[0].tolist() == [1, 0, 0, 0, 0]
    assert state.request_status[0, 20] == 20
    assert drawn.held == ()
    assert state.alloc_slot[0, 0, 0] == 21 == state.slot.item()
    assert drawn.session.rewards().tolist() == [0.2] * 5  # shared by all


def test_what_is_discarded_is_gone_before_others_swap() -> None:
    drawn = Drawn(*HALVES, Segment(3, 4, 0), discard=True)
    drawn.play(0, 1, 2, 1, 0)
    assert drawn.held == (Segment(0, 1, 3), Segment(3, 4, 1))
    assert drawn.tally(Tally.CUT_OFF) == 2
    assert drawn.tally(Tally.SWAPS) == drawn.tally(Tally.ILLEGAL) == 0


def test_a_segment_that_both_its_ends_discard_is_counted_once() -> None:
    drawn = Drawn(Segment(1, 3, 0), discard=True)
    drawn.play(0, 2, 0, 2, 0)
    assert drawn.held == ()
    assert drawn.tally(Tally.CUT_OFF) == 2  # links


@pytest.mark.parametrize("choices", [(0, 0, 0, 1, 0), (0, 2, 0, 0, 0), (0, -1, 0, 0, 0), (0, 9, 0, 0, 1)])
def test_an_illegal_action_is_a_wait_and_counted(choices: Sequence[int]) -> None:
    drawn, waiting = Drawn(*HALVES), Drawn(*HALVES)
    drawn.play(*choices)
    waiting.play(0, 0, 0, 0, 0)
    assert drawn.held == waiting.held
    assert drawn.tally(Tally.ILLEGAL) == np.count_nonzero(choices) == drawn.simulator.refused.sum()


def read(drawn: Drawn, fresh: bool = False) -> Observations:
    rows = drawn.session.global_state() if fresh else drawn.session.observations()
    return drawn.session.observer.table.read(rows)


def test_a_relay_sees_its_own_segments_without_news_and_no_others() -> None:
    seen = read(Drawn(Segment(0, 2, 3), Segment(2, 3, 1), news_period=None))
    assert seen.position.tolist() == [0, 1, 2, 3, 4]
    assert seen.left_reach.tolist() == [0, 0, 2, 1, 0]
    assert seen.left_age.tolist() == [0, 0, 3, 1, 0]
    assert seen.right_reach.tolist() == [2, 0, 1, 0, 0]
    assert seen.right_age.tolist() == [3, 0, 1, 0, 0]
    assert not seen.chain_reach.any()
    assert not seen.chain_age.any()


@pytest.mark.parametrize("late", [1, 2, 3])
def test_news_of_the_chain_is_as_old_as_its_delay_says(late: int) -> None:
    drawn = Drawn(Segment(0, 1, 2), Segment(1, 2, 0), news_period=1.0, news_delay=float(late))
    states = []
    for choices in [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)]:
        drawn.play(*choices)
        states.append(drawn.held)
    known = chain_state(read(drawn))
    aged = tuple(segment._replace(age=segment.age + late - 1) for segment in states[-late])
    assert known == aged
    assert (read(drawn).telemetry_age == late - 1).all()
    assert chain_state(read(drawn, fresh=True)) == states[-1]


def test_news_comes_once_a_period() -> None:
    drawn = Drawn(Segment(0, 1, 0), news_period=2.0, cutoff=None)
    ages = []
    for _ in range(4):
        drawn.play(0, 0, 0, 0, 0)
        ages.append(int(read(drawn).telemetry_age[0]))
    assert ages == [1, 0, 1, 0]


def test_news_says_nothing_of_what_the_cutoff_has_ended() -> None:
    drawn = Drawn(Segment(0, 1, 2), news_period=1.0, news_delay=2.0, cutoff=3)
    drawn.play(0, 0, 0, 0, 0)
    drawn.play(0, 0, 0, 0, 0)
    assert chain_state(read(drawn)) == drawn.held == ()


def test_a_controller_sees_the_chain_late() -> None:
    env = CentralEnv("swap-chain5-v0", swapping="agents", delay=1.0, generation_rate=(1.0, 1.0))
    blind, info = env.reset(seed=0)
    assert not blind.any()  # type: ignore[union-attr]
    assert info["action_mask"].tolist() == [[1, 0]] * 5
    env.step(np.array([0, 0, 0, 0, 0]))
    now = env.session.observer.table.read(env.session.global_state())
    view = env.session.view()
    assert view is not None
    four = tuple(Segment(left, left + 1, 1) for left in range(4))
    assert chain_state(view.observations) == chain_state(now) == four  # none has gone: all are as old as they are now
    assert nested(chain_state(view.observations)) == (1, 3)
    env.step(np.array([0, 1, 0, 1, 0]))
    view = env.session.view()
    assert view is not None
    assert chain_state(view.observations) == tuple(segment._replace(age=2) for segment in four)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"swapping": "nested", "nodes": 4, "max_hops": 3}, '"nested" needs a chain of 5 nodes; found a chain of 4'),
        ({"swapping": "agents", "rows": 2}, 'control.swapping = "agents" needs control.rows = 1'),
        ({"swapping": "agents", "regenerate": False}, '"agents" needs control.regenerate = true'),
        ({"swapping": "agents", "nodes": 6}, '"agents" needs routing.max_hops >= network.nodes - 1'),
        (
            {"swapping": "agents", "kind": "sessions", "qualities": 2},
            '"agents" needs demand.kind = "saturated", control.qualities = 1',
        ),
        ({"discard": True}, "discard needs swapping = \"agents\": with 'asap' no relay decides"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        get("swap-chain5-v0", **fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nested_and_agents_are_of_chains() -> None:
    with pytest.raises(ScenarioError, match=r"nested.* needs a chain of 5 nodes; found network.generator = 'mesh'$"):
        get("mesh20-v0", swapping="nested")
    with pytest.raises(ScenarioError, match=r'needs network.generator = "chain", demand.kind = "saturated", control'):
        get("mesh20-v0", swapping="agents")


@pytest.mark.parametrize("name", ["routes", "conditional"])
def test_nobody_names_routes_or_conditions_of_swaps(name: str) -> None:
    more: dict[str, Any] = {name: True}
    with pytest.raises(ScenarioError, match=rf"^{name} is of allocations; in .* relays decide on swaps instead$"):
        Session(get("swap-chain5-v0", swapping="agents"), **more)


def test_an_episode_has_as_many_decisions_as_slots() -> None:
    session = Session(get("swap-chain3-v0", swapping="agents", slots=3))
    session.reset(0)
    for _ in range(3):
        session.step(np.zeros((1, 3)))
    with pytest.raises(ActionError, match="the episode is over"):
        session.require_running()
    assert session.simulator.tally(Tally.ARRIVED)[0] == 3
