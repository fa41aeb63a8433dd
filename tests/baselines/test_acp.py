"""Adaptive, continuous generation: with whom, how often and how much, and that requests come first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_baselines.acp import AdaptiveContinuous
from dpem_env.network.network import build_network
from support.hand_made import PLACES, SCENARIO, chosen, expecting, many, nodes

DRAWS = 4000


def rule(seed: int = 0, **options: Any) -> AdaptiveContinuous:
    policy = AdaptiveContinuous(**options)
    policy.reset(SCENARIO, build_network(SCENARIO, 0), seed)
    return policy


def shares(row: dict[str, dict[int, Any]], **options: Any) -> list[float]:
    """How often each place is chosen, and at the end nobody, by many nodes in the same situation."""
    made = chosen(rule(**options), many(row, DRAWS))
    count = np.bincount([PLACES if pair is None else pair[0] for pair in made], minlength=PLACES + 1)
    return (count / DRAWS).tolist()


def test_peers_are_drawn_in_proportion_to_how_often_they_were_asked_for() -> None:
    row = {"forecast": {1: expecting(0.4), 5: expecting(1.2)}}  # 0.05 and 0.15 requests per slot
    drawn = shares(row, eagerness=2.0)
    assert drawn == pytest.approx([0, 0.1, 0, 0, 0, 0.3, 0, 0, 0.6], abs=0.03)


def test_no_more_than_one_pair_is_begun_however_eager() -> None:
    drawn = shares({"forecast": {1: expecting(0.4), 5: expecting(1.2)}}, eagerness=1000.0)
    assert drawn == pytest.approx([0, 0.25, 0, 0, 0, 0.75, 0, 0, 0], abs=0.03)


def test_where_a_peer_stands_in_the_list_does_not_matter() -> None:
    drawn = shares({"forecast": {6: expecting(0.4), 0: expecting(1.2)}}, eagerness=2.0)
    assert drawn == pytest.approx([0.3, 0, 0, 0, 0, 0, 0.1, 0, 0.6], abs=0.03)


def test_nobody_was_asked_for_nobody_is_stocked() -> None:
    assert chosen(rule(), many({}, 50)) == [None] * 50


ASKED = {"forecast": {1: expecting(8.0)}}


@pytest.mark.parametrize(
    ("situation", "stocks"),
    [
        ({}, True),
        ({"stored_pairs": {6: 1}}, True),
        ({"stored_pairs": {6: 2}}, False),
        ({"stored_pairs": {6: 1}, "open_allocations": {3: 1}}, False),
        ({"stored_pairs": {6: 1}, "open_allocations": {3: 1}, "pending": {3: (1, 0, 0)}}, True),
    ],
)
def test_the_quota_bounds_what_is_stored_and_on_its_way_to_be(situation: dict[str, Any], stocks: bool) -> None:
    assert chosen(rule(quota=2), nodes(ASKED | situation)) == [(1, 1) if stocks else None]


def test_it_stocks_over_short_routes_that_are_up() -> None:
    seen = nodes(ASKED | {"hops": {1: 3}}, ASKED | {"hops": {1: 4}}, ASKED | {"route_up": {1: 0}})
    assert chosen(rule(max_hops=3), seen) == [(1, 1), None, None]


def test_requests_come_first_whatever_the_quota() -> None:
    pending = {"pending": {2: (1, 0, 0), 7: (0, 0, 1)}, "slack": {2: 3, 7: 2}, "min_quality": {7: (1, 1, 2)}}
    assert chosen(rule(), nodes(ASKED | pending, ASKED | pending | {"stored_pairs": {0: 5}})) == [(7, 2), (7, 2)]


@pytest.mark.parametrize(("hardest", "quality"), [(0, 1), (1, 2), (2, 3)])
def test_stock_is_made_for_the_classes_asked_for(hardest: int, quality: int) -> None:
    seen = nodes(ASKED | {"min_quality": {1: (1, 2, 3)}})
    assert chosen(rule(stock_class=hardest), seen) == [(1, quality)]
