"""The code of actions: 0 waits, any other number is the place of a peer, a quality and, if it is named, a route.

With Q qualities and k routes, ``1 + (d·Q + q - 1)·k + r`` asks for one pair to the peer at place d at quality q over
route r. The simulator takes routes apart from actions: its code is that of k = 1.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios import Scenario
from dpem_env.support.compiled import inlined


class Condition(IntEnum):
    """What an allocation may be bound to; the condition of a decision is a sum of these, 0 for none."""

    FREE = 1  # on admission: no other agent has a claim on the route (see `kernel.claimed_by_others`), else it refuses
    READ_FREE = 2  # before that, the node reads its routes, and without one that would do withholds the command
    READ_PENDING = 4  # the node withholds the command unless a request for the peer is pending


def _code_of(place: Any, quality: Any, route: Any, qualities: int, routes: int) -> Any:
    return 1 + (place * qualities + quality - 1) * routes + route


def _place_of(action: Any, qualities: int) -> Any:
    return (action - 1) // qualities


def _quality_of(action: Any, qualities: int) -> Any:
    return (action - 1) % qualities + 1


code_of, place_of, quality_of = inlined(_code_of), inlined(_place_of), inlined(_quality_of)  # for compiled code


class ActionCode(NamedTuple):
    """Actions of D peers, Q qualities and k routes as numbers, and back; of single ones or of whole arrays."""

    peers: int
    qualities: int
    routes: int | None = None  # None: they are not named

    @classmethod
    def of(cls, scenario: Scenario, routes: bool = False) -> ActionCode:
        """The scenario's, in which routes are named or not."""
        named = scenario.routing.routes_per_peer if routes else None
        return cls(scenario.demand.peers, scenario.control.qualities, named)

    @property
    def num_actions(self) -> int:
        """How many there are, waiting included."""
        return 1 + self.peers * self.qualities * (self.routes or 1)

    def encode(self, place: Any, quality: Any, route: Any = 0) -> Any:
        """The action that asks for one pair to the peer at this place."""
        return _code_of(place, quality, route, self.qualities, self.routes or 1)

    def decode(self, action: Any) -> tuple[Any, Any, Any]:
        """Place, quality and route (0 if none is named) of an action that is no wait."""
        plain, route = _without_route(action, self.routes or 1)
        return _place_of(plain, self.qualities), _quality_of(plain, self.qualities), route

    def arrange(self, waiting: NDArray[Any], allocating: NDArray[Any]) -> NDArray[Any]:
        """(n, actions) of (n,) what belongs to waiting and (n, D, Q) or (n, D, Q, k) what belongs to allocations."""
        return np.concatenate([waiting[:, None], allocating.reshape(len(waiting), -1)], axis=1)

    def commands(self, action: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """What the simulator takes: actions without their routes, and these; None, for auto, if none is named.

        Waiting and illegal actions stay as they are.
        """
        action = np.asarray(action, dtype=np.int64)
        if self.routes is None:
            return action, None
        plain, route = _without_route(action, self.routes)
        known = (action > 0) & (action < self.num_actions)
        return np.where(known, plain, action), np.where(known, route, -1)


def _without_route(action: Any, routes: int) -> tuple[Any, Any]:
    return (action - 1) // routes + 1, (action - 1) % routes
