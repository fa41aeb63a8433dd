"""One environment with all that may be known in it: simulator, forecaster, observations, masks and rewards.

The PettingZoo and Gymnasium façades, the evaluation and the replay all drive a `Session`; they differ in whom they
show what.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env.demand.forecast import Forecaster, NewRequests, get_forecaster, setting_of
from dpem_env.demand.requests import Demand, draw_demand
from dpem_env.envs.rewards import rewards
from dpem_env.network.network import Network, build_network
from dpem_env.observations.features import Observer
from dpem_env.scenarios import SPLITS, Scenario, Split
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator import Episode, Simulator
from dpem_env.support.errors import ActionError, PolicyError, ScenarioError, nearest, require_one_of
from dpem_env.support.seeding import require_seed as require_seed


class EpisodeSeeds(NamedTuple):
    """What fixes an episode, given scenario and actions."""

    topology: int
    demand: int  # also of emissions, outages, admission order and outcomes


def episode_seeds(scenario: Scenario, split: Split, index: int) -> EpisodeSeeds:
    """Seeds of the `index`-th episode of a split; lists are cyclic."""
    seeds = getattr(scenario.seeds, split)
    return EpisodeSeeds(seeds.topology[index], seeds.demand[index])


class EpisodeChoice:
    """Which episode of a split comes next: the one a seed names, or one drawn after it."""

    def __init__(self, scenario: Scenario, split: Split) -> None:
        require_one_of("split", split, SPLITS)
        self.scenario = scenario
        self.split: Split = split
        self._rng: np.random.Generator | None = None

    def choose(self, seed: int | None, options: Mapping[str, Any] | None = None) -> EpisodeSeeds:
        """Seeds of the `seed`-th episode; of one drawn if it is None; options may name topology_seed and demand_seed.

        A seed also fixes what is drawn later without one. Raises ScenarioError, before anything is drawn, unless every
        seed is an int >= 0, and for an option of another name.
        """
        named = _named_seeds(options)
        if seed is not None:
            require_seed("reset(seed=...)", seed)
            self._rng = np.random.default_rng(int(seed))
            index = int(seed)
        else:
            self._rng = self._rng or np.random.default_rng()
            index = int(self._rng.integers(2**31))
        return episode_seeds(self.scenario, self.split, index)._replace(**named)


def _named_seeds(options: Mapping[str, Any] | None) -> dict[str, int]:
    """Those of the `EpisodeSeeds` that reset options name."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ScenarioError(f"reset options is {type(options).__name__}; expected a dict or None")
    seeds = {f"{field}_seed": field for field in EpisodeSeeds._fields}
    for option, value in options.items():
        if option not in seeds:
            raise ScenarioError(f"unknown reset option {option!r}; {nearest(str(option), seeds)}")
        require_seed(f"reset option {option}", value)
    return {seeds[option]: int(value) for option, value in options.items()}


def require_slots(max_cycles: Any) -> None:
    """Raise ScenarioError unless it is a number of slots to play."""
    whole = isinstance(max_cycles, int | np.integer) and not isinstance(max_cycles, bool)
    if not whole or not 1 <= max_cycles <= MAX_SLOTS:
        raise ScenarioError(f"max_cycles is {max_cycles!r}; expected a number of slots >= 1, at most {MAX_SLOTS}")


def as_actions(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`given` as an array of actions; raises ActionError unless it is integers of that shape, none of them a bool."""
    try:
        chosen = np.asarray(given)
    except ValueError:
        raise ActionError(f"{name} is a ragged list; expected {shape} integers") from None
    if chosen.shape != shape or chosen.dtype.kind not in "iu":
        raise ActionError(f"{name} has shape {chosen.shape} and type {chosen.dtype}; expected {shape} integers")
    # NumPy makes ints of bools that stand among ints.
    elements = () if hasattr(given, "dtype") or not shape else given
    if any(np.asarray(element).dtype == np.bool_ for element in elements if type(element) is not int):
        raise ActionError(f"{name} has a bool among its integers; expected {shape} integers")
    return chosen.astype(np.int64, copy=False)


class Session:
    """One environment of a scenario, one episode at a time."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        routes: bool = False,
        forecaster: str | Forecaster | None = None,
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.scenario = scenario
        self.data_dir = data_dir
        self.simulator = Simulator(scenario)
        self.observer = Observer(self.simulator, routes)
        self.forecaster = get_forecaster(forecaster)
        self.network: Network
        self.demand: Demand
        self.seeds: EpisodeSeeds
        self.forecast: NDArray[np.float32] | None = None
        self._begun = False

    def begin(self, seeds: EpisodeSeeds, slots: int | None = None) -> None:
        """Draw network and demand from the seeds and start an episode of `slots` (default: the scenario's)."""
        slots = slots or self.scenario.episode.slots
        network = build_network(self.scenario, seeds.topology, self.data_dir)
        demand = draw_demand(self.scenario, network, seeds.demand, slots, self.data_dir)
        self.begin_with(network, demand, seeds, slots)

    def begin_with(self, network: Network, demand: Demand, seeds: EpisodeSeeds, slots: int) -> None:
        """Start an episode on a given network with a given demand."""
        self.network, self.demand, self.seeds, self.slots = network, demand, seeds, slots
        self.simulator.begin([Episode(network, demand, seeds.demand, slots)])
        self._begun = True
        if self.forecaster is not None:
            setting = setting_of(self.scenario, network, demand, self.forecaster.clairvoyant)
            self.forecaster.reset(setting)
            self._update_forecast()

    def step(self, action: ArrayLike, route: ArrayLike | None = None, priority: ArrayLike | None = None) -> None:
        """Play one slot; arguments as for `Simulator.step`, of shape (N,)."""
        self.require_begun()
        self.simulator.step(action, route, priority)
        if self.forecaster is not None and not self.done:
            self._update_forecast()

    def require_begun(self) -> None:
        """Raise ActionError unless there is an episode to look at or to play."""
        if not self._begun:
            raise ActionError("no episode has begun: call reset() first")

    def require_running(self) -> None:
        """Raise ActionError unless there is a slot to play."""
        if self.done:
            raise ActionError("the episode is over: call reset() first")

    @property
    def slot(self) -> int:
        """The slot about to be decided."""
        self.require_begun()
        return int(self.simulator.state.slot[0, 0])

    @property
    def done(self) -> bool:
        """Whether the last slot has been played."""
        return self.slot >= self.slots

    def observations(self) -> NDArray[np.float32]:
        """(N, F) what each node knows, a fresh array."""
        self.require_begun()
        rows: NDArray[np.float32] = self.observer.observe(self.forecast)[0]
        return rows

    def global_state(self) -> NDArray[np.float32]:
        """(N, F) the same features with remote ones as of now: for centralized training only."""
        self.require_begun()
        rows: NDArray[np.float32] = self.observer.observe(self.forecast, fresh=True)[0]
        return rows

    def masks(self) -> NDArray[np.int8]:
        """(N, actions) 1 where an action is legal, a fresh array."""
        self.require_begun()
        masks: NDArray[np.int8] = self.observer.masks()[0]
        return masks

    def rewards(self) -> NDArray[np.float64]:
        """(N,) reward of the last step."""
        self.require_begun()
        reward: NDArray[np.float64] = rewards(self.simulator, self.scenario)[0]
        return reward

    def new_requests(self, slot: int) -> NewRequests:
        """The requests that arrived in `slot`."""
        self.require_begun()
        return NewRequests.of_slot(self.scenario, self.network, self.demand, slot)

    def _update_forecast(self) -> None:
        assert self.forecaster is not None
        self.forecaster.observe(self.new_requests(self.slot))
        self.forecast = as_forecast(self.forecaster.predict(), self.scenario, self.network)


def as_forecast(expected: NDArray[Any], scenario: Scenario, network: Network) -> NDArray[np.float32]:
    """(1, N, D, H) float32, a copy of a forecaster's (N, D, H); raises PolicyError if it is something else."""
    shape = (*network.peers.shape, scenario.observation.forecast_horizon)
    forecast = np.array(expected, dtype=np.float32, order="C")
    if forecast.shape != shape or not np.isfinite(forecast).all():
        raise PolicyError(
            f"predict() of the forecaster returned an array of shape {forecast.shape}; "
            f"expected (N, D, H) = {shape} finite numbers"
        )
    return forecast[None]
