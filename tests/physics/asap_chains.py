"""The exact law of an allocation that swaps as soon as it can, written from docs/rules.md and not from the kernel.

As in `markov_chains`, one node keeps one allocation open and nobody else acts. A state of the chain is the set of pairs
that are held. Every link has a source of its own and relays never lack a token, so allocations are independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from .markov_chains import End


class Pair(NamedTuple):
    """An entangled pair of two nodes of the line."""

    left: int
    right: int
    werner: float
    age: int  # slots


State = frozenset[Pair]
Law = dict[State, float]


@dataclass(frozen=True)
class AsapChain:
    """One allocation over a line, in slots and Werner parameters."""

    hops: int
    arrival: float  # probability that a link that is tried has its pair in a slot
    fresh: float  # w of an arriving pair
    decay: float  # factor on w per slot
    swap_success: float
    swap_factor: float
    time_to_live: int  # slots
    cutoff: int
    regenerate: bool


def ends(chain: AsapChain) -> dict[End, float]:
    """Law of the end of an allocation; no tokens are followed."""
    law: Law = {frozenset(): 1.0}
    ended: dict[End, float] = defaultdict(float)
    for slot in range(1, chain.time_to_live + 1):
        still_open: Law = defaultdict(float)
        for state, probability in law.items():
            for generated, arrived in _generated(chain, state):
                for swapped, happened in _swapped(chain, generated):
                    share = probability * arrived * happened
                    whole = [pair for pair in swapped if pair.right - pair.left == chain.hops]
                    if whole:
                        ended[End(slot, whole[0].werner, 0.0)] += share
                    else:
                        still_open[_aged(chain, swapped)] += share
        law = still_open
    ended[End(chain.time_to_live, None, 0.0)] += sum(law.values())
    return ended


def _generated(chain: AsapChain, state: State) -> Iterator[tuple[State, float]]:
    """Links are tried whose two qubits are free; those inside a longer pair only if links are made again."""
    tried = []
    for h in range(chain.hops):
        in_use = any(pair.left == h or pair.right == h + 1 for pair in state)
        inside = any(pair.left <= h and pair.right > h for pair in state)
        if not in_use and (chain.regenerate or not inside):
            tried.append(Pair(h, h + 1, chain.fresh, 0))
    for arrivals in product((True, False), repeat=len(tried)):
        new = [pair for pair, arrived in zip(tried, arrivals, strict=True) if arrived]
        yield state.union(new), chain.arrival ** len(new) * (1.0 - chain.arrival) ** (len(tried) - len(new))


def _swapped(chain: AsapChain, state: State) -> Iterator[tuple[State, float]]:
    """Every relay with a pair on either side swaps; pairs that swaps connect become one, or are lost to a failure."""
    left_of, right_of = {pair.left: pair for pair in state}, {pair.right: pair for pair in state}
    runs, kept = [], set(state)
    for pair in state:
        if pair.left in right_of or pair.right not in left_of:
            continue  # no run starts with it
        run = [pair]
        while run[-1].right in left_of:
            run.append(left_of[run[-1].right])
        runs.append(run)
        kept -= set(run)
    for outcomes in product((True, False), repeat=len(runs)):
        probability, joined = 1.0, []
        for run, succeeds in zip(runs, outcomes, strict=True):
            success = chain.swap_success ** (len(run) - 1)
            probability *= success if succeeds else 1.0 - success
            if succeeds:
                joined.append(_joined(chain, run))
        yield frozenset(kept).union(joined), probability


def _joined(chain: AsapChain, run: list[Pair]) -> Pair:
    werner = chain.swap_factor ** (len(run) - 1)
    for pair in run:
        werner *= pair.werner
    return Pair(run[0].left, run[-1].right, werner, max(pair.age for pair in run))


def _aged(chain: AsapChain, state: State) -> State:
    # Rounded, so that what differs in the last digit alone is one state.
    older = (pair._replace(werner=round(pair.werner * chain.decay, 12), age=pair.age + 1) for pair in state)
    return frozenset(pair for pair in older if pair.age <= chain.cutoff)
