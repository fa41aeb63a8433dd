"""Base-stock control on forecasts: pairs are made for what is pending, and ahead of what is likely to come.

For every peer the inventory position (pairs stored or being made, less what is pending) is kept at a base-stock level,
the newsvendor quantile of the requests expected over a look-ahead window (Arrow, Harris & Marschak, Econometrica 19,
250, 1951; Zipkin, Foundations of Inventory Management, 2000, ch. 6). One pair more is worth P(X > position), X being
Poisson with the forecast as mean, and costs `link_cost` for each elementary pair it is made of: critical ratio
1 - link_cost·pairs. So near peers are stocked more readily than far ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from dpem_baselines.central import CentralReactive, CentralScheduler
from dpem_baselines.local import (
    LocalRule,
    spare_pairs,
    stock_quality,
    uncovered,
    urgency,
)
from dpem_baselines.route_choice import Offers, Orders, RouteChoice, by_network
from dpem_env.experiments.search import SearchSpace
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, NetworkView


@dataclass(frozen=True)
class StockRule:
    """Which pairs to make ahead of requests."""

    link_cost: float
    lookahead: int
    load_limit: float
    stock_class: int

    def gain(self, seen: Observations, offers: Offers) -> NDArray[np.float64]:
        """(N, D, R) what one pair more is worth beyond its cost; 0 for routes that are down or loaded already."""
        expected = seen.forecast[:, :, : self.lookahead].sum(axis=2)
        shortage = pdtrc(spare_pairs(seen), expected)  # P(X > position)
        gain = shortage[..., None] - self.link_cost * offers.hops * self.quality(offers)
        usable = offers.taken & (offers.chance > 0) & (offers.load <= self.load_limit)
        return np.where(usable, np.maximum(gain, 0.0), 0.0)

    def quality(self, offers: Offers) -> NDArray[np.int64]:
        """(N, D, R) quality of a pair for stock; at quality q a link takes at least q elementary pairs."""
        return stock_quality(offers.min_quality, self.stock_class)


SEARCH_SPACE: SearchSpace = {
    "link_cost": (0.02, 1.0, "log"),  # at 1 nothing is stocked
    "lookahead": (4, 8),
    "load_limit": (0.25, 0.5, 1.0),
    "stock_class": (0, 1, 2),
}


class LocalPredictive(LocalRule):
    """Every node serves its own pending requests as in `LocalReactive`; with none to serve, it stocks.

    `link_cost`: worth of an elementary pair in requests served; `lookahead`: slots of the forecast that count;
    `load_limit`: load of a route (worst resource, as of the last answer; of ranked routes claims by others per link)
    above which nothing is made for stock; `stock_class`: hardest fidelity class that stock is made for; `routes`,
    `claims_limit`, `only_if_free`: see `RouteChoice`. The peer of the largest gain goes first, ties to the lower place.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {**SEARCH_SPACE, **RouteChoice.search_space}

    def __init__(
        self,
        link_cost: float = 0.1,
        lookahead: int = 8,
        load_limit: float = 0.5,
        stock_class: int = 0,
        routes: str = "auto",
        claims_limit: int | None = None,
        only_if_free: bool = False,
    ) -> None:
        super().__init__(routes, claims_limit, only_if_free)
        self.stock = StockRule(link_cost, lookahead, load_limit, stock_class)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        offers = self.choice.offers(observations)
        gain = self.stock.gain(observations, offers)
        best = gain.max(axis=2)
        stocked = np.where(best.any(axis=1), best.argmax(axis=1), -1)
        return self.serve(observations, masks, offers, stocked, self.stock.quality(offers), gain)


class CentralPredictive(CentralScheduler):
    """The same rule for the whole network at once: all that is pending, most urgent first, then stock by its gain.

    Routes, and what fits, as in `CentralReactive`; loads are those of the view.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {**SEARCH_SPACE, **CentralReactive.search_space}

    def __init__(
        self,
        link_cost: float = 0.1,
        lookahead: int = 8,
        load_limit: float = 0.5,
        stock_class: int = 0,
        utilisation_limit: float = 0.5,
        fallbacks: bool = False,
        only_if_free: bool = False,
        only_if_pending: bool = False,
    ) -> None:
        super().__init__(utilisation_limit, Orders(fallbacks, only_if_free, only_if_pending))
        self.stock = StockRule(link_cost, lookahead, load_limit, stock_class)

    def act(self, view: NetworkView) -> Decision:
        """At most one allocation per node."""
        seen, offers = view.observations, by_network(view.observations)
        gain = self.stock.gain(seen, offers)[..., 0]
        waited_for = uncovered(seen)
        node, place = np.nonzero(waited_for | (gain > 0))
        serves = waited_for[node, place]
        stocked = stock_quality(self.routes.quality[node, place], self.stock.stock_class)
        quality = np.where(serves[:, None], self.qualities(seen, node, place), stocked)
        rank = np.where(serves, urgency(seen.slack[node, place]), -gain[node, place])
        return self.schedule(view, node, place, quality, ~serves, rank)
