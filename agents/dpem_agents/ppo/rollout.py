"""What a rollout leaves to learn from: the rows that decided, and what came of each until its node decided again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from torch import Tensor

from dpem_agents.ppo.acting import Choices
from dpem_agents.ppo.forward import F32

I64 = NDArray[np.int64]

OF_A_COPY = 4  # what copying a node's weights costs, in rows of a product


class Batch(NamedTuple):
    """Decisions of N nodes in pieces of at most B: the first piece of every node in their order, then all others.

    N is 1 where all nodes share a policy.
    """

    places: Tensor  # (pieces, B) of the decisions in the buffer
    weight: Tensor  # (pieces, B) adds up to 1 over all decisions of a node; 0 where a piece has fewer than B
    others: Tensor  # (pieces - N,) the nodes of all pieces but the first ones

    def sum(self, values: Tensor) -> Tensor:
        """(N,) of (pieces, B), over each node's own."""
        of_pieces, nodes = values.sum(dim=1), len(values) - len(self.others)
        return of_pieces[:nodes].index_add(0, self.others, of_pieces[nodes:])

    def mean(self, values: Tensor) -> Tensor:
        """(N,) of (pieces, B), over each node's own."""
        return self.sum(values * self.weight)

    def of_pieces(self, values: Tensor) -> Tensor:
        """(pieces, 1) what (N,) values are for the node of each piece."""
        return torch.cat([values, values[self.others]]).unsqueeze(1)


class DecisionBuffer(MaskableRolloutBuffer):
    """Decisions, in the order in which they were made; sub-environment e is for the policy of e modulo `nodes`.

    A decision's reward is all that its row earns until the row decides again, Δ slots later: R = Σ γʲ r_j. So
    δ = R + γ^Δ V' - V and A = δ + (γλ)^Δ A' (generalised advantage estimation, Schulman et al. 2016, for decisions that
    take several slots, as options do: Sutton, Precup & Singh 1999). At the end of an episode or of the rollout V' is
    the value of the last observation, on which mostly nothing is decided. So that the critic knows such rows, too, it
    also learns from the first observations of the rollout (`first`, `idle`, `first_returns`), which are the last ones
    of the rollout before. What a row earns before its first decision is of no other use.
    """

    def __init__(self, *arguments: Any, nodes: int = 1, **named: Any) -> None:
        self.nodes = nodes
        super().__init__(*arguments, **named)

    def reset(self) -> None:
        """Forget the rollout."""
        self.rewards = np.zeros((self.buffer_size, self.n_envs), dtype=np.float32)
        self.ends: dict[int, F32] = {}  # (num_envs,) values of the last observations of episodes, by their last slot
        self.began = [0]  # number of the first decision of each slot, and of what came after the last one
        self.choices: list[Choices] = []
        self.chosen: list[tuple[I64, F32]] = []
        self.pos, self.full = 0, False

    def begin(self, first: F32) -> None:
        """The observations of all rows in the first slot."""
        self.first = self._together([first])

    def add(  # type: ignore[override]
        self, choices: Choices, chosen: I64, log_probs: F32, rewards: F32, final: F32 | None
    ) -> None:
        """A slot: its decisions, the rewards of all rows, and if it was an episode's last, the values after it."""
        self.choices.append(choices)
        self.chosen.append((chosen, log_probs))
        self.began.append(self.began[-1] + len(chosen))
        self.rewards[self.pos] = rewards
        if final is not None:
            self.ends[self.pos] = final
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def close(self) -> None:
        """No slot is to come: put decisions together, and tell whose they are."""
        self.rows = np.concatenate([choices.rows for choices in self.choices])
        slots = np.repeat(np.arange(self.pos), np.diff(self.began))
        order = np.lexsort((slots, self.rows // self.nodes, self.rows % self.nodes))
        counts = np.bincount(self.rows % self.nodes, minlength=self.nodes)
        self.by_node = np.split(order, np.cumsum(counts)[:-1])  # of each node, in the order of a buffer of its own
        self.seen = self._together([choices.matrix for choices in self.choices])
        self.legal = self._together([choices.masks for choices in self.choices]) == 1
        self.prior = self._together([choices.prior for choices in self.choices])
        self.actions = self._together([chosen for chosen, _ in self.chosen])
        self.log_probs = np.concatenate([log_probs for _, log_probs in self.chosen])

    def _together(self, arrays: list[NDArray[Any]]) -> Any:
        return torch.from_numpy(np.concatenate(arrays)).to(self.device)

    def compute_returns_and_advantage(self, values: F32, last_values: F32) -> None:  # type: ignore[override]
        """Returns and advantages of all decisions, from their values and those of all rows after the last slot."""
        self.values, self.advantages = values, np.zeros_like(values)
        ahead, trace = last_values, np.zeros_like(last_values)  # (num_envs,) of what follows
        for slot in reversed(range(self.pos)):
            if slot in self.ends:
                ahead, trace = self.ends[slot], np.zeros_like(trace)
            ahead = self.rewards[slot] + self.gamma * ahead
            trace = self.gamma * self.gae_lambda * trace
            here = slice(self.began[slot], self.began[slot + 1])
            rows = self.rows[here]
            self.advantages[here] = ahead[rows] - values[here] + trace[rows]
            ahead[rows], trace[rows] = values[here], self.advantages[here]
        self.returns = self.advantages + values
        self.first_returns = ahead + trace
        self.idle = np.ones(self.n_envs, dtype=np.bool_)
        self.idle[self.rows[: self.began[1]]] = False

    def batches(self, parts: int, order: I64) -> Iterator[Batch]:
        """At most so many: each node's decisions, shuffled by an order of the most that any has, in equal parts."""
        counts = np.array([len(own) for own in self.by_node])  # (N,), as the next ones
        size = -(-counts // parts)  # of a batch
        shuffled = np.zeros((self.nodes, self.most), dtype=np.int64)
        for own, places in zip(self.by_node, shuffled, strict=True):
            places[: len(own)] = own[order[order < len(own)]]
        for batch in range(int((-(-counts // size.clip(1))).max())):
            decisions = (counts - batch * size).clip(0, size)
            length = _cheapest(decisions)
            others, piece = np.nonzero(decisions[:, None] > length * np.arange(1, -(-decisions.max() // length)))
            nodes = np.concatenate([np.arange(self.nodes), others])[:, None]
            column = np.concatenate([np.zeros(self.nodes, dtype=np.int64), piece + 1])[:, None] * length
            column = column + np.arange(length)
            there = column < decisions[nodes]
            places = shuffled[nodes, np.where(there, batch * size[nodes] + column, 0)]
            weight = (there / decisions[nodes].clip(1)).astype(np.float32)
            yield Batch(*(self._together([each]) for each in (places, weight, others)))

    @property
    def most(self) -> int:
        """Decisions of the node that has most."""
        return max(len(own) for own in self.by_node)


def _cheapest(decisions: I64) -> int:
    """Length of pieces, of nodes with so many decisions, by which their products are made soonest."""
    lengths = np.unique(decisions.clip(1))
    more = (-(-decisions // lengths[:, None]) - 1).clip(0).sum(axis=1)
    costs = len(decisions) * lengths + more * (lengths + OF_A_COPY)
    return int(lengths[costs.argmin()])
