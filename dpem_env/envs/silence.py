"""Silence: while it lasts the actions of some agents are not carried out; where controllers decide, no command is.

Who is silent is drawn from the demand seed alone, so that all policies that are compared meet the same; the agents of a
smaller share are among those of a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import Silence
from dpem_env.support.seeding import generator


class SilentAgents:
    """Whose actions are not carried out, and in which slots, in the episodes of B networks."""

    def __init__(self, scenario: Scenario, silence: Silence, nodes_decide: bool) -> None:
        first = scenario.in_slots(silence.start)
        self.slots = range(first, first + scenario.in_slots(silence.duration))
        self.share = silence.share if nodes_decide else 1.0

    def begin(self, num_nodes: int, demand_seeds: Sequence[int]) -> None:
        """Draw the silent agents of every network's episode."""
        number = math.ceil(Decimal(str(self.share)) * num_nodes)  # 7 % of 100 are 7: in binary it would be 8
        self.silent = np.zeros((len(demand_seeds), num_nodes), dtype=np.bool_)
        for silent, seed in zip(self.silent, demand_seeds, strict=True):
            silent[generator("silence", seed).permutation(num_nodes)[:number]] = True

    def made_to_wait(self, action: ArrayLike) -> NDArray[np.int64]:
        """The actions of all networks, (B, N) or (N,) of a single one, with waits in place of silent agents' ones."""
        given = np.asarray(action, dtype=np.int64)
        return np.where(self.silent.reshape(given.shape), 0, given)
