"""Over which routes a pair is asked for: the choice that rules share, local ones and central ones.

A local rule leaves the route to the network (``routes="auto"``), which takes the first that is up and has memory; or it
ranks the candidate routes (``"ranked"``) by what its news tell of them, and names them, best first. A central rule
always names a route, and may name those to fall back to; what its node reads when the command arrives may withhold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision
from dpem_env.simulator.actions import ActionCode, Condition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

READ = ("useful_in_time", "source_claims_sum", "swap_claims_sum", "candidate_hops")  # of the news, to rank routes


@dataclass(frozen=True)
class Offers:
    """What every node could ask for at each peer: R routes that it ranks, or one that the network picks."""

    ranked: bool
    taken: NDArray[np.bool_]  # (N, D, R) whether the node would ask for it at all
    hops: Floats  # (N, D, R)
    chance: Floats  # (N, D, R) that an allocation of quality 1 opened now would finish, as far as it is known
    load: Floats  # (N, D, R) of the worst resource, a share; of ranked routes: claims by others per link
    min_quality: Floats | NDArray[np.integer[Any]]  # (N, D, R, C) smallest meeting each class, fresh, 0: none


def by_network(seen: Observations) -> Offers:
    """The one route that the network would pick, as of the last answer."""
    hops, scenario = seen.hops[..., None], seen.table.scenario
    swaps = _no_swap_fails(scenario.hardware.swap_success, scenario.routing.max_hops)[hops.astype(np.intp)]
    return Offers(
        ranked=False,
        taken=np.ones(hops.shape, dtype=np.bool_),
        hops=hops,
        chance=seen.route_up[..., None] * swaps,
        load=seen.route_load[..., None],
        min_quality=seen.min_quality[..., None, :],
    )


def by_news(seen: Observations, taken: NDArray[np.bool_], min_quality: Floats | NDArray[np.integer[Any]]) -> Offers:
    """All candidate routes, as the news tell of them; `taken` and `min_quality` as of offers."""
    hops = seen.candidate_hops
    return Offers(
        ranked=True,
        taken=taken,
        hops=hops,
        chance=seen.useful_in_time,
        load=claims_along(seen) / np.maximum(hops, 1),
        min_quality=min_quality,
    )


def claims_along(seen: Observations) -> Floats:
    """(N, D, R) claims by others at the sources and swap engines of each candidate route."""
    return seen.source_claims_sum + seen.swap_claims_sum


@cache
def _no_swap_fails(swap_success: float, max_hops: int) -> Floats:
    """The chance of it on a route of 0, 1, … hops."""
    chance: Floats = swap_success ** np.maximum(np.arange(-1.0, max_hops), 0.0)
    return chance


def at(place: Ints) -> tuple[Ints, Ints]:
    """Where in (N, D, …) arrays each node's place (N,) is; that of the first peer for -1, nobody."""
    return np.arange(len(place)), np.maximum(place, 0)


@dataclass
class RouteChoice:
    """A local rule's: how it words what it asks for.

    `routes`: "auto" or "ranked"; `claims_limit`: claims by others at the sources and swap engines of a ranked route
    above which it is not asked for, None for no limit; `only_if_free`: whether allocations ask for routes only if
    nobody else claims them as the slot begins.
    """

    routes: str = "auto"
    claims_limit: int | None = None
    only_if_free: bool = False

    search_space: ClassVar[SearchSpace] = {
        "routes": ("auto", "ranked"),
        "claims_limit": (0, 1, 2, 4, None),
        "only_if_free": (False, True),
    }

    @property
    def news(self) -> tuple[str, ...]:
        """Features of block "news" that it reads."""
        return READ if self.routes == "ranked" else ()

    def reset(self, network: Network) -> None:
        """The candidate routes of a new episode."""
        self._quality = network.routes.quality

    def offers(self, seen: Observations) -> Offers:
        """What there is to choose from."""
        if self.routes == "auto":
            return by_network(seen)
        taken = seen.useful_in_time > 0
        if self.claims_limit is not None:
            taken &= claims_along(seen) <= self.claims_limit
        return by_news(seen, taken, self._quality)

    def decide(
        self, seen: Observations, masks: NDArray[np.int8], offers: Offers, place: Ints, quality: Ints, worth: Floats
    ) -> Decision:
        """A pair to each node's place (N,), -1 for none, over the routes of most `worth` that are above 0.

        `quality` and `worth` are (N, R), of that place. A route that needs a better quality than the first is no
        alternative.
        """
        code, nodes = ActionCode.of(seen.table.scenario), np.arange(len(place))
        if offers.ranked:
            order = np.argsort(-worth, axis=1, kind="stable")
            quality = np.take_along_axis(quality, order, axis=1)
        asked = np.where(place >= 0, code.encode(place, quality[:, 0]), 0)
        condition = np.full(len(place), Condition.FREE) if self.only_if_free else None
        decision = Decision(np.where(masks[nodes, asked] == 1, asked, 0), condition=condition)
        if not offers.ranked:
            return decision
        alternative = (np.take_along_axis(worth, order, axis=1) > 0) & (quality <= quality[:, :1])
        return decision._replace(route=order[:, 0], fallback=in_front(order, alternative)[:, 1:])


@dataclass(frozen=True)
class Orders:
    """A central rule's: how its commands are worded.

    `fallbacks`: whether a command also names the other routes that do at its quality, cheapest first; `only_if_free`:
    whether its node withholds it if it knows of no route without claims by others, and it is not admitted to a claimed
    one in any case; `only_if_pending`: whether its node withholds it if it was for a request that waits no more.
    """

    fallbacks: bool = False
    only_if_free: bool = False
    only_if_pending: bool = False

    search_space: ClassVar[SearchSpace] = {
        "fallbacks": (False, True),
        "only_if_free": (False, True),
        "only_if_pending": (False, True),
    }

    def worded(self, decision: Decision, network: Network, qualities: int, waited_for: NDArray[np.bool_]) -> Decision:
        """The commands of a decision that names routes; `waited_for` (N,) says which are for requests that wait."""
        free = Condition.READ_FREE | Condition.FREE if self.only_if_free else 0
        pending = Condition.READ_PENDING if self.only_if_pending else 0
        worded = decision._replace(condition=free + pending * waited_for)
        if not self.fallbacks:
            return worded
        fallback = np.full((len(decision.action), network.routes.hops.shape[2] - 1), -1, dtype=np.int64)
        ordered = np.flatnonzero(decision.action)
        if len(ordered):
            fallback[ordered] = _fallbacks(decision, network, qualities, ordered)
        return worded._replace(fallback=fallback)


def _fallbacks(decision: Decision, network: Network, qualities: int, ordered: Ints) -> Ints:
    """(n, k - 1) other routes of the nodes `ordered` to command that meet the class the named one is good for."""
    assert decision.route is not None
    place, quality, _, _ = ActionCode(network.peers.shape[1], qualities).decode(decision.action[ordered])
    named, quality = decision.route[ordered], quality[:, None, None]
    needed = network.routes.quality[ordered, place]  # (n, k, C)
    does = (needed > 0) & (needed <= quality)
    hardest = _last(np.take_along_axis(does, named[:, None, None], axis=1)[:, 0])
    meets = np.take_along_axis(does, hardest[:, None, None], axis=2)[..., 0]
    routes = np.broadcast_to(np.arange(needed.shape[1]), meets.shape)
    return in_front(routes, meets & (routes != named[:, None]))[:, :-1]


def _last(flags: NDArray[np.bool_]) -> Ints:
    """(n,) the last column that is set, 0 if none is."""
    last: Ints = (np.arange(flags.shape[1]) * flags).max(axis=1)
    return last


def in_front(numbers: Ints, kept: NDArray[np.bool_]) -> Ints:
    """(n, m) the numbers of each row that are kept, in their order, then -1."""
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, numbers, -1), order, axis=1)
