"""How well forecasters forecast, and how fast: on demand that none of them was trained on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from dpem_agents.forecasters.history import counts_of
from dpem_env.demand import draw_demand
from dpem_env.forecast import Forecaster, NewRequests, get_forecaster, setting_of
from dpem_env.network import build_network
from dpem_env.scenarios import Scenario

FLOOR = 0.01  # of the mean rate: a forecast of nothing would be infinitely wrong about a single request

F64 = NDArray[np.float64]


class Skill(NamedTuple):
    """Scores over all pairs and slots of some episodes, for each of H slots ahead."""

    deviance: F64  # (H,) mean Poisson deviance
    squared_error: F64  # (H,) mean
    bias: F64  # (H,) total expected over total that came


def measure_skill(
    forecaster: str | Forecaster,
    scenario: Scenario,
    topology_seed: int,
    demand_seeds: Iterable[int],
    *,
    lead: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Skill:
    """Score the forecasts of slots t + lead + 1 … t + lead + H made in every slot t of the episodes.

    Forecasts below FLOOR times the pair's true mean rate are scored as that, alike for all.
    """
    chosen = get_forecaster(forecaster)
    assert chosen is not None
    network = build_network(scenario, topology_seed, data_dir)
    horizon, slots = scenario.observation.forecast_horizon, scenario.episode.slots
    totals: Any = 0.0
    for seed in demand_seeds:
        demand = draw_demand(scenario, network, seed, slots, data_dir)
        setting = setting_of(scenario, network, demand, chosen.clairvoyant)
        counts = counts_of(demand, slots).astype(np.float64)
        floor = FLOOR * setting.mean_rates[:, :, None]
        chosen.reset(setting)
        for slot in range(slots - lead - horizon):
            chosen.observe(NewRequests.of_slot(scenario, network, demand, slot))
            expected = np.maximum(chosen.predict(lead), floor)
            came = np.moveaxis(counts[slot + lead + 1 : slot + lead + 1 + horizon], 0, 2)
            real = network.peers >= 0
            totals = totals + _totals(expected[real], came[real])
    deviance, squared, expected, came, number = totals
    return Skill(deviance / number, squared / number, expected / np.maximum(came, 1.0))


def _totals(expected: F64, came: F64) -> F64:
    """(5, H) sums over pairs: deviance (McCullagh & Nelder 1989, §2.3), squared error, expected, came, number."""
    deviance = 2.0 * (xlogy(came, came) - xlogy(came, expected) - came + expected)
    terms = deviance, (expected - came) ** 2, expected, came, np.ones_like(came)
    return np.array([term.sum(axis=0) for term in terms])


def measure_speed(forecaster: str | Forecaster, scenario: Scenario, topology_seed: int, demand_seed: int) -> float:
    """Mean wall time of observe and predict, µs per slot for all nodes, over one episode."""
    chosen = get_forecaster(forecaster)
    assert chosen is not None
    network = build_network(scenario, topology_seed)
    slots = scenario.episode.slots
    demand = draw_demand(scenario, network, demand_seed, slots)
    table = [NewRequests.of_slot(scenario, network, demand, slot) for slot in range(slots)]
    chosen.reset(setting_of(scenario, network, demand, chosen.clairvoyant))
    chosen.observe(table[0])  # compiles
    chosen.predict()
    begin = time.perf_counter()
    for requests in table[1:]:
        chosen.observe(requests)
        chosen.predict()
    return 1e6 * (time.perf_counter() - begin) / (slots - 1)
