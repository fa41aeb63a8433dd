"""The two ends of the scale: doing nothing, and doing anything that is legal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import ALLOCATIONS, SWAPS, Decision, LocalPolicy
from dpem_env.scenarios import Scenario
from dpem_env.support.seeding import generator


class Idle(LocalPolicy):
    """Everybody waits, always: no contention, and no delivery."""

    decides = (ALLOCATIONS, SWAPS)
    news = ()

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Wait."""
        return Decision(np.zeros(len(masks), dtype=np.int64))


class RandomLegal(LocalPolicy):
    """Every node takes one of its legal actions, waiting among them, all equally likely."""

    decides = (ALLOCATIONS, SWAPS)
    news = ()

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Seed the nodes' draws."""
        self.rng = generator("random legal", seed)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The legal action that draws the highest lot."""
        return Decision((self.rng.random(masks.shape) * masks).argmax(axis=1))
