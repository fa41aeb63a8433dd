"""Forecasters against hand computation, what each may know, and how one's own plugs in."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_env import parallel_env, scenarios
from dpem_env.demand.forecast import (
    FORECASTERS,
    Arrivals,
    Forecaster,
    ForecastSetting,
    MeanRates,
    MovingAverage,
    NewRequests,
    Oracle,
    PermutedOracle,
    Persistence,
    Seasonal,
    available,
    get_forecaster,
    setting_of,
)
from dpem_env.demand.requests import draw_demand, mean_rates
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.network.network import build_network
from dpem_env.scenarios.schema import ReplayDemand
from dpem_env.support import plugins
from dpem_env.support.errors import DpemError, PolicyError
from support.rollouts import demand_of, session_with, wait

PEERS = np.array([[1, 2], [2, -1], [0, 1]], dtype=np.int32)
RATES = np.array([[0.1, 0.2], [0.3, 0.0], [0.4, 0.5]])
H = 3
SCENARIO = scenarios.get("chain3-v0", forecast_horizon=H)


def setting(demand: Any = None) -> ForecastSetting:
    return ForecastSetting(SCENARIO, PEERS, RATES, demand)


def slot_of(slot: int, *pairs: tuple[int, int]) -> NewRequests:
    """The requests of a slot, each (source, destination)."""
    source, destination = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return NewRequests(slot, np.full(len(pairs), slot * 0.25), source, destination, np.full(len(pairs), 0.7))


def after(forecaster: Any, *slots: tuple[tuple[int, int], ...]) -> Any:
    forecaster.reset(setting())
    for slot, pairs in enumerate(slots):
        forecaster.observe(slot_of(slot, *pairs))
    return forecaster


def repeated(table: list[list[float]]) -> NDArray[np.float64]:
    """The same (N, D) table for every slot ahead."""
    return np.repeat(np.array(table, dtype=np.float64)[:, :, None], H, axis=2)


def test_requests_are_counted_at_the_place_of_their_peer() -> None:
    counts = setting().counts(slot_of(4, (0, 2), (2, 0), (0, 2), (1, 2)))
    assert counts.tolist() == [[0, 2], [1, 0], [1, 0]]


def test_persistence_repeats_the_last_slot() -> None:
    forecaster = after(Persistence(), ((0, 1),), ((0, 2), (0, 2), (2, 1)))
    assert np.array_equal(forecaster.predict(), repeated([[0, 2], [0, 0], [0, 1]]))
    assert np.array_equal(after(Persistence(), ((0, 1),), ()).predict(), np.zeros((3, 2, H)))


def test_the_moving_average_forgets_what_left_its_window() -> None:
    slots = (((0, 1), (0, 1)), ((2, 0),), ((0, 1),), ())
    for seen, expected in enumerate([[[2, 0], [0, 0]], [[1, 0], [0.5, 0]], [[0.5, 0], [0.5, 0]], [[0.5, 0], [0, 0]]]):
        forecast = after(MovingAverage(window=2), *slots[: seen + 1]).predict()
        assert np.allclose(forecast, repeated([expected[0], [0, 0], expected[1]]))


def test_a_window_not_yet_full_averages_over_the_slots_there_were() -> None:
    assert np.allclose(after(MovingAverage(window=80), ((0, 1),), ()).predict()[0, 0], 0.5)


def test_without_history_forecasts_are_zero() -> None:
    for forecaster in (Persistence(), MovingAverage(), Seasonal()):
        assert np.array_equal(after(forecaster).predict(), np.zeros((3, 2, H)))


def test_seasonal_repeats_the_slot_one_period_earlier() -> None:
    # Counts of pair (0, 1) in slots 0..5: 1 2 3 4 5 6, period 4.
    forecaster = after(Seasonal(period=4), *(tuple([(0, 1)] * n) for n in range(1, 7)))
    assert forecaster.predict()[0, 0].tolist() == [3, 4, 5]  # slots 6, 7, 8 repeat 2, 3, 4
    assert forecaster.predict(lead=2)[0, 0].tolist() == [5, 6, 3]  # slots 8, 9, 10: 10 repeats 6, still unknown, so 2
    assert not forecaster.predict()[1:].any()


def test_seasonal_knows_nothing_before_a_period_has_passed() -> None:
    forecaster = after(Seasonal(period=4), *(tuple([(0, 1)] * n) for n in range(1, 3)))
    assert forecaster.predict()[0, 0].tolist() == [0, 0, 1]  # slots 2, 3, 4


def test_mean_rates_are_the_true_ones_whatever_was_seen() -> None:
    forecaster = after(MeanRates(), ((0, 1),) * 5)
    for lead in (0, 7):
        assert np.array_equal(forecaster.predict(lead), repeated(RATES.tolist()))
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    rate = scenario.demand.request_rate  # type: ignore[union-attr]
    told = setting_of(scenario, network, draw_demand(scenario, network, 0, 10), clairvoyant=False).mean_rates
    assert np.allclose(told, network.weights * rate * 0.25)
    assert told.sum() == pytest.approx(rate * 0.25)


def clairvoyant(forecaster: Any) -> tuple[Any, Any]:
    scenario = scenarios.get("mesh20-v0")
    network = build_network(scenario, 0)
    demand = draw_demand(scenario, network, 5, 100)
    forecaster.reset(setting_of(scenario, network, demand, clairvoyant=True))
    arrivals = Arrivals(scenario, network, demand)
    forecaster.observe(arrivals.of_slot(0))
    forecaster.observe(arrivals.of_slot(1))
    return forecaster, demand


def test_the_oracle_tells_the_true_rates_of_the_slots_ahead() -> None:
    oracle, demand = clairvoyant(Oracle())
    for lead in (0, 3, 16):
        assert np.array_equal(oracle.predict(lead), np.moveaxis(demand.rates(2 + lead, 10 + lead), 0, 2))
    assert oracle.predict().sum() > 0


def test_the_oracle_sees_past_the_end_of_the_episode() -> None:
    oracle, demand = clairvoyant(Oracle())
    for slot in range(2, 100):
        oracle.observe(NewRequests(slot, *(np.zeros(0, dtype=np.int64),) * 4))
    assert np.array_equal(oracle.predict(8), np.moveaxis(demand.rates(108, 116), 0, 2))
    assert oracle.predict(8).sum() > 0


def test_the_permuted_oracle_deals_the_truth_to_other_pairs() -> None:
    permuted, demand = clairvoyant(PermutedOracle(seed=4))
    truth = np.moveaxis(demand.rates(2, 10), 0, 2).reshape(-1, 8)
    dealt = permuted.predict().reshape(-1, 8)
    assert sorted(map(tuple, dealt)) == sorted(map(tuple, truth))
    assert not np.array_equal(dealt, truth)
    assert not np.array_equal(clairvoyant(PermutedOracle(seed=5))[0].predict().reshape(-1, 8), dealt)
    assert np.array_equal(clairvoyant(PermutedOracle(seed=4))[0].predict().reshape(-1, 8), dealt)


@pytest.mark.parametrize("seed", range(20))
def test_no_pair_is_dealt_its_own_truth_and_none_goes_to_a_padded_peer(seed: int) -> None:
    requests = [(1, 0, 0, 0, 4)] * 1 + [(1, 0, 1, 0, 4)] * 2 + [(1, 1, 0, 0, 4)] * 3
    requests += [(1, 2, 0, 0, 4)] * 4 + [(1, 2, 1, 0, 4)] * 5
    permuted = PermutedOracle(seed)
    permuted.reset(setting(demand_of(requests, (3, 2))))
    permuted.observe(slot_of(0))
    dealt = permuted.predict()[:, :, 0].ravel()
    truth = np.array([1, 2, 3, 0, 4, 5])
    assert sorted(dealt.tolist()) == [0, 1, 2, 3, 4, 5]
    assert dealt[3] == 0
    assert not np.any(np.delete(dealt == truth, 3))


def test_the_oracle_without_a_demand_says_what_is_missing() -> None:
    with pytest.raises(PolicyError, match="needs the true demand"):
        Oracle().reset(setting())


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_every_forecast_has_the_declared_shape_and_is_not_negative(name: str) -> None:
    session = Session(scenarios.get("star8-v0", forecast_horizon=5), forecaster=name)
    session.begin(episode_seeds(session.scenario, "train", 3))
    for _ in range(30):
        assert session.forecast is not None
        assert session.forecast.shape == (1, 8, 4, 5)
        assert session.forecast.dtype == np.float32
        assert (session.forecast >= 0).all()
        wait(session)


@pytest.mark.parametrize("name", sorted(n for n, kind in FORECASTERS.items() if not kind.clairvoyant))
def test_a_nodes_forecast_depends_on_its_own_requests_alone(name: str) -> None:
    own = ((0, 1), (0, 2))
    alone, busy = (
        after(FORECASTERS[name](), *[(*own, *others)] * 90) for others in ((), ((1, 2), (2, 0), (2, 1), (2, 1)))
    )
    assert np.array_equal(alone.predict()[0], busy.predict()[0])
    assert np.array_equal(alone.predict(3)[0], busy.predict(3)[0])
    if name != "mean-rates":
        assert not np.array_equal(alone.predict()[2], busy.predict()[2])


def test_only_clairvoyant_forecasters_are_told_the_demand() -> None:
    told = {}

    class Spy:
        clairvoyant: ClassVar[bool] = False

        def reset(self, setting: ForecastSetting) -> None:
            told[self.clairvoyant] = setting.demand

        def observe(self, requests: NewRequests) -> None:
            pass

        def predict(self, lead: int = 0) -> NDArray[np.float64]:
            return np.zeros((3, 2, 8))

    class Seer(Spy):
        clairvoyant: ClassVar[bool] = True

    for spy in (Spy(), Seer()):
        session = session_with([], forecaster=spy)
        assert told[spy.clairvoyant] is (session.demand if spy.clairvoyant else None)
    assert [name for name, kind in FORECASTERS.items() if kind.clairvoyant] == ["oracle", "permuted-oracle"]


def test_a_forecaster_sees_each_slots_requests_once_and_in_order() -> None:
    seen = []

    class Recording(MovingAverage):
        def observe(self, requests: NewRequests) -> None:
            seen.append(
                (requests.slot, requests.source.tolist(), requests.destination.tolist(), requests.time.tolist())
            )
            super().observe(requests)

    session = session_with([(0, 0, 1, 0, 3), (2, 1, 0, 2, 5), (2, 2, 0, 0, 5)], forecaster=Recording(), slots=5)
    assert len(seen) == 1
    wait(session, 5)
    nothing: list[int] = []
    assert seen == [
        (0, [0], [2], [0.0]),
        (1, nothing, nothing, nothing),
        (2, [1, 2], [2, 0], [0.5, 0.5]),
        (3, nothing, nothing, nothing),
        (4, nothing, nothing, nothing),
    ]


def test_requests_carry_the_fidelity_they_ask_for() -> None:
    session = session_with([(2, 1, 0, 2, 5), (2, 2, 0, 0, 5)])
    assert session.new_requests(2).fidelity.tolist() == [0.9, 0.7]


def test_a_forecast_reaches_the_observation_of_its_slot() -> None:
    session = session_with([(0, 0, 1, 0, 3), (1, 0, 1, 0, 4), (1, 0, 1, 1, 4)], forecaster="persistence")
    for expected in (1, 2, 0):
        forecast = session.observer.table.read(session.observations()).forecast
        assert (forecast[0, 1] == expected).all()
        assert forecast.sum() == 8 * expected
        wait(session)


def test_forecasters_are_found_by_name() -> None:
    for name, kind in FORECASTERS.items():
        assert type(get_forecaster(name)) is kind
        assert isinstance(get_forecaster(name), Forecaster)
    assert get_forecaster(None) is None
    assert get_forecaster("none") is None
    own = MovingAverage(window=3)
    assert get_forecaster(own) is own


def one_line(error: pytest.ExceptionInfo[DpemError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "meant"), [("persistance", "persistence"), ("movingaverage", "moving-average")])
def test_a_mistyped_name_is_answered_with_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(PolicyError, match=f"did you mean '{meant}'") as error:
        get_forecaster(name)
    one_line(error)


def test_what_stands_after_the_colon_is_the_forecasters_argument() -> None:
    assert vars(get_forecaster("moving-average:12")) == {"window": 12}
    assert vars(get_forecaster("seasonal:24")) == {"period": 24}
    assert vars(get_forecaster("permuted-oracle:7")) == {"seed": 7}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("moving-average:", "window of a forecaster is ''; expected a whole number from 1 to 1000000"),
        ("moving-average:99999999999999999999", "expected a whole number from 1 to 1000000"),
        ("moving-average:0", "window of a forecaster is '0'"),
        ("moving-average:1.5", "window of a forecaster is '1.5'"),
        ("seasonal:-3", "period of a forecaster is '-3'"),
        ("permuted-oracle:-1", "seed of a forecaster is '-1'; expected a whole number from 0 to"),
        ("mean-rates:3", "forecaster 'mean-rates' takes no argument, given '3'"),
        ("persistance:3", "unknown forecaster 'persistance'; did you mean 'persistence'"),
        ("none:3", "unknown forecaster 'none'"),
        ("", "unknown forecaster ''"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_in_one_line(name: str, told: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(told)) as error:
        get_forecaster(name)
    one_line(error)


class Installed(Persistence):
    """Announced by a package through an entry point."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


NOT_A_FORECASTER = dict


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{value}" if value else "no_such_package:Thing", plugins.FORECASTERS)
        for name, value in {"own": "Installed", "odd": "NOT_A_FORECASTER", "broken": "", "oracle": "Installed"}.items()
    )
    monkeypatch.setattr(plugins, "entry_points", lambda **selected: points.select(**selected))


@pytest.mark.usefixtures("announced")
def test_installed_forecasters_are_found_by_name_and_given_their_argument() -> None:
    own = get_forecaster("own:C:/weights.npz")
    assert type(own) is Installed
    assert own.path == "C:/weights.npz"
    assert available().keys() == {*FORECASTERS, "own", "odd", "broken"}
    assert available()["own"] == f"{__name__}:Installed"
    assert type(get_forecaster("oracle")) is Oracle  # no package takes the name of a built-in one


def test_what_is_installed_is_not_looked_through_for_a_built_in_forecaster(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr(plugins, "entry_points", lambda **selected: looked.append(selected) or EntryPoints())
    get_forecaster("moving-average:40")
    assert not looked
    with pytest.raises(PolicyError, match="did you mean 'oracle'"):
        get_forecaster("orakle")
    assert looked


@pytest.mark.usefixtures("announced")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own", "forecaster 'own' needs an argument: own:ARGUMENT"),
        ("odd", "clairvoyant, reset, observe and predict"),
        ("broken", "needs a package that is not installed: No module named 'no_such_package'"),
        ("owm", "unknown forecaster 'owm'; did you mean 'own'"),
    ],
)
def test_an_installed_forecaster_that_cannot_be_had_says_why_in_one_line(name: str, told: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(told)) as error:
        get_forecaster(name)
    one_line(error)


def test_forecasters_are_told_the_scenario_of_the_episode() -> None:
    told: list[ForecastSetting] = []

    class Listening(Persistence):
        def reset(self, setting: ForecastSetting) -> None:
            told.append(setting)
            super().reset(setting)

    session = session_with([], forecaster=Listening())
    assert told[0].scenario is session.scenario
    assert told[0].horizon == 8
    assert told[0].slot_duration == 0.25


@pytest.mark.parametrize("bad", [object(), 3, type("Nothing", (), {})])
def test_what_is_no_forecaster_is_refused_in_one_line(bad: Any) -> None:
    with pytest.raises(PolicyError, match="clairvoyant, reset, observe and predict") as error:
        get_forecaster(bad)
    one_line(error)


@pytest.mark.parametrize(
    ("prediction", "told"),
    [(np.zeros((3, 2, 7)), "(3, 2, 7)"), (np.zeros(5), "(5,)"), (None, "()"), (np.full((3, 2, 8), np.nan), "finite")],
)
def test_a_forecast_of_the_wrong_shape_or_without_numbers_is_refused_in_one_line(prediction: Any, told: str) -> None:
    class Wrong(Persistence):
        def predict(self, lead: int = 0) -> Any:
            return prediction

    with pytest.raises(PolicyError, match=re.escape(told)) as error:
        session_with([], forecaster=Wrong())
    assert "expected (N, D, H) = (3, 2, 8)" in one_line(error)


def test_ones_own_forecaster_fills_the_observation() -> None:
    class Ramp(Persistence):
        def predict(self, lead: int = 0) -> Any:
            return np.broadcast_to(np.arange(8.0) / 2.0, (3, 2, 8))

    env = parallel_env("chain3-v0", forecaster=Ramp())
    observations, _ = env.reset(seed=0)
    columns = env.session.observer.table.read(np.stack(list(observations.values()))).forecast
    assert np.allclose(columns, np.arange(8) / 2.0)


def test_a_forecaster_that_reuses_its_array_does_not_change_what_was_seen() -> None:
    class Reusing(Persistence):
        def reset(self, setting: ForecastSetting) -> None:
            super().reset(setting)
            self.array = np.zeros((3, 2, 8), dtype=np.float32)

        def predict(self, lead: int = 0) -> Any:
            self.array += 1.0
            return self.array

    session = session_with([], forecaster=Reusing())
    first = session.forecast
    assert first is not None
    wait(session)
    assert (first == 1.0).all()


def test_mean_rates_add_up_to_the_offered_load_and_are_unknown_for_a_replayed_file(tmp_path: Path) -> None:
    scenario = scenarios.get("chain3-v0")
    network = build_network(scenario, 0)
    assert mean_rates(scenario, network).sum() == pytest.approx(scenario.demand.request_rate * 0.25)  # type: ignore[union-attr]
    file = tmp_path / "requests.csv"
    file.write_text("time,source,destination,fidelity\n0.3,0,2,0.75\n", encoding="utf-8")
    replayed = scenario.model_copy(update={"demand": ReplayDemand(peers=2, requests_file=str(file))})
    assert not mean_rates(replayed, build_network(replayed, 0)).any()
