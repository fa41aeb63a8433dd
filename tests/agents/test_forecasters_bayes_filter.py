"""The Bayes filter against every hidden path written out, and its forecasts against what came."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp, factorial

import numpy as np
import pytest
from forecasting import requests_of

from dpem_agents.forecasters.bayes_filter import BayesFilter
from dpem_env import scenarios
from dpem_env.demand.forecast import ForecastSetting, get_forecaster, setting_of
from dpem_env.demand.requests import draw_demand
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import PolicyError

PEERS = np.array([[1], [0]], dtype=np.int32)


def enumerated(scenario: Scenario, rate: float, counts: list[int], ahead: int) -> float:
    """Expected count of pairs `ahead` slots after the last of `counts`, by summing over every hidden path."""
    demand = scenario.demand
    pairs = demand.pairs_per_request
    share, phi = demand.session_share, demand.predictability  # type: ignore[union-attr]
    leave_on = scenario.control.slot_duration / demand.session_duration  # type: ignore[union-attr]
    stay = {True: 1.0 - leave_on, False: 1.0 - leave_on * share / (1.0 - share)}
    means = {True: rate * (1.0 - phi + phi / share), False: rate * (1.0 - phi)}
    expected = evidence = 0.0
    for path in product((True, False), repeat=len(counts) + ahead):
        weight = share if path[0] else 1.0 - share
        for before, after in pairwise(path):
            weight *= stay[before] if before == after else 1.0 - stay[before]
        for on, count in zip(path, counts, strict=False):
            mean, arrived = means[on] / pairs, count // pairs
            weight *= exp(-mean) * mean**arrived / factorial(arrived)
        evidence += weight
        expected += weight * means[path[-1]]
    return expected / evidence


@pytest.mark.parametrize("phi", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("share", "duration"), [(0.05, 20.0), (0.4, 0.5), (0.3, 0.25)])
@pytest.mark.parametrize("pairs", [1, 3])
def test_the_filter_equals_the_sum_over_all_hidden_paths(phi: float, share: float, duration: float, pairs: int) -> None:
    scenario = scenarios.get(
        "chain3-v0",
        predictability=phi,
        session_share=share,
        session_duration=duration,
        pairs_per_request=pairs,
        forecast_horizon=3,
    )
    rates = np.array([[0.4], [1.7]])
    counts = [[pairs * requests for requests in slot] for slot in ([0, 2], [1, 0], [0, 0], [2, 1], [0, 0])]
    forecaster = BayesFilter()
    forecaster.reset(ForecastSetting(scenario, PEERS, rates))
    for slot, row in enumerate(counts):
        forecaster.observe(requests_of(slot, PEERS, np.array(row)[:, None]))
        for lead, h, node in product((0, 2), range(3), range(2)):
            seen = [earlier[node] for earlier in counts[: slot + 1]]
            truth = enumerated(scenario, rates[node, 0], seen, lead + h + 1)
            assert forecaster.predict(lead)[node, 0, h] == pytest.approx(truth, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("phi", [1.0, 0.5])
def test_what_it_expects_is_what_comes_on_average_at_every_level_of_the_forecast(phi: float) -> None:
    scenario = scenarios.get("mesh20-v0", predictability=phi)
    network = build_network(scenario, 1000)
    table = draw_demand(scenario, network, 1_000_000, 6000)
    setting = setting_of(scenario, network, table, clairvoyant=False)
    counts = np.zeros((6000, *network.peers.shape))
    np.add.at(counts, (table.requests.slot, table.requests.source, table.requests.peer), 1.0)
    forecaster = BayesFilter()
    forecaster.reset(setting)
    expected = np.zeros_like(counts)
    for slot in range(5999):
        expected[slot + 1] = forecaster.predict()[:, :, 0]
        forecaster.observe(requests_of(slot, network.peers, counts[slot]))
    real = network.peers >= 0
    forecast, came = expected[1:, real].ravel(), counts[1:, real].ravel()
    assert forecast.sum() == pytest.approx(came.sum(), abs=4 * np.sqrt(40 * came.sum()))  # requests come in sessions
    order = np.argsort(forecast)
    spread = []
    for decile in np.array_split(order, 10):
        told, got = forecast[decile].sum(), came[decile].sum()
        assert got == pytest.approx(told, abs=5 * np.sqrt(told) + 0.25 * told + 1)
        spread.append(told)
    assert spread[-1] > 5 * np.median(spread)


def test_without_sessions_it_knows_the_mean_rates_and_no_more() -> None:
    scenario = scenarios.get("chain3-v0", predictability=0.0)
    rates = np.array([[0.4], [0.0]])
    forecaster = BayesFilter()
    forecaster.reset(ForecastSetting(scenario, PEERS, rates))
    for slot in range(5):
        forecaster.observe(requests_of(slot, PEERS, np.array([[slot], [0]])))
        assert np.allclose(forecaster.predict(), rates[:, :, None], rtol=1e-12)


def test_a_request_in_a_session_that_alone_brings_requests_says_that_it_is_on() -> None:
    scenario = scenarios.get("chain3-v0", predictability=1.0)
    forecaster = BayesFilter()
    forecaster.reset(ForecastSetting(scenario, PEERS, np.array([[0.01], [0.01]])))
    assert np.allclose(forecaster.predict(), 0.01)  # nothing seen: the mean
    forecaster.observe(requests_of(0, PEERS, np.array([[1], [0]])))
    on = 1.0 - 0.25 / 20.0
    assert forecaster.predict()[0, 0, 0] == pytest.approx(0.01 / 0.05 * on)
    assert forecaster.predict()[1, 0, 0] < 0.01


@pytest.mark.parametrize("rate", [0.0, 1e-9, 1e4])
@pytest.mark.parametrize("phi", [0.0, 0.5, 1.0])
def test_no_count_breaks_it(rate: float, phi: float) -> None:
    scenario = scenarios.get("chain3-v0", predictability=phi)
    forecaster = BayesFilter()
    forecaster.reset(ForecastSetting(scenario, PEERS, np.full((2, 1), rate)))
    for slot, count in enumerate((0, 5000, 0, 0, 1, 100_000, 0)):
        with np.errstate(all="raise", under="ignore"):
            forecaster.observe(requests_of(slot, PEERS, np.array([[count], [0]])))
            forecast = forecaster.predict(3)
        assert np.isfinite(forecast).all()
        assert (forecast >= 0).all()
        assert (forecast <= rate * 21).all()


@pytest.mark.parametrize("kind", ["trace", "replay"])
def test_demand_without_sessions_it_could_filter_is_refused_in_one_line(kind: str) -> None:
    changed = {"kind": kind} | ({"requests_file": "requests.csv"} if kind == "replay" else {})
    scenario = scenarios.get("chain3-v0", **changed)
    with pytest.raises(PolicyError, match=f"has '{kind}' demand") as error:
        BayesFilter().reset(ForecastSetting(scenario, PEERS, np.ones((2, 1))))
    assert "\n" not in str(error.value)


def test_it_is_found_by_name() -> None:
    assert isinstance(get_forecaster("bayes-filter"), BayesFilter)
    with pytest.raises(PolicyError, match=r"takes no argument, given 'x'"):
        get_forecaster("bayes-filter:x")
