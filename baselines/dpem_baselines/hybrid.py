"""Nodes that decide now, at prices that a controller sets late."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.maxweight import SEARCH_SPACE, WeightRule, heaviest
from dpem_baselines.route_choice import READ, RouteChoice, at
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, HybridPolicy, NetworkView
from dpem_env.scenarios import Scenario


class HybridMaxWeight(HybridPolicy):
    """`MaxWeight` over ranked routes, whose links and relays a controller has priced by how they are asked for.

    Every slot the controller raises the price of a source or swap engine by `step` times what claims it beyond
    `target`, both as shares of what it can do in a time-to-live, and lowers it in the same way, not below 0. Prices are
    virtual queues, or dual variables under subgradient steps (Neely, Stochastic Network Optimization, 2010, ch. 4).
    Their sum along every candidate route is sent out, which ranks routes before any node has read them. Nodes read,
    subtract these prices and decide. Other options are those of `MaxWeight`.
    """

    forecaster = "moving-average"
    news = READ
    search_space: ClassVar[SearchSpace] = {
        "step": (0.001, 0.1, "log"),
        "target": (0.1, 0.15, 0.25, 0.5),
        **SEARCH_SPACE,
        "claims_limit": RouteChoice.search_space["claims_limit"],
        "only_if_free": RouteChoice.search_space["only_if_free"],
    }

    def __init__(
        self,
        step: float = 0.01,
        target: float = 0.25,
        link_price: float = 0.05,
        load_price: float = 0.05,
        lookahead: int = 8,
        forecast_weight: float = 1.0,
        claims_limit: int | None = None,
        only_if_free: bool = False,
    ) -> None:
        self.step, self.target = step, target
        self.rule = WeightRule(link_price, load_price, lookahead, forecast_weight)
        self.choice = RouteChoice("ranked", claims_limit, only_if_free)

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """No prices yet."""
        self.choice.reset(network)
        topology, routes = network.topology, network.routes
        rates = np.concatenate((topology.generation_rate, topology.swap_rate))
        self._capacity = rates * scenario.control.time_to_live
        nothing = len(rates)  # the number of no resource
        sources = np.where(routes.links >= 0, topology.emitter[routes.links], nothing)
        inner = routes.nodes[..., 1:-1]
        relays = np.where(
            np.arange(1, routes.links.shape[3]) < routes.hops[..., None], topology.num_nodes + inner, nothing
        )
        self._resources = np.concatenate((sources, relays), axis=3)  # (N, D, k, 2H - 1) along every route
        self._prices = np.zeros(nothing + 1)

    def advise(self, view: NetworkView) -> NDArray[np.float64]:
        """(N, D, k) price of every candidate route."""
        claims = np.concatenate((view.source_claims, view.swap_claims))
        excess = claims / np.maximum(self._capacity, 1.0) - self.target
        self._prices[:-1] = np.maximum(self._prices[:-1] + self.step * excess, 0.0)
        price: NDArray[np.float64] = self._prices[self._resources].sum(axis=3)
        return price

    def act(self, observations: Observations, masks: NDArray[np.int8], advice: NDArray[np.float64] | None) -> Decision:
        """One allocation per node at most, from its own row and the prices of its own routes."""
        offers = self.choice.offers(observations)
        weight, quality = self.rule.judge(observations, offers)
        if advice is not None:
            weight = weight - quality * advice
        place = heaviest(weight)
        here = at(place)
        return self.choice.decide(observations, masks, offers, place, quality[here], weight[here])
