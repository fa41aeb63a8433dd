"""Regimes: where lines rise through zero, whose line is the best of them, and results that make no map."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env.experiments.regimes import BEST, compare_regime, crossovers, regime_map, two_fields
from dpem_env.experiments.results import Key, Results, Rows
from dpem_env.report.regime_figure import save_regime_figure
from dpem_env.report.results_figure import FORMATS
from dpem_env.support.errors import DpemError

DELAYS = (0.0, 0.5, 1.0)
LOCAL, EARLY, LATE = "near", "early", "late"
LEVELS = {EARLY: (0.6, 0.4, 0.1), LATE: (0.55, 0.45, 0.4)}  # deliveries at each delay; those of the local one are 0.5
EPISODES = 6


def label(key: Key) -> str:
    return key.policy if key.delay is None else f"{key.policy} (delay {key.delay:g} s)"


def made(worlds: list[str], levels: dict[str, tuple[float, ...]] = LEVELS, spread: float = 0.0) -> Results:
    """Results in which episodes differ by `spread` in what is delivered, for central policies alone."""
    keys = [Key(LOCAL, None, None)]
    keys += [Key(name, None, delay) for name, line in levels.items() for delay, _ in zip(DELAYS, line, strict=False)]
    rows = Rows()
    for world, key, episode in product(worlds, keys, range(EPISODES)):
        level = 0.5 if key.delay is None else levels[key.policy][DELAYS.index(key.delay)]
        moved = 0.0 if key.delay is None else spread * (-1) ** episode
        rows.add(world, "hash", key, 0, episode, {"delivery_rate": level + moved})
    contestants = [{"label": label(key)} | key._asdict() for key in keys]
    scenarios = [{"name": world, "episodes": list(range(EPISODES)), "contestants": contestants} for world in worlds]
    return Results({"reference": LOCAL, "scenarios": scenarios}, rows.frame())


def grid(first: str = "predictability", second: str = "deadline") -> list[str]:
    return [f"net-v0+{first}={one}+{second}={other}" for one, other in product(("0.0", "1.0"), ("(1.0, 2.0)", "2.0"))]


@pytest.mark.parametrize(
    ("line", "delay"),
    [
        ((-0.1, 0.1, 0.2), 0.25),
        ((-0.1, -0.1, 0.3), 0.625),
        ((-0.1, 0.0, 0.1), 0.5),
        ((0.1, 0.2, 0.3), 0.0),
        ((0.0, 0.0, 0.0), 0.0),
        ((-0.3, -0.2, -0.1), math.inf),
        ((0.1, -0.1, 0.1), 0.75),  # ahead at first, too; for good from here on
        ((0.1, 0.2, -0.1), math.inf),  # not ahead at the longest
    ],
)
def test_a_crossover_is_where_a_line_rises_through_zero_for_good(line: tuple[float, ...], delay: float) -> None:
    [found] = crossovers(np.array([line]), DELAYS)
    assert found == pytest.approx(delay)


def test_a_regime_has_a_line_for_each_central_policy_and_for_the_best_of_them() -> None:
    [regime, *others] = regime_map(made(grid())).regimes
    assert len(others) == 3
    early, late, best = regime.lines
    assert [line.name for line in regime.lines] == [EARLY, LATE, BEST]
    assert [each.value for each in early.differences] == pytest.approx([-0.1, 0.1, 0.4])
    assert [each.value for each in late.differences] == pytest.approx([-0.05, 0.05, 0.1])
    assert [each.value for each in best.differences] == pytest.approx([-0.1, 0.05, 0.1])
    assert [line.crossover.value for line in regime.lines] == pytest.approx([0.25, 0.25, 1 / 3])
    # Episodes that do not differ leave nothing open.
    assert best.crossover == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_intervals_hold_the_estimates_and_come_out_the_same_again() -> None:
    results = made(grid(), spread=0.1)
    [best] = [line for line in regime_map(results).regimes[0].lines if line.name == BEST]
    for each in (*best.differences, best.crossover):
        assert each.low < each.value < each.high
    assert regime_map(results) == regime_map(results)


def test_episodes_are_paired() -> None:
    """What is hard for everybody says nothing about who is ahead."""
    hard = np.linspace(-0.3, 0.3, EPISODES)
    ours, theirs = 0.5 + hard[None], np.array([0.6 + hard, 0.4 + hard])[:, None]
    [line, _] = compare_regime(ours, {"c": theirs}, (0.0, 1.0), np.random.default_rng(0))
    assert line.crossover == pytest.approx((0.5, 0.5, 0.5))


def test_never_and_always_ahead() -> None:
    [behind] = {regime.lines[0].crossover for regime in regime_map(made(grid(), {EARLY: (0.9, 0.8, 0.7)})).regimes}
    assert behind == (math.inf, math.inf, math.inf)
    [ahead] = {regime.lines[0].crossover for regime in regime_map(made(grid(), {EARLY: (0.4, 0.3, 0.2)})).regimes}
    assert ahead == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        (grid(), ("predictability", "deadline")),
        (grid("x", "y"), ("x", "y")),
        (["net-v0+a=1+b=1+c=1", "net-v0+a=2+b=1+c=2"], ("a", "c")),
        (["net-v0+a=1+b=1", "net-v0+a=2+b=1"], None),
        (["net-v0"], None),
        (["net-v0+a=1+b=1", "other-v0+a=2+b=2"], None),
        (["net-v0+a=1", "net-v0+a=2+b=2"], None),
    ],
)
def test_the_two_fields_are_those_that_differ(names: list[str], fields: tuple[str, str] | None) -> None:
    assert two_fields({"scenarios": [{"name": name} for name in names]}) == fields


def refused(results: Results, **more: Any) -> str:
    with pytest.raises(DpemError) as caught:
        regime_map(results, **more)
    return str(caught.value)


def test_what_makes_no_map_is_told() -> None:
    assert "do not differ in two fields" in refused(made(["net-v0+a=1", "net-v0+a=2"]))
    assert "the same control delays, two or more" in refused(made(grid(), {}))
    assert "the same control delays, two or more" in refused(made(grid(), {EARLY: (0.1,)}))
    assert "the same control delays, two or more" in refused(made(grid(), {EARLY: (0.1, 0.2), LATE: (0.1, 0.2, 0.3)}))
    assert "'neer' is no local policy of these results; did you mean 'near'?" in refused(made(grid()), local="neer")
    assert "is no local policy" in refused(made(grid()), local="early (delay 0 s)")


@pytest.mark.parametrize("suffix", FORMATS)
def test_it_is_drawn_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map{suffix}"
    save_regime_figure(path, regime_map(made(grid()[:3], spread=0.1)))  # one of four is missing
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
