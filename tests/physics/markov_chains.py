"""The exact law of allocations in the long run: a Markov chain, written from docs/rules.md and not from the kernel.

One node keeps exactly one allocation open and nobody else acts. A state of the chain is what every link holds and the
relay's swap tokens; `ends` plays the slots of one allocation on the probabilities of all states, until it is finished
or torn down. Only tokens pass from an allocation to the next, so at admissions they are a Markov chain of their own,
and the allocations a Markov renewal process (Çinlar, Adv. Appl. Probab. 1, 123, 1969). Both links are alike.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

NEGLIGIBLE = 1e-12  # probability of more emitted pairs than are followed

Link = tuple[int, float]  # purification rounds done and Werner parameter
EMPTY: Link = (-1, 0.0)
S = TypeVar("S")
T = TypeVar("T")


class State(NamedTuple):
    links: tuple[Link, ...]  # in hop order from the owner
    tokens: float  # of the relay
    offered: frozenset[int] = frozenset()  # links that have had a pair in the present round of offers


class End(NamedTuple):
    slots: int  # from admission to end, both counted
    werner: float | None  # of the finished pair; none: torn down
    tokens: float  # left at the relay


Law = dict[State, float]


@dataclass(frozen=True)
class Chain:
    """One allocation over one or two links, in slots and Werner parameters."""

    sources: tuple[tuple[float, tuple[int, ...]], ...]  # mean pairs per slot of each source, and the links it feeds
    arrival: float  # η
    fresh: float  # w of an arriving pair
    decay: float  # factor on w per slot
    quality: int
    swap_success: float
    swap_factor: float
    token_gain: float  # per slot; multiples of 1/8 keep the states few
    token_cap: float
    time_to_live: int  # slots
    gates: float = 1.0  # g² of the two CNOTs of a purification round
    readouts: float = 1.0  # (2m - 1)² of its two readouts


class LongRun(NamedTuple):
    """Long-run averages over allocations and over slots."""

    waiting: NDArray[np.float64]  # share of allocations finished in their 1st, 2nd, … slot; last: torn down
    slots: float  # mean, from admission to end
    rate: float  # finished pairs per slot
    werner: float  # mean of finished pairs


def long_run(chain: Chain) -> LongRun:
    """Averages over allocations whose tokens are a Markov chain."""
    return averages(_ends_at_random(chain), chain.time_to_live)


def averages(weight: Mapping[End, float], time_to_live: int) -> LongRun:
    """Averages by the renewal-reward theorem: what an allocation yields over what it lasts (Ross 1996, §3.6, §4.8).

    `weight` is the law of the end of an allocation picked from a long run.
    """
    waiting = np.zeros(time_to_live + 1)
    werner = 0.0
    for end, share in weight.items():
        waiting[-1 if end.werner is None else end.slots - 1] += share
        werner += share * (end.werner or 0.0)
    finished = waiting[:-1].sum()
    slots = sum(share * end.slots for end, share in weight.items())
    return LongRun(waiting, slots, finished / slots, werner / finished)


def _ends_at_random(chain: Chain) -> dict[End, float]:
    """Law of the end of an allocation picked from a long run."""
    laws = {0.0: ends(chain, 0.0)}
    while new := {end.tokens for law in laws.values() for end in law} - laws.keys():
        laws |= {tokens: ends(chain, tokens) for tokens in new}
    place = {tokens: k for k, tokens in enumerate(laws)}
    step = np.zeros((len(laws), len(laws)))  # tokens at one admission -> at the next
    for tokens, law in laws.items():
        for end, probability in law.items():
            step[place[tokens], place[end.tokens]] += probability
    # Stationary: π·step = π and Σπ = 1, one equation too many.
    equations = np.vstack([step.T - np.eye(len(laws)), np.ones(len(laws))])
    stationary = np.linalg.lstsq(equations, np.append(np.zeros(len(laws)), 1.0), rcond=None)[0]
    mixed: dict[End, float] = defaultdict(float)
    for tokens, law in laws.items():
        for end, probability in law.items():
            mixed[end] += stationary[place[tokens]] * probability
    return mixed


def ends(chain: Chain, tokens: float) -> dict[End, float]:
    """Law of the end of an allocation admitted when its relay has so many tokens."""
    hops = sum(len(fed) for _, fed in chain.sources)
    law: Law = {State((EMPTY,) * hops, tokens): 1.0}
    ended: dict[End, float] = defaultdict(float)
    for slot in range(1, chain.time_to_live + 1):
        for mean, fed in chain.sources:
            law = _generate(chain, law, mean, fed)
        law = _swap(chain, law, slot, ended)
        law = _after(law, lambda state: [(_aged(chain, state), 1.0)])
    for state, probability in law.items():
        ended[End(chain.time_to_live, None, state.tokens)] += probability
    return ended


def _after(law: Mapping[S, float], follow: Callable[[S], Iterable[tuple[T, float]]]) -> dict[T, float]:
    """The law one step later; `follow` gives a state's followers and their probabilities."""
    later: dict[T, float] = defaultdict(float)
    for state, probability in law.items():
        for follower, share in follow(state):
            later[follower] += probability * share
    return later


def _generate(chain: Chain, law: Law, mean: float, fed: tuple[int, ...]) -> Law:
    """A Poisson number of pairs of one source, offered one by one."""
    mixed: Law = defaultdict(float)
    pairs, exactly, more = 0, math.exp(-mean), 1.0
    while more > NEGLIGIBLE:
        for state, probability in law.items():
            mixed[state._replace(offered=frozenset())] += exactly * probability
        law = _after(law, lambda state: _offer(chain, state, fed))
        more -= exactly
        pairs += 1
        exactly *= mean / pairs
    return mixed


def _offer(chain: Chain, state: State, fed: tuple[int, ...]) -> list[tuple[State, float]]:
    """One pair goes to the first incomplete link that has had none in this round; when all have, a new round starts."""
    incomplete = [h for h in fed if state.links[h][0] < chain.quality - 1]
    if not incomplete:
        return [(state, 1.0)]
    unoffered = [h for h in incomplete if h not in state.offered]
    h = (unoffered or incomplete)[0]
    offered = (state.offered if unoffered else frozenset()) | {h}
    followers = [(state._replace(offered=offered), 1.0 - chain.arrival)]
    for link, share in _receive(chain, *state.links[h]):
        links = (*state.links[:h], link, *state.links[h + 1 :])
        followers.append((state._replace(links=links, offered=offered), chain.arrival * share))
    return followers


def _receive(chain: Chain, rounds: int, held: float) -> list[tuple[Link, float]]:
    """A fresh pair fills an empty link, or pumps the one held: BBPSSW after the CNOTs' and the readouts' noise.

    Wrong readouts mix rounds whose bits agree with rounds whose bits do not (Dür, Briegel, Cirac & Zoller, PRA 59, 169,
    1999): a single wrong one keeps what should have been thrown away.
    """
    if rounds < 0:
        return [((0, chain.fresh), 1.0)]
    product = chain.gates * held * chain.fresh
    success = (1.0 + chain.readouts * product) / 2.0
    right, wrong = (1.0 + chain.readouts) / 2.0, (1.0 - chain.readouts) / 2.0
    agreeing = chain.gates * (held + chain.fresh) + 4.0 * product  # 6 w' s after an ideal readout
    differing = chain.gates * (held - chain.fresh)  # after one wrong bit: what should have been thrown away
    pumped = (right * agreeing + wrong * differing) / (6.0 * success)
    return [((rounds + 1, pumped), success), (EMPTY, 1.0 - success)]


def _swap(chain: Chain, law: Law, slot: int, ended: dict[End, float]) -> Law:
    """The relay gains tokens; complete links are joined, if there are two and the relay has a token to pay for it."""
    still_open: Law = defaultdict(float)
    for state, probability in law.items():
        tokens = min(state.tokens + chain.token_gain, chain.token_cap)
        complete = all(rounds == chain.quality - 1 for rounds, _ in state.links)
        swaps = len(state.links) - 1
        if not complete or (swaps and tokens < 1.0):
            still_open[state._replace(tokens=tokens)] += probability
            continue
        success = chain.swap_success**swaps
        werner = math.prod(werner for _, werner in state.links) * chain.swap_factor**swaps
        ended[End(slot, werner, tokens - swaps)] += probability * success
        still_open[State((EMPTY,) * len(state.links), tokens - swaps)] += probability * (1.0 - success)
    return still_open


def _aged(chain: Chain, state: State) -> State:
    return state._replace(links=tuple((rounds, werner * chain.decay) for rounds, werner in state.links))
