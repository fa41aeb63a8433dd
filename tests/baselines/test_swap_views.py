"""What relays can reach that see their own segments alone: the search and its limits."""

from __future__ import annotations

import json
import math
import runpy
from itertools import chain as chained
from itertools import combinations
from pathlib import Path

import pytest

from dpem_baselines.swap_chain import Segment, State, SwapChain, Swaps, asap, mean_delivery_time, solve
from dpem_baselines.swap_views import View, search, views

ROOT = Path(__file__).resolve().parents[2]


def test_a_view_is_what_is_on_either_side_of_a_relay_that_can_swap() -> None:
    state = (Segment(0, 2, 1), Segment(2, 3, 0), Segment(3, 4, 2))
    assert views(state) == [View(2, 2, 1, 1, 0), View(3, 1, 0, 1, 2)]
    assert views(state[:1]) == []


def test_the_search_finds_the_best_of_all_policies_of_views_where_all_can_be_tried() -> None:
    chain = SwapChain(4, 0.5, 0.5, 1)
    everything = sorted({view for state in solve(chain).swaps for view in views(state)})
    waiting = [view for view in everything if view.left_age + view.right_age > 0][:8]
    found = search(chain)
    tried = []
    for left_out in chained.from_iterable(combinations(waiting, count) for count in range(len(waiting) + 1)):

        def policy(state: State, left_out: tuple[View, ...] = left_out) -> Swaps:
            return tuple(view.relay for view in views(state) if view not in left_out)

        tried.append(mean_delivery_time(chain, policy))
    assert len(tried) == 2**8
    assert found.slots <= min(tried) + 1e-9


def test_relays_that_see_less_are_no_faster_than_the_optimum_and_no_slower_than_asap() -> None:
    chain = SwapChain(5, 0.9, 0.5, 2)
    found = search(chain)
    assert solve(chain).slots < found.slots < mean_delivery_time(chain, asap)
    assert {view.relay for view in views((Segment(0, 1, 0), Segment(1, 2, 0)))} == {1}


def test_a_policy_that_never_delivers_takes_for_ever() -> None:
    assert mean_delivery_time(SwapChain(4, 0.5, 0.5, 2), lambda state: ()) == math.inf


@pytest.mark.slow
def test_committed_values_are_those_of_the_search() -> None:
    committed = json.loads((ROOT / "baselines/results/truth/views.json").read_text("utf-8"))
    compared = runpy.run_path(str(ROOT / "baselines/truth/views.py"))
    rows = [row for name, chain in compared["CHAINS"].items() for row in compared["compared"](name, chain, 1)]
    for now, then in zip(rows, committed["rows"], strict=True):
        assert now["rule"] == then["rule"]
        assert now["slots"] >= then["slots"] - 1e-6  # of more searches
