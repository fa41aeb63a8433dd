"""The code of actions: 0 waits, any other number is the place of a peer, a quality and, if it is named, a route.

With Q qualities and k routes, ``1 + (d·Q + q - 1)·k + r`` asks for one pair to the peer at place d at quality q over
route r. Where actions may be conditional, too, the same allocations on a condition follow, in the same order. The
simulator takes routes and conditions apart from actions: its code is that of k = 1 without conditions.

Where relays decide on swaps (``swapping = "agents"``) actions are `Choice` numbers instead.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios import Scenario
from dpem_env.support.compiled import inlined, numbers_of
from dpem_env.support.errors import ScenarioError


class Condition(IntEnum):
    """What an allocation may be bound to; the condition of a decision is a sum of these, 0 for none."""

    FREE = 1  # on admission: no other agent has a claim on the route (see `kernel.claimed_by_others`), else it refuses
    READ_FREE = 2  # before that, the node reads its routes, and without one that would do withholds the command
    READ_PENDING = 4  # the node withholds the command unless a request for the peer is pending


class Choice(IntEnum):
    """What a relay may do that decides on swaps."""

    WAIT = 0
    SWAP = 1  # the segments on its two sides
    DISCARD = 2  # both, where the scenario has that


CONDITION, CHOICE = numbers_of(Condition), numbers_of(Choice)  # for compiled code

_Some = NDArray[np.int64] | None


def _code_of(place: Any, quality: Any, qualities: int) -> Any:
    return place * qualities + quality


def _with_route(action: Any, route: Any, routes: int) -> Any:
    return (action - 1) * routes + route + 1


def _place_of(action: Any, qualities: int) -> Any:
    return (action - 1) // qualities


def _quality_of(action: Any, qualities: int) -> Any:
    return (action - 1) % qualities + 1


# For compiled code.
code_of, with_route = inlined(_code_of), inlined(_with_route)
place_of, quality_of = inlined(_place_of), inlined(_quality_of)


class ActionCode(NamedTuple):
    """Actions of D peers, Q qualities and k routes as numbers, and back; of single ones or of whole arrays."""

    peers: int
    qualities: int
    routes: int | None = None  # None: they are not named
    condition: int = 0  # what conditional actions are bound to; 0: there are none

    @classmethod
    def of(cls, scenario: Scenario, routes: bool = False, condition: int = 0) -> ActionCode:
        """The scenario's, in which routes are named or not, and actions may be bound to a condition or not."""
        named = scenario.routing.routes_per_peer if routes else None
        return cls(scenario.demand.peers, scenario.control.qualities, named, condition)

    @property
    def num_allocations(self) -> int:
        """How many allocations there are without conditions."""
        return self.peers * self.qualities * (self.routes or 1)

    @property
    def num_actions(self) -> int:
        """How many there are, waiting included."""
        return 1 + self.num_allocations * (2 if self.condition else 1)

    def encode(self, place: Any, quality: Any, route: Any = 0, conditional: Any = False) -> Any:
        """The action that asks for one pair to the peer at this place."""
        action = _code_of(place, quality, self.qualities)
        if self.routes is not None:
            action = _with_route(action, route, self.routes)
        return action if conditional is False else action + self.num_allocations * conditional

    def decode(self, action: Any) -> tuple[Any, Any, Any, Any]:
        """Place, quality, route (0 if none is named) and whether it is conditional, of an action that is no wait."""
        conditional = action > self.num_allocations
        plain, route = _without_route(action - self.num_allocations * conditional, self.routes or 1)
        return _place_of(plain, self.qualities), _quality_of(plain, self.qualities), route, conditional

    def arrange(self, waiting: NDArray[Any], allocating: NDArray[Any]) -> NDArray[Any]:
        """(n, actions) of (n,) what belongs to waiting and (n, D, Q), … what belongs to allocations.

        With routes named the latter is (n, D, Q, k); with conditional actions it has an axis of 2 before D.
        """
        return np.concatenate([waiting[:, None], allocating.reshape(len(waiting), -1)], axis=1)

    def commands(self, action: NDArray[Any]) -> tuple[NDArray[np.int64], _Some, None, _Some]:
        """Actions without routes and conditions, these, and no priorities, in the order in which the simulator asks.

        None stands for routes if none are named, which is auto, and for conditions if there are none. Waiting and
        illegal actions stay as they are.
        """
        action = np.asarray(action, dtype=np.int64)
        if self.routes is None and not self.condition:
            return action, None, None, None
        known = (action > 0) & (action < self.num_actions)
        route = condition = None
        if self.condition:
            conditional = known & (action > self.num_allocations)
            action = np.where(conditional, action - self.num_allocations, action)
            condition = np.where(conditional, self.condition, 0)
        if self.routes is not None:
            plain, named = _without_route(action, self.routes)
            action, route = np.where(known, plain, action), np.where(known, named, -1)
        return action, route, None, condition


class SwapCode(NamedTuple):
    """Actions of relays that decide on swaps: a `Choice`."""

    num_actions: int
    routes: None = None
    condition: int = 0

    def commands(self, action: NDArray[Any]) -> tuple[NDArray[np.int64], None, None, None]:
        """Actions in the order in which the simulator asks: there is nothing else to say."""
        return np.asarray(action, dtype=np.int64), None, None, None


def code_for(scenario: Scenario, routes: bool = False, condition: int = 0) -> ActionCode | SwapCode:
    """How actions of the scenario are numbered; ScenarioError for routes or conditions where nobody allocates."""
    if not scenario.control.relays_decide:
        return ActionCode.of(scenario, routes, condition)
    for name, given in (("routes", routes), ("conditional", condition)):
        if given:
            raise ScenarioError(f"{name} is of allocations; in {scenario.name} relays decide on swaps instead")
    return SwapCode(len(Choice) if scenario.control.discard else len(Choice) - 1)


def _without_route(action: Any, routes: int) -> tuple[Any, Any]:
    return (action - 1) // routes + 1, (action - 1) % routes
