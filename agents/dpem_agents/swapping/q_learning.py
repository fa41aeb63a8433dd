"""Tabular Q-learning of swaps (Watkins & Dayan, Machine Learning 8, 279, 1992), of many chains at once.

Every slot costs 1 until the delivery, without discount: a stochastic shortest path, whose optimum is the shortest mean
delivery time (Tsitsiklis, Machine Learning 16, 185, 1994, on its convergence). Tables begin at cost 0, less than
anything costs, so that what was never tried is tried. Relays that learn one by one have a table each and the same
costs; to each of them the others are part of the chain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dpem_agents.swapping.chains import Chains, Masks, Rows
from dpem_agents.swapping.views import View
from dpem_baselines.swap_chain import SwapChain
from dpem_env.observations.features import FeatureTable

COUNT = 256  # chains side by side
EXPLORATION = 0.3  # share of random choices at first; falls to none in a straight line
FORGETTING = 0.6  # a step size is visits to minus this


class QLearning:
    """Tables of one agent that decides for all relays, or of one agent per relay: see `views`."""

    def __init__(self, chain: SwapChain, sees: str, table: FeatureTable, seed: int) -> None:
        self.chain, self.view, self.seed = chain, View(sees, table), seed
        self.rng = np.random.default_rng(seed)
        agents, relays = self.view.agents, self.view.relays // self.view.agents
        who_swaps = np.arange(2**relays)[:, None] >> np.arange(relays) & 1
        self._swapping: NDArray[np.bool_] = who_swaps.astype(np.bool_)  # (actions, relays of an agent)
        self.cost = np.zeros((agents, self.view.ranges.prod(), 2**relays))
        self.visits = np.zeros(self.cost.shape, dtype=np.int64)

    def learn(self, slots: int, reports: int) -> Iterator[int]:
        """Play so many slots, of all chains together; yields what was played `reports` times on the way."""
        steps = slots // COUNT
        chains = Chains(self.chain, COUNT, steps, self.seed)
        seen = chains.look()
        state, legal = self._states(seen.rows), self._legal(seen.masks)
        for step in range(steps):
            action = self._explored(state, legal, EXPLORATION * (1.0 - step / steps))
            seen = chains.play(self._choices(action))
            following, legal = self._states(seen.rows), self._legal(seen.masks)
            rest = self._costs(following, legal).min(axis=-1)
            self._update(state, action, 1.0 + np.where(seen.delivered[:, None], 0.0, rest))
            state = following
            if (step + 1) * reports // steps > step * reports // steps:
                yield (step + 1) * COUNT

    def decide(self, rows: Rows, masks: Masks) -> NDArray[np.int64]:
        """The choices that cost least by the tables."""
        return self._choices(self._costs(self._states(rows), self._legal(masks)).argmin(axis=-1))

    def _states(self, rows: Rows) -> NDArray[np.int64]:
        """(chains, agents) the number of what each sees."""
        numbers = np.moveaxis(self.view.numbers(rows), -1, 0)
        states: NDArray[np.int64] = np.ravel_multi_index(tuple(numbers), tuple(self.view.ranges))
        return states

    def _legal(self, masks: Masks) -> NDArray[np.bool_]:
        """(chains, agents, actions) which swap at relays that can."""
        may = self.view.may_swap(masks).reshape(len(masks), self.view.agents, 1, -1)
        legal: NDArray[np.bool_] = np.all(may | ~self._swapping, axis=-1)
        return legal

    def _choices(self, action: NDArray[np.int64]) -> NDArray[np.int64]:
        """(chains, N) of (chains, agents) actions."""
        return self.view.choices(self._swapping[action].reshape(len(action), -1))

    def _costs(self, state: NDArray[np.int64], legal: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(chains, agents, actions) costs, inf of what is illegal."""
        costs: NDArray[np.float64] = np.where(legal, self.cost[np.arange(len(self.cost)), state], np.inf)
        return costs

    def _explored(self, state: NDArray[np.int64], legal: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
        best = self._costs(state, legal).argmin(axis=-1)
        lots = np.where(legal, self.rng.random(legal.shape), -1.0).argmax(axis=-1)
        chosen: NDArray[np.int64] = np.where(self.rng.random(best.shape) < share, lots, best)
        return chosen

    def _update(self, state: NDArray[np.int64], action: NDArray[np.int64], target: NDArray[np.float64]) -> None:
        """Move the cost of what was done towards what it came to, as often as chains did it."""
        agent = np.broadcast_to(np.arange(len(self.cost)), state.shape)
        place = np.ravel_multi_index((agent, state, action), self.cost.shape)
        done, which, times = np.unique(place, return_inverse=True, return_counts=True)
        mean = np.bincount(which.ravel(), target.ravel()) / times
        visits, cost = self.visits.reshape(-1), self.cost.reshape(-1)
        visits[done] += times
        step = 1.0 - (1.0 - visits[done] ** -FORGETTING) ** times
        cost[done] += step * (mean - cost[done])
