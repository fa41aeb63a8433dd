"""The request history that nodes learn from: simulated demand of one topology, drawn with seeds of the train split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.requests import LATEST_NEWS, Demand, draw_demand
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.support.errors import ScenarioError

MAX_COUNT = np.iinfo(np.uint8).max  # of requests kept per pair and slot
MOST_STEPS = 64  # ahead, however short a slot is


@dataclass(frozen=True, eq=False)
class History:
    """All nodes' counts of requests; row [:, i] is known to node i alone."""

    counts: NDArray[np.uint8]  # (T, N, D)
    peers: NDArray[np.int32]  # (N, D) node index of each peer, -1 where padded

    def scale(self) -> NDArray[np.float32]:
        """(N, D) mean count per slot of every pair; half a request in all for a pair that never asked."""
        slots = len(self.counts)
        mean = self.counts.sum(axis=0, dtype=np.int64) / slots
        return np.where(self.peers >= 0, np.maximum(mean, 0.5 / slots), 0.0).astype(np.float32)

    def require(self, slots: int) -> None:
        """Raise ScenarioError unless there are as many slots to learn from."""
        if len(self.counts) < slots:
            raise ScenarioError(f"a history of {len(self.counts)} slots is too short to learn from; needed: {slots}")


def draw_history(scenario: Scenario, topology_seed: int, hours: float = 24.0) -> History:
    """One unbroken stretch of `hours` simulated hours; raises ScenarioError where no history can be drawn."""
    if scenario.demand.kind == "replay":
        raise ScenarioError(f"{scenario.name} replays a request file: there is no other demand to learn from")
    slots = hours * 3600.0 / scenario.control.slot_duration
    if not 1 <= slots <= MAX_SLOTS:
        raise ScenarioError(f"hours is {hours!r}: {slots:g} slots; a history has 1 to {MAX_SLOTS}")
    network = build_network(scenario, topology_seed)
    # Topologies learn from demands of their own, as far as there are seeds.
    demand_seed = scenario.seeds.train.demand[topology_seed]
    demand = draw_demand(scenario, network, demand_seed, round(slots))
    return History(counts_of(demand, round(slots)), network.peers)


def steps_ahead(scenario: Scenario) -> int:
    """Slots ahead that are worth learning: the observation's horizon, after the longest control delay."""
    return min(scenario.observation.forecast_horizon + scenario.in_slots(LATEST_NEWS), MOST_STEPS)


def counts_of(demand: Demand, slots: int) -> NDArray[np.uint8]:
    """(T, N, D) requests per slot and pair."""
    table = demand.requests
    counts = np.zeros((slots, *demand.shape), dtype=np.uint8)
    place = np.ravel_multi_index((table.slot, table.source, table.peer), counts.shape)
    occupied, number = np.unique(place, return_counts=True)
    counts.ravel()[occupied] = np.minimum(number, MAX_COUNT)
    return counts
