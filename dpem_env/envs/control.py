"""Central control: one controller that sees the whole network, δ late, and remembers what it has ordered since.

The view of slot t is the simulator's state after phase 0 of slot t - δ/dt, brought forward by what the controller can
know without news: allocations past their time-to-live are closed, its own commands since then count as open, forecasts
reach δ further. Requests are those seen then, and the overdue ones among them are told apart. At δ = 0 the view is the
state itself. Serving from stock and delivering a finished pair stay local. A command may be bound to what its node
reads on its arrival (`Condition`); withheld ones, too, count as open until there is news.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Collection
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.forecast import Forecaster
from dpem_env.envs.forecasts import Forecasts
from dpem_env.observations.features import Observer
from dpem_env.policies import NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator import Call, Simulator
from dpem_env.simulator.foresight import assume, count_overdue, wait_until
from dpem_env.support.errors import DpemWarning, ScenarioError


def delay_in_slots(scenario: Scenario, delay: float) -> int:
    """A control delay (s) as a number of slots: to the nearest, halves down. Raises ScenarioError unless it is >= 0."""
    slot = scenario.control.slot_duration
    longest = MAX_SLOTS * slot
    if isinstance(delay, bool) or not isinstance(delay, Real) or not 0 <= delay <= longest:
        raise ScenarioError(f"delay is {delay!r}; expected seconds >= 0, at most {longest:g}")
    return max(math.ceil(delay / slot - 0.5 - 1e-9), 0)


def played_delay(scenario: Scenario, delay: float) -> float:
    """The control delay (s) that is played where `delay` is asked for: whole slots. ScenarioError as above."""
    seconds = delay_in_slots(scenario, delay) * scenario.control.slot_duration
    return float(f"{seconds:.12g}")  # 3 × 0.1 s is 0.3 s, not 0.30000000000000004 s


def warn_if_rounded(scenario: Scenario, delay: float) -> None:
    """A DpemWarning if another control delay (s) is played than this one."""
    played, slot = played_delay(scenario, delay), scenario.control.slot_duration
    if not math.isclose(float(delay), played, rel_tol=1e-9, abs_tol=1e-9 * slot):
        told = f"played as {played:.12g} s, since slots last {slot:.12g} s"
        warnings.warn(DpemWarning(f"control delay of {delay} s", told), stacklevel=3)


class CentralControl:
    """The controllers' memory of B networks, one controller each: delayed states and their own commands since."""

    def __init__(
        self,
        simulator: Simulator,
        delay: float,
        forecaster: str | Forecaster | None = None,
        routes: bool = False,
        condition: int = 0,
        news: Collection[str] | None = None,
    ) -> None:
        scenario = simulator.scenario
        self.simulator = simulator
        self.delay = delay_in_slots(scenario, delay)
        warn_if_rounded(scenario, delay)
        self.forecasts = Forecasts(scenario, forecaster, simulator.num_envs)
        self.forecast: NDArray[np.float32] | None = None  # (B, N, D, H) that was last looked at
        self._shadow = Simulator(scenario, simulator.num_envs, simulator.threads.threads)  # the controllers' picture
        self._observer = Observer(self._shadow, routes, condition, news)

    def begin(self) -> None:
        """Call after the simulator has begun episodes in all networks."""
        episodes = [episode for episode in self.simulator.episodes if episode is not None]
        self._shadow.follow(self.simulator)
        self._slots = episodes[0].slots
        self._past: deque[NDArray[np.uint8]] = deque(maxlen=self.delay + 1)  # states, oldest first
        self._commands: deque[tuple[NDArray[np.int64], ...]] = deque(maxlen=self.delay)
        self.forecasts.begin(episodes)
        self.forecast = None
        self._remember()

    def remember(self, *commands: NDArray[np.int64]) -> None:
        """Call after a slot was played, with its (B, N) actions and routes and (B, N, k - 1) routes to fall back to."""
        self._commands.append(tuple(array.copy() for array in commands))
        self._remember()

    def look(self) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """(B, N, F) observations and (B, N, actions) masks; zeros and waiting only while nothing is old enough."""
        if self._blind:
            shape = (self.simulator.num_envs, self.simulator.num_nodes)
            masks = np.zeros((*shape, self._observer.code.num_actions), dtype=np.int8)
            masks[..., 0] = 1
            return np.zeros((*shape, self._observer.table.width), dtype=np.float32), masks
        news = self._news()
        observing, observations = self._observer.observing(self.forecast, fresh=True)
        masking, masks = self._observer.masking()
        self._shadow.run(*news, observing, masking)
        return observations, masks

    def view(self, network: int = 0) -> NetworkView | None:
        """All that can be known of a network now; None while nothing is old enough to be seen."""
        if self._blind:
            return None
        shadow, observer = self._shadow, self._observer
        news = self._news()
        overdue = np.zeros(shadow.state.pending.shape, dtype=np.int32)
        observing_locally, local = observer.observing(self.forecast)
        observing, observations = observer.observing(self.forecast, fresh=True)
        masking, masks = observer.masking()
        shadow.run(*news, (count_overdue, overdue), observing_locally, observing, masking)
        state, work, episode = shadow.state, shadow.work, shadow.episodes[network]
        assert episode is not None
        return NetworkView(
            scenario=shadow.scenario,
            network=episode.network,
            slot=self._slot,
            delay=self.delay,
            observations=observer.table.read(observations[network]),
            local_observations=observer.table.read(local[network]),
            masks=masks[network],
            overdue=overdue[network],
            free_memory=state.free_memory[network].copy(),
            swap_tokens=state.tokens[network].copy(),
            link_up=state.link_up[network, : episode.network.topology.num_links].copy(),
            source_claims=work.source_claims[network].copy(),
            swap_claims=work.swap_claims[network].copy(),
        )

    @property
    def _slot(self) -> int:
        return int(self.simulator.state.slot[0, 0])

    @property
    def _blind(self) -> bool:
        """Whether nothing is old enough to be seen."""
        return len(self._past) <= self.delay

    def _news(self) -> list[Call]:
        """Put the oldest state into the picture; returns the calls that bring it forward to the current slot."""
        self._shadow.memory[:] = self._past[0]
        self.forecast = self.forecasts.predict(self.delay)
        now = self._slot
        calls: list[Call] = []
        for slot, command in enumerate(self._commands, start=now - self.delay):
            calls += [(wait_until, slot), (assume, *command)]
        return [*calls, (wait_until, now)]

    def _remember(self) -> None:
        self._past.append(self.simulator.memory.copy())
        seen = self._slot - self.delay
        if 0 <= seen < self._slots:
            self.forecasts.observe(seen)
