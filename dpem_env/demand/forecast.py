"""Forecasters: expected new requests per peer, from a node's own request history.

A forecaster serves all nodes at once, but the forecast for node i may depend on the requests of node i alone; only
clairvoyant ones, marked so, see the true rates. `observe` is called once per slot with that slot's requests, `predict`
returns expected new requests in each of the next H slots. Learned forecasters implement the same protocol; installed
packages announce theirs through the entry point group ``dpem_env.forecasters``, and one's own are named by where they
stand.
"""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.means import spread_mean
from dpem_env.demand.requests import Demand, mean_rates
from dpem_env.network.network import Network
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.support import plugins
from dpem_env.support.errors import PolicyError, shown
from dpem_env.support.files import ArrayFile, reading
from dpem_env.support.own_code import Place, instance, is_own
from dpem_env.support.plugins import NO_OPTIONS, PluginName, announced, made, unknown
from dpem_env.support.seeding import SEEDS, generator

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class NewRequests:
    """The requests of one slot, n of them: the paper's four fields. Row r is known to node source[r] only."""

    slot: int
    time: F64  # (n,) s, start of the slot
    source: I64  # (n,) node
    destination: I64  # (n,) node
    fidelity: F64  # (n,) requested


class Arrivals:
    """The requests of an episode as its nodes are told of them, slot by slot."""

    def __init__(self, scenario: Scenario, network: Network, demand: Demand) -> None:
        table = demand.requests
        self._begun = np.searchsorted(table.slot, np.arange(table.slot.max(initial=-1) + 2)).tolist()
        self._time = table.slot.astype(np.float64) * scenario.control.slot_duration
        self._source = table.source.astype(np.int64)
        self._destination = network.peers[self._source, table.peer].astype(np.int64)
        self._fidelity = np.array(scenario.demand.fidelity_classes)[table.wanted]

    def of_slot(self, slot: int) -> NewRequests:
        """Those that arrive in `slot`."""
        low, high = self._begun[slot : slot + 2] if slot + 1 < len(self._begun) else (0, 0)
        there = slice(low, high)
        return NewRequests(
            slot, self._time[there], self._source[there], self._destination[there], self._fidelity[there]
        )


@dataclass(frozen=True)
class ForecastSetting:
    """What a forecaster is told at the start of an episode. N nodes, D peer places, H slots ahead."""

    scenario: Scenario  # how requests come about; not which will
    peers: NDArray[np.int32]  # (N, D) node index of each peer, -1 where padded
    mean_rates: F64  # (N, D) true long-run requests per slot: for climatology and the Bayes filter only
    demand: Demand | None = None  # the episode's true demand: for clairvoyant forecasters only

    @property
    def horizon(self) -> int:
        """Slots ahead to forecast, H."""
        return self.scenario.observation.forecast_horizon

    @property
    def slot_duration(self) -> float:
        """Length of a slot, s."""
        return self.scenario.control.slot_duration

    def counts(self, requests: NewRequests) -> F64:
        """(N, D) number of new requests per peer."""
        table = np.zeros(self.peers.shape)
        place = (self.peers[requests.source] == requests.destination[:, None]).argmax(axis=1)
        np.add.at(table, (requests.source, place), 1.0)
        return table


@runtime_checkable
class Forecaster(Protocol):
    """Forecasts for all nodes of one environment.

    One that reads files may say which as `sources`, a list of paths; without, it is the argument in its name, if that
    is a path. Results then tell when they were made with other files.
    """

    clairvoyant: ClassVar[bool]

    def reset(self, setting: ForecastSetting) -> None:
        """Forget everything; a new episode begins."""

    def observe(self, requests: NewRequests) -> None:
        """Take in one slot's requests; slots come in order."""

    def predict(self, lead: int = 0) -> F64:
        """(N, D, H) expected new requests in slots t + lead + 1 … t + lead + H, t the last slot observed."""


class MovingAverage:
    """The mean count of the last `window` slots, for every slot ahead."""

    clairvoyant: ClassVar[bool] = False

    def __init__(self, window: int | str = 80) -> None:
        self.window = _number("window", window, least=1)

    def reset(self, setting: ForecastSetting) -> None:
        """Start with an empty window."""
        self.setting = setting
        self._recent: deque[F64] = deque(maxlen=self.window)
        self._sum = np.zeros(setting.peers.shape)

    def observe(self, requests: NewRequests) -> None:
        """Slide the window."""
        counts = self.setting.counts(requests)
        if len(self._recent) == self.window:
            self._sum -= self._recent[0]
        self._recent.append(counts)
        self._sum += counts

    def predict(self, lead: int = 0) -> F64:
        """The window's mean, whatever the horizon."""
        forecast = np.empty((*self._sum.shape, self.setting.horizon))
        spread_mean(self._sum, float(max(len(self._recent), 1)), forecast)
        return forecast


class Persistence(MovingAverage):
    """The last slot's counts, for every slot ahead."""

    def __init__(self) -> None:
        super().__init__(window=1)


class Seasonal:
    """The counts of one `period` of slots earlier; zero until a period has been seen."""

    clairvoyant: ClassVar[bool] = False

    def __init__(self, period: int | str = 80) -> None:
        self.period = _number("period", period, least=1)

    def reset(self, setting: ForecastSetting) -> None:
        """Start with an empty history."""
        self.setting = setting
        self._history: list[F64] = []

    def observe(self, requests: NewRequests) -> None:
        """Remember the slot."""
        self._history.append(self.setting.counts(requests))

    def predict(self, lead: int = 0) -> F64:
        """Each slot ahead repeats the latest known slot of the same phase."""
        forecast = np.zeros((*self.setting.peers.shape, self.setting.horizon))
        now = len(self._history) - 1
        for h in range(self.setting.horizon):
            same_phase = now + lead + 1 + h - self.period
            while same_phase > now:
                same_phase -= self.period
            if same_phase >= 0:
                forecast[:, :, h] = self._history[same_phase]
        return forecast


class MeanRates:
    """Climatology: the true long-run mean rates Λ·a_id·dt, known without looking."""

    clairvoyant: ClassVar[bool] = False

    def reset(self, setting: ForecastSetting) -> None:
        """Take the rates over."""
        self._forecast = np.repeat(setting.mean_rates[:, :, None], setting.horizon, axis=2)

    def observe(self, requests: NewRequests) -> None:
        """Nothing to learn."""

    def predict(self, lead: int = 0) -> F64:
        """The mean rates, always."""
        return self._forecast.copy()


class Oracle:
    """Clairvoyant: the true future rates, sessions included (not the requests themselves)."""

    clairvoyant: ClassVar[bool] = True

    def reset(self, setting: ForecastSetting) -> None:
        """Take the episode's true demand."""
        if setting.demand is None:
            raise PolicyError("the oracle needs the true demand; run it on a simulated episode")
        self.setting = setting
        self._demand = setting.demand
        self._now = -1

    def observe(self, requests: NewRequests) -> None:
        """Move on by one slot."""
        self._now = requests.slot

    def predict(self, lead: int = 0) -> F64:
        """True expected requests of the slots ahead."""
        start = self._now + lead + 1
        return np.moveaxis(self._demand.rates(start, start + self.setting.horizon), 0, 2)


class PermutedOracle(Oracle):
    """The oracle's forecasts dealt to other pairs at random: right in total, wrong everywhere (a control)."""

    def __init__(self, seed: int | str = 0) -> None:
        self.seed = _number("seed", seed, least=0, most=SEEDS - 1)

    def reset(self, setting: ForecastSetting) -> None:
        """Draw a round of the existing pairs: each gets the forecast of the one before it."""
        super().reset(setting)
        self._round = generator("permuted oracle", self.seed).permutation(np.flatnonzero(setting.peers.ravel() >= 0))

    def predict(self, lead: int = 0) -> F64:
        """Another pair's true expected requests."""
        truth = super().predict(lead).reshape(-1, self.setting.horizon)
        forecast = np.zeros_like(truth)
        forecast[self._round] = truth[np.roll(self._round, 1)]
        return forecast.reshape(*self.setting.peers.shape, self.setting.horizon)


FORECASTERS: dict[str, type[Any]] = {
    "persistence": Persistence,
    "moving-average": MovingAverage,
    "seasonal": Seasonal,
    "mean-rates": MeanRates,
    "oracle": Oracle,
    "permuted-oracle": PermutedOracle,
}


def available() -> dict[str, str]:
    """Forecasters by name, built in and installed, and where each comes from."""
    return {name: point.value for name, point in announced(plugins.FORECASTERS).items()} | {
        name: f"{kind.__module__}:{kind.__name__}" for name, kind in FORECASTERS.items()
    }


SYNTAX = "one's own is written FILE.py:NAME, package.module:NAME, or as the path of a checkpoint, ./FILE.npz"


def get_forecaster(forecaster: str | Forecaster | type | None) -> Forecaster | None:
    """A forecaster by name ("none" or None for no forecasts), or one's own: an object, or the class of one.

    ``NAME:ARGUMENT`` passes the text after the colon on: a window in ``moving-average:40``, a file of weights in
    ``gru:checkpoints/mesh100.npz``. One's own is also named by its place, as in ``./mine.py:Forecaster``, and a
    checkpoint by its path alone. Raises PolicyError for an unknown name (with the nearest) or a bad argument, and for
    what is no forecaster.
    """
    if forecaster is None or forecaster == "none":
        return None
    found = _found(forecaster) if isinstance(forecaster, str) else forecaster
    told = forecaster if isinstance(forecaster, str) else getattr(forecaster, "__qualname__", forecaster)
    if isinstance(found, type):
        found = instance(f"forecaster {told!r}", found, NO_OPTIONS)
    if not isinstance(found, Forecaster):
        raise PolicyError(
            f"forecaster {told!r} is no object with clairvoyant, reset, observe and predict; "
            "see dpem_env.demand.forecast.Forecaster"
        )
    return found


def announced_name(text: str) -> PluginName:
    """What a package announces that forecasts this, and its argument; of the path of a checkpoint, by what it holds."""
    if not is_own(text):
        return PluginName.parse(text)
    if not os.path.exists(text):
        raise PolicyError(f"unknown forecaster {text!r}: there is no such file; {SYNTAX}")
    with reading("checkpoint", text, PolicyError), ArrayFile(text) as stored:
        return PluginName(str(stored.read_about()["model"]), text)


def _found(text: str) -> Any:
    if place := Place.parse(text):
        return copy.deepcopy(place.load())  # an object may serve several networks in a process
    asked = announced_name(text)
    if asked.kind not in FORECASTERS and asked.kind not in (known := available()):  # looking takes as long as 20 slots
        raise unknown("forecaster", asked.kind, [*known, "none"])
    return made("forecaster", asked, lambda: _factory(asked.kind))


def _factory(name: str) -> Callable[..., Any]:
    if name in FORECASTERS:
        return FORECASTERS[name]
    return announced(plugins.FORECASTERS)[name].load()  # type: ignore[no-any-return]


def _number(what: str, given: int | str, least: int, most: int = MAX_SLOTS) -> int:
    try:
        number = int(given)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise PolicyError(f"{what} of a forecaster is {shown(given)}; expected a whole number from {least} to {most}")
    return number


def setting_of(scenario: Scenario, network: Network, demand: Demand, clairvoyant: bool) -> ForecastSetting:
    """The setting of an episode; the true demand is handed to clairvoyant forecasters alone."""
    return ForecastSetting(scenario, network.peers, mean_rates(scenario, network), demand if clairvoyant else None)
