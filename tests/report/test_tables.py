"""Tables: records and columns in, titles and rows of text out."""

from __future__ import annotations

import math

import pytest

from dpem_env.report.labels import Estimate, Quantity
from dpem_env.report.tables import by_metric, cells

RATE = Quantity("rate", "rate", 2, unit="s")


@pytest.mark.parametrize(
    ("interval", "spec", "text"),
    [
        ((1.5, 1.25, 1.75), "", "1.50 ± 0.25"),
        ((1.5, 1.25, 1.75), "mean", "1.50"),
        ((1.5, -1.25, 1.75), "change", "+1.50 [-1.25, +1.75]"),
        ((1.5, 1.25, 1.75), ".1f", "1.5"),
        ((1.5, None, None), "", "1.50"),
        ((-1.5, math.nan, math.nan), "change", "-1.50"),
    ],
)
def test_an_estimate_is_told_with_the_decimals_of_its_quantity(
    interval: tuple[float, float, float], spec: str, text: str
) -> None:
    assert format(Estimate(RATE, *interval), spec) == text


def test_records_that_agree_in_the_first_column_share_a_row() -> None:
    records = [
        {"name": "a", "delay": 0.5, "rate": 1.0},
        {"name": "b", "delay": 0.5, "rate": 2.0},
        {"name": "a", "delay": 1.0, "rate": 3.0},
    ]
    titles, rows = cells(records, ["name", "{delay:g} s: {rate:.1f}"])
    assert titles == ["name", "0.5 s", "1 s"]
    assert rows == [{"name": "a", "0.5 s": "1.0", "1 s": "3.0"}, {"name": "b", "0.5 s": "2.0"}]


def test_records_that_contradict_each_other_have_a_row_each() -> None:
    records = [{"name": "a", "rate": 1}, {"name": "a", "rate": 2}, {"name": "a", "rate": 2}]
    assert cells(records, ["name", "rate"]) == (
        ["name", "rate"],
        [{"name": "a", "rate": "1"}, {"name": "a", "rate": "2"}],
    )


def test_what_is_unknown_is_left_out_and_an_estimate_named_by_its_quantity() -> None:
    records = [{"name": "{a}", "rate": None}, {"name": "b", "rate": Estimate(RATE, 1.5)}]
    assert cells(records, ["name", "rate"]) == (
        ["name", "rate (s)"],
        [{"name": "{a}"}, {"name": "b", "rate (s)": "1.50"}],
    )


def test_metrics_become_rows_in_their_order_whoever_has_them_first() -> None:
    count = Quantity("count", "count", 0)
    records = [{"name": "a", "count": Estimate(count, 3.0)}, {"name": "b", "rate": Estimate(RATE, 1.5)}]
    titles, rows = cells(by_metric(records, ["rate", "count"]), ["metric", "{name}: {value}"])
    assert titles == ["metric", "b", "a"] or titles == ["metric", "a", "b"]
    assert rows == [{"metric": "rate (s)", "b": "1.50"}, {"metric": "count", "a": "3"}]
