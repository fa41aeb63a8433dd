"""What no policy can exceed in the long run: a linear program over the candidate routes, and the load it defines.

In expectation a delivered pair of h hops takes p^-(h - 1) tries to swap; each try uses up one complete link per hop and
one swap per relay. A link at quality q takes E_q arriving pairs (`physics.pairs_per_link`), hence at least E_q/η pairs
of its emitter. With x_v >= 0 the requests/s served in way v = (node, peer, route, class):

    maximise    Σ_v x_v
    subject to  Σ_v x_v · p^-(h_v - 1) · Σ_{links l of v fed by n} E_q(v)/η_l  <=  g_n       for every source n
                Σ_{v relayed by n} x_v · p^-(h_v - 1)  <=  min(c_n, whole tokens a slot)     for every swap engine n
                Σ_routes x_v  <=  mean rate of the requests for (node, peer, class)

Where relays swap as soon as they can, a failure loses no more than it would have joined, and any link, if not all, may
be joined last: p^-1 stands in place of p^-(h - 1) if h > 1. Links that share no source have no bound.

q(v) is the smallest quality that meets the class over the route, fresh; where none does, there is no such way. This is
the multicommodity flow of Chakraborty et al. (IEEE TQE 1, 4101321, 2020) over enumerated routes, as the environment
lets nothing but the candidate routes be used, with expected consumption under loss and failing swaps as in Dai, Peng &
Win (IEEE JSAC 38, 540, 2020). The expectations of any episode satisfy the constraints, so the bound holds for every
policy, central or local, that cannot foresee which transmissions, purifications and swaps will succeed. Memory, rows,
time-to-live, deadlines, decay and outages are left out: each could only lower the optimum. It bounds the expected
number of deliveries per second; a mean over episodes of delivered shares is a mean of ratios and may differ.

**Offered load.** ρ = Λ / `capacity`: the request rate over the largest one of which a share of 0.8 could be delivered.
At ρ = 1 every policy fails at least a fifth of the requests. Neither extreme would do: the rate that can be served
entirely (the maximum concurrent flow of Shahrokhi & Matula, J. ACM 37, 318, 1990) is set by the one pair with the
weakest source, and the rate delivered under unlimited demand serves the cheapest pairs and nobody else. Shares nearer
to 1 are still at the mercy of a few weak pairs: over ten meshes of 100 nodes the capacity varies sevenfold at a share
of 0.9, threefold at 0.8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, hstack, vstack

from dpem_env.network.network import Network, build_network
from dpem_env.network.routes import fresh_werner, pairs_per_link, pumped_werner
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import ReplayDemand, SessionDemand
from dpem_env.support.errors import ScenarioError

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

SERVABLE_SHARE = 0.8  # of the requests: what can be delivered at ρ = 1
NEGLIGIBLE = 1e-9  # transmission of a link that delivers nothing in a lifetime


class Bound(NamedTuple):
    """Requests/s over the whole network, in the long run."""

    offered: float
    delivered: float  # at most, by any policy

    @property
    def share(self) -> float:
        """The delivered rate as a share of the offered one; NaN if nothing is offered."""
        return self.delivered / self.offered if self.offered > 0 else float("nan")


def bounds(scenario: Scenario, topology_seeds: Iterable[int]) -> list[Bound]:
    """The long-run bound on each topology, in requests/s."""
    return [delivered_bound(scenario, build_network(scenario, seed)) for seed in topology_seeds]


def offered_load(scenario: Scenario, topology_seeds: Iterable[int]) -> float:
    """ρ, the median over topologies of request rate / capacity: proportional to `request_rate`, without a unit.

    A median, because a few topologies whose requests nearly all pass one weak source would decide a mean.
    """
    loads = []
    for seed in topology_seeds:
        network = build_network(scenario, seed)
        most = capacity(scenario, network)
        loads.append(_pair_rate(scenario) / most if most > 0 else np.inf)
    return float(np.median(loads))


def delivered_bound(scenario: Scenario, network: Network) -> Bound:
    """The largest rate at which the network's demand could be delivered."""
    ways = ways_of(scenario, network)
    rates = demand_rates(scenario, network)
    uses, limits = resources(ways)
    kinds, meets = _demand_met(ways)
    all_limits = np.concatenate((limits, rates.ravel()[kinds]))
    return Bound(float(rates.sum()), maximum(np.ones(len(ways.node)), vstack([uses, meets], "csr"), all_limits))


def capacity(scenario: Scenario, network: Network, share: float = SERVABLE_SHARE) -> float:
    """The largest request rate, requests/s, of which `share` could be delivered, at the proportions of the demand.

    One more variable Λ to maximise, with Σ_v x_v >= share · Λ and each kind of request limited to its part of Λ. The
    result does not depend on `request_rate`.
    """
    mix, ways = demand_mix(scenario, network), ways_of(scenario, network)
    if not mix.any():
        return 0.0
    uses, limits = resources(ways)
    kinds, meets = _demand_met(ways)
    rows = [
        hstack([uses, csr_array((uses.shape[0], 1))]),
        hstack([meets, csr_array(-mix.ravel()[kinds][:, None])]),
        csr_array(np.append(np.full(len(ways.node), -1.0), share)[None]),
    ]
    gain = np.append(np.zeros(len(ways.node)), 1.0)
    return maximum(gain, vstack(rows, "csr"), np.concatenate((limits, np.zeros(len(kinds) + 1))))


def resources(ways: Ways) -> tuple[csr_array, Floats]:
    """(2N, V) pairs/s and swaps/s that one request/s costs, and (2N,) the rates of the sources and swap engines."""
    topology, control = ways.network.topology, ways.scenario.control
    whole_tokens = np.floor(ways.scenario.hardware.token_cap) / control.slot_duration
    swap_rate = np.minimum(topology.swap_rate, whole_tokens)
    return vstack([ways.pairs, ways.swaps], "csr"), np.concatenate((topology.generation_rate, swap_rate))


def _demand_met(ways: Ways) -> tuple[Ints, csr_array]:
    """The kinds of request (N·D·C, flat) that can be served, and which way serves which of them."""
    shape = (*ways.network.peers.shape, len(ways.scenario.demand.class_weights))
    kinds, row = np.unique(np.ravel_multi_index((ways.node, ways.peer, ways.wanted), shape), return_inverse=True)
    ones = np.ones(len(row))
    return kinds, coo_array((ones, (row, np.arange(len(row)))), (len(kinds), len(row))).tocsr()


def maximum(gain: Floats, rows: csr_array, limits: Floats, largest: Floats | None = None) -> float:
    """The maximum of gain·x subject to rows·x <= limits and 0 <= x <= largest (no limit by default)."""
    if not gain.any():
        return 0.0
    ends = np.zeros((len(gain), 2))
    ends[:, 1] = np.inf if largest is None else largest
    solution = linprog(-gain, A_ub=rows, b_ub=limits, bounds=ends, method="highs-ipm")
    if solution.status != 0:
        raise RuntimeError(f"the linear program of a bound was not solved: {solution.message}")
    return max(-float(solution.fun), 0.0)


@dataclass(frozen=True, eq=False)
class Ways:
    """The V ways to serve a request, (node, peer, route, class), and what one request served so costs on average."""

    scenario: Scenario
    network: Network
    node: Ints  # (V,)
    peer: Ints  # (V,) place among the node's peers
    route: Ints  # (V,) number of the candidate route
    wanted: Ints  # (V,) fidelity class

    @cached_property
    def pairs(self) -> csr_array:
        """(N, V) pairs that the sources must emit at least."""
        return self._emitted(self._tries[:, None])

    @cached_property
    def pairs_with_losses(self) -> csr_array:
        """(N, V) the same, and a link between two relays that swap one by one is lost by either: p^-2, not p^-1.

        `pairs`, by which the rates of shipped scenarios were set, counts one failure.
        """
        if self.scenario.control.swapping == "all":
            return self.pairs
        place = np.arange(self.network.routes.links.shape[-1])
        relays = (place > 0).astype(np.int64) + (place < self._hops[:, None] - 1)
        return self._emitted(np.asarray(float(self.scenario.hardware.swap_success) ** -relays, dtype=np.float64))

    def _emitted(self, completions: Floats) -> csr_array:
        """(N, V) pairs for so many completions, (V, H), of every link."""
        topology = self.network.topology
        link = self._at_way(self.network.routes.links)
        quality = self.network.routes.quality[self.node, self.peer, self.route, self.wanted]
        arriving = pairs_per_link(topology, self.scenario)[quality[:, None] - 1, link]
        emitted = arriving * completions / topology.transmission[link]
        used = np.arange(link.shape[1]) < self._hops[:, None]
        return self._by_node(topology.emitter[link], emitted, used)

    @cached_property
    def swaps(self) -> csr_array:
        """(N, V) swaps that the repeaters must try."""
        node = self._at_way(self.network.routes.nodes)
        place = np.arange(node.shape[1])
        relay = (place > 0) & (place < self._hops[:, None])
        return self._by_node(node, np.broadcast_to(self._tries[:, None], node.shape), relay)

    @cached_property
    def freshest(self) -> Floats:
        """(V,) Werner parameter that the pair cannot exceed when it is finished, whatever its quality."""
        best = pumped_werner(self.network.topology, self.scenario).max(axis=0)
        return fresh_werner(self.scenario, best, self._at_way(self.network.routes.links), self._hops)

    @property
    def _hops(self) -> Ints:
        return self._at_way(self.network.routes.hops)

    @property
    def _tries(self) -> Floats:
        together = self._hops - 1 if self.scenario.control.swapping == "all" else np.minimum(self._hops - 1, 1)
        return np.asarray(float(self.scenario.hardware.swap_success) ** -together, dtype=np.float64)

    def _at_way(self, table: NDArray[np.int32]) -> Ints:
        return table[self.node, self.peer, self.route].astype(np.int64)

    def _by_node(self, node: Ints, amount: Floats, counts: NDArray[np.bool_]) -> csr_array:
        way, place = np.nonzero(counts)
        shape = (self.network.num_nodes, len(self.node))
        return coo_array((amount[way, place], (node[way, place], way)), shape).tocsr()


def ways_of(scenario: Scenario, network: Network) -> Ways:
    """Every way that exists: a candidate route that meets the class and neither loses all pairs nor fails all swaps."""
    if scenario.hardware.emission != "poisson":
        told = "no bound where links share no source; set hardware.emission to 'poisson'"
        raise ScenarioError(f"{scenario.name}: {told}")
    routes, topology = network.routes, network.topology
    passable = np.append(topology.transmission > NEGLIGIBLE, True)[routes.links].all(axis=-1)  # the last is for padding
    joinable = (routes.hops == 1) | (scenario.hardware.swap_success > 0)
    return Ways(scenario, network, *np.nonzero((routes.quality > 0) & (passable & joinable)[..., None]))


def demand_mix(scenario: Scenario, network: Network) -> Floats:
    """(N, D, C) part of all requests, in the long run, that is for each pair and class; sums to 1.

    Classes go by their weights, over those that the pair's cheapest route meets at the best quality, fresh.
    """
    met = network.routes.quality[:, :, 0] > 0
    weight = met * np.array(_lasting_demand(scenario).class_weights)
    lowest = np.arange(weight.shape[2]) == met.argmax(axis=2)[..., None]
    weight = np.where(weight.any(axis=2, keepdims=True), weight, lowest)
    return np.asarray(network.weights[..., None] * weight / weight.sum(axis=2, keepdims=True), dtype=np.float64)


def demand_rates(scenario: Scenario, network: Network) -> Floats:
    """(N, D, C) pairs/s that are requested, in the long run, for each pair of nodes and class."""
    return demand_mix(scenario, network) * _pair_rate(scenario)


def _pair_rate(scenario: Scenario) -> float:
    """Pairs/s that are requested over the whole network."""
    demand = _lasting_demand(scenario)
    return demand.request_rate * demand.pairs_per_request


def _lasting_demand(scenario: Scenario) -> SessionDemand:
    if isinstance(scenario.demand, ReplayDemand):
        raise ScenarioError(f"{scenario.name}: a file of requests has no mean rate; use the clairvoyant bound")
    if not isinstance(scenario.demand, SessionDemand):
        raise ScenarioError(f"{scenario.name}: saturated demand has no rate of its own; choose another demand.kind")
    return scenario.demand
