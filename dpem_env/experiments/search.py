"""What of a policy may be tuned: names of constructor arguments with the values to try, and the trials of a budget.

A policy declares `search_space`, a class attribute of plain data: for each tunable argument a tuple of values, or
``(low, high, "log")`` for any number between two positive ones, log-uniformly. Whoever tunes reads it off the class and
gives every policy the same number of trials; the first is always the defaults, so tuning never loses to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SearchSpace = Mapping[str, tuple[Any, ...]]


def is_range(values: tuple[Any, ...]) -> bool:
    """Whether values are given as (low, high, "log")."""
    return len(values) == 3 and values[2] == "log"


def trials(space: SearchSpace, budget: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """At most `budget` different sets of options: the defaults (no options), then draws from the space.

    A space of no more combinations than the budget leaves room for is tried whole, whatever `rng` (Bergstra & Bengio,
    JMLR 13, 281, 2012: beyond that, random search beats a coarse grid).
    """
    chosen: list[dict[str, Any]] = [{}]
    if not space:
        return chosen
    combinations = np.prod([np.inf if is_range(values) else len(values) for values in space.values()])
    if combinations <= budget - 1:
        grid = np.indices([len(values) for values in space.values()]).reshape(len(space), -1).T
        return chosen + [{name: space[name][k] for name, k in zip(space, row, strict=True)} for row in grid]
    while len(chosen) < budget:
        options = {name: _draw(values, rng) for name, values in space.items()}
        if options not in chosen:
            chosen.append(options)
    return chosen


def _draw(values: tuple[Any, ...], rng: np.random.Generator) -> Any:
    if is_range(values):
        low, high, _ = values
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")
    return values[rng.integers(len(values))]
