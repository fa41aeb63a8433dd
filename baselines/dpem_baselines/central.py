"""Central reactive control: one controller admits for all nodes, with the network's load in view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.local import as_action, most_urgent, needed_quality, urgency
from dpem_env.network import Network
from dpem_env.policies import CentralPolicy, Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.seeding import generator


class CentralReactive(CentralPolicy):
    """Greedy admission, most urgent request first, under a utilisation limit on every source.

    For each node the peer is chosen as in `LocalReactive`; then, over the whole network in order of urgency, each
    takes the cheapest route whose links are up, whose nodes have memory and whose sources stay within
    `utilisation_limit`: the share of the pairs a source can emit in a time-to-live that may be claimed. What does not
    fit waits for a later slot. Requests that are overdue by the time they are seen come last; a pair made for one is
    stored, and serves the next. Equally urgent nodes go in random order. Greedy by deadline on the k shortest paths, as
    in online admission for entanglement routing (Chakraborty et al., IEEE TQE 1, 4101321, 2020, use the same candidate
    paths).
    """

    def __init__(self, utilisation_limit: float = 0.5) -> None:
        self.utilisation_limit = utilisation_limit

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """What each source may be asked for, and the order of equally urgent nodes."""
        self.scenario = scenario
        topology = network.topology
        capacity = topology.generation_rate * scenario.control.time_to_live
        self.limit = np.maximum(self.utilisation_limit * capacity, 1.0)
        self.routes = network.routes
        self.emitter = topology.emitter
        self.rng = generator("central reactive", seed)

    def act(self, view: NetworkView) -> Decision:
        """At most one allocation per node, admitted in order of urgency."""
        seen = view.observations
        pending = seen.pending
        qualities = self.scenario.control.qualities
        place = most_urgent(seen.slack, pending.sum(axis=2) > seen.open_allocations)
        quality = needed_quality(pending, seen.min_quality, qualities)
        action = as_action(place, quality, view.masks, qualities)
        route = np.full(len(action), -1, dtype=np.int64)
        priority = np.zeros(len(action), dtype=np.int64)
        claims, memory = view.source_claims.copy(), view.free_memory.copy()
        wanting = self.rng.permutation(np.flatnonzero(action))  # a node's number must not favour it
        by_urgency = wanting[np.argsort(urgency(seen.slack[wanting, place[wanting]]), kind="stable")]
        for rank, i in enumerate(by_urgency):
            route[i] = self._admit(int(i), int(place[i]), view.link_up, claims, memory)
            priority[i] = rank
            if route[i] < 0:
                action[i] = 0
        return Decision(action, route, priority)

    def _admit(
        self,
        i: int,
        d: int,
        link_up: NDArray[np.int8],
        claims: NDArray[np.int32],
        memory: NDArray[np.int32],
    ) -> int:
        """The cheapest route that fits, charged to `claims` and `memory`; -1 if none does."""
        for r, hops in enumerate(self.routes.hops[i, d]):
            if hops == 0:
                break
            links, nodes = self.routes.links[i, d, r, :hops], self.routes.nodes[i, d, r, : hops + 1]
            sources, load = np.unique(self.emitter[links], return_counts=True)
            qubits = np.where((nodes == nodes[0]) | (nodes == nodes[-1]), 1, 2)
            if (
                link_up[links].all()
                and (claims[sources] + load <= np.maximum(self.limit[sources], load)).all()
                and (memory[nodes] >= qubits).all()
            ):
                claims[sources] += load.astype(claims.dtype)
                memory[nodes] -= qubits.astype(memory.dtype)
                return r
        return -1
