"""How good forecasters are by themselves: scored on held-out demand, for every slot ahead, on paired episodes.

A forecast made after slot t for slot t + h is scored against the requests that come. Two scores, both proper for what
they ask, neither with a unit:

- *deviance skill* 1 - D/D0, with D the Poisson deviance 2 Σ [y log(y/λ) - (y - λ)] (McCullagh & Nelder, Generalized
  Linear Models, 1989, §2.3) and D0 that of the true mean rates: 0 is knowing the mean, 1 would be knowing the count.
  It asks for the expected number. A forecast of nothing would be infinitely wrong about a single request: forecasts
  below `FLOOR` times the pair's mean rate are scored as that, alike for all.
- *MASE*, the mean absolute error over that of repeating the last count (Hyndman & Koehler, Int. J. Forecasting 22, 679,
  2006). It asks for the median, which is nearly always 0 for counts this sparse: forecasting nothing scores well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import xlogy

from dpem_env.demand.forecast import Arrivals, Forecaster, get_forecaster, setting_of
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments.origins import Origins, Sources, unchanged
from dpem_env.experiments.statistics import RESAMPLES, Array
from dpem_env.experiments.workers import played
from dpem_env.logs.recorder import simulator_version
from dpem_env.network.network import build_network
from dpem_env.policy_contract import check_forecaster
from dpem_env.scenarios import Scenario, Split
from dpem_env.scenarios.schema import ReplayDemand
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.own_code import Place, blamed
from dpem_env.support.provenance import stamp
from dpem_env.support.seeding import generator

FORMAT = "dpem-forecast-1"
FLOOR = 0.01  # of the mean rate
REFERENCE = "mean-rates"
SUMS = ("deviance", "absolute_error", "naive_error", "expected", "came", "forecasts")


@dataclass(frozen=True)
class ForecastItem:
    """One forecaster on the demand of one episode."""

    scenario: Scenario
    seeds: EpisodeSeeds
    forecaster: str | Forecaster


def score_episode(item: ForecastItem) -> dict[str, Any]:
    """Sums over all pairs and slots, each a list of H numbers, and the time of a slot's forecasts, µs."""
    own = isinstance(item.forecaster, str) and Place.parse(item.forecaster)
    with blamed(f"forecaster {item.forecaster}") if own else nullcontext():
        return _score(item, _required(item.forecaster))


def _score(item: ForecastItem, forecaster: Forecaster) -> dict[str, Any]:
    scenario, slots = item.scenario, item.scenario.episode.slots
    horizon = scenario.observation.forecast_horizon
    network = build_network(scenario, item.seeds.topology)
    demand = draw_demand(scenario, network, item.seeds.demand, slots)
    setting = setting_of(scenario, network, demand, forecaster.clairvoyant)
    arrivals = Arrivals(scenario, network, demand)
    told = [arrivals.of_slot(slot) for slot in range(slots)]
    counts = np.array([setting.counts(requests) for requests in told])
    exists = network.peers >= 0
    floor = FLOOR * setting.mean_rates[exists][:, None]
    sums = np.zeros((len(SUMS), horizon))
    forecaster.reset(setting)
    seconds = 0.0
    for slot in range(slots - horizon):
        begin = time.perf_counter()
        forecaster.observe(told[slot])
        forecast = forecaster.predict()
        seconds += time.perf_counter() - begin
        came = np.moveaxis(counts[slot + 1 : slot + 1 + horizon], 0, 2)[exists]
        sums += _sums(np.maximum(forecast[exists], floor), came, counts[slot][exists][:, None])
    return {name: row.tolist() for name, row in zip(SUMS, sums, strict=True)} | {
        "us_per_slot": 1e6 * seconds / (slots - horizon)
    }


def _sums(expected: Array, came: Array, last: Array) -> Array:
    """(6, H) sums over pairs."""
    deviance = 2.0 * (xlogy(came, came) - xlogy(came, expected) - came + expected)
    terms = deviance, np.abs(came - expected), np.abs(came - last), expected, came, np.ones_like(came)
    return np.array([term.sum(axis=0) for term in terms])


def measure_skill(
    scenario: Scenario,
    forecasters: Sequence[str],
    num_seeds: int,
    *,
    split: Split = "evaluation",
    topologies: Sequence[int] = (),
    workers: int = 1,
    on_episode: Callable[[str], object] = lambda forecaster: None,
) -> dict[str, Any]:
    """Score forecasters on the demand of a split's first episodes, as plain data.

    `topologies` takes the place of the split's topologies, cyclically: a forecaster trained at the nodes of one network
    knows no other. Raises PolicyError for an unknown forecaster, DpemError for too short an episode and for a
    request file, which has no long run.
    """
    names = list(dict.fromkeys([REFERENCE, *forecasters]))
    for name in names:
        _required(name)
    if isinstance(scenario.demand, ReplayDemand):
        raise DpemError(f"{scenario.name}: a request file has no mean rates, which forecasts are scored against")
    if scenario.episode.slots <= scenario.observation.forecast_horizon:
        raise DpemError(f"{scenario.name}: an episode must be longer than the forecast horizon to score a forecast")
    episodes = [episode_seeds(scenario, split, index) for index in range(num_seeds)]
    if topologies:
        episodes = [seeds._replace(topology=topologies[k % len(topologies)]) for k, seeds in enumerate(episodes)]
    network = build_network(scenario, episodes[0].topology)  # bad input fails here, not in a worker
    draw_demand(scenario, network, episodes[0].demand, scenario.episode.slots)
    there = scenario.on_topology(topologies[0], split) if topologies else scenario
    for name in filter(Place.parse, names):
        check_forecaster(name, there, split=split, called=f"forecaster {name}")
    items = [ForecastItem(scenario, seeds, name) for seeds in episodes for name in names]
    found: dict[ForecastItem, dict[str, Any]] = {}

    def sources(origins: Origins) -> list[Sources]:
        return [origins.of_scenario(scenario), *map(origins.of_forecaster, names)]

    with unchanged(sources):
        for item, result in played(score_episode, items, workers):
            found[item] = result
            on_episode(str(item.forecaster))
    results = {name: [found[ForecastItem(scenario, seeds, name)] for seeds in episodes] for name in names}
    return {
        "format": FORMAT,
        "version": simulator_version(),
        "stamp": stamp(),
        "scenario": scenario.name,
        "scenario_hash": scenario.hash,
        "split": split,
        "seeds": [seeds._asdict() for seeds in episodes],
        "slot_duration": scenario.control.slot_duration,
        "forecasters": [
            {"name": name, "clairvoyant": _required(name).clairvoyant, "episodes": rows}
            | summarise(rows, results[REFERENCE])
            for name, rows in results.items()
        ],
    }


def summarise(rows: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores over all episodes, each a list of H numbers, with 95 % intervals over resampled episodes for the skill."""
    table, base = (np.array([[row[name] for name in SUMS] for row in each]) for each in (rows, reference))
    draws = generator("forecast skill").multinomial(len(table), np.full(len(table), 1 / len(table)), size=RESAMPLES)
    deviance, reference_deviance = table[:, 0], base[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):  # no request came
        skill = 1.0 - deviance.sum(axis=0) / reference_deviance.sum(axis=0)
        low, high = np.quantile(1.0 - (draws @ deviance) / (draws @ reference_deviance), [0.025, 0.975], axis=0)
        total = table.sum(axis=0)
        mase, bias = total[1] / total[2], total[3] / total[4]
    return {
        "skill": _numbers(skill),
        "skill_low": _numbers(low),
        "skill_high": _numbers(high),
        "mase": _numbers(mase),
        "bias": _numbers(bias),
        "us_per_slot": float(np.median([row["us_per_slot"] for row in rows])),
    }


def _numbers(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _required(forecaster: str | Forecaster) -> Forecaster:
    found = get_forecaster(forecaster)
    if found is None:
        raise PolicyError(f"forecaster {forecaster!r} makes no forecasts to score")
    return found
