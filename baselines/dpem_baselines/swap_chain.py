"""Exact mean delivery times of homogeneous repeater chains with cut-offs, and the policy that makes them shortest.

The model of Iñesta, Vardoyan, Scavuzzo & Wehner (npj Quantum Information 9, 46, 2023), written from the paper and not
from the simulator. Nodes 0 … n-1 stand in a line; a relay has one qubit on each side. A segment is an entangled link
between two nodes. A slot goes like this:

1. Every segment gets a slot older, and is discarded if it is older than the cut-off.
2. Neighbours whose facing qubits are both free succeed with probability p in making a segment of age 0, also inside a
   longer one.
3. Relays with a segment on both sides are ready; those that the policy chooses swap at once, each with success
   p_s. Segments joined by swapping relays become one, as old as the oldest of them, if all these swaps succeed;
   otherwise all of them are lost.
4. If the ends are joined, the chain has delivered, and the next slot starts without segments.

A state is what there is before the swaps of a slot. Mean times solve a linear system, as in an absorbing Markov chain
(Kemeny & Snell, Finite Markov Chains, 1960, §3.3); the optimum is found by policy iteration (Howard, Dynamic
Programming and Markov Processes, 1960).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import MatrixRankWarning, spsolve

from dpem_env.support.errors import DpemError

NOTABLE = 1e-9  # slots that a decision has to save to be changed
NEVER = 1e12  # slots that rounding does not tell from a matrix without inverse: there is no delivery


class Segment(NamedTuple):
    """An entangled link: the nodes it joins, and slots since its oldest part was made."""

    left: int
    right: int
    age: int


State = tuple[Segment, ...]  # from left to right
Swaps = tuple[int, ...]  # relays that swap in a slot
Policy = Callable[[State], Swaps]

EMPTY: State = ()


@dataclass(frozen=True)
class SwapChain:
    """A chain of equal nodes and links; DpemError for one that never delivers."""

    nodes: int
    generation: float  # p
    swap_success: float  # p_s
    cutoff: int | None  # slots; none: segments are kept

    def __post_init__(self) -> None:
        if self.nodes < 2:
            raise DpemError(f"nodes is {self.nodes}; expected 2 or more")
        for field in ("generation", "swap_success"):
            if not 0.0 < getattr(self, field) <= 1.0:
                raise DpemError(f"{field} is {getattr(self, field)}; expected a probability above 0, at most 1")
        if self.cutoff is not None and self.cutoff < 0:
            raise DpemError(f"cutoff is {self.cutoff}; expected 0 or more slots, or None")

    def followers(self, state: State, swaps: Swaps) -> Iterator[tuple[State, float]]:
        """What may be there before the swaps of the next slot, if there is no delivery, and how probable it is."""
        for left_over, probability in self._swapped(state, swaps):
            delivered = any(segment.right - segment.left == self.nodes - 1 for segment in left_over)
            for follower, share in () if delivered else self._generated(self._aged(left_over)):
                if probability * share > 0.0:
                    yield follower, probability * share

    def _swapped(self, state: State, swaps: Swaps) -> list[tuple[State, float]]:
        """Every outcome of the swaps: each run of segments that they join is one afterwards, or gone."""
        outcomes: list[tuple[State, float]] = [((), 1.0)]
        for run in runs(state, swaps):
            success = self.swap_success ** (len(run) - 1)
            joined = Segment(run[0].left, run[-1].right, max(segment.age for segment in run))
            kept = [((*left_over, joined), probability * success) for left_over, probability in outcomes]
            lost = [(left_over, probability * (1.0 - success)) for left_over, probability in outcomes]
            outcomes = kept + (lost if len(run) > 1 else [])
        return outcomes

    def _aged(self, state: State) -> State:
        """One slot later; without a cut-off age says nothing and stays 0."""
        if self.cutoff is None:
            return tuple(segment._replace(age=0) for segment in state)
        return tuple(segment._replace(age=segment.age + 1) for segment in state if segment.age < self.cutoff)

    def _generated(self, state: State) -> Iterator[tuple[State, float]]:
        """Every outcome of the attempts on neighbours whose facing qubits are free."""
        lefts, rights = {segment.left for segment in state}, {segment.right for segment in state}
        free = [node for node in range(self.nodes - 1) if node not in lefts and node + 1 not in rights]
        for count in range(len(free) + 1):
            probability = self.generation**count * (1.0 - self.generation) ** (len(free) - count)
            for nodes in combinations(free, count):
                yield tuple(sorted(state + tuple(Segment(node, node + 1, 0) for node in nodes))), probability


def ready(state: State) -> Swaps:
    """Relays with a segment on both sides."""
    return tuple(sorted({segment.left for segment in state} & {segment.right for segment in state}))


def decisions(state: State) -> list[Swaps]:
    """Every choice among the relays that are ready, none first and all last."""
    relays = ready(state)
    return [swaps for count in range(len(relays) + 1) for swaps in combinations(relays, count)]


asap: Policy = ready  # every relay swaps as soon as it can


def nested(state: State) -> Swaps:
    """On five nodes: as soon as they can, but the middle one waits if both its neighbours swap."""
    relays = ready(state)
    return (1, 3) if relays == (1, 2, 3) else relays


def runs(state: State, swaps: Swaps) -> Iterator[list[Segment]]:
    """Segments in groups that these swaps join, each from left to right; most are alone."""
    starting = {segment.left: segment for segment in state}
    for segment in state:
        if segment.left not in swaps:
            run = [segment]
            while run[-1].right in swaps:
                run.append(starting[run[-1].right])
            yield run


def mean_delivery_time(chain: SwapChain, policy: Policy) -> float:
    """Mean number of slots from a chain without segments to the slot of delivery, this one counted; inf for never."""
    table = _tabulate(chain, lambda state: [policy(state)])
    with warnings.catch_warnings(action="ignore", category=MatrixRankWarning):
        slots = float(_remaining(table.moves)[0])
    return slots if 0.0 < slots < NEVER else math.inf


class Optimum(NamedTuple):
    """The shortest mean delivery time in slots, and what the policy that reaches it does."""

    slots: float
    swaps: dict[State, Swaps]


def solve(chain: SwapChain) -> Optimum:
    """The best of all policies that see the whole chain, by policy iteration from swap-asap."""
    table = _tabulate(chain, decisions)
    ends = np.append(table.first[1:], table.moves.shape[0])
    chosen = ends - 1  # all that are ready swap
    while True:
        remaining = _remaining(table.moves[chosen])
        worth = table.moves @ (1.0 + remaining)
        best = np.array([first + np.argmin(worth[first:end]) for first, end in zip(table.first, ends, strict=True)])
        better = worth[best] < worth[chosen] - NOTABLE
        if not better.any():
            break
        chosen = np.where(better, best, chosen)
    policy = {state: table.swaps[row] for state, row in zip(table.states, chosen, strict=True)}
    return Optimum(float(remaining[0]), policy)


class _Table(NamedTuple):
    """All that may happen: a row of `moves` per state and decision, a column per state."""

    states: list[State]
    first: NDArray[np.int64]  # row of every state's first decision
    swaps: list[Swaps]  # of every row
    moves: csr_array  # probabilities; what is missing to 1 is delivery


def _tabulate(chain: SwapChain, options: Callable[[State], list[Swaps]]) -> _Table:
    """Every state that can be reached from the empty chain, which comes first, by these decisions."""
    place = {EMPTY: 0}
    states = [EMPTY]
    first: list[int] = []
    swaps: list[Swaps] = []
    laws: list[dict[int, float]] = []
    for state in states:  # grows as they are found
        first.append(len(swaps))
        for decision in options(state):
            law: dict[int, float] = defaultdict(float)
            for follower, probability in chain.followers(state, decision):
                if follower not in place:
                    place[follower] = len(states)
                    states.append(follower)
                law[place[follower]] += probability
            swaps.append(decision)
            laws.append(law)
    columns = np.array([column for law in laws for column in law], dtype=np.int64)
    data = np.array([probability for law in laws for probability in law.values()])
    row_ends = np.concatenate(([0], np.cumsum([len(law) for law in laws])))
    return _Table(states, np.array(first), swaps, csr_array((data, columns, row_ends), (len(laws), len(states))))


def _remaining(moves: csr_array) -> NDArray[np.float64]:
    """Mean slots to come after this one, by state, if these are the moves: x = M(1 + x)."""
    size = moves.shape[0]
    found = spsolve((eye_array(size, format="csr") - moves).tocsc(), moves @ np.ones(size))
    return np.atleast_1d(found)
