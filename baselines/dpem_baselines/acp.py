"""Adaptive, continuous entanglement generation: pairs are made all the time, with whom was asked for lately.

After Kolar et al., Adaptive, Continuous Entanglement Generation for Quantum Networks, INFOCOM Workshops 2022, and Zhan
et al., arXiv 2502.01964, 2025. There a node picks at random whom to entangle with from a table of probabilities, one of
them for nobody; those asked for rise by a step, and normalising lets the others fade; a quota bounds the memories used.
Adapted: (1) a pair belongs to a peer, not to a neighbour, because stored pairs serve requests and are not swapped
further; `max_hops` keeps to peers as near as neighbours are. (2) The table is the attached forecast times `eagerness`:
smoothing own request counts is what raising and normalising does, and the moving average forgets by a window instead
of exponentially. So it starts at "nobody", not uniform. (3) Requests come first.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.local import LocalRule, spare_pairs, stock_quality
from dpem_baselines.route_choice import RouteChoice
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario
from dpem_env.support.seeding import generator


class AdaptiveContinuous(LocalRule):
    """Serves pending requests as `LocalReactive` does; with none to serve, stocks with a peer drawn by its requests.

    `eagerness`: pairs begun per request expected, and of every slot at most one; `quota`: pairs a node may have in
    stock or on their way there; `max_hops`: longest route it stocks over; `stock_class`: hardest fidelity class that
    stock is made for; `routes`, `claims_limit`, `only_if_free`: see `RouteChoice`.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {
        "eagerness": (0.5, 16.0, "log"),
        "quota": (0, 1, 2, 4),
        "max_hops": (1, 2, 3, 4, 8),
        "stock_class": (0, 1, 2),
        **RouteChoice.search_space,
    }

    def __init__(
        self,
        eagerness: float = 4.0,
        quota: int = 2,
        max_hops: int = 3,
        stock_class: int = 0,
        routes: str = "auto",
        claims_limit: int | None = None,
        only_if_free: bool = False,
    ) -> None:
        super().__init__(routes, claims_limit, only_if_free)
        self.eagerness, self.quota, self.max_hops, self.stock_class = eagerness, quota, max_hops, stock_class

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """The candidate routes, and the seed of the nodes' draws."""
        super().reset(scenario, network, seed)
        self.rng = generator("adaptive continuous", seed)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        seen, offers = observations, self.choice.offers(observations)
        near = offers.taken & (offers.chance > 0) & (offers.hops <= self.max_hops)
        has_room = spare_pairs(seen).sum(axis=1) < self.quota
        drawn = np.where(has_room, self._draw(seen, near), -1)
        stocked = stock_quality(offers.min_quality, self.stock_class)
        return self.serve(seen, masks, offers, drawn, stocked, offers.chance * near)

    def _draw(self, seen: Observations, near: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(N,) a peer's place, drawn from each node's table of probabilities; -1 for nobody. `near` (N, D, R)."""
        table = self.eagerness * seen.forecast.mean(axis=2) * near.any(axis=2)
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1.0)
        place = (self.rng.random((len(table), 1)) >= table.cumsum(axis=1)).sum(axis=1)
        return np.where(place < table.shape[1], place, -1)
