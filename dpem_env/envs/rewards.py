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
    notes: NDArray[np.int64]  # (B, 5, N) see `noted`
    num_notes: NDArray[np.int64]  # (B, 3)

    def noted(self, b: int = 0) -> tuple[Iterator[tuple[int, int]], Iterator[tuple[int, int]], list[int]]:
        """The agents of an environment with anything to note, few of many as a rule, by their numbers.

        The first with the requests that they have delivered, the second with the contended resources that they have
        claimed; the last have no free row now.
        """
        notes, (delivered, contended, full) = self.notes[b], self.num_notes[b].tolist()
        return (
            zip(notes[0, :delivered].tolist(), notes[1, :delivered].tolist(), strict=True),
            zip(notes[2, :contended].tolist(), notes[3, :contended].tolist(), strict=True),
            notes[4, :full].tolist(),
        )


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
        notes = np.empty((batch, 5, nodes), dtype=np.int64), np.empty((batch, 3), dtype=np.int64)
        outcome = Outcome(np.empty(shape), np.empty(shape), *notes)
        return (write_outcome, *self._prices, *outcome), outcome
