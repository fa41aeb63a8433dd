"""MaxWeight: allocate where the backlog served, less the price of what that takes, is largest.

Every peer of a node has a backlog: pending requests that no open allocation covers, and expected ones beyond the pairs
in stock. An allocation serves it at a rate, the chance that all its swaps succeed, and takes elementary pairs, at a
price that rises with the load of its route. The allocation of the largest weight backlog·rate - price is made, unless
waiting weighs more: drift-plus-penalty minimisation of the squared backlogs (Tassiulas & Ephremides, IEEE TAC 37, 1936,
1992; with prices, Neely, Stochastic Network Optimization, 2010; for a quantum switch, Vasantam & Towsley, Proc. SPIE
12015, 2022; for networks with memories, Fittipaldi, Giovanidis & Grosshans, IEEE TQE 5, 2024). Their backlogs only
queue; ours also expire, so expected requests count and nothing is promised about stability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.central import CentralReactive, CentralScheduler
from dpem_baselines.compiled_rules import place_of_largest, weigh
from dpem_baselines.local import LocalRule, stock_quality, uncovered
from dpem_baselines.route_choice import Offers, Orders, RouteChoice, at, by_network
from dpem_env.experiments.search import SearchSpace
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, NetworkView


@dataclass(frozen=True)
class WeightRule:
    """What an allocation to each peer weighs."""

    link_price: float
    load_price: float
    lookahead: int
    forecast_weight: float

    def judge(self, seen: Observations, offers: Offers) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(N, D, R) weights, above 0 where an allocation is better than waiting, and the qualities they are for."""
        routes, peers = offers.hops.shape[2], offers.hops.shape[:2]
        weight = np.empty((routes, *peers)).transpose(1, 2, 0)  # a route's lie side by side, to be compared quickly
        quality = np.empty((*peers, routes), dtype=np.int64)
        weigh(
            seen.pending,
            seen.open_allocations,
            seen.stored_pairs,
            seen.forecast[:, :, : self.lookahead],
            offers.taken,
            offers.hops,
            offers.chance,
            offers.load,
            offers.min_quality,
            float(seen.table.scenario.control.qualities),
            self.link_price,
            self.load_price,
            self.forecast_weight,
            weight,
            quality,
        )
        return weight, quality


SEARCH_SPACE: SearchSpace = {
    "link_price": (0.01, 0.2, "log"),
    "load_price": (0.01, 1.0, "log"),
    "lookahead": (4, 8),
    "forecast_weight": (0.0, 0.25, 0.5, 1.0),
}


class MaxWeight(LocalRule):
    """Every node allocates for its peer of the largest weight.

    `link_price`: of an elementary pair over an idle route, in requests served; `load_price`: what is added to it at
    full load (worst resource of the route, as of the last answer), or on ranked routes for a claim by others on every
    link; `lookahead`: slots of the forecast that count; `forecast_weight`: worth of an expected request beside one that
    waits; `routes`, `claims_limit`, `only_if_free`: see `RouteChoice`, routes are ranked by their weight. Ties go to
    the lower place, and number.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {**SEARCH_SPACE, **RouteChoice.search_space}

    def __init__(
        self,
        link_price: float = 0.05,
        load_price: float = 0.2,
        lookahead: int = 8,
        forecast_weight: float = 1.0,
        routes: str = "auto",
        claims_limit: int | None = None,
        only_if_free: bool = False,
    ) -> None:
        super().__init__(routes, claims_limit, only_if_free)
        self.rule = WeightRule(link_price, load_price, lookahead, forecast_weight)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        offers = self.choice.offers(observations)
        weight, quality = self.rule.judge(observations, offers)
        place = heaviest(weight)
        here = at(place)
        return self.choice.decide(observations, masks, offers, place, quality[here], weight[here])


def heaviest(weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) place of the largest of (N, D, R) weights, -1 where none is above 0."""
    place = np.empty(len(weight), dtype=np.int64)
    place_of_largest(weight, place)
    return place


class CentralMaxWeight(CentralScheduler):
    """The same weights for the whole network: greedily the largest first, each on the cheapest route that fits.

    Greedy in place of the exact maximum, which is a matching problem over routes; loads are those of the view.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {**SEARCH_SPACE, **CentralReactive.search_space}

    def __init__(
        self,
        link_price: float = 0.05,
        load_price: float = 0.2,
        lookahead: int = 8,
        forecast_weight: float = 1.0,
        utilisation_limit: float = 0.5,
        fallbacks: bool = False,
        only_if_free: bool = False,
        only_if_pending: bool = False,
    ) -> None:
        super().__init__(utilisation_limit, Orders(fallbacks, only_if_free, only_if_pending))
        self.rule = WeightRule(link_price, load_price, lookahead, forecast_weight)

    def act(self, view: NetworkView) -> Decision:
        """At most one allocation per node, of those that weigh more than waiting."""
        seen = view.observations
        weight, _ = self.rule.judge(seen, by_network(seen))
        node, place, _ = np.nonzero(weight > 0)
        stocked = stock_quality(self.routes.quality[node, place], hardest_class=0)
        serves = uncovered(seen, (node, place))[:, None]
        quality = np.where(serves, self.qualities(seen, node, place), stocked)
        return self.schedule(view, node, place, quality, -weight[node, place, 0])
