"""The exact solver of repeater chains: hand-drawn slots, closed forms, and published values to all their digits."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dpem_baselines.swap_chain import (
    EMPTY,
    Segment,
    State,
    SwapChain,
    asap,
    decisions,
    mean_delivery_time,
    nested,
    ready,
    runs,
    solve,
)
from dpem_env.support.errors import DpemError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = json.loads((ROOT / "baselines/truth/published.json").read_text("utf-8"))
COMMITTED = json.loads((ROOT / "baselines/results/truth/exact.json").read_text("utf-8"))
FULL: State = tuple(Segment(node, node + 1, 0) for node in range(4))


def law(chain: SwapChain, state: State, swaps: tuple[int, ...]) -> dict[State, float]:
    found: dict[State, float] = {}
    for follower, probability in chain.followers(state, swaps):
        found[follower] = found.get(follower, 0.0) + probability
    return found


def test_neighbours_with_free_qubits_generate_also_inside_a_longer_segment() -> None:
    held = Segment(0, 3, 0)
    found = law(SwapChain(5, 0.25, 1.0, 2), (held,), ())
    aged, inner, last = Segment(0, 3, 1), Segment(1, 2, 0), Segment(3, 4, 0)
    assert found == {
        (aged,): 0.75**2,
        (aged, inner): 0.25 * 0.75,
        (aged, last): 0.25 * 0.75,
        (aged, inner, last): 0.25**2,
    }


def test_a_segment_is_discarded_when_it_is_older_than_the_cutoff_and_its_qubits_are_free_at_once() -> None:
    chain = SwapChain(3, 1.0, 1.0, 2)
    assert law(chain, (Segment(0, 1, 1),), ()) == {(Segment(0, 1, 2), Segment(1, 2, 0)): 1.0}
    assert law(chain, (Segment(0, 1, 2),), ()) == {(Segment(0, 1, 0), Segment(1, 2, 0)): 1.0}


def test_a_joined_segment_is_as_old_as_its_oldest_part() -> None:
    state = (Segment(0, 1, 1), Segment(1, 2, 0), Segment(3, 4, 0))
    found = law(SwapChain(5, 1.0, 1.0, 5), state, (1,))
    assert found == {(Segment(0, 2, 2), Segment(2, 3, 0), Segment(3, 4, 1)): 1.0}


def test_a_run_of_swaps_survives_only_if_all_succeed_and_others_are_left_alone() -> None:
    found = law(SwapChain(5, 1.0, 0.5, 9), FULL, (1, 2))
    last = Segment(3, 4, 1)
    assert found == {
        (Segment(0, 3, 1), Segment(1, 2, 0), last): 0.25,
        (*FULL[:3], last): 0.75,
    }


def test_runs_apart_succeed_apart() -> None:
    found = law(SwapChain(5, 1.0, 0.5, 9), FULL, (1, 3))
    left, right = Segment(0, 2, 1), Segment(2, 4, 1)
    assert found == {
        (left, right): 0.25,
        (left, *FULL[2:]): 0.25,
        (*FULL[:2], right): 0.25,
        FULL: 0.25,
    }


def test_what_is_delivered_is_not_followed() -> None:
    assert sum(law(SwapChain(5, 0.5, 0.5, 2), FULL, (1, 2, 3)).values()) == pytest.approx(1 - 0.5**3)
    assert law(SwapChain(5, 0.5, 1.0, 2), FULL, (1, 2, 3)) == {}


def test_relays_are_ready_with_a_segment_on_both_sides() -> None:
    state = (Segment(0, 3, 0), Segment(1, 2, 0), Segment(3, 4, 0))
    assert ready(state) == asap(state) == (3,)
    assert decisions(state) == [(), (3,)]
    assert list(runs(state, (3,))) == [[state[0], state[2]], [state[1]]]


def test_nested_lets_the_middle_wait_when_both_its_neighbours_swap() -> None:
    assert nested(FULL) == (1, 3)
    assert nested(FULL[1:]) == (2, 3)
    assert nested(FULL[:3]) == (1, 2)


CLOSED_FORMS: dict[str, tuple[int, int | None, Callable[[float, float], float]]] = {
    "one link": (2, 0, lambda p, s: 1 / p),
    "the later of two, kept": (3, None, lambda p, s: (2 / p - 1 / (2 * p - p * p)) / s),
    "both in one slot": (3, 0, lambda p, s: 1 / (p**2 * s)),
    "all four in one slot": (5, 0, lambda p, s: 1 / (p**4 * s**3)),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize(("p", "s"), [*product((0.1, 0.5, 1.0), (0.3, 1.0))])
def test_closed_forms(name: str, p: float, s: float) -> None:
    nodes, cutoff, form = CLOSED_FORMS[name]
    assert mean_delivery_time(SwapChain(nodes, p, s, cutoff), asap) == pytest.approx(form(p, s), rel=1e-10)


def test_without_cutoff_is_the_limit_of_long_cutoffs() -> None:
    kept = mean_delivery_time(SwapChain(4, 0.5, 0.5, None), asap)
    assert mean_delivery_time(SwapChain(4, 0.5, 0.5, 40), asap) == pytest.approx(kept, rel=1e-9)


@pytest.mark.parametrize(("p", "s"), [*product((0.2, 0.9), (0.5, 1.0))])
def test_no_policy_is_faster_than_the_optimum(p: float, s: float) -> None:
    chain = SwapChain(5, p, s, 2)
    best = solve(chain)
    assert mean_delivery_time(chain, best.swaps.__getitem__) == pytest.approx(best.slots, rel=1e-12)
    assert best.slots < min(mean_delivery_time(chain, policy) for policy in (asap, nested))


def test_the_optimum_is_the_best_of_all_policies_where_all_can_be_tried() -> None:
    chain = SwapChain(4, 0.3, 0.5, 0)
    best = solve(chain)
    states = [state for state in best.swaps if len(decisions(state)) > 1]
    times = []
    for chosen in product(*(decisions(state) for state in states)):
        policy = dict.fromkeys(best.swaps, ()) | dict(zip(states, chosen, strict=True))
        if (1, 2) in policy.values():  # with no time to wait, only swapping both at once delivers
            times.append(mean_delivery_time(chain, policy.__getitem__))
    assert len(times) > 1
    assert best.slots == pytest.approx(min(times), rel=1e-12)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0])
def test_three_nodes_take_as_long_as_published(p: float) -> None:
    published = (2 * p**3 - 6 * p**2 + 4 * p + 1) / (2 * p**4 - 6 * p**3 + 5 * p**2)
    assert mean_delivery_time(SwapChain(3, p, 1.0, 2), asap) == pytest.approx(published, rel=1e-11)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "baselines/truth/exact.py"))["compared"](PUBLISHED)  # type: ignore[no-any-return]


def test_chains_take_as_long_as_published_to_the_last_digit(found: dict[str, Any]) -> None:
    assert len(found["chains"]) == len(PUBLISHED["chains"]) == 7
    for row in found["chains"]:
        digit = 10.0 ** -len(row["published"].partition(".")[2])
        assert abs(row["found"] - float(row["published"])) < digit, row


def test_the_published_grid_of_advantages_is_met_within_its_tolerance(found: dict[str, Any]) -> None:
    assert found["advantages"]["cells"] == 35
    assert found["advantages"]["largest_difference"] < 1e-5  # per cent; theirs are iterated to 1e-7 slots


def test_committed_values_are_those_of_the_solver(found: dict[str, Any]) -> None:
    committed, now = ([row["found"] for row in each["chains"]] for each in (COMMITTED, found))
    assert committed == pytest.approx(now, abs=1e-8)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ((1, 0.5, 0.5, 2), "nodes is 1; expected 2 or more"),
        ((3, 0.0, 0.5, 2), "generation is 0.0; expected a probability above 0, at most 1"),
        ((3, 0.5, 1.5, 2), "swap_success is 1.5; expected a probability above 0, at most 1"),
        ((3, 0.5, 0.5, -1), "cutoff is -1; expected 0 or more slots, or None"),
    ],
)
def test_chains_that_never_deliver_are_refused_in_one_line(fields: Any, told: str) -> None:
    with pytest.raises(DpemError, match=told):
        SwapChain(*fields)


def test_states_come_from_the_empty_chain() -> None:
    best = solve(SwapChain(3, 0.5, 0.5, 1))
    assert set(best.swaps) == {
        EMPTY,
        (Segment(0, 1, 0),),
        (Segment(0, 1, 1),),
        (Segment(1, 2, 0),),
        (Segment(1, 2, 1),),
        (Segment(0, 1, 0), Segment(1, 2, 0)),
        (Segment(0, 1, 1), Segment(1, 2, 0)),
        (Segment(0, 1, 0), Segment(1, 2, 1)),
        (Segment(0, 1, 1), Segment(1, 2, 1)),
    }
