"""The exact optimum of a network small enough to solve: node 0 serves its requests for node 2 over relay 1.

Written from the rules of a slot (docs/rules.md), not from the kernel, as a yardstick for bounds and policies. The chain
is reduced so that its states can be listed: one row, so at most one open allocation; quality 1; both links fed by the
relay; memories that do not decay; one fidelity class; at most `queue` requests waiting, the others are lost on arrival.

The state before a decision is (age, held, tokens, stock, waiting):

    age       slots the open allocation has acted, 0 if none is open        0 … time_to_live - 1
    held      its complete links; 2 while the relay has no token            0 … 2
    tokens    of the relay                                                  multiples of the gain, up to the cap
    stock     stored pairs                                                  0 … memory
    waiting   slots that each pending request has left, most urgent first   empty while there is stock

The decision is to wait or to open an allocation. `solve` finds the policy of the largest long-run rate of deliveries by
relative value iteration (Puterman, Markov Decision Processes, 1994, §8.5.4-5), whose bounds on that rate close in on it
from both sides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

NEGLIGIBLE = 1e-12  # probability of more arrivals than are followed


class State(NamedTuple):
    """Before the decision of a slot."""

    age: int
    held: int
    tokens: float
    stock: int
    waiting: tuple[int, ...]


EMPTY = State(0, 0, 0.0, 0, ())


@dataclass(frozen=True)
class Chain:
    """The reduced chain; rates and times per slot and in slots."""

    emission: float  # mean pairs of the relay's source
    arrival: float  # η of either link
    swap_success: float
    token_gain: float
    token_cap: float
    time_to_live: int
    requests: float  # mean number arriving, Poisson
    deadline: int
    memory: int = 2  # qubits of node 0: its open allocation and its stored pairs
    queue: int = 3

    def decisions(self, state: State) -> tuple[bool, ...]:
        """Whether to open an allocation: what may be chosen."""
        return (False, True) if state.age == 0 and state.stock < self.memory else (False,)

    def followers(self, state: State, opens: bool) -> Iterator[tuple[State, float, int]]:
        """What may come of a slot: the next state, its probability, and the requests served."""
        active = opens or state.age > 0
        tokens = min(state.tokens + self.token_gain, self.token_cap)
        for held, likely in self._generated(state.held) if active else ((0, 1.0),):
            if held == 2 and tokens >= 1.0:
                made = self._after(state, 0, tokens - 1.0, finished=True, active=False)
                lost = self._after(state, 0, tokens - 1.0, finished=False, active=True)
                parts = [(made, self.swap_success), (lost, 1.0 - self.swap_success)]
            else:
                parts = [(self._after(state, held, tokens, finished=False, active=active), 1.0)]
            for (later, served), share in parts:
                for new, chance in _poisson(self.requests):
                    arrived, at_once = self._arrive(later, new)
                    yield arrived, likely * share * chance, served + at_once

    def _generated(self, held: int) -> Iterator[tuple[int, float]]:
        """Complete links after the emissions of a slot: of the pairs, a Poisson number arrives at incomplete links."""
        mean = self.emission * self.arrival
        missing = 2 - held
        exactly = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(missing)]
        yield from ((held + k, probability) for k, probability in enumerate(exactly))
        yield 2, 1.0 - sum(exactly)

    def _after(self, state: State, held: int, tokens: float, *, finished: bool, active: bool) -> tuple[State, int]:
        """Delivery and ageing: the state before new requests arrive, and the requests served."""
        waiting, served, stock = state.waiting, 0, state.stock
        if finished and waiting:
            waiting, served = waiting[1:], 1
        elif finished:
            stock += 1
        age = state.age + 1 if active else 0
        if age == self.time_to_live:
            age = held = 0
        return State(age, held, tokens, stock, tuple(left - 1 for left in waiting if left > 1)), served

    def _arrive(self, state: State, new: int) -> tuple[State, int]:
        """Requests arrive: stored pairs serve them at once, the others wait while the queue has room."""
        served = min(new, state.stock)
        joining = min(new - served, self.queue - len(state.waiting))
        waiting = state.waiting + (self.deadline,) * joining
        return state._replace(stock=state.stock - served, waiting=waiting), served


class Optimum(NamedTuple):
    """The best long-run rate and a policy that reaches it."""

    delivered: float  # requests per slot
    opens: dict[State, bool]


def solve(chain: Chain, tolerance: float = 1e-7) -> Optimum:
    """The largest long-run mean of requests served per slot, to within `tolerance`."""
    choices = _reachable(chain)
    states = list(choices)
    rows = [outcome for state in states for outcome in choices[state]]
    place = {state: k for k, state in enumerate(states)}
    columns = np.array([place[later] for outcome in rows for later in outcome.law], dtype=np.int64)
    data = np.array([probability for outcome in rows for probability in outcome.law.values()])
    ends = np.concatenate(([0], np.cumsum([len(outcome.law) for outcome in rows])))
    move = csr_array((data, columns, ends), (len(rows), len(states)))
    reward = np.array([outcome.served for outcome in rows])
    first = np.concatenate(([0], np.cumsum([len(choices[state]) for state in states])))[:-1]
    value = np.zeros(len(states))
    while True:
        worth = reward + move @ value
        change = np.maximum.reduceat(worth, first) - value
        if np.ptp(change) < tolerance:
            break
        value += (change - change[0]) / 2  # half the way: tokens come at regular times, and a periodic chain cycles
    return Optimum(float(change.mean()), {s: _opens(worth, first[k], choices[s]) for k, s in enumerate(states)})


class _Outcome(NamedTuple):
    law: dict[State, float]
    served: float


def _opens(worth: NDArray[np.float64], row: int, choices: list[_Outcome]) -> bool:
    return len(choices) == 2 and bool(worth[row + 1] > worth[row])


def _reachable(chain: Chain) -> dict[State, list[_Outcome]]:
    """What each decision leads to, from every state that can be reached from the empty chain."""
    choices: dict[State, list[_Outcome]] = {}
    new = [EMPTY]
    while new:
        state = new.pop()
        if state in choices:
            continue
        choices[state] = []
        for opens in chain.decisions(state):
            law: dict[State, float] = defaultdict(float)
            served = 0.0
            for later, probability, delivered in chain.followers(state, opens):
                law[later] += probability
                served += probability * delivered
            choices[state].append(_Outcome(law, served))
            new.extend(law)
    return choices


def _poisson(mean: float) -> Iterator[tuple[int, float]]:
    """Numbers with their probabilities, as far as they matter; the rest of the probability goes to the last."""
    count, exactly, more = 0, math.exp(-mean), 1.0
    while more - exactly > NEGLIGIBLE:
        yield count, exactly
        more -= exactly
        count += 1
        exactly *= mean / count
    yield count, more
