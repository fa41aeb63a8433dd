"""How probable it is, at most, that a request is served in time by pairs that are asked for only once it is there.

A request that arrives in slot t with a deadline of s slots has the emissions of s slots. Let an allocation over a route
of h links that is opened for it, in slot t at the earliest, give it a pair in time. Let R_j be the number of the first
try at relay j that succeeds, counted over all allocations for this peer and route since t, and T_l(k) the number of
pairs that link l is offered until it has been completed k times at the smallest quality that meets the class, fresh.
Then for every source e on the route, with n_e the pairs that it emits in the s slots,

    Σ_{links l of the route fed by e} T_l(max(R of the relays at either end of l))  <=  n_e,    R_j <= tokens of j.

Proof. Every try at a relay takes a complete link on either side, and no link is tried twice at the same relay: after a
success it lies inside a longer segment, after a failure it is lost. So link l was completed as often as either of its
relays tried, and each needed R tries. A link's completions are counted by rounds of purification: the failures of
round j before its n-th success are as many, in law, whichever allocation tries, and each wastes j + 1 arrived pairs; so
T_l(k) is least, and a sum of k independent times, where links are completed one by one. No pair is offered twice.
Where relays swap `all` at once, all links of a try are lost or none: one R stands for all relays, of success p^(h - 1).

All draws above are fresh, so the probability of this event follows from independent variables, whatever a policy does:
n_e is Poisson, R_j geometric, T_l a sum of negative binomials. Decay is left out; it would only make rounds fail, and
pairs too weak. So is the order of events: what has to wait for what. What competes for the sources is left out, too.

Events of several routes are all the likelier the more is emitted, and otherwise independent. By Harris' inequality
(Proc. Camb. Phil. Soc. 56, 13, 1960) at least one of them happens with probability 1 - Π(1 - P_r) at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from dpem_env import physics
from dpem_env.network.network import Network
from dpem_env.network.routes import light_of_quality, link_werner
from dpem_env.scenarios import Scenario

Floats = NDArray[np.float64]
Links = tuple[int, ...]

TRIES = 4  # at a relay that are told apart; the last stands for all further ones and succeeds
MANY = 400  # pairs that a source may emit in the time of a deadline; with more it is taken for no limit
ROUNDING = 1e-9


class InTime:
    """The caps of a network's candidate routes, for pairs of a quality that must be there within so many slots."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        self.scenario, self.network = scenario, network
        self._arrived = link_werner(network.topology, scenario)
        self._completions = cache(self._completions_of)
        self._enough = cache(self._enough_of)

    def chance(self, node: int, place: int, route: int, quality: int, slots: int) -> float:
        """The probability, at most, for the route of that number from a node to the peer at that place."""
        routes, topology, hardware = self.network.routes, self.network.topology, self.scenario.hardware
        hops = int(routes.hops[node, place, route])
        nodes = routes.nodes[node, place, route, : hops + 1].tolist()
        links = routes.links[node, place, route, :hops].tolist()
        feeds = [
            tuple(links[hop] if 0 <= hop < hops and topology.emitter[links[hop]] == fed else -1 for hop in (h - 1, h))
            for h, fed in enumerate(nodes)
        ]
        enough = [self._enough(fed, each, quality, slots) for fed, each in zip(nodes, feeds, strict=True)]
        possible = [np.arange(1, TRIES + 1) <= self._tokens(relay, slots) for relay in nodes[1:-1]]
        if self.scenario.control.swapping == "all":
            first = first_success(hardware.swap_success ** (hops - 1))
            return float(np.stack([first, *map(np.diagonal, enough), *possible]).prod(axis=0).sum())
        return _along(enough, [first_success(hardware.swap_success) * each for each in possible])

    def _tokens(self, relay: int, slots: int) -> float:
        """Swaps that a relay can try within so many slots, at most."""
        cap = self.scenario.hardware.token_cap
        gain = self.network.topology.swap_rate[relay] * self.scenario.control.slot_duration
        return float(min(cap + (slots - 1) * gain, slots * np.floor(cap)) + ROUNDING)

    def _enough_of(self, node: int, fed: Links, quality: int, slots: int) -> Floats:
        """(K, K) probability that a source emits enough for 1 … K completions of a link, and of a second one.

        `fed`: the two links of the route at the node; -1 for one that it does not feed.
        """
        mean = float(self.network.topology.generation_rate[node]) * self.scenario.control.slot_duration * slots
        if mean > MANY or fed == (-1, -1):
            return np.ones((TRIES, TRIES))
        left, right = (self._completions(link, quality, _most(mean)) for link in fed)
        emitted = np.concatenate(([1.0], pdtrc(np.arange(_most(mean)), mean)))  # that it is t pairs at least
        return np.array([[np.convolve(a, b)[: len(emitted)] @ emitted for b in right] for a in left])

    def _completions_of(self, link: int, quality: int, most: int) -> Floats:
        """(K, most + 1) probability that it takes t = 0 … most offered pairs to complete a link 1 … K times."""
        if link < 0:
            return np.tile(np.eye(1, most + 1), (TRIES, 1))
        once = _time_to_complete(self.scenario, self.network, link, quality, most)
        found = [once]
        for _ in range(TRIES - 1):
            found.append(np.convolve(found[-1], once)[: most + 1])
        return np.array(found)


def first_success(success: float) -> Floats:
    """(K,) probability that the first of many tries to succeed is number 1 … K; the last of these for all later."""
    failed = (1.0 - success) ** np.arange(TRIES)
    return np.append(failed[:-1] * success, failed[-1])


def any_of(chances: Sequence[float]) -> float:
    """The probability that one of several routes serves in time, at most."""
    return float(1.0 - np.prod(1.0 - np.asarray(chances)))


def _most(mean: float) -> int:
    """More pairs than a source practically ever emits."""
    return int(mean + 9.0 * np.sqrt(mean)) + 20


def _time_to_complete(scenario: Scenario, network: Network, link: int, quality: int, most: int) -> Floats:
    """(most + 1,) probability that a link is complete with the t-th pair that it is offered."""
    success, _ = light_of_quality(scenario)
    arrives = float(network.topology.transmission[link] * success[quality - 1])
    rounds = 0 if scenario.hardware.light_is_chosen else quality - 1
    fresh = float(link_werner(network.topology, scenario)[quality - 1, link])
    noise = scenario.hardware.purification_fidelities
    held = [physics.pumped_werner(fresh, done + 1, *noise) for done in range(rounds)]
    onward = [1.0, *(physics.purification_success(werner, fresh, *noise) for werner in held)]  # by pairs held
    state, found = np.eye(1, rounds + 1)[0], np.zeros(most + 1)
    for offered in range(1, most + 1):
        moved = arrives * state * onward
        failed = (arrives * state - moved).sum()
        found[offered] = moved[-1]
        state = (1.0 - arrives) * state + np.append(failed, moved[:-1])
    return found


def _along(enough: list[Floats], tries: list[Floats]) -> float:
    """The probability that every source of a route emits enough for the tries that its relays need.

    `enough`: of each node on the route; `tries`: (K,) of each relay, the number of its first success.
    """
    ends = np.zeros(TRIES + 1)
    ends[0] = 1.0  # no swap is tried there
    laws = [ends, *(np.append(0.0, law) for law in tries), ends, ends]
    number = np.arange(TRIES + 1)
    needed = np.maximum(np.maximum.outer(number, number), 1) - 1  # completions of a link between two relays, from 0
    state = np.outer(ends, ends)
    for table, law in zip(enough, laws[1:], strict=True):
        state = np.einsum("ab,abc,c->bc", state, table[needed[:, :, None], needed[None]], law)
    return float(state.sum())
