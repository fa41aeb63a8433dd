"""What of a policy may be tuned: names of constructor arguments with the values to try, and the trials of a budget.

A policy declares `search_space`, a class attribute of plain data: for each tunable argument a tuple of values, or
``(low, high, "log")`` for any number between two positive ones, log-uniformly. Whoever tunes reads it off the class and
gives every policy the same number of trials; the first is always the defaults, so tuning never loses to them.

Trials come in rounds: a search yields those of one and is sent their rewards. Random search has a single round; an
evolution strategy moves on from what the round before came to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

SearchSpace = Mapping[str, tuple[Any, ...]]
Options = dict[str, Any]
Search = Generator[list[Options], Sequence[float], None]
Method = Literal["random", "cma-es"]

STEP = 0.2  # standard deviation at first, of a whole range


def is_range(values: tuple[Any, ...]) -> bool:
    """Whether values are given as (low, high, "log")."""
    return len(values) == 3 and values[2] == "log"


def random_search(space: SearchSpace, budget: int, rng: np.random.Generator) -> Search:
    """All `trials` in one round."""
    yield trials(space, budget, rng)


def evolution(space: SearchSpace, budget: int, rng: np.random.Generator) -> Search:
    """The defaults, generations of CMA-ES (Hansen & Ostermeier, Evol. Comput. 9, 159, 2001), and where these end.

    It moves in the logarithms of the ranges, from their middles on; what is no range stays at its default. Generations
    get as many trials as the method has by default, while the budget lasts.
    """
    from cmaes import CMA

    yield [{}]
    ranges = {name: values for name, values in space.items() if is_range(values)}
    if len(ranges) < 2:  # the method needs two at least
        yield trials(space, budget, rng)[1:]
        return
    middle, seed = np.full(len(ranges), 0.5), int(rng.integers(2**31))
    optimiser = CMA(middle, STEP, bounds=np.tile([0.0, 1.0], (len(ranges), 1)), seed=seed)

    def options(place: Any) -> Options:
        return {name: _between(values, share) for (name, values), share in zip(ranges.items(), place, strict=True)}

    for _ in range((budget - 2) // optimiser.population_size):
        places = [optimiser.ask() for _ in range(optimiser.population_size)]
        rewards = yield [options(place) for place in places]
        optimiser.tell([(place, -reward) for place, reward in zip(places, rewards, strict=True)])
    if budget > 1:
        yield [options(optimiser.mean.clip(0.0, 1.0))]


SEARCHES: dict[Method, Callable[[SearchSpace, int, np.random.Generator], Search]] = {
    "random": random_search,
    "cma-es": evolution,
}


def trials(space: SearchSpace, budget: int, rng: np.random.Generator) -> list[Options]:
    """At most `budget` different sets of options: the defaults (no options), then draws from the space.

    A space of no more combinations than the budget leaves room for is tried whole, whatever `rng` (Bergstra & Bengio,
    JMLR 13, 281, 2012: beyond that, random search beats a coarse grid).
    """
    chosen: list[Options] = [{}]
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
        return _between(values, rng.uniform(0.0, 1.0))
    return values[rng.integers(len(values))]


def _between(values: tuple[Any, ...], share: float) -> float:
    low, high, _ = values
    value = float(f"{np.exp(np.log(low) + (np.log(high) - np.log(low)) * share):.3g}")
    return float(min(max(value, low), high))
