"""Observations written by hand, in natural units, for rules that decide from them alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.forecast import ForecastSetting, NewRequests
from dpem_env.observations.features import NODE_FEATURES, FeatureTable, Observations
from dpem_env.policies import LocalPolicy
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode

SCENARIO = scenarios.get("mesh20-v0")  # 8 places, 3 qualities, 3 classes, 8 forecast slots
PLACES, QUALITIES = SCENARIO.demand.peers, SCENARIO.control.qualities
CODE = ActionCode.of(SCENARIO)


def nodes(*rows: dict[str, dict[int, Any]], scenario: Scenario = SCENARIO) -> Observations:
    """One node per row: feature -> place -> value. What is not given is two idle hops at quality 1, and no requests."""
    table = FeatureTable(scenario)
    places, width = scenario.demand.peers, table.peer_width
    matrix = np.zeros((len(rows), table.width), dtype=np.float32)
    blocks = matrix[:, len(NODE_FEATURES) :].reshape(len(rows), places, width)
    usual = {"hops": 2, "route_up": 1, "build_time": 0.5, "min_quality": (1, 1, 1), "slack": 4}
    for i, row in enumerate(rows):
        for name in {*usual, *row}:
            for d in range(places):
                value = np.atleast_1d(row.get(name, {}).get(d, usual.get(name, 0)))
                start = table.offset[name]
                blocks[i, d, start : start + table.sizes.get("H" if name == "forecast" else "1", 1)] = 0
                blocks[i, d, start : start + len(value)] = value / table.scale[name]
    return table.read(matrix)


def many(row: dict[str, dict[int, Any]], count: int) -> Observations:
    """`count` nodes in the same situation."""
    one = nodes(row)
    return one.table.read(np.repeat(one.matrix, count, axis=0))


def expecting(total: float) -> tuple[float, ...]:
    """A forecast of `total` requests in all, spread over the horizon."""
    return (total / SCENARIO.observation.forecast_horizon,) * SCENARIO.observation.forecast_horizon


def free(seen: Observations) -> NDArray[np.int8]:
    """A mask that allows everything."""
    return np.ones((len(seen.matrix), CODE.num_actions), dtype=np.int8)


def chosen(policy: LocalPolicy, seen: Observations) -> list[tuple[int, int] | None]:
    """(place, quality) each node allocates, None where it waits."""
    actions = policy.act(seen, free(seen)).action.tolist()
    return [CODE.decode(a)[:2] if a else None for a in actions]


class Always:
    """A forecaster that expects the same in every slot ahead: (N, D) requests per slot, 0 for the rest."""

    clairvoyant = False

    def __init__(self, expected: dict[tuple[int, int], float]) -> None:
        self.expected = expected

    def reset(self, setting: ForecastSetting) -> None:
        """Write the table down."""
        self.table = np.zeros((*setting.peers.shape, setting.horizon))
        for pair, requests in self.expected.items():
            self.table[pair] = requests

    def observe(self, requests: NewRequests) -> None:
        """Nothing is learned."""

    def predict(self, lead: int = 0) -> NDArray[np.float64]:
        """The same, always."""
        return self.table.copy()
