"""Tighter bounds in the long run: with what pairs really cost and the time they take, and estimates beyond.

The linear program of `bound` grants that every pair is there in time, and that nothing is made ahead in vain. Here a
request arrives in slot t, for a pair of nodes and a fidelity class, and has a deadline of s slots; an allocation lives
for W + 1. A request is served *from stock* by a pair that was finished before slot t, else by one that was not.

**With real costs**: no policy that does not know requests before they arrive delivers more. It may know when sessions
begin and end. In the long run, x_v requests/s are served in way v by pairs that were not finished when they arrived,
y_v from stock:

    maximise    Σ_v x_v + y_v
    subject to  Σ_v (x_v + y_v/u) · cost_v  <=  the rates of sources and swap engines
                Σ_routes x_v  <=  P · rate,    x_v  <=  P_v · rate,    Σ_routes x_v + y_v  <=  rate

for every pair and class. *In time*: what serves a request without having been finished was admitted in slot t - W or
later, and is finished in slot t + s - 1 at the latest. P_v and P bound the probability that the emissions of these
W + s slots make a pair over the route, or over any (`in_time`); they depend neither on what happened before nor on the
request, whose arrival tells nothing of emissions. *In vain*: a pair that is stored in slot f serves only requests that
arrive within the L slots after f in which a pair of any of the routes, at best, is good enough for any class. That one
does has a probability of u = 1 - exp(-λL) at most, whatever is known in slot f, λ being the pair's rate while its
session is on; so y served take y/u stored. *Costs* are those of `bound`, but for links that are lost at either end:
draws of swaps are fresh and every link is tried once at each of its relays, so one between two relays is delivered with
probability p² at most (`Ways.pairs_with_losses`). The expectations of any long episode satisfy all rows. Memory, rows,
decay, outages and contention in time are left out; each could only lower the optimum.

**Estimates.** Who makes pairs ahead blindly pays little by these rows, as most sources have pairs to spare; memory and
contention that would forbid it are not in them. So beyond this nothing is proved for every policy:

- *without foreseeing sessions*: the first request of every session is served by what is begun after it has come. Proved
  for policies that make nothing for a pair before its session's first request; others may exceed it.
- *nothing ahead*: so is every request. Proved for policies that make nothing before it is asked for.

For what is begun after the request, P_v and P are those of s slots.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack

from dpem_baselines.bound import Bound, Ways, delivered_bound, demand_rates, maximum, resources, ways_of
from dpem_baselines.clairvoyant import storage_life
from dpem_baselines.in_time import InTime, any_of
from dpem_env.demand.requests import mean_rates
from dpem_env.network.network import Network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import SessionDemand
from dpem_env.simulator.simulator import rules_of
from dpem_env.support.errors import ScenarioError

Floats = NDArray[np.float64]
Columns = list[int]  # of a linear program

NEGLIGIBLE = 1e-9  # probability


class TightBounds(NamedTuple):
    """Requests/s over the whole network, in the long run."""

    shipped: Bound  # of `bound`: no policy delivers more
    real_costs: Bound  # nor does one that does not know requests before they arrive
    unforeseen: Bound  # an estimate: nothing is made before a session's first request
    nothing_ahead: Bound  # an estimate: nothing is made before it is asked for


def tight_bounds(scenario: Scenario, network: Network) -> TightBounds:
    """All of them; ScenarioError where requests are no Poisson sessions, or links share no source."""
    sessions = Sessions(scenario, network)
    ways, rates, in_time = ways_of(scenario, network), demand_rates(scenario, network), InTime(scenario, network)
    life, wait = storage_life(ways), rules_of(scenario).time_to_live - 1
    real_costs, unforeseen, nothing_ahead = (_Program(ways) for _ in range(3))
    for pair, own in _by_pair(ways, rates).items():
        used, first = sessions.request_within(pair, int(life[own].max())), sessions.first_share(pair)
        for wanted in np.unique(ways.wanted[own]).tolist():
            fit = [way for way in own if ways.wanted[way] == wanted]
            slots, rate = scenario.in_slots(scenario.demand.deadlines[wanted]), float(rates[(*pair, wanted)])
            ahead, afresh = (_chances(in_time, ways, fit, duration) for duration in (slots + wait, slots))
            real_costs.serve(fit, rate, ahead, used)
            unforeseen.serve(fit, rate * (1.0 - first), ahead, used)
            unforeseen.serve(fit, rate * first, afresh)
            nothing_ahead.serve(fit, rate, afresh)
    offered = float(rates.sum())
    proved = Bound(offered, real_costs.maximum())
    return TightBounds(
        delivered_bound(scenario, network),
        proved,
        Bound(offered, unforeseen.maximum()),
        Bound(offered, nothing_ahead.maximum()),
    )


def _by_pair(ways: Ways, rates: Floats) -> dict[tuple[int, int], list[int]]:
    """The ways of every (node, place of its peer) for classes that are asked for."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for way in np.flatnonzero(rates[ways.node, ways.peer, ways.wanted] > 0).tolist():
        found[int(ways.node[way]), int(ways.peer[way])].append(way)
    return found


def _chances(in_time: InTime, ways: Ways, own: list[int], slots: int) -> list[float]:
    """The probability, at most, that emissions of so many slots make a pair, by way."""
    at = ways.node[own], ways.peer[own], ways.route[own]
    quality = in_time.network.routes.quality[(*at, ways.wanted[own])]
    routes = np.stack((*at, quality), axis=1).tolist()
    return [in_time.chance(node, place, route, asked, slots) for node, place, route, asked in routes]


class Sessions:
    """How requests come, pair by pair: Poisson at one rate while a session is on, at a lower one else."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        demand = scenario.demand
        if not isinstance(demand, SessionDemand) or demand.kind != "sessions" or demand.arrivals != "poisson":
            told = 'expected demand.kind "sessions" and demand.arrivals "poisson"'
            raise ScenarioError(f"{scenario.name}: what of its requests can be foreseen is not known; {told}")
        self.phi, self.share = demand.predictability, demand.session_share
        self.ends = scenario.control.slot_duration / demand.session_duration  # probability per slot
        self.mean = mean_rates(scenario, network) / demand.pairs_per_request  # requests per slot

    def request_within(self, pair: tuple[int, int], slots: int) -> float:
        """The largest probability of a request within so many slots, for who knows all sessions."""
        steady, in_session = (1.0 - self.phi) * self.mean[pair], self.phi * self.mean[pair] / self.share
        return float(-np.expm1(-(steady + in_session) * slots))

    def first_share(self, pair: tuple[int, int]) -> float:
        """The share of a pair's requests that are the first of their session; a slot may bring several."""
        none = np.exp(-self.phi * self.mean[pair] / self.share)  # in a slot of a session
        without = self.ends * none / (1.0 - (1.0 - self.ends) * none)  # sessions
        return float(self.share * self.ends * (1.0 - without) / self.mean[pair])


class _Program:
    """A linear program: columns, what is served in a way, and rows, which limit sums of them."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self._way: list[int] = []
        self._costs: list[float] = []  # in costs of the way
        self._most: list[float] = []
        self._rows: list[tuple[Columns, float]] = []

    def serve(self, ways: list[int], rate: float, chances: list[float], used: float = 0.0) -> None:
        """Serve requests of a rate in these ways, with these chances unless from stock, of which a share is used."""
        made = [self._column(way, 1.0, chance * rate) for way, chance in zip(ways, chances, strict=True)]
        self._rows.append((made, any_of(chances) * rate))
        if used > NEGLIGIBLE:
            stored = [self._column(way, 1.0 / used, np.inf) for way in ways]
            self._rows.append((made + stored, rate))

    def maximum(self) -> float:
        """What is served at most, requests/s."""
        if not self._rows:
            return 0.0
        _, limits = resources(self.ways)
        costs = vstack([self.ways.pairs_with_losses, self.ways.swaps], "csc")[:, self._way]
        row = np.repeat(np.arange(len(self._rows)), [len(columns) for columns, _ in self._rows])
        column = np.concatenate([columns for columns, _ in self._rows])
        sums = coo_array((np.ones(len(row)), (row, column)), (len(self._rows), len(self._way)))
        all_limits = np.concatenate((limits, [most for _, most in self._rows]))
        rows: csr_array = vstack([costs * np.array(self._costs)[None], sums], "csr")
        return maximum(np.ones(len(self._way)), rows, all_limits, np.array(self._most))

    def _column(self, way: int, costs: float, most: float) -> int:
        self._way.append(way)
        self._costs.append(costs)
        self._most.append(most)
        return len(self._way) - 1
