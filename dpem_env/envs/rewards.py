"""What a slot brought the agents: the reward is what its deliveries are worth minus what its contention costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.reward_writer import write_outcome
from dpem_env.simulator import Call, Simulator


class Outcome(NamedTuple):
    """Of the last slot, of every agent in every environment, in fresh arrays."""

    # (B, N) worth of the pairs that served its requests: 1 each, or by class; equal shares where relays decide on swaps
    earned: NDArray[np.float64]
    reward: NDArray[np.float64]  # (B, N) earned_i - β·contended_i
    notes: NDArray[np.int64]  # (B, 4, N) see `noted`
    num_notes: NDArray[np.int64]  # (B,)

    def noted(self, b: int = 0) -> Iterator[tuple[int, int, int, int]]:
        """The agents of an environment with anything to note, few of many as a rule.

        Yields an agent's number and, not all of them 0: requests delivered, contended resources claimed, whether it has
        no free row now.
        """
        return zip(*self.notes[b, :, : self.num_notes[b]].tolist(), strict=True)


class Rewarder:
    """Tells what slots brought the agents of a simulator's environments."""

    def __init__(self, simulator: Simulator) -> None:
        reward = simulator.scenario.reward
        self.simulator = simulator
        self._prices = float(reward.contention_penalty), np.array(reward.class_values, dtype=np.float64)

    def outcome(self) -> Outcome:
        """That of the last slot."""
        call, outcome = self.settling()
        self.simulator.run(call)
        return outcome

    def settling(self) -> tuple[Call, Outcome]:
        """The call that `outcome` runs, to be run together with others, and what it fills."""
        shape = batch, nodes = self.simulator.num_envs, self.simulator.num_nodes
        notes = np.empty((batch, 4, nodes), dtype=np.int64), np.empty(batch, dtype=np.int64)
        outcome = Outcome(np.empty(shape), np.empty(shape), *notes)
        return (write_outcome, *self._prices, *outcome), outcome
