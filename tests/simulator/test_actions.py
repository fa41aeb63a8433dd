"""The code of actions: every number is one action, and the same one back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.simulator.actions import ActionCode, Condition


@pytest.mark.parametrize("condition", [0, Condition.FREE])
@pytest.mark.parametrize("routes", [None, 1, 3])
def test_every_number_but_waiting_names_a_place_a_quality_and_a_route(routes: int | None, condition: int) -> None:
    code = ActionCode(peers=5, qualities=4, routes=routes, condition=condition)
    conditional = [False, True] if condition else [False]
    unbound = product(range(5), range(1, 5), range(routes or 1))
    named = [(*each, bound) for bound, each in product(conditional, list(unbound))]
    numbers = [code.encode(*each) for each in named]
    assert numbers == list(range(1, code.num_actions))
    assert [code.decode(number) for number in numbers] == named
    assert np.array_equal(code.decode(np.array(numbers)), np.transpose(named))


@pytest.mark.parametrize("routes", [1, 3])
def test_the_simulator_takes_routes_apart_and_gets_illegal_actions_as_they_are(routes: int) -> None:
    code, plain = ActionCode(2, 3, routes), ActionCode(2, 3)
    asked = code.encode(1, 2, routes - 1)
    action, route, priority, condition = code.commands(np.array([0, asked, -1, code.num_actions]))
    assert route is not None
    assert priority is condition is None
    assert action.tolist() == [0, plain.encode(1, 2), -1, code.num_actions]
    assert route.tolist() == [-1, routes - 1, -1, -1]
    assert plain.commands(np.array([0, 7]))[1] is None


@pytest.mark.parametrize("routes", [None, 3])
def test_conditional_actions_are_the_others_over_again_and_say_so(routes: int | None) -> None:
    plain, code = ActionCode(2, 3, routes), ActionCode(2, 3, routes, Condition.READ_FREE)
    every = np.arange(1, plain.num_actions)
    action, route, _, condition = code.commands(np.concatenate([every, every + plain.num_actions - 1]))
    one, of_one, *_ = plain.commands(every)
    assert action.tolist() == one.tolist() * 2
    assert (route is None) == (of_one is None) == (routes is None)
    assert route is None or of_one is None or route.tolist() == of_one.tolist() * 2
    assert condition is not None
    assert condition.tolist() == [0] * len(every) + [Condition.READ_FREE] * len(every)
    illegal, *_, unbound = code.commands(np.array([-1, code.num_actions]))
    assert illegal.tolist() == [-1, code.num_actions]
    assert unbound is not None
    assert not unbound.any()


def test_the_code_of_a_scenario() -> None:
    mesh = scenarios.get("mesh100-v0")
    assert ActionCode.of(mesh) == (8, 3, None, 0)
    assert ActionCode.of(mesh, routes=True, condition=Condition.FREE) == (8, 3, 3, Condition.FREE)


def test_values_by_action_stand_in_the_order_of_the_code() -> None:
    code = ActionCode(2, 3)
    arranged = code.arrange(np.array([-1.0]), np.arange(6.0).reshape(1, 2, 3))
    assert [arranged[0, code.encode(d, q)] for d, q in product(range(2), range(1, 4))] == list(range(6))
    assert arranged[0, 0] == -1
