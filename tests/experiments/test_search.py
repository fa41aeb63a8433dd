"""What may be tuned, and the trials of a budget."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from dpem_baselines.acp import AdaptiveContinuous
from dpem_baselines.base_stock import CentralPredictive, LocalPredictive
from dpem_baselines.central import CentralReactive
from dpem_baselines.maxweight import CentralMaxWeight, MaxWeight
from dpem_baselines.priced import Priced
from dpem_env.experiments.search import evolution, is_range, trials

TUNABLE = [AdaptiveContinuous, CentralMaxWeight, CentralPredictive, CentralReactive, LocalPredictive, MaxWeight, Priced]


@pytest.mark.parametrize("policy", TUNABLE)
def test_every_argument_is_tunable_and_its_default_within_reach(policy: Any) -> None:
    arguments = inspect.signature(policy).parameters
    assert policy.search_space.keys() == arguments.keys()
    for name, values in policy.search_space.items():
        if is_range(values):
            assert 0 < values[0] <= arguments[name].default <= values[1]
        else:
            assert arguments[name].default in values


@pytest.mark.parametrize("policy", TUNABLE)
def test_every_trial_builds_a_policy_and_the_first_is_the_defaults(policy: Any) -> None:
    drawn = trials(policy.search_space, 16, np.random.default_rng(0))
    assert drawn[0] == {}
    assert len(drawn) == min(16, 1 + len(drawn[1:]))
    assert all(drawn[k] not in drawn[:k] for k in range(len(drawn)))
    for options in drawn:
        policy(**options)


def test_a_space_within_the_budget_is_tried_whole_and_a_larger_one_by_lot() -> None:
    space = {"a": (1, 2, 3), "b": (True, False)}
    whole = [{}, *({"a": a, "b": b} for a in (1, 2, 3) for b in (True, False))]
    assert trials(space, 7, np.random.default_rng(0)) == trials(space, 99, np.random.default_rng(1)) == whole
    some = trials(space, 6, np.random.default_rng(0))
    assert [some.count(options) for options in whole] in ([1] * k + [0] + [1] * (6 - k) for k in range(1, 7))
    assert some == trials(space, 6, np.random.default_rng(0)) != trials(space, 6, np.random.default_rng(1))


def test_nothing_to_tune_is_one_trial() -> None:
    assert trials({}, 16, np.random.default_rng(0)) == [{}]


def test_a_range_is_drawn_from_evenly_in_the_logarithm() -> None:
    drawn = trials({"x": (0.01, 100.0, "log")}, 2001, np.random.default_rng(0))[1:]
    exponents = np.log10([options["x"] for options in drawn])
    assert exponents.min() >= -2
    assert exponents.max() <= 2
    assert np.histogram(exponents, bins=4, range=(-2, 2))[0].tolist() == pytest.approx([500] * 4, abs=75)


def test_an_evolution_strategy_finds_what_a_lottery_of_as_many_trials_does_not() -> None:
    space = dict.fromkeys("abcdefgh", (0.01, 100.0, "log")) | {"kind": (1, 2)}
    best = {name: 10.0 ** (place / 4 - 1) for place, name in enumerate("abcdefgh")}

    def reward(options: dict[str, Any]) -> float:
        return -sum((np.log10(options.get(name, 1.0)) - np.log10(value)) ** 2 for name, value in best.items())

    search, rounds, rewards = evolution(space, 300, np.random.default_rng(0)), [], [0.0]
    rounds.append(next(search))
    assert rounds[0] == [{}]
    while True:
        try:
            rounds.append(search.send(rewards))
        except StopIteration:
            break
        rewards = [reward(options) for options in rounds[-1]]
    assert sum(map(len, rounds)) <= 300
    assert all(options.keys() == best.keys() for each in rounds[1:] for options in each)
    assert all(0.01 <= value <= 100.0 for each in rounds[1:] for options in each for value in options.values())
    drawn = max(reward(options) for options in trials(space, 300, np.random.default_rng(0)))
    assert reward(rounds[-1][0]) > -0.05 > drawn


def test_an_evolution_strategy_without_two_ranges_draws_by_lot() -> None:
    space = {"a": (0.1, 10.0, "log"), "b": (1, 2)}
    search = evolution(space, 5, np.random.default_rng(0))
    assert [next(search), search.send([0.0])] == [[{}], trials(space, 5, np.random.default_rng(0))[1:]]
    with pytest.raises(StopIteration):
        search.send([0.0] * 4)
