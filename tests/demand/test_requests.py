"""Demand: its mean, its sessions, its classes and deadlines, traces, replays, and what it must not depend on."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.requests import Demand, draw_demand, mean_rates, tabulate
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario, data
from dpem_env.scenarios.schema import ChainNetwork, Hardware, ReplayDemand, Routing, SessionDemand
from dpem_env.support.errors import DataError, DpemWarning, ScenarioError

Floats = NDArray[np.float64]
Replayed = Callable[..., tuple[Scenario, Network]]
EQUAL = {"generation_rate": (8.0, 8.0), "swap_rate": (4.0, 4.0)}
SPLIT_SEED = {"train": 0, "validation": 1_000_000, "evaluation": 2_000_000}


def counts(demand: Demand, slots: int) -> Floats:
    """(slots, N, D) requests that arrived."""
    table = np.zeros((slots, *demand.shape))
    np.add.at(table, (demand.requests.slot, demand.requests.source, demand.requests.peer), 1.0)
    return table


def session_correlation(scenario: Scenario) -> float:
    """Correlation of a session's state from one slot to the next."""
    demand = scenario.demand
    assert isinstance(demand, SessionDemand)
    leave_on = scenario.control.slot_duration / demand.session_duration
    return 1.0 - leave_on - leave_on * demand.session_share / (1.0 - demand.session_share)


def lively(predictability: float) -> Scenario:
    """Short sessions, so that long-run means settle in a short test."""
    return scenarios.get(
        "chain3-v0", predictability=predictability, session_duration=2.0, session_share=0.2, request_rate=4.0
    )


@pytest.mark.parametrize("predictability", [0.0, 0.5, 1.0])
def test_the_mean_of_each_pair_does_not_depend_on_predictability(predictability: float) -> None:
    scenario, slots = lively(predictability), 100_000
    network = build_network(scenario, 0)
    expected = network.weights * 4.0 * 0.25
    np.testing.assert_allclose(mean_rates(scenario, network), expected)
    observed = counts(draw_demand(scenario, network, 11, slots), slots).mean(axis=0)
    rho = session_correlation(scenario)
    of_sessions = (predictability * expected) ** 2 * (0.8 / 0.2) * (1.0 + rho) / (1.0 - rho) / slots
    assert np.all(np.abs(observed - expected) < 5.0 * np.sqrt(expected / slots + of_sessions))


@pytest.mark.parametrize("predictability", [0.0, 0.5, 1.0])
def test_the_load_of_mesh100_is_its_request_rate(predictability: float) -> None:
    scenario = scenarios.get("mesh100-v0", predictability=predictability)
    network = build_network(scenario, 0)
    totals = np.array([len(draw_demand(scenario, network, seed, 400).requests.slot) for seed in range(200)])
    assert abs(totals.mean() - 100.0 * scenario.requests_per_slot / 0.25) < 5.0 * totals.std() / math.sqrt(200)


def test_unpredictable_counts_are_independent_over_time() -> None:
    scenario, slots = lively(0.0), 100_000
    table = counts(draw_demand(scenario, build_network(scenario, 0), 3, slots), slots).reshape(slots, -1)
    table = table[:, table.any(axis=0)]
    mean, variance = table.mean(axis=0), table.var(axis=0)
    assert table.shape[1] == 6
    assert np.all(np.abs(variance / mean - 1.0) < 5.0 * np.sqrt((2.0 + 1.0 / mean) / slots))
    for lag in (1, 2, 8):
        centred = table - mean
        correlation = (centred[lag:] * centred[:-lag]).mean(axis=0) / variance
        assert np.all(np.abs(correlation) < 5.0 / math.sqrt(slots))


def test_predictable_counts_are_overdispersed_as_their_sessions_say() -> None:
    scenario, slots, window, share = lively(1.0), 8_000, 16, 0.2
    network = build_network(scenario, 0)
    rate = (network.weights * 4.0 * 0.25).ravel()
    rho = session_correlation(scenario)
    lags = np.arange(1, window)
    on = share * (1.0 - share) * (window + 2.0 * np.sum((window - lags) * rho**lags)) / share**2
    expected = 1.0 + rate * on / window  # variance over mean of the requests in a window
    observed = []
    for seed in range(30):
        table = counts(draw_demand(scenario, network, seed, slots), slots).reshape(-1, window, len(rate)).sum(axis=1)
        observed.append(((table - rate * window) ** 2).mean(axis=0) / (rate * window))
    error = np.std(observed, axis=0, ddof=1) / math.sqrt(len(observed))
    assert np.all(np.abs(np.mean(observed, axis=0) - expected) < 5.0 * error)
    assert np.all(np.mean(observed, axis=0) > 1.5)


def test_sessions_last_twenty_seconds_and_take_a_twentieth_of_the_time() -> None:
    scenario, slots = scenarios.get("mesh20-v0"), 20_000
    network = build_network(scenario, 0)
    demand = draw_demand(scenario, network, 5, slots)
    pieces = demand.pieces
    whole = (pieces.rate > 0.0) & (pieces.start > 0) & (pieces.stop < pieces.stop.max())
    seconds = (pieces.stop - pieces.start)[whole] * 0.25
    assert len(seconds) > 1000
    assert abs(seconds.mean() - 20.0) < 5.0 * 20.0 / math.sqrt(len(seconds))
    assert abs(seconds.std() - 20.0) < 0.15 * 20.0  # geometric: the deviation is the mean
    on = demand.rates(0, slots) > 0.0
    pairs = int((network.peers >= 0).sum())
    rho = session_correlation(scenario)
    error = math.sqrt(0.05 * 0.95 * (1.0 + rho) / (1.0 - rho) / (slots * pairs))
    assert abs(on.sum() / (slots * pairs) - 0.05) < 5.0 * error


@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
def test_periodic_requests_come_a_period_apart_but_for_their_jitter(jitter: float) -> None:
    scenario = scenarios.get("mesh20-v0", request_rate=0.5, arrivals="periodic", jitter=jitter, session_duration=500.0)
    network = build_network(scenario, 0)
    requests = draw_demand(scenario, network, 7, 20_000).requests
    period = 0.05 / mean_rates(scenario, network)
    gaps = []
    for node, peer in np.argwhere(network.peers >= 0):
        apart = np.diff(requests.slot[(requests.source == node) & (requests.peer == peer)]) / period[node, peer]
        inside = apart < 2.5  # no time off between
        rounding = 1.0 / period[node, peer]
        assert np.all(np.abs(apart[inside] - 1.0) <= jitter + rounding + 1e-9)
        gaps.extend(apart[inside] - 1.0)
    assert len(gaps) > 300
    assert np.std(gaps) == pytest.approx(jitter / math.sqrt(6.0), abs=0.02)  # of a difference of two uniforms


def test_periodic_requests_come_as_often_as_poisson_ones_and_when_their_rates_say() -> None:
    scenario = scenarios.get("mesh20-v0", arrivals="periodic")
    network = build_network(scenario, 0)
    slots, told, seen = 4000, 0.0, 0.0
    for seed in range(10):
        demand = draw_demand(scenario, network, seed, slots)
        rates = demand.rates(0, slots)
        assert np.all(rates[demand.requests.slot, demand.requests.source, demand.requests.peer] > 0)
        told, seen = told + rates.sum() / 10, seen + len(demand.requests.slot) / 10
    rho = session_correlation(scenario)
    mean = mean_rates(scenario, network)
    error = math.sqrt((mean**2).sum() * (1 / 0.05 - 1) * slots * (1.0 + rho) / (1.0 - rho) / 10)
    assert abs(seen - mean.sum() * slots) < 4.0 * error
    assert abs(told - seen) < 0.01 * seen


@pytest.mark.parametrize("slot", [0, 40, 399])
def test_sessions_are_stationary_from_the_first_slot(slot: int) -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    pairs = int((network.peers >= 0).sum())
    on = sum(int((draw_demand(scenario, network, seed, 400).rates(slot, slot + 1) > 0).sum()) for seed in range(60)) / (
        60 * pairs
    )
    assert abs(on - 0.05) < 5.0 * math.sqrt(0.05 * 0.95 / (60 * pairs))


def test_sessions_of_a_pair_do_not_overlap() -> None:
    scenario = scenarios.get("mesh20-v0", predictability=1.0)
    network = build_network(scenario, 0)
    rates = draw_demand(scenario, network, 2, 4000).rates(0, 4000)
    on_rate = mean_rates(scenario, network) / 0.05
    assert np.all(np.isclose(rates, 0.0, atol=1e-12) | np.isclose(rates, on_rate))


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=20, deadline=None)
def test_requests_are_in_order_of_arrival_and_wait_for_their_deadline(seed: int, predictability: float) -> None:
    scenario = scenarios.get("mesh20-v0", predictability=predictability, deadline=1.5, request_rate=8.0)
    network = build_network(scenario, 0)
    requests = draw_demand(scenario, network, seed, 400).requests
    slot, source, peer, wanted, last_slot, by_expiry = requests
    assert np.all(np.diff(slot) >= 0)
    assert slot.min(initial=0) >= 0
    assert slot.max(initial=0) < 400
    np.testing.assert_array_equal(last_slot, slot + 6 - 1)
    np.testing.assert_array_equal(np.sort(by_expiry), np.arange(len(slot)))
    assert np.all(np.diff(last_slot[by_expiry]) >= 0)
    assert np.all(network.peers[source, peer] >= 0)
    assert np.all((wanted >= 0) & (wanted < 3))


def test_every_class_has_its_own_deadline() -> None:
    scenario = scenarios.get("mesh20-v0", deadline=[0.5, 1.0, 2.0], request_rate=40.0)
    requests = draw_demand(scenario, build_network(scenario, 0), 3, 400).requests
    assert set(requests.wanted.tolist()) == {0, 1, 2}
    lifetime = requests.last_slot - requests.slot + 1
    assert np.array_equal(lifetime, np.array([2, 4, 8])[requests.wanted])
    assert (np.diff(requests.last_slot[requests.by_expiry]) >= 0).all()


@pytest.mark.parametrize("arrivals", ["poisson", "periodic"])
def test_a_request_for_n_pairs_is_n_rows_that_lie_together(arrivals: str) -> None:
    one = scenarios.get("mesh20-v0", predictability=0.9, arrivals=arrivals)
    three, network = one.override(pairs_per_request=3), build_network(one, 0)
    of_one, of_three = (draw_demand(scenario, network, 5, 200) for scenario in (one, three))
    assert len(of_one.requests.slot) > 50
    for single, triple in zip(of_one.requests[:-1], of_three.requests[:-1], strict=True):
        assert np.array_equal(np.repeat(single, 3), triple)
    np.testing.assert_allclose(of_three.rates(0, 200), 3.0 * of_one.rates(0, 200))
    np.testing.assert_allclose(mean_rates(three, network), 3.0 * mean_rates(one, network))


def test_requests_of_one_slot_are_in_an_order_of_their_own_not_of_their_drawing() -> None:
    columns = np.array([[3, 0, 0, 0], [1, 5, 5, 2], [0, 1, 1, 1], [2, 0, 1, 0], [9, 4, 4, 4]], dtype=np.int32)
    one, other = tabulate(*columns), tabulate(*columns[:, ::-1])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.slot.tolist() == [0, 0, 0, 3]
    assert one.source.tolist() == [2, 5, 5, 1]
    assert one.wanted.tolist() == [0, 0, 1, 2]


def chain5(class_weights: tuple[float, ...]) -> Scenario:
    return Scenario(
        name="chain5",
        network=ChainNetwork(nodes=5),
        hardware=Hardware(**EQUAL),
        demand=SessionDemand(peers=4, request_rate=400.0, predictability=0.0, class_weights=class_weights),
    )


def test_classes_are_drawn_by_weight_among_those_the_pair_meets() -> None:
    scenario = chain5((0.5, 0.3, 0.2))
    network = build_network(scenario, 0)
    requests = draw_demand(scenario, network, 0, 4000).requests
    hops = network.routes.hops[requests.source, requests.peer, 0]
    # Over three hops no quality reaches 0.91.
    for asked, weights in ((hops < 3, [0.5, 0.3, 0.2]), (hops >= 3, [0.625, 0.375, 0.0])):
        total = int(asked.sum())
        assert total > 5000
        share = np.bincount(requests.wanted[asked], minlength=3) / total
        error = np.sqrt(np.array(weights) * (1.0 - np.array(weights)) / total)
        assert np.all(np.abs(share - weights) <= 5.0 * error)


def test_a_pair_that_meets_no_weighted_class_asks_for_the_lowest_it_meets() -> None:
    scenario = chain5((0.0, 0.0, 1.0))
    network = build_network(scenario, 0)
    requests = draw_demand(scenario, network, 0, 400).requests
    hops = network.routes.hops[requests.source, requests.peer, 0]
    assert np.any(hops >= 3)
    np.testing.assert_array_equal(requests.wanted, np.where(hops >= 3, 0, 2))


def test_demand_is_deterministic_in_its_seed_and_differs_between_seeds() -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    one, again, other = (draw_demand(scenario, network, seed, 400) for seed in (4, 4, 5))
    for a, b in zip((*one.requests, *one.pieces), (*again.requests, *again.pieces), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.requests.slot.tolist() != other.requests.slot.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2},
        {"contention_penalty": 1.0},
        {"telemetry_period": 2.0},
        {"outages": {}},
        {"silence": {}},
        {"name": "other"},
        {"swap_success": 0.5},
        {"time_to_live": 4.0},
    ],
    ids=str,
)
def test_demand_does_not_depend_on_the_rules_of_control(change: dict[str, object]) -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    one, other = (draw_demand(variant, network, 4, 400) for variant in (scenario, scenario.override(**change)))
    for a, b in zip(one.requests, other.requests, strict=True):
        np.testing.assert_array_equal(a, b)


def test_drawing_demand_neither_reads_nor_moves_the_global_random_state() -> None:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    drawn = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drawn.append(draw_demand(scenario, network, 4, 400).requests.slot.tolist())
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("predictability", [0.0, 0.5, 1.0])
def test_the_true_rates_are_what_requests_arrive_at(predictability: float) -> None:
    scenario, slots = lively(predictability), 40_000
    demand = draw_demand(scenario, build_network(scenario, 0), 8, slots)
    rates, arrived = demand.rates(0, slots), counts(demand, slots)
    expected = rates.sum(axis=0)
    assert np.all(np.abs(arrived.sum(axis=0) - expected) < 5.0 * np.sqrt(expected))
    # Also apart for busy and quiet times, which only the true rates tell from each other.
    busy = rates > mean_rates(scenario, build_network(scenario, 0)) * 1.01
    for part in (busy, ~busy):
        assert abs(arrived[part].sum() - rates[part].sum()) <= 5.0 * math.sqrt(rates[part].sum())


def test_no_request_arrives_where_the_true_rate_is_zero() -> None:
    scenario, slots = lively(1.0), 4000
    demand = draw_demand(scenario, build_network(scenario, 0), 8, slots)
    assert counts(demand, slots)[demand.rates(0, slots) < 1e-9].sum() == 0.0


def test_the_true_rates_average_to_the_climatology() -> None:
    scenario, slots = lively(1.0), 100_000
    network = build_network(scenario, 0)
    mean = mean_rates(scenario, network)
    rho = session_correlation(scenario)
    error = mean * math.sqrt((0.8 / 0.2) * (1.0 + rho) / (1.0 - rho) / slots)
    observed = draw_demand(scenario, network, 1, slots).rates(0, slots).mean(axis=0)
    assert np.all(np.abs(observed - mean) < 5.0 * error)


def test_without_predictability_the_true_rates_are_the_climatology_even_past_the_end() -> None:
    scenario = scenarios.get("mesh20-v0", predictability=0.0)
    network = build_network(scenario, 0)
    rates = draw_demand(scenario, network, 1, 400).rates(0, 408)
    np.testing.assert_allclose(rates, np.broadcast_to(mean_rates(scenario, network), rates.shape), rtol=1e-12)


@given(st.integers(0, 400), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_rates_of_a_window_are_a_slice_of_all_rates(start: int, length: int) -> None:
    scenario = scenarios.get("mesh20-v0", predictability=0.7)
    demand = draw_demand(scenario, build_network(scenario, 0), 6, 400)
    np.testing.assert_allclose(
        demand.rates(start, start + length), demand.rates(0, 420)[start : start + length], atol=1e-12
    )


def test_no_load_means_no_requests() -> None:
    scenario = scenarios.get("mesh20-v0", request_rate=0.0)
    demand = draw_demand(scenario, build_network(scenario, 0), 0, 400)
    assert len(demand.requests.slot) == 0
    assert demand.rates(0, 400).sum() == 0.0


def save_trace(folder: Path, mbps: Floats) -> Path:
    file = folder / data.ABILENE
    file.parent.mkdir()
    np.savez(file, tm_mbps=mbps, nodes=np.array([f"n{i}" for i in range(12)]))
    return folder


def counting_trace(times: int) -> Floats:
    """Matrix t carries t + 1 times the same traffic, so a rate tells which matrix made it."""
    base = np.random.default_rng(0).uniform(1.0, 2.0, size=(12, 12))
    return np.arange(1.0, times + 1.0)[:, None, None] * base


def test_trace_rates_follow_consecutive_matrices_each_for_its_duration(tmp_path: Path) -> None:
    folder, times = save_trace(tmp_path, counting_trace(140)), 140
    scenario = scenarios.get("abilene-trace-v0", data_dir=folder, **EQUAL)
    network = build_network(scenario, 0)
    rates = draw_demand(scenario, network, 3, 400).rates(0, 400)
    matrix = rates.sum(axis=(1, 2)) / scenario.requests_per_slot * np.arange(1, times + 1).mean() - 1.0
    first = round(matrix[0])
    np.testing.assert_allclose(matrix, first + np.arange(400) // 20, rtol=1e-9)
    np.testing.assert_allclose(rates[0] / rates[0].sum(), network.weights, rtol=1e-9)


@pytest.mark.parametrize("times", [140, 28])
def test_trace_windows_stay_within_the_days_of_their_split(tmp_path: Path, times: int) -> None:
    folder = save_trace(tmp_path, counting_trace(times))
    scenario = scenarios.get("abilene-trace-v0", data_dir=folder, **EQUAL)
    network = build_network(scenario, 0)
    seen: dict[str, set[int]] = {}
    for split, first_seed in SPLIT_SEED.items():
        rates = [draw_demand(scenario, network, first_seed + i, 400).rates(0, 408) for i in range(40)]
        load = np.concatenate([one.sum(axis=(1, 2)) for one in rates]) / scenario.requests_per_slot
        seen[split] = set(np.rint(load * np.arange(1, times + 1).mean() - 1.0).astype(int).tolist())
    days = times // 14
    assert seen["train"] <= set(range(7 * days))
    assert seen["validation"] <= set(range(7 * days, 10 * days))
    assert seen["evaluation"] <= set(range(10 * days, times))
    assert all(len(matrices) > 2 * days for matrices in seen.values())


def test_the_mean_load_of_a_trace_is_the_request_rate(tmp_path: Path) -> None:
    # A trace of period two: every episode of twenty matrices sees each half as often.
    mbps = np.random.default_rng(0).uniform(1.0, 2.0, size=(2, 12, 12))
    folder = save_trace(tmp_path, np.tile(mbps, (70, 1, 1)) * np.tile([1.0, 3.0], 70)[:, None, None])
    scenario = scenarios.get("abilene-trace-v0", data_dir=folder, **EQUAL)
    network = build_network(scenario, 0)
    drawn = [draw_demand(scenario, network, seed, 400) for seed in range(40)]
    for demand in drawn:
        np.testing.assert_allclose(demand.rates(0, 400).mean(axis=0), mean_rates(scenario, network), rtol=1e-9)
    total = sum(len(demand.requests.slot) for demand in drawn)
    expected = 40 * 400 * scenario.requests_per_slot
    assert abs(total - expected) < 5.0 * math.sqrt(expected)


def test_the_mean_load_of_abilene_over_many_windows_is_the_request_rate(data_dir: Path) -> None:
    scenario = scenarios.get("abilene-trace-v0", data_dir=data_dir)
    network = build_network(scenario, 0)
    mean, variance = 0.0, 0.0
    for split, days in (("train", 7), ("validation", 3), ("evaluation", 4)):
        seeds = range(SPLIT_SEED[split], SPLIT_SEED[split] + 100)
        loads = [draw_demand(scenario, network, s, 400).rates(0, 400).sum() / 100.0 for s in seeds]
        mean += days / 14 * float(np.mean(loads))
        variance += (days / 14) ** 2 * float(np.var(loads)) / len(loads)
    assert abs(mean - scenario.demand.request_rate) < 5.0 * math.sqrt(variance)
    assert math.sqrt(variance) < 0.1


def test_half_of_the_mixed_load_follows_the_trace_and_half_comes_as_sessions(tmp_path: Path) -> None:
    folder = save_trace(tmp_path, counting_trace(140))
    trace = scenarios.get("abilene-trace-v0", data_dir=folder, **EQUAL)
    mixed = scenarios.get("abilene-mixed-v0", data_dir=folder, **EQUAL)
    steady = mixed.override(predictability=0.0)
    network = build_network(trace, 0)
    mean = mean_rates(trace, network)
    np.testing.assert_array_equal(mean_rates(mixed, network), mean)
    sessions = []
    for seed in range(200):
        traced = draw_demand(trace, network, seed, 400).rates(0, 400)
        if seed < 3:
            rates = draw_demand(steady, network, seed, 400).rates(0, 400)
            np.testing.assert_allclose(rates, 0.5 * mean + 0.5 * traced, rtol=1e-9)
        rest = draw_demand(mixed, network, seed, 400).rates(0, 400) - 0.5 * traced
        assert rest.min() > -1e-9
        sessions.append(rest.sum() / 100.0)
    assert abs(np.mean(sessions) - 2.75) < 5.0 * np.std(sessions) / math.sqrt(len(sessions))


@pytest.fixture
def replayed(tmp_path: Path) -> Replayed:
    def build(rows: str, *, max_hops: int = 8, **fields: object) -> tuple[Scenario, Network]:
        file = tmp_path / "requests.csv"
        file.write_text(f"time,source,destination,fidelity,deadline\n{rows}", encoding="utf-8")
        scenario = Scenario(
            name="replayed",
            network=ChainNetwork(nodes=3),
            hardware=Hardware(**EQUAL),
            routing=Routing(max_hops=max_hops),
            demand=ReplayDemand(requests_file=str(file), peers=2),
        ).override(**fields)
        return scenario, build_network(scenario, 0)

    return build


def test_a_replay_takes_times_classes_and_deadlines_from_the_file(replayed: Replayed) -> None:
    scenario, network = replayed(
        "0.5,2,0,0.91,0.5\n0.24,0,1,0.75,\n0.25,0,1,0.85,2\n99.99,1,0,0.85,1\n100.0,1,0,0.85,1\n"
    )
    demand = draw_demand(scenario, network, 0, 400)
    requests = demand.requests
    assert requests.slot.tolist() == [0, 1, 2, 399]
    assert requests.source.tolist() == [0, 0, 2, 1]
    assert network.peers[requests.source, requests.peer].tolist() == [1, 1, 0, 0]
    assert requests.wanted.tolist() == [0, 1, 2, 1]
    assert requests.last_slot.tolist() == [3, 8, 3, 402]
    assert requests.by_expiry.tolist() == [0, 2, 1, 3]
    assert demand.excluded_requests == 0


def test_a_replay_is_the_same_for_every_demand_seed(replayed: Replayed) -> None:
    scenario, network = replayed("0.5,2,0,0.91,0.5\n0.24,0,1,0.75,\n")
    one, other = (draw_demand(scenario, network, seed, 400) for seed in (0, 1))
    for a, b in zip(one.requests, other.requests, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_time_on_the_edge_of_a_slot_belongs_to_the_slot_it_starts(replayed: Replayed) -> None:
    # 0.3 / 0.1 is less than 3 in binary.
    scenario, network = replayed("0.3,0,1,0.85,0.3\n0.7,0,1,0.85,0.1\n", slot_duration=0.1, news_period=0.1)
    requests = draw_demand(scenario, network, 0, 400).requests
    assert requests.slot.tolist() == [3, 7]
    assert requests.last_slot.tolist() == [5, 7]


def test_a_deadline_shorter_than_a_slot_lasts_the_slot(replayed: Replayed) -> None:
    scenario, network = replayed("1.0,0,1,0.85,0.01\n")
    assert draw_demand(scenario, network, 0, 400).requests.last_slot.tolist() == [4]


def test_requests_to_nodes_that_are_no_peers_are_counted_as_excluded(replayed: Replayed) -> None:
    scenario, network = replayed("0,0,2,0.85,1\n1,0,1,0.85,1\n2,2,0,0.85,1\n200,0,2,0.85,1\n", max_hops=1)
    demand = draw_demand(scenario, network, 0, 400)
    assert demand.requests.slot.tolist() == [4]
    assert demand.excluded_requests == 2  # the third comes after the episode


def test_times_and_deadlines_beyond_every_episode_are_harmless(replayed: Replayed) -> None:
    scenario, network = replayed("1,0,1,0.85,1e300\n1,0,1,0.85,1\n1e20,0,1,0.85,1\n1e308,0,1,0.85,1\n")
    demand = draw_demand(scenario, network, 0, 400)
    assert demand.requests.slot.tolist() == [4, 4]
    assert demand.requests.last_slot[1] > 400
    assert demand.excluded_requests == 0


def test_the_true_rates_of_a_replay_are_its_requests(replayed: Replayed) -> None:
    scenario, network = replayed("0.5,0,1,0.91,1\n0.6,0,1,0.75,1\n3,1,0,0.75,1\n")
    demand = draw_demand(scenario, network, 0, 400)
    np.testing.assert_array_equal(demand.rates(0, 400), counts(demand, 400))


def test_every_request_of_a_file_counts_or_is_left_out_for_a_reason(replayed: Replayed) -> None:
    rows = (
        "0,0,1,0.85,1\n" * 3  # counted
        + "1,0,2,0.85,1\n" * 2  # three hops where two are allowed, or one
        + "99.5,1,0,0.85,1\n"  # its deadline comes after the end at 100 s
        + "100,1,0,0.85,1\n" * 4
        + "1e300,0,2,0.85,1\n"  # late comes before unreachable
    )
    scenario, network = replayed(rows, max_hops=1)
    with pytest.warns(DpemWarning) as said:
        demand = draw_demand(scenario, network, 0, 400)
    assert demand.left_out == {
        "after the episode's end": 5,
        "unreachable (too many hops)": 2,
        "whose deadline is after the episode's end": 1,
    }
    assert len(demand.requests.slot) == 4
    file = getattr(scenario.demand, "requests_file")  # noqa: B009
    assert str(said[0].message) == (
        f"replayed: request file '{file}': 3 of 11 requests count; left out: 5 after the episode's end, "
        "2 unreachable (too many hops), 1 whose deadline is after the episode's end; raise episode.slots; "
        "raise routing.max_hops"
    )


def test_requests_for_more_destinations_than_there_are_peer_places_are_left_out(replayed: Replayed) -> None:
    scenario, network = replayed("0,0,1,0.85,1\n0,0,1,0.85,1\n1,0,2,0.85,1\n", peers=1)
    with pytest.warns(DpemWarning, match=r"2 of 3 requests count; .*raise demand\.peers"):
        demand = draw_demand(scenario, network, 0, 400)
    assert demand.left_out == {"to more destinations of a node than demand.peers allows": 1}


def test_a_file_all_of_whose_requests_count_says_nothing(replayed: Replayed) -> None:
    scenario, network = replayed("0,0,1,0.85,1\n98.99,0,1,0.85,1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_demand(scenario, network, 0, 400).left_out == {}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "holds no requests"),
        (
            "0,0,2,0.85,1\n" * 3,
            "0 of 3 requests count; left out: 3 unreachable (too many hops); raise routing.max_hops",
        ),
        ("100,0,1,0.85,1\n", "0 of 1 requests count; left out: 1 after the episode's end; raise episode.slots"),
        ("0,0,1,0.85,1e9\n", "1 whose deadline is after the episode's end; raise episode.slots"),
    ],
)
def test_a_file_none_of_whose_requests_count_is_refused(replayed: Replayed, rows: str, reason: str) -> None:
    scenario, network = replayed(rows, max_hops=1)
    with pytest.raises(DataError, match=re.escape(reason)):
        draw_demand(scenario, network, 0, 400)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5])
def test_what_is_no_seed_draws_no_demand(seed: Any) -> None:
    scenario = scenarios.get("chain3-v0")
    with pytest.raises(ScenarioError, match="demand seed is"):
        draw_demand(scenario, build_network(scenario, 0), seed, 4)
