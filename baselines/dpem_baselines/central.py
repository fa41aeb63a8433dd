"""Central control: one controller admits for all nodes, with the network's load in view."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.local import most_urgent, needed_quality, stock_quality, uncovered, urgency
from dpem_baselines.route_choice import Orders
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import CentralPolicy, Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.seeding import generator

Ints = NDArray[np.int64]


class Needs(NamedTuple):
    """What one allocation takes from the network on a given route."""

    links: list[int]
    claims: list[tuple[int, int]]  # sources that feed the links, and how many of them
    qubits: list[tuple[int, int]]  # nodes, and how many are held there


class CentralScheduler(CentralPolicy):
    """Greedy admission in a given order, under a utilisation limit on every source.

    One candidate after the other takes the cheapest route whose links are up, whose nodes have memory and whose
    sources stay within `utilisation_limit`: the share of the pairs a source can emit in a time-to-live that may be
    claimed. What does not fit waits for a later slot. `fallbacks`, `only_if_free` and `only_if_pending` word the
    commands, see `Orders`; those are for requests that wait which one of them can still be served by. Greedy on the k
    shortest paths, as in online admission for entanglement routing (Chakraborty et al., IEEE TQE 1, 4101321, 2020, use
    the same candidate paths).
    """

    news = ()
    search_space: ClassVar[SearchSpace] = {"utilisation_limit": (0.1, 0.15, 0.25, 0.5, 1.0), **Orders.search_space}

    def __init__(self, utilisation_limit: float, orders: Orders) -> None:
        self.utilisation_limit, self.orders = utilisation_limit, orders

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """What each source may be asked for, and the order of equally wanted candidates."""
        self.scenario, self.network = scenario, network
        topology = network.topology
        capacity = topology.generation_rate * scenario.control.time_to_live
        self.limit = np.maximum(self.utilisation_limit * capacity, 1.0).tolist()
        self.routes = network.routes
        self.emitter = topology.emitter
        self.rng = generator("central reactive", seed)
        self._known: dict[tuple[int, int], list[Needs]] = {}

    def schedule(self, view: NetworkView, node: Ints, place: Ints, quality: Ints, *keys: NDArray[Any]) -> Decision:
        """At most one allocation per node: its first candidate that fits.

        Candidates are (n,) nodes and places and (n, k) qualities on each route. They go by the first key, lowest first,
        those equal in it by the next, and at random if equal in all.
        """
        seen, code = view.observations, ActionCode.of(self.scenario)
        possible = np.flatnonzero(view.masks[node, code.encode(place, quality[:, 0])] == 1)
        legal = self.rng.permutation(possible)  # a number must not favour a node
        in_order = legal[np.lexsort(tuple(key[legal] for key in reversed(keys)))]
        action, priority = np.zeros((2, len(view.masks)), dtype=np.int64)
        waited_for = np.zeros(len(action), dtype=np.bool_)
        can_be_served = uncovered(seen) & (seen.slack > 0)
        route = np.full(len(action), -1, dtype=np.int64)
        up, claims, memory = view.link_up.tolist(), view.source_claims.tolist(), view.free_memory.tolist()
        for rank, candidate in enumerate(in_order.tolist()):
            i, d = int(node[candidate]), int(place[candidate])
            if action[i] == 0:
                route[i] = self._admit(i, d, up, claims, memory)
                if route[i] >= 0:
                    action[i] = code.encode(d, quality[candidate, route[i]])
                    priority[i] = rank
                    waited_for[i] = can_be_served[i, d]
        decision = Decision(action, route, priority)
        return self.orders.worded(decision, self.network, code.qualities, waited_for)

    def qualities(self, seen: Observations, node: Ints, place: Ints, waits: Any = True, hardest_class: int = 0) -> Ints:
        """(n, k) on each route: for what is pending where it `waits` (n,), else for stock up to a fidelity class."""
        min_quality = self.routes.quality[node, place]
        needed = needed_quality(seen.pending[node, place], min_quality, self.scenario.control.qualities)
        return np.where(np.reshape(waits, (-1, 1)), needed, stock_quality(min_quality, hardest_class))

    def _admit(self, i: int, d: int, up: list[int], claims: list[int], memory: list[int]) -> int:
        """The cheapest route that fits, charged to `claims` and `memory`; -1 if none does."""
        for r, needs in enumerate(self._needs(i, d)):
            if (
                all(memory[node] >= qubits for node, qubits in needs.qubits)
                and all(claims[source] + more <= max(self.limit[source], more) for source, more in needs.claims)
                and all(up[link] for link in needs.links)
            ):
                for source, more in needs.claims:
                    claims[source] += more
                for node, qubits in needs.qubits:
                    memory[node] -= qubits
                return r
        return -1

    def _needs(self, i: int, d: int) -> list[Needs]:
        """Of every candidate route to a peer; looked up once per episode."""
        if (i, d) not in self._known:
            hops = self.routes.hops[i, d]
            routes = zip(hops[hops > 0].tolist(), self.routes.links[i, d], self.routes.nodes[i, d], strict=False)
            self._known[i, d] = [
                self._needs_of(links[:h].tolist(), nodes[: h + 1].tolist()) for h, links, nodes in routes
            ]
        return self._known[i, d]

    def _needs_of(self, links: list[int], nodes: list[int]) -> Needs:
        qubits = [1, *[2] * (len(nodes) - 2), 1]
        return Needs(links, [*Counter(self.emitter[links].tolist()).items()], [*zip(nodes, qubits, strict=True)])


class CentralReactive(CentralScheduler):
    """The most urgent request first.

    For each node the peer is chosen as in `LocalReactive`; then routes are given over the whole network in order of
    urgency. Requests that are overdue by the time they are seen come last; a pair made for one is stored, and serves
    the next. Equally urgent nodes go in random order.
    """

    def __init__(
        self,
        utilisation_limit: float = 0.5,
        fallbacks: bool = False,
        only_if_free: bool = False,
        only_if_pending: bool = False,
    ) -> None:
        super().__init__(utilisation_limit, Orders(fallbacks, only_if_free, only_if_pending))

    def act(self, view: NetworkView) -> Decision:
        """At most one allocation per node, admitted in order of urgency."""
        seen = view.observations
        place = most_urgent(seen.slack, uncovered(seen))
        node = np.flatnonzero(place >= 0)
        chosen = place[node]
        quality = self.qualities(seen, node, chosen)
        return self.schedule(view, node, chosen, quality, urgency(seen.slack[node, chosen]))
