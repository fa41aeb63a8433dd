"""What learners of swaps see and do: one agent for the chain ("joint"), or a relay that is told of all of it ("chain")
or sees its own segments ("own")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_agents.swapping.chains import Masks, Rows
from dpem_env.observations.features import FeatureTable
from dpem_env.simulator.actions import Choice

SEES = ("joint", "chain", "own")


class View:
    """The lengths and ages of the segments that an agent sees, as whole numbers, and the relays that it decides for."""

    def __init__(self, sees: str, table: FeatureTable) -> None:
        nodes, self.sees = table.sizes["n"], sees
        self.relays = nodes - 2
        self.agents = 1 if sees == "joint" else self.relays
        segments = ("left", "right") if sees == "own" else ("chain",)
        features = [f"{segment}_{what}" for segment in segments for what in ("reach", "age")]
        places = {name: range(1 if sees == "own" else nodes - 1) for name in features}
        self._columns = [table.offset[name] + place for name in features for place in places[name]]
        self._scales = np.array([table.scale[name] for name in features for _ in places[name]])
        # How many values each number may have: lengths 0 … n - 1, ages 0 … cutoff.
        self.ranges = np.rint(self._scales).astype(np.int64) + 1

    def numbers(self, rows: Rows) -> NDArray[np.int64]:
        """(chains, agents, numbers) what each agent sees."""
        shown = rows[:, :1] if self.sees == "joint" else rows[:, 1:-1]
        numbers: NDArray[np.int64] = np.rint(shown[..., self._columns] * self._scales).astype(np.int64)
        return numbers

    def may_swap(self, masks: Masks) -> NDArray[np.bool_]:
        """(chains, relays) which relays can."""
        may: NDArray[np.bool_] = masks[:, 1:-1, Choice.SWAP] == 1
        return may

    def choices(self, swapping: NDArray[np.integer | np.bool_]) -> NDArray[np.int64]:
        """(chains, N) a `Choice` of every node, from (chains, relays) who swaps."""
        return np.pad(swapping.astype(np.int64), ((0, 0), (1, 1)))
