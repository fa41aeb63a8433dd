"""The entanglement switch: a hub that swaps any two stored links of different users as soon as it can, oldest first.

k users have identical links to the hub, which keeps up to B of each; any two users always want a pair. So whenever a
slot ends only one user has links left, and how many is all there is to know: a Markov chain, here solved in continuous
time, as Vardoyan, Guha, Nain & Towsley publish it ("On the stochastic analysis of a quantum entanglement switch",
arXiv:1903.04420, and "On the exact analysis of an idealized quantum switch", Performance Evaluation 144, 102141, 2020),
and in slots, as the simulator plays it. No code is shared with the simulator. `KeepLinks` is what its users do.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode


class Switch(NamedTuple):
    """A switch with identical links, whose attempts succeed with `generation` per slot unless the buffer is full."""

    users: int  # k, at least 2
    generation: float  # p per slot, or the rate μ of continuous time
    swap_success: float  # q
    buffer: int  # B, links of a user that the hub keeps


class Use(NamedTuple):
    """What a switch does in the long run."""

    capacity: float  # pairs of two users per slot
    occupancy: float  # mean number of links stored


def published(switch: Switch) -> Use:
    """In continuous time with μ = p: a birth-death chain on the links stored, all of one user.

    From 0 up with kμ, from 1 … B - 1 up with μ, down with (k - 1)μ, as links of others come: each of these is a swap.
    """
    users, buffer = switch.users, switch.buffer
    weights = users / (users - 1.0) ** np.arange(1.0, buffer + 1)  # of 1 … B stored, 0 having 1
    shares = weights / (1.0 + weights.sum())
    swaps = (users - 1) * switch.generation * shares.sum()
    return Use(float(switch.swap_success * swaps), float(np.arange(1, buffer + 1) @ shares))


def unlimited(switch: Switch) -> Use:
    """The same for buffers without end and three users or more: capacity qkμ/2, k/(2(k - 2)) links stored."""
    users = switch.users
    return Use(switch.swap_success * users * switch.generation / 2, users / (2.0 * (users - 2)))


def slotted(switch: Switch) -> Use:
    """In slots: every user with room tries once, then the hub swaps until no two users have links."""
    states = switch.buffer + 1
    step, swaps = np.zeros((states, states)), np.zeros(states)
    for stored in range(states):
        own = binomial(1 if 0 < stored < switch.buffer else 0, switch.generation)
        others = binomial(switch.users - (stored > 0), switch.generation)
        for fresh, p_own in enumerate(own):
            for arriving, p_others in enumerate(others):
                left, swapped = after_swaps(stored + fresh, arriving)
                step[stored, left] += p_own * p_others
                swaps[stored] += p_own * p_others * swapped
    balance = np.vstack([step.T - np.eye(states), np.ones(states)])
    shares = np.linalg.lstsq(balance, np.append(np.zeros(states), 1.0), rcond=None)[0]
    return Use(float(switch.swap_success * (shares @ swaps)), float(shares @ np.arange(states)))


def after_swaps(stored: int, arriving: int) -> tuple[int, int]:
    """Links left, all of one user, and swaps: one user has some stored, and so many others have a fresh one."""
    if stored >= arriving:
        return stored - arriving, arriving
    rest = arriving - stored
    return rest % 2, stored + rest // 2


def binomial(tries: int, p: float) -> NDArray[np.float64]:
    """Probabilities of 0 … tries successes."""
    return np.array([comb(tries, n) * p**n * (1.0 - p) ** (tries - n) for n in range(tries + 1)])


class KeepLinks(LocalPolicy):
    """Every node keeps pairs with its neighbours in stock, so many with each: users of a switch their links.

    Pairs are made one link away, at the lowest quality, with the neighbour of which the fewest are stored.
    """

    news = ()

    def __init__(self, stored: int = 4) -> None:
        self.stored = stored

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Which peers are neighbours."""
        self._neighbour = network.routes.hops[:, :, 0] == 1
        self._asks = ActionCode.of(scenario).encode(np.arange(network.peers.shape[1]), 1)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Ask for a pair where one is missing and none is being made."""
        held = observations.stored_pairs + observations.open_allocations
        missing = np.where(self._neighbour, np.maximum(self.stored - held, 0), 0)
        asked = self._asks[missing.argmax(axis=1)]
        legal = masks[np.arange(len(masks)), asked] == 1
        return Decision(np.where(missing.any(axis=1) & legal, asked, 0))
