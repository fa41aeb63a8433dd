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
from dpem_baselines.local import as_action, needed_quality, spare_pairs, stock_quality
from dpem_env.experiments.search import SearchSpace
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, LocalPolicy, NetworkView
from dpem_env.simulator.actions import ActionCode


@dataclass(frozen=True)
class WeightRule:
    """What an allocation to each peer weighs."""

    link_price: float
    load_price: float
    lookahead: int
    forecast_weight: float

    def judge(self, seen: Observations) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(N, D) weights, above 0 where an allocation is better than waiting, and the qualities they are for."""
        scenario = seen.table.scenario
        pending = seen.pending.sum(axis=2)
        uncovered = np.maximum(pending - seen.open_allocations, 0)
        expected = seen.forecast[:, :, : self.lookahead].sum(axis=2)
        backlog = uncovered + self.forecast_weight * np.maximum(expected - spare_pairs(seen), 0)
        quality = np.where(
            uncovered > 0,
            needed_quality(seen.pending, seen.min_quality, scenario.control.qualities),
            stock_quality(seen.min_quality, 0),
        )
        rate = seen.route_up * scenario.hardware.swap_success ** np.maximum(seen.hops - 1, 0)
        price = seen.hops * quality * (self.link_price + self.load_price * seen.route_load)
        return backlog * rate - price, quality


SEARCH_SPACE: SearchSpace = {
    "link_price": (0.01, 0.2, "log"),
    "load_price": (0.05, 1.0, "log"),
    "lookahead": (4, 8),
    "forecast_weight": (0.0, 0.25, 0.5, 1.0),
}


class MaxWeight(LocalPolicy):
    """Every node allocates for its peer of the largest weight, over the route the network picks (auto).

    `link_price`: of an elementary pair over an idle route, in requests served; `load_price`: what is added to it at
    full load (worst resource of the route, as of the telemetry); `lookahead`: slots of the forecast that count;
    `forecast_weight`: worth of an expected request beside one that waits. Ties go to the lower place.
    """

    forecaster = "moving-average"
    news = ()
    search_space: ClassVar[SearchSpace] = SEARCH_SPACE

    def __init__(
        self, link_price: float = 0.05, load_price: float = 0.2, lookahead: int = 8, forecast_weight: float = 1.0
    ) -> None:
        self.rule = WeightRule(link_price, load_price, lookahead, forecast_weight)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        weight, quality = self.rule.judge(observations)
        place = np.where(weight.max(axis=1) > 0, weight.argmax(axis=1), -1)
        return Decision(as_action(place, quality, masks, ActionCode.of(observations.table.scenario)))


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
    ) -> None:
        super().__init__(utilisation_limit)
        self.rule = WeightRule(link_price, load_price, lookahead, forecast_weight)

    def act(self, view: NetworkView) -> Decision:
        """At most one allocation per node, of those that weigh more than waiting."""
        weight, quality = self.rule.judge(view.observations)
        node, place = np.nonzero(weight > 0)
        return self.schedule(view, node, place, quality[node, place], -weight[node, place])
