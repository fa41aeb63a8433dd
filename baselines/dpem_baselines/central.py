"""Central control: one controller admits for all nodes, with the network's load in view."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.compiled_rules import admit
from dpem_baselines.local import most_urgent, needed_quality, uncovered, urgency
from dpem_baselines.route_choice import Orders
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import CentralPolicy, Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.seeding import generator

Ints = NDArray[np.int64]


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
        self.limit = np.maximum(self.utilisation_limit * capacity, 1.0)
        self.routes = network.routes
        self.rng = generator("central reactive", seed)

    def schedule(self, view: NetworkView, node: Ints, place: Ints, quality: Ints, *keys: NDArray[Any]) -> Decision:
        """At most one allocation per node: its first candidate that fits.

        Candidates are (n,) nodes and places and (n, k) qualities on each route. They go by the first key, lowest first,
        those equal in it by the next, and at random if equal in all.
        """
        seen, code, nodes = view.observations, ActionCode.of(self.scenario), len(view.masks)
        possible = np.flatnonzero(view.masks[node, code.encode(place, quality[:, 0])] == 1)
        legal = self.rng.permutation(possible)  # a number must not favour a node
        in_order = legal[np.lexsort(tuple(key[legal] for key in reversed(keys)))]
        route, rank = self._admit(view, node[in_order], place[in_order])
        admitted = np.flatnonzero(route >= 0)
        candidate = in_order[rank[admitted]]
        pairs = admitted, place[candidate]
        action, priority, waited_for = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.zeros(nodes, np.bool_)
        action[admitted] = code.encode(pairs[1], quality[candidate, route[admitted]])
        priority[admitted] = rank[admitted]
        waited_for[admitted] = uncovered(seen, pairs) & (seen.slack[pairs] > 0)
        decision = Decision(action, route, priority)
        return self.orders.worded(decision, self.network, code.qualities, waited_for)

    def qualities(self, seen: Observations, node: Ints, place: Ints) -> Ints:
        """(n, k) for what is pending, on each route."""
        min_quality = self.routes.quality[node, place]
        return needed_quality(seen.pending[node, place], min_quality, self.scenario.control.qualities)

    def _admit(self, view: NetworkView, node: Ints, place: Ints) -> tuple[Ints, Ints]:
        """(N,) the cheapest route that fits and the number of the candidate that takes it, -1 where none does."""
        route, rank = np.full((2, len(view.masks)), -1, dtype=np.int64)
        routes, emitter = self.routes, self.network.topology.emitter
        claims, memory = view.source_claims.copy(), view.free_memory.copy()
        fixed = routes.hops, routes.links, routes.nodes, emitter
        admit(node, place, *fixed, view.link_up, self.limit, claims, memory, route, rank)
        return route, rank


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
