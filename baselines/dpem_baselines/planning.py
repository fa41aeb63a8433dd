"""What the planning baselines share: demand, the allocations that could serve it, and following a plan.

A planner sees, every planning period, a list of candidate allocations (a pair, a route, a quality) with the expected
worth of each and its use of resources; it picks some, and the plan is followed until the next one. How it picks is all
that the planners differ in.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from dpem_baselines.limits import Floats, Ints, Limits
from dpem_baselines.local import urgency
from dpem_baselines.route_choice import Orders
from dpem_baselines.route_model import SMALLEST, Candidates, Load, RouteModel
from dpem_env.experiments.search import SearchSpace
from dpem_env.network.network import Network
from dpem_env.policies import CentralPolicy, Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.seeding import generator

KINDS = 4  # of demand


class PathPlanner(CentralPolicy):
    """A central policy that plans allocations over the candidate routes every `period` seconds.

    What a pair is worth, in requests served, is what it serves if it comes in time, else late, times the chances of
    both. In time it serves 1 of the waiting requests that no open allocation covers, and `redundancy` as the second
    pair for a waiting request. What comes too late, or for a request that is overdue when it is seen, is stored and
    serves `late_worth`. If a forecaster is attached, one more pair to store is in demand: the n-th serves `stocking`
    times the probability that n requests come in `stock_time` seconds at the mean rate forecast (Poisson), times the
    share of the classes it is good enough for. What is worth less than `least_worth` is not made.

    New allocations may use what is left of the share `utilisation` of what sources emit and engines swap in a
    time-to-live, and each is made once per plan; each node makes one per slot, its most urgent first. `fallbacks`,
    `only_if_free` and `only_if_pending` word the commands, see `Orders`.
    """

    news = ()
    search_space: ClassVar[SearchSpace] = {
        "period": (0.25, 0.5, 1.0),
        "utilisation": (0.25, 0.35, 0.5, 1.0),
        "redundancy": (0.0, 0.25, 0.5),
        "late_worth": (0.0, 0.25, 0.5),
        "stocking": (0.0, 0.5, 1.0),
        "stock_time": (1.0, 2.0, 4.0, 8.0),
        "least_worth": (0.05, 0.1, 0.2, 0.3),
        **Orders.search_space,
    }

    def __init__(
        self,
        period: float = 0.25,
        utilisation: float = 0.5,
        redundancy: float = 0.25,
        late_worth: float = 0.25,
        stocking: float = 1.0,
        stock_time: float = 2.0,
        least_worth: float = 0.1,
        fallbacks: bool = False,
        only_if_free: bool = False,
        only_if_pending: bool = False,
    ) -> None:
        self.period, self.utilisation = period, utilisation
        self.redundancy, self.late_worth = redundancy, late_worth
        self.stocking, self.stock_time, self.least_worth = stocking, stock_time, least_worth
        self.orders = Orders(fallbacks, only_if_free, only_if_pending)

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Routes of the network, and the order of equal candidates."""
        self.scenario, self.network = scenario, network
        self.model = RouteModel(scenario, network)
        self.slots = max(round(self.period / scenario.control.slot_duration), 1)
        self.rng = generator("path planner", seed)
        self._next_plan = 0
        self._plan: Candidates

    @abstractmethod
    def choose(self, candidates: Candidates, worth: Floats, limits: Limits, load: Load) -> Ints:
        """Numbers of the candidates to allocate, each once, that fit together within the limits."""

    def act(self, view: NetworkView) -> Decision:
        """What the plan holds for this slot: of each node's planned allocations the most urgent."""
        if view.slot >= self._next_plan:
            self._plan = self._make_plan(view)
            self._next_plan = view.slot + self.slots
        plan = self._plan
        code = ActionCode.of(self.scenario)
        action = code.encode(plan.place, plan.quality)
        legal = np.flatnonzero(view.masks[plan.node, action])
        _, first = np.unique(plan.node[legal], return_index=True)
        now = legal[first]
        nodes = self.network.num_nodes
        decision = Decision(np.zeros(nodes, np.int64)).completed(nodes)
        assert decision.route is not None
        assert decision.priority is not None
        decision.action[plan.node[now]] = action[now]
        decision.route[plan.node[now]] = plan.route[now]
        decision.priority[plan.node[now]] = now
        waited_for = np.zeros(nodes, dtype=np.bool_)
        waited_for[plan.node[now]] = plan.slack[now] > 0
        self._plan = plan.take(np.delete(np.arange(len(plan)), now))
        return self.orders.worded(decision, self.network, code.qualities, waited_for)

    def _make_plan(self, view: NetworkView) -> Candidates:
        candidates = self.candidates(view)
        load = Load(view.source_claims, view.swap_claims, view.swap_tokens)
        worth = self.model.worth(candidates, load)
        useful = worth >= max(self.least_worth, SMALLEST)
        candidates, worth = candidates.take(useful), worth[useful]
        chosen = self.choose(candidates, worth, self.limits(candidates, view), load)
        order = np.lexsort((-worth[chosen], urgency(candidates.slack[chosen])))
        return candidates.take(chosen[order])

    def limits(self, candidates: Candidates, view: NetworkView) -> Limits:
        """Resources as in `RouteModel.needs`, after the demand of every group: one pair of each candidate."""
        resource, need = self.model.needs(candidates)
        resources = self.model.capacity(view, self.utilisation, self.slots, resource, need)
        wanted = np.zeros(KINDS * self.network.peers.size)
        wanted[candidates.group] = candidates.wanted
        return Limits(
            np.concatenate((candidates.group[:, None], len(wanted) + resource), axis=1),
            np.concatenate((np.ones((len(candidates), 1)), need), axis=1),
            np.concatenate((wanted, resources, [np.inf])),
        )

    def candidates(self, view: NetworkView) -> Candidates:
        """Every allocation that could serve some uncovered demand over links that are up, in random order."""
        seen = view.observations
        live = seen.pending - view.overdue
        late = view.overdue.sum(axis=2)
        waiting = seen.pending.sum(axis=2) - late
        spare = np.maximum(seen.open_allocations - waiting, 0.0)
        second = waiting if self.redundancy > 0 else np.zeros_like(waiting)
        expected = seen.forecast.mean(axis=2) / self.scenario.control.slot_duration * self.stock_time
        parts = [
            self._for_requests(waiting - seen.open_allocations, live, seen.slack, 1.0),
            self._for_requests(np.minimum(second - spare, second), live, seen.slack, self.redundancy),
            self._for_requests(late - np.maximum(spare - second, 0.0), view.overdue, np.zeros_like(late), 0.0),
            self._for_stock(self.stocking * gammainc(seen.stored_pairs + spare + 1.0, expected)),
        ]
        kind = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        candidates = Candidates.joined(parts)
        pair = candidates.node * self.network.peers.shape[1] + candidates.place
        candidates = replace(candidates, group=kind * self.network.peers.size + pair)
        links = self.network.routes.links[candidates.node, candidates.place, candidates.route]
        usable = np.flatnonzero(((links < 0) | (view.link_up[links] > 0)).all(axis=1))
        return candidates.take(self.rng.permutation(usable))  # a node's number must not favour it

    def _for_requests(
        self, wanted: Floats, requests: Floats | NDArray[np.int32], slack: Floats, in_time: float
    ) -> Candidates:
        """Candidates for (N, D) `wanted` pairs, good enough for the hardest class among (N, D, C) `requests`."""
        node, place = np.nonzero(wanted > 0)
        hardest = (np.arange(requests.shape[2]) * (requests[node, place] > 0)).max(axis=1)
        quality = self.network.routes.quality[node, place, :, hardest]
        row, route = np.nonzero(quality)
        node, place = node[row], place[row]
        return Candidates(
            node=node,
            place=place,
            route=route,
            quality=quality[row, route].astype(np.int64),
            slack=slack[node, place].astype(np.int64),
            worth_in_time=np.full(len(row), in_time + (1.0 - in_time) * self.late_worth),  # not needed: stored
            worth_late=np.full(len(row), self.late_worth),
            group=row,
            wanted=wanted[node, place].astype(np.int64),
        )

    def _for_stock(self, stored: Floats) -> Candidates:
        """Candidates for one more pair to store where (N, D) `stored`, the requests it will serve, is large enough."""
        node, place = np.nonzero(stored >= max(self.least_worth, SMALLEST))
        share = self.model.share_served[node, place]  # (pairs, k, Q)
        row, route, quality = np.nonzero(share)
        node, place, worth = node[row], place[row], stored[node, place][row] * share[row, route, quality]
        zeros = np.zeros(len(row))
        return Candidates(
            node, place, route, quality + 1, zeros.astype(np.int64), zeros, worth, row, np.ones(len(row), np.int64)
        )
