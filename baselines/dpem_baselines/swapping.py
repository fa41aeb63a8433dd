"""Policies for chains whose relays decide on swaps (``swapping = "agents"``), in the words of `swap_chain`.

Whoever sees the whole chain knows its state, that which the exact solver counts: `chain_state`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.swap_chain import Optimum, Segment, State, SwapChain, Swaps, nested, ready, solve
from dpem_env.envs.session import Look
from dpem_env.network.network import Network, build_network
from dpem_env.observations.features import FeatureTable, Observations
from dpem_env.policies import SWAPS, CentralPolicy, Decision, LocalPolicy, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import Choice
from dpem_env.support.compiled import telling
from dpem_env.support.errors import PolicyError


def chain_state(observations: Observations, ages: bool = True) -> State:
    """The segments of a chain as the solver names them, from what its first node knows of it.

    observations: (N, F) of a node that is told all, as controllers are and, with news, relays. ages: whether they
    count, as they do where there is a cutoff.
    """
    reach = observations.chain_reach[0].astype(np.int64)
    age = observations.chain_age[0].astype(np.int64) * ages
    return tuple(Segment(left, left + reach[left].item(), age[left].item()) for left in np.flatnonzero(reach).tolist())


def chain_of(scenario: Scenario, network: Network) -> SwapChain:
    """The solver's model of a scenario's chain; PolicyError, in one line, for a scenario that is not of that model."""
    topology, hardware, slot = network.topology, scenario.hardware, scenario.control.slot_duration
    p = topology.transmission * topology.generation_rate[topology.emitter] * slot
    of_model = {
        "links that succeed equally often": np.ptp(p) == 0.0,
        'hardware.emission = "bernoulli"': hardware.emission == "bernoulli",
        "a swap per slot at every relay": (topology.swap_rate * slot).min() >= 1.0,
        "no outages": scenario.outages is None,
        "no silence": scenario.silence is None,
        "requests for pairs of any fidelity (fidelity_classes of 0.25)": max(scenario.demand.fidelity_classes) <= 0.25,
    }
    for what, given in of_model.items():
        if not given:
            raise PolicyError(f"{scenario.name}: the optimum is known of chains with {what}")
    return SwapChain(network.num_nodes, float(p[0]), hardware.swap_success, scenario.control.cutoff)


@lru_cache(maxsize=16)
def solved(chain: SwapChain) -> Optimum:
    """The optimum of a chain, found once for each of the last few."""
    with telling(f"solving a chain of {chain.nodes} nodes with cutoff {chain.cutoff}: long ones take long"):
        return solve(chain)


class SwapAsap(LocalPolicy):
    """Every relay swaps as soon as it can."""

    decides = (SWAPS,)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Swap where it is legal."""
        return Decision(masks[:, Choice.SWAP].astype(np.int64))


class JointSwaps(CentralPolicy):
    """Whoever decides on the swaps of all relays by the state of the chain."""

    decides = (SWAPS,)

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Remember whether ages count, and forget what was decided."""
        self._ages = scenario.control.cutoff is not None
        self._chosen: dict[bytes, NDArray[np.int64]] = {}  # by what the first node sees: a few states come often

    def act(self, view: NetworkView) -> Decision:
        """Swap as `swaps` says, at relays that can by what is seen of them."""
        return Decision(self.choices(view.observations) * view.masks[:, Choice.SWAP])

    def choices(self, observations: Observations) -> NDArray[np.int64]:
        """(N,) a `Choice` of every node, from what the first one knows of the chain."""
        seen = observations.matrix[0].tobytes()
        if seen not in self._chosen:
            chosen = np.zeros(len(observations.matrix), dtype=np.int64)
            chosen[list(self.swaps(chain_state(observations, self._ages)))] = Choice.SWAP
            self._chosen[seen] = chosen
        return self._chosen[seen].copy()

    def side_by_side(self, scenario: Scenario) -> Callable[[Look], NDArray[np.int64]]:
        """What the nodes of many equal chains do that all know all of theirs, as `delivery_time` asks."""
        self.reset(scenario, build_network(scenario, 0), 0)
        table = FeatureTable(scenario)
        return lambda look: np.stack([self.choices(table.read(rows)) for rows in look.observations])

    @abstractmethod
    def swaps(self, state: State) -> Swaps:
        """The relays that swap."""


class SwapNested(JointSwaps):
    """As soon as they can, but the middle one of five nodes waits while both its neighbours can."""

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """PolicyError for other than five nodes."""
        super().reset(scenario, network, seed)
        if network.num_nodes != 5:
            raise PolicyError(f"swap-nested is of 5 nodes; {scenario.name} has {network.num_nodes}")

    def swaps(self, state: State) -> Swaps:
        """See `dpem_baselines.swap_chain.nested`."""
        return nested(state)


class SwapOptimal(JointSwaps):
    """The swaps of the shortest mean delivery time, as the exact solver finds them for chains without delay."""

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Solve the chain."""
        super().reset(scenario, network, seed)
        self.optimum = solved(chain_of(scenario, network))

    def swaps(self, state: State) -> Swaps:
        """The optimum's, and where it never comes to, as in an old view, all that are ready."""
        return self.optimum.swaps.get(state, ready(state))
