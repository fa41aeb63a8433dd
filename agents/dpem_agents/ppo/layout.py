"""What rows and actions of a policy are made of, and where networks that see all candidates alike find them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_env.observations.features import NEWS, NODE_FEATURES, FeatureTable
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode, Condition

OWN = len(NODE_FEATURES)  # columns of a node's own features
PEERS = "peers per node"


def interface(scenario: Scenario, news: tuple[str, ...] = NEWS) -> dict[str, Any]:
    """What a policy's observations, with these features of candidate routes, and actions are made of."""
    table = FeatureTable(scenario, news)
    return {
        PEERS: scenario.demand.peers,
        "routes per peer": scenario.routing.routes_per_peer,
        "qualities": scenario.control.qualities,
        "fidelity classes": len(scenario.demand.fidelity_classes),
        "forecast slots": scenario.observation.forecast_horizon,
        "features per peer": table.peer_width,
        "features": [feature.name for feature in (*NODE_FEATURES, *table.peer_features)],
    }


class Layout(NamedTuple):
    """Where networks find the candidates in a row: peers, or routes to them where routes are named."""

    peers: int
    width: int  # columns of a peer block
    routes: int | None  # to a peer, that are candidates; None: none is named
    news: int  # features of each candidate route, the last in the peer block; 0 where none is named
    told: int  # columns after the observation
    qualities: int
    conditions: int  # 2 where an allocation may be asked for only if its route is free, else 1

    @classmethod
    def of(cls, interface: dict[str, Any], hyperparameters: Hyperparameters) -> Layout:
        """Of policies with this `interface`, as in a checkpoint."""
        named = hyperparameters.routes
        return cls(
            interface[PEERS],
            interface["features per peer"],
            interface["routes per peer"] if named else None,
            len(set(NEWS) & set(interface["features"])) if named else 0,
            1 if hyperparameters.penalties else 0,
            interface["qualities"],
            2 if hyperparameters.conditional else 1,
        )

    @property
    def own(self) -> int:
        """Columns that are of no candidate."""
        return OWN + self.told

    @property
    def common(self) -> int:
        """Columns of a peer block that tell of the peer."""
        return self.width - self.news * (self.routes or 1)

    @property
    def of_each(self) -> int:
        """Columns of a candidate: of its peer, and of its own among those of every candidate route."""
        return self.common + self.news

    @property
    def code(self) -> ActionCode:
        """The code of actions."""
        return ActionCode(self.peers, self.qualities, self.routes, Condition.FREE if self.conditions == 2 else 0)

    def split(self, rows: Any, library: Any = np) -> tuple[Any, Any]:
        """(..., own) what nodes see of themselves, and (..., candidates, of each); `library` is numpy, or torch."""
        seen = OWN + self.peers * self.width
        own = library.concatenate([rows[..., :OWN], rows[..., seen:]], -1)
        blocks = rows[..., OWN:seen].reshape(*rows.shape[:-1], self.peers, self.width)
        if self.routes is None:
            return own, blocks
        news = blocks[..., self.common :].reshape(*blocks.shape[:-1], self.news, self.routes).swapaxes(-1, -2)
        peer = library.broadcast_to(blocks[..., None, : self.common], (*news.shape[:-1], self.common))
        shape = (*rows.shape[:-1], self.peers * self.routes, self.of_each)
        return own, library.concatenate([peer, news], -1).reshape(shape)

    def arrange(self, waiting: Any, allocating: Any, library: Any = np) -> Any:
        """(..., actions) of (..., 1) and what every candidate has for each condition and quality."""
        shape = (*allocating.shape[:-2], self.peers, self.routes or 1, self.conditions, self.qualities)
        by_condition = library.moveaxis(allocating.reshape(shape), (-4, -3, -2, -1), (-3, -1, -4, -2))
        by_action = by_condition.reshape(*waiting.shape[:-1], self.code.num_actions - 1)
        return library.concatenate([waiting, by_action], -1)


def told(penalties: tuple[float, ...], penalty: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 1) where (n,) contention penalties lie, in logarithms, from 0 at the smaller to 1 at the larger of two.

    It is (n, 0) without the two. What lies outside them is told as the nearer one.
    """
    if not penalties:
        return np.zeros((len(penalty), 0), dtype=np.float32)
    smaller, larger = penalties
    within = np.clip(penalty, smaller, larger)
    place: NDArray[np.float64] = np.log(within / smaller) / np.log(larger / smaller)
    return place[:, None].astype(np.float32)
