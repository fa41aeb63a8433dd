"""Local reactive control: every node serves its own pending requests, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.compiled_rules import OVERDUE, first_in_line, meet
from dpem_baselines.route_choice import Offers, RouteChoice, at
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.scenarios import Scenario


class LocalRule(LocalPolicy):
    """A rule that words what it asks for as `RouteChoice` says; it has its options."""

    def __init__(self, routes: str, claims_limit: int | None, only_if_free: bool) -> None:
        self.choice = RouteChoice(routes, claims_limit, only_if_free)
        self.news = self.choice.news

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """The candidate routes of a new episode."""
        self.choice.reset(network)

    def serve(
        self,
        seen: Observations,
        masks: NDArray[np.int8],
        offers: Offers,
        otherwise: NDArray[np.int64],
        quality: NDArray[np.int64],
        worth: NDArray[np.float64],
    ) -> Decision:
        """The most urgent peer whose requests no open allocation covers; where there is none, what to do otherwise.

        `otherwise`: (N,) place of a peer, -1 for none, at (N, D, R) `quality` over the routes of most `worth`.
        """
        urgent = most_urgent(seen.slack, uncovered(seen) & offers.taken.any(axis=2))
        place, serves = np.where(urgent >= 0, urgent, otherwise), (urgent >= 0)[:, None]
        needed, chance = self._for_requests(seen, offers, place)
        here = at(place)
        quality, worth = np.where(serves, needed, quality[here]), np.where(serves, chance, worth[here])
        return self.choice.decide(seen, masks, offers, place, quality, worth)

    def _for_requests(
        self, seen: Observations, offers: Offers, place: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(N, R) the quality that requests for each node's place need on every route, and the chance of a pair."""
        here = at(place)
        best = seen.table.scenario.control.qualities
        needed = needed_quality(seen.pending[here], offers.min_quality[here], best)
        return needed, offers.chance[here] * offers.taken[here]


class LocalReactive(LocalRule):
    """Allocate for the most urgent peer whose pending requests outnumber its open allocations.

    The quality is the smallest that meets the hardest class waiting there; `routes`, `claims_limit` and `only_if_free`
    say over which routes, see `RouteChoice`. A peer none of whose routes would be asked for has to wait.
    Earliest deadline first among peers (Liu & Layland, J. ACM 20, 46, 1973); ties go to the lower place. Where all
    requests have the same deadline this is first come, first served, too; where a replayed file gives them their own,
    times of arrival are not observed, so there is no such rule beside it.
    """

    search_space: ClassVar[SearchSpace] = RouteChoice.search_space

    def __init__(self, routes: str = "auto", claims_limit: int | None = None, only_if_free: bool = False) -> None:
        super().__init__(routes, claims_limit, only_if_free)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        seen, offers = observations, self.choice.offers(observations)
        place = most_urgent(seen.slack, uncovered(seen) & offers.taken.any(axis=2))
        return self.choice.decide(seen, masks, offers, place, *self._for_requests(seen, offers, place))


def uncovered(seen: Observations, pairs: Any = ...) -> NDArray[np.bool_]:
    """(N, D) whether more requests are pending than allocations are open; or of these (node, place) pairs alone."""
    more: NDArray[np.bool_] = seen.pending[pairs].sum(axis=-1) > seen.open_allocations[pairs]
    return more


def most_urgent(slack: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) place of the wanted peer with the least slack, overdue ones (slack 0) last; -1 where none is wanted."""
    place = np.empty(len(slack), dtype=np.int64)
    first_in_line(slack, wanted, place)
    return place


def urgency(slack: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Slack to sort by: what is overdue comes after all that can still be served."""
    return np.where(slack > 0, slack, OVERDUE)


def needed_quality(
    pending: NDArray[np.float64], min_quality: NDArray[np.float64] | NDArray[np.integer[Any]], best: int
) -> NDArray[np.int64]:
    """(..., R) smallest quality that meets on each route the hardest of (..., C) pending; the best if none does.

    `min_quality` (..., R, C): smallest meeting each class on a route, 0 where none does.
    """
    *shape, routes, classes = min_quality.shape
    needed = np.empty((*shape, routes), dtype=np.int64)
    waiting = np.ascontiguousarray(pending, dtype=np.float64).reshape(-1, classes)
    smallest = np.ascontiguousarray(min_quality, dtype=np.float64).reshape(-1, routes, classes)
    meet(waiting, smallest, float(best), needed.reshape(-1, routes))
    return needed


def spare_pairs(seen: Observations) -> NDArray[np.float64]:
    """(N, D) pairs stored or being made that no pending request is waiting for."""
    waiting: NDArray[np.float64] = seen.pending.sum(axis=2)
    spare: NDArray[np.float64] = (seen.open_allocations - waiting).clip(0.0)
    return seen.stored_pairs + spare


def stock_quality(min_quality: NDArray[np.float64] | NDArray[np.integer[Any]], hardest_class: int) -> NDArray[np.int64]:
    """(..., R) smallest quality that meets, fresh, every class up to `hardest_class` that a route can meet."""
    enough: NDArray[np.float64] = min_quality[..., : hardest_class + 1].max(axis=-1)
    return enough.clip(1.0).astype(np.int64)
