"""The exact law of one allocation that has the network to itself: when its pair is there, and what that takes.

Written from the rules of a slot (docs/rules.md), not from the kernel, as a yardstick for both `in_time` and the kernel.
A state is what the allocation holds, and the tokens of its relays; a slot maps probabilities of states by generation,
swaps and ageing. Sources emit for nobody else and no link fails. All that is uncertain is followed: which pairs arrive,
and how purification and swaps end. A state tells by how far each pair has decayed when it arrived, so states become
many with hops and quality: two hops are quick, three take seconds at quality 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.network.network import Network
from dpem_env.network.routes import light_of_quality, link_werner, swap_factor
from dpem_env.scenarios import Scenario
from dpem_env.simulator.simulator import rules_of
from dpem_env.support.errors import ScenarioError

NEGLIGIBLE = 1e-12  # probability of more emissions than are followed
DIGITS = 12  # of Werner parameters that are told apart


class Segment(NamedTuple):
    """What joins two nodes of the route: a link, or links joined by swaps."""

    hops: int
    rounds: int  # of purification
    werner: float


Held = tuple[Segment | None, ...]  # by the hop of their left end
State = tuple[Held, tuple[float, ...]]  # and the tokens of the relays
Law = dict[State, float]


class Course(NamedTuple):
    """Of an allocation: slots are those in which it acts, the first being that of its admission."""

    useful: NDArray[np.float64]  # (slots,) probability that a pair of the class is there by the end of each slot
    pairs: float  # expected, offered by the sources while it lives
    swaps: float  # tried


class SingleRoute:
    """Route (node, place of the peer, number) at a quality, for a class.

    Raises ScenarioError unless links share their sources' pairs, and relays swap "asap" or "all" without a cutoff.
    """

    def __init__(
        self, scenario: Scenario, network: Network, route: tuple[int, int, int], quality: int, wanted: int
    ) -> None:
        topology, rules, slot = network.topology, rules_of(scenario), scenario.control.slot_duration
        control = scenario.control
        if control.swapping not in ("asap", "all") or control.regenerate or control.cutoff or rules.bernoulli:
            told = 'swapping "asap" or "all" without regenerate and cutoff, and emission "poisson"'
            raise ScenarioError(f"{scenario.name}: the law of a route is not solved for it; expected {told}")
        self.hops = int(network.routes.hops[route])
        links, self.nodes = network.routes.links[route][: self.hops], network.routes.nodes[route][: self.hops + 1]
        self.rules, self.rounds = rules, quality - 1 if rules.pumped else 0
        self.arrives = (light_of_quality(scenario)[0][quality - 1] * topology.transmission[links]).tolist()
        self.fresh = link_werner(topology, scenario)[quality - 1, links].tolist()
        self.joined, self.threshold = swap_factor(scenario), float(rules.class_werner[wanted])
        self.noise = rules.purification_gate, rules.purification_readout
        self.kept = np.exp(-slot / topology.coherence_time[self.nodes]).tolist()  # of w, by node on the route
        self.gain = (topology.swap_rate[self.nodes[1:-1]] * slot).tolist()
        emitters = topology.emitter[links].tolist()
        self.fed = [[hop for hop in range(self.hops) if emitters[hop] == e] for e in dict.fromkeys(emitters)]
        self.emitted = [float(topology.generation_rate[e]) * slot for e in dict.fromkeys(emitters)]

    def course(self, tokens: float | None = None) -> Course:
        """What comes of an allocation, if relays have so many tokens as it is admitted; by default as many as fit."""
        cap = self.rules.token_cap
        law: Law = {((None,) * self.hops, (cap if tokens is None else tokens,) * (self.hops - 1)): 1.0}
        useful, pairs, swaps = [0.0], 0.0, 0.0
        for _ in range(self.rules.time_to_live):
            law, offered = self._generated(law)
            law, tried, made = self._swapped(law)
            law = self._aged(law)
            useful.append(useful[-1] + made)
            pairs, swaps = pairs + offered, swaps + tried
        return Course(np.array(useful[1:]), pairs, swaps)

    def _complete(self, segment: Segment | None) -> bool:
        return segment is not None and segment.rounds == self.rounds

    def _generated(self, law: Law) -> tuple[Law, float]:
        """After every source has emitted; and the pairs offered."""
        total = 0.0
        for fed, mean in zip(self.fed, self.emitted, strict=True):
            after: Law = defaultdict(float)
            for (held, tokens), probability in law.items():
                outcomes, offered = self._offered(held, fed, mean)
                total += probability * offered
                for later, share in outcomes.items():
                    after[later, tokens] += probability * share
            law = after
        return law, total

    def _offered(self, held: Held, fed: list[int], mean: float) -> tuple[dict[Held, float], float]:
        """What may be held after a source has offered its pairs in turn; and how many it offers on average.

        Links that lie in a longer segment ask for none.
        """
        inside = {h + n for h, segment in enumerate(held) if segment for n in range(1, segment.hops)}
        asking = [hop for hop in fed if hop not in inside and not self._complete(held[hop])]
        now = {(held, 0): 1.0}  # what is held, and whose turn it is
        found: dict[Held, float] = defaultdict(float)
        exactly, more, offered, number = math.exp(-mean), 1.0, 0.0, 0
        while now and more > NEGLIGIBLE:
            after: dict[tuple[Held, int], float] = defaultdict(float)
            for (links, turn), probability in now.items():
                waiting = [hop for hop in asking if not self._complete(links[hop])]
                if not waiting:
                    found[links] += probability * more
                    continue
                found[links] += probability * exactly
                hop = next(each for n in range(len(asking)) if (each := asking[(turn + n) % len(asking)]) in waiting)
                offered += probability * (more - exactly)
                for link, share in self._received(links[hop], hop):
                    after[(*links[:hop], link, *links[hop + 1 :]), asking.index(hop) + 1] += probability * share
            more -= exactly
            number += 1
            exactly *= mean / number
            now = after
        return found, offered

    def _received(self, link: Segment | None, hop: int) -> Iterator[tuple[Segment | None, float]]:
        """A link after a pair was offered to it."""
        arrives, fresh = self.arrives[hop], self.fresh[hop]
        yield link, 1.0 - arrives
        if link is None:
            yield Segment(1, 0, fresh), arrives
        else:
            success = physics.purification_success(link.werner, fresh, *self.noise)
            better = physics.purified_werner(link.werner, fresh, *self.noise)
            yield Segment(1, link.rounds + 1, round(better, DIGITS)), arrives * success
            yield None, arrives * (1.0 - success)

    def _swapped(self, law: Law) -> tuple[Law, float, float]:
        """After the swaps of a slot, without what has been finished; the swaps tried; and the pairs good enough."""
        after: Law = defaultdict(float)
        tried = made = 0.0
        for (held, tokens), probability in law.items():
            tokens = tuple(min(t + gain, self.rules.token_cap) for t, gain in zip(tokens, self.gain, strict=True))
            swaps = self._ready(held, tokens)
            tried += probability * len(swaps)
            left = tuple(t - (h in swaps) for h, t in enumerate(tokens, start=1))
            for later, share in self._outcomes(held, swaps):
                whole = later[0]
                if whole is None or whole.hops < self.hops or not self._complete(whole):
                    after[later, left] += probability * share
                else:
                    made += probability * share * (whole.werner >= self.threshold)
        return after, tried, made

    def _ready(self, held: Held, tokens: tuple[float, ...]) -> set[int]:
        """The relays that swap."""
        complete = {h: segment.hops for h, segment in enumerate(held) if segment and self._complete(segment)}
        ready = {h for h in range(1, self.hops) if h in complete and any(h == a + n for a, n in complete.items())}
        paid = {h for h in ready if tokens[h - 1] >= 1.0}
        if self.rules.singly:
            return paid
        return paid if len(paid) == self.hops - 1 else set()

    def _outcomes(self, held: Held, swaps: set[int]) -> Iterator[tuple[Held, float]]:
        """What the swaps may leave: every run of segments that they would join becomes one, or is lost."""
        runs = []
        for start, segment in enumerate(held):
            if segment and start not in swaps and start + segment.hops in swaps:
                end, werner, count = start + segment.hops, segment.werner, 0
                while end in swaps:
                    following = held[end]
                    assert following is not None
                    werner, end, count = werner * following.werner * self.joined, end + following.hops, count + 1
                runs.append((start, Segment(end - start, self.rounds, round(werner, DIGITS)), count))
        for fates in product((True, False), repeat=len(runs)):
            later, probability = list(held), 1.0
            for (start, joined, count), succeeds in zip(runs, fates, strict=True):
                success = self.rules.swap_success**count
                probability *= success if succeeds else 1.0 - success
                later[start : start + joined.hops] = [joined if succeeds else None] + [None] * (joined.hops - 1)
            if probability > 0.0:
                yield tuple(later), probability

    def _aged(self, law: Law) -> Law:
        """A slot later: all that is held has decayed."""
        after: Law = defaultdict(float)
        for (held, tokens), probability in law.items():
            decayed = tuple(
                segment and segment._replace(werner=round(segment.werner * self._kept(h, segment.hops), DIGITS))
                for h, segment in enumerate(held)
            )
            after[decayed, tokens] += probability
        return after

    def _kept(self, start: int, hops: int) -> float:
        return float(self.kept[start] * self.kept[start + hops])
