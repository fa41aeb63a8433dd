"""Chains to learn swaps in, side by side, and the exact grade of what was learned.

Learning is by trying, in the simulator; grading is not. A policy that decides the same whenever it sees the same is one
of the solver's, so its mean delivery time is known exactly, and its grade is that of the optimum over it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.swap_chain import State, SwapChain, mean_delivery_time, ready
from dpem_baselines.swapping import solved
from dpem_env.envs.session import Session
from dpem_env.observations.features import FeatureTable
from dpem_env.scenarios import Scenario, get
from dpem_env.simulator.actions import Choice

Rows = NDArray[np.float32]  # (chains, N, F) what nodes see, told all of their chain
Masks = NDArray[np.int8]  # (chains, N, 2)
Decide = Callable[[Rows, Masks], NDArray[np.int64]]  # -> (chains, N) a Choice of every node


def scenario_of(chain: SwapChain, slots: int) -> Scenario:
    """The chain as the simulator plays it, its relays told in every slot what there is."""
    return get(
        f"swap-chain{chain.nodes}-v0",
        generation_rate=(chain.generation, chain.generation),
        swap_success=chain.swap_success,
        cutoff=chain.cutoff,
        swapping="agents",
        news_period=1.0,
        slots=slots,
    )


class Seen(NamedTuple):
    """What comes of a slot."""

    rows: Rows
    masks: Masks
    delivered: NDArray[np.bool_]  # (chains,) in the slot just played; then the chain has begun anew


class Chains:
    """`count` chains side by side in one episode of `slots`; seeds are of the training split."""

    def __init__(self, chain: SwapChain, count: int, slots: int, seed: int) -> None:
        self.session = Session(scenario_of(chain, slots), count, split="train")
        self.session.reset(seed * count)

    def look(self) -> Seen:
        """Before the first slot."""
        return Seen(*self.session.look(), np.zeros(self.session.num_networks, dtype=np.bool_))

    def play(self, choices: NDArray[np.int64]) -> Seen:
        """Play a slot with (count, N) choices."""
        turn = self.session.play(choices)
        return Seen(turn.observations, turn.masks, self.session.simulator.state.delivered[:, 0] > 0)


class Grading:
    """The grades of policies of a chain."""

    def __init__(self, chain: SwapChain) -> None:
        self.chain = chain
        self.table = FeatureTable(scenario_of(chain, 1))
        self.optimum = solved(chain)
        self._place = {state: place for place, state in enumerate(self.optimum.swaps)}

    def slots(self, decide: Decide) -> float:
        """Mean delivery time, exactly; inf for a policy that never delivers."""
        swapping = decide(*self._shown) == Choice.SWAP

        def policy(state: State) -> tuple[int, ...]:
            return tuple(np.flatnonzero(swapping[self._place[state]]).tolist())

        return mean_delivery_time(self.chain, policy)

    def per_cent(self, decide: Decide) -> float:
        """Mean delivery time of the optimum over that of the policy: 100 is the optimum."""
        return 100.0 * self.optimum.slots / self.slots(decide)

    @cached_property
    def _shown(self) -> tuple[Rows, Masks]:
        """What nodes see, and may do, in every state that a chain may come to."""
        states = list(self._place)
        shape = len(states), self.chain.nodes
        masks = np.zeros((*shape, 2), dtype=np.int8)
        masks[..., Choice.WAIT] = 1
        for place, state in enumerate(states):
            masks[place, list(ready(state)), Choice.SWAP] = 1
        return np.stack([rows_of(self.table, state) for state in states]), masks


def rows_of(table: FeatureTable, state: State) -> Rows:
    """(N, F) what nodes see of a state, as the simulator would show it."""
    nodes, first, scale = table.sizes["n"], table.offset, table.scale
    rows = np.zeros((nodes, table.width), dtype=np.float32)
    rows[:, first["position"]] = np.arange(nodes) / scale["position"]
    for left, right, age in state:
        for feature, value in (("reach", right - left), ("age", age)):
            share = value / scale[f"chain_{feature}"]
            rows[left, first[f"right_{feature}"]] = rows[right, first[f"left_{feature}"]] = share
            rows[:, first[f"chain_{feature}"] + left] = share
    return rows
