"""How policies are found, named, wrapped and given options."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.central import CentralReactive
from dpem_baselines.local import LocalReactive
from dpem_env import policies
from dpem_env.observations.features import Observations
from dpem_env.policies import Centralized, Decision, LocalPolicy, available, get_policy
from dpem_env.simulator import Condition
from dpem_env.support import plugins
from dpem_env.support.errors import PolicyError
from support.rollouts import control_of, session_with, view_of


def one_line(error: pytest.ExceptionInfo[PolicyError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_installed_policies_are_discovered() -> None:
    assert {"local-reactive", "central-reactive"} <= available().keys()
    assert type(get_policy("local-reactive")) is LocalReactive
    assert type(get_policy("central-reactive")) is CentralReactive


def test_policies_take_options() -> None:
    policy = get_policy("central-reactive", utilisation_limit=0.25)
    assert isinstance(policy, CentralReactive)
    assert policy.utilisation_limit == 0.25


def test_central_puts_a_local_rule_under_central_control() -> None:
    policy = get_policy("central:local-reactive")
    assert isinstance(policy, Centralized)
    assert type(policy.rule) is LocalReactive


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-reactiv", "unknown policy 'local-reactiv'; did you mean 'local-reactive'?"),
        ("central:local-reactiv", "did you mean 'local-reactive'?"),
        ("zzz", "known: acp, "),
        ("", "unknown policy ''"),
        ("central:central-reactive", "has a controller already"),
    ],
)
def test_a_name_that_leads_nowhere_is_answered_in_one_line(name: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        get_policy(name)
    assert message in one_line(error)


@pytest.mark.parametrize("name", ["local-reactive", "central-reactive", "central:local-reactive"])
def test_options_a_policy_does_not_take_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(PolicyError, match="does not take these options") as error:
        get_policy(name, utilization=0.25)
    one_line(error)


def test_a_policy_whose_package_is_missing_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("learned", "dpem_no_such_package.ppo:Policy", plugins.POLICIES)
    monkeypatch.setattr(policies, "available", lambda: {"learned": point})
    with pytest.raises(PolicyError, match="needs a package that is not installed") as error:
        get_policy("learned")
    assert "dpem_no_such_package" in one_line(error)
    assert "dpem_no_such_package" not in sys.modules


class Learned(LocalPolicy):
    """Stands in for a learner's checkpoint."""

    def __init__(self, path: str, limit: float = 1.0) -> None:
        self.path, self.limit = path, limit

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Wait."""
        return Decision(np.zeros(len(masks), dtype=np.int64))


def test_what_follows_a_colon_is_handed_to_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("learned", f"{__name__}:Learned", plugins.POLICIES)
    monkeypatch.setattr(policies, "available", lambda: {"learned": point})
    policy = get_policy("learned:runs/a:b.zip", limit=2.0)
    assert isinstance(policy, Learned)
    assert (policy.path, policy.limit) == ("runs/a:b.zip", 2.0)
    central = get_policy("central:learned:x.zip")
    assert isinstance(central, Centralized)
    assert isinstance(central.rule, Learned)
    with pytest.raises(PolicyError, match="policy 'learned' needs an argument: learned:ARGUMENT, such as a file"):
        get_policy("learned")
    with pytest.raises(PolicyError, match="unknown policy 'laerned'"):
        get_policy("laerned:x.zip")


def test_a_decision_is_completed_with_auto_routes_no_order_and_no_conditions() -> None:
    complete = Decision(np.array([0, 3, 1], dtype=np.int32)).completed(3)
    lists = [array.tolist() for array in complete if array is not None]
    assert lists == [[0, 3, 1], [-1, -1, -1], [0, 0, 0], [0, 0, 0], [[], [], []]]
    assert complete.priority is not None
    complete.priority[:] = 5  # each array is one's own to fill in
    assert complete.condition is not None
    assert not complete.condition.any()
    given = Decision(
        np.array([1]),
        np.array([2], dtype=np.int8),
        np.array([7], dtype=np.uint8),
        np.array([True]),
        np.array([[1, 0, -1]]),
    ).completed(1)
    assert [array.tolist() for array in given if array is not None] == [[1], [2], [7], [1], [[1, 0]]]
    assert {array.dtype for array in given if array is not None} == {np.dtype(np.int64)}


def test_nodes_that_decide_order_no_admissions_and_withhold_nothing_on_arrival() -> None:
    ordered = Decision(
        np.array([1]), priority=np.array([3]), condition=np.array([Condition.FREE | Condition.READ_FREE])
    )
    own = ordered.of_nodes()
    assert own.priority is None
    assert own.condition is not None
    assert own.condition.tolist() == [Condition.FREE]
    assert Decision(np.array([1])).of_nodes().condition is None


class Spy(LocalPolicy):
    """Keeps what it was shown."""

    forecaster = "seasonal"

    def reset(self, *arguments: Any) -> None:
        """Keep the arguments."""
        self.told = arguments

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Wait, with an order of admission."""
        self.seen = observations.matrix, masks
        waits = np.zeros(len(masks), dtype=np.int64)
        return Decision(waits, waits - 1, waits + 1)


def test_a_wrapped_rule_sees_the_nodes_observations_and_orders_no_admissions() -> None:
    session = session_with([(0, 0, 1, 0, 3)])
    view = view_of(control_of(session))
    rule = Spy()
    wrapped = Centralized(rule)
    assert wrapped.forecaster == "seasonal"
    wrapped.reset(session.scenario, session.network, 5)
    assert rule.told == (session.scenario, session.network, 5)
    chosen = wrapped.act(view)
    assert np.array_equal(rule.seen[0], session.observations())
    assert np.array_equal(rule.seen[1], session.masks())
    assert chosen.priority is None
    assert chosen.route is not None
    assert chosen.route.tolist() == [-1, -1, -1]


def test_ones_own_policy_is_taken_as_it_is_or_made_of_its_class() -> None:
    policy = LocalReactive()
    assert get_policy(policy) is policy
    assert type(get_policy(LocalReactive)) is LocalReactive
    with pytest.raises(PolicyError, match="is made already and takes no options"):
        get_policy(policy, speed=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Path, "policy 'Path' is a class of something else; expected a LocalPolicy, CentralPolicy or HybridPolicy"),
        (None, "policy is None; expected a name"),
        (5, "policy is 5; expected a name"),
        (["idle"], "policy is ['idle']; expected a name"),
        ("idle,acp", "unknown policy 'idle,acp'; a list with commas is not taken here: name each by itself"),
    ],
)
def test_what_is_no_policy_is_told_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        get_policy(given)
    assert message in one_line(error)


def make_nothing() -> None:
    """A factory that gives no policy."""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("make_nothing", "policy 'own' is a NoneType; expected a LocalPolicy, CentralPolicy or HybridPolicy"),
        ("NoSuchClass", "policy 'own' needs a package that is not installed"),
    ],
)
def test_an_entry_point_that_leads_to_no_policy_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    point = EntryPoint("own", f"{__name__}:{place}", plugins.POLICIES)
    monkeypatch.setattr(policies, "available", lambda: {"own": point})
    with pytest.raises(PolicyError) as error:
        get_policy("own")
    assert message in one_line(error)
