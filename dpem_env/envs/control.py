"""Central control: one controller that sees the whole network, δ late, and remembers what it has ordered since.

The view of slot t is the simulator's state after phase 0 of slot t - δ/dt, brought forward by what the controller can
know without news: allocations past their time-to-live are closed, its own commands since then count as open, forecasts
reach δ further. Requests are those seen then, and the overdue ones among them are told apart. At δ = 0 the view is the
state itself. Serving from stock and delivering a finished pair stay local.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.forecast import Forecaster, get_forecaster, setting_of
from dpem_env.envs.session import Session, as_forecast
from dpem_env.observations.features import Observer
from dpem_env.policies import Decision, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator import Episode, Simulator
from dpem_env.simulator.foresight import assume, count_overdue, wait_until
from dpem_env.simulator.state import State
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
    """The controller's memory of one session: delayed states and its own commands since."""

    def __init__(self, session: Session, delay: float, forecaster: str | Forecaster | None = None) -> None:
        self.session = session
        self.delay = delay_in_slots(session.scenario, delay)
        warn_if_rounded(session.scenario, delay)
        self.forecaster = get_forecaster(forecaster)
        self._shadow = Simulator(session.scenario)  # the controller's picture of the network
        self._observer = Observer(self._shadow, session.observer.routes)

    def begin(self) -> None:
        """Call after the session has begun an episode."""
        session = self.session
        self._shadow.begin([Episode(session.network, session.demand, session.seeds.demand, session.slots)])
        self._past: deque[State] = deque(maxlen=self.delay + 1)
        self._commands: deque[Decision] = deque(maxlen=self.delay)
        if self.forecaster is not None:
            setting = setting_of(session.scenario, session.network, session.demand, self.forecaster.clairvoyant)
            self.forecaster.reset(setting)
        self.last_forecast: NDArray[np.float32] | None = None  # of the latest view, for the log
        self._remember()

    def view(self) -> NetworkView | None:
        """What can be known now; None while nothing is old enough to be seen."""
        if len(self._past) <= self.delay:
            return None
        session, shadow = self.session, self._shadow
        for name in State._fields:
            mine: NDArray[Any] = getattr(shadow.state, name)
            theirs: NDArray[Any] = getattr(self._past[0], name)
            # Either may have more room than the episode needs, left over from earlier ones.
            shared = tuple(slice(min(sizes)) for sizes in zip(mine.shape, theirs.shape, strict=True))
            mine[shared] = theirs[shared]
        for slot, command in enumerate(self._commands, start=session.slot - self.delay):
            shadow.run((wait_until, slot))
            shadow.run((assume, command.action, command.route))
        shadow.run((wait_until, session.slot))
        forecast = None
        if self.forecaster is not None:
            forecast = as_forecast(self.forecaster.predict(self.delay), session.scenario, session.network)
        self.last_forecast = forecast
        overdue = np.zeros(shadow.state.pending.shape[1:], dtype=np.int32)
        shadow.run((count_overdue, overdue))
        local = self._observer.observe(forecast)[0]
        fresh = self._observer.observe(forecast, fresh=True)[0]
        state, work = shadow.state, shadow.work
        return NetworkView(
            scenario=session.scenario,
            network=session.network,
            slot=session.slot,
            delay=self.delay,
            observations=self._observer.table.read(fresh),
            local_observations=self._observer.table.read(local),
            masks=self._observer.masks()[0],
            overdue=overdue,
            free_memory=state.free_memory[0].copy(),
            swap_tokens=state.tokens[0].copy(),
            link_up=state.link_up[0, : session.network.topology.num_links].copy(),
            source_claims=work.source_claims[0].copy(),
            swap_claims=work.swap_claims[0].copy(),
        )

    def step(self, decision: Decision) -> None:
        """Issue a decision in the current slot and play the slot."""
        command = decision.completed(self.session.network.num_nodes)
        self.session.step(command.action, command.route, command.priority)
        self._commands.append(command)
        self._remember()

    def _remember(self) -> None:
        self._past.append(State._make(array.copy() for array in self.session.simulator.state))
        seen = self.session.slot - self.delay
        if self.forecaster is not None and 0 <= seen < self.session.slots:
            self.forecaster.observe(self.session.new_requests(seen))
