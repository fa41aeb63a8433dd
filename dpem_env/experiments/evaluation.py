"""Run policies on scenarios with paired seeds, and say how sure the figures are.

An arm is a policy, with a control delay if it is central. All arms play the same episodes: same topologies, demand,
emissions, outages and admission order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.control import played_delay, warn_if_rounded
from dpem_env.envs.metrics import EpisodeMetrics, episode_metrics
from dpem_env.envs.session import EpisodeSeeds, Session, episode_seeds
from dpem_env.experiments.specs import members, policy_and_forecaster
from dpem_env.policies import CentralPolicy, Decision, LocalPolicy, Policy, get_policy
from dpem_env.scenarios import Scenario, Split
from dpem_env.support.errors import PolicyError


@dataclass(frozen=True)
class Arm:
    """One contestant: a policy by name, its options and, if central, its control delay in s."""

    policy: str
    delay: float | None = None
    forecaster: str | None = None
    options: tuple[tuple[str, Any], ...] = ()  # constructor arguments of the policy

    @property
    def label(self) -> str:
        """How tables call it."""
        forecast = f" +{self.forecaster}" if self.forecaster else ""
        chosen = f" [{self.settings}]" if self.options else ""
        return self.policy + chosen + forecast + ("" if self.delay is None else f" (delay {self.delay:.12g} s)")

    @property
    def file_parts(self) -> list[str]:
        """What names its files: policy, forecaster if another than its own, delay if central."""
        delay = None if self.delay is None else f"delay{self.delay:.12g}"
        return [part for part in (self.policy, self.forecaster and f"+{self.forecaster}", delay) if part is not None]

    @property
    def settings(self) -> str:
        """The options as text."""
        return ", ".join(f"{name}={value}" for name, value in self.options)

    def make(self) -> Policy:
        """The policy itself; raises PolicyError for an unknown name or option."""
        return get_policy(self.policy, **dict(self.options))


class Recorder(Protocol):
    """Sees an episode as it is played; the episode log is one."""

    def begin(self, session: Session, label: str) -> None:
        """The session has just begun its episode."""

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        """One slot has been played."""


@dataclass(frozen=True)
class Method:
    """What is compared: a rule, or a learner by its checkpoints, one per training seed."""

    policy: str  # as it was asked for: a name, perhaps with a pattern that its checkpoints match
    arms: tuple[Arm, ...]

    @property
    def label(self) -> str:
        """How tables call it."""
        seeds = f", {len(self.arms)} training seeds" if len(self.arms) > 1 else ""
        return replace(self.arms[0], policy=self.policy).label + seeds

    @property
    def name(self) -> str:
        """How it is asked for."""
        return self.policy + (f"+{self.forecaster}" if self.forecaster else "")

    @property
    def delay(self) -> float | None:
        """Control delay in s, if central."""
        return self.arms[0].delay

    @property
    def forecaster(self) -> str | None:
        """The forecaster, if not the policy's own."""
        return self.arms[0].forecaster


def methods(policies: Iterable[str], delays: Sequence[float], forecaster_of_all: str | None = None) -> list[Method]:
    """Local policies once, central ones once per delay (0 if none is given).

    "NAME+FORECASTER" has its own forecaster. "NAME:PATTERN" is one method with every checkpoint whose path matches, as
    in ``ppo:runs/seed*/final.zip``; a path that exists is none. Raises PolicyError for what is unknown or matches
    nothing.
    """
    found = []
    for policy in policies:
        name, own = policy_and_forecaster(policy)
        forecaster = forecaster_of_all if own is None else own
        get_forecaster(forecaster)
        of_method = members(name)
        central = isinstance(get_policy(of_method[0]), CentralPolicy)
        for delay in dict.fromkeys(delays or (0.0,)) if central else (None,):
            found.append(Method(name, tuple(Arm(member, delay, forecaster) for member in of_method)))
    return list(dict.fromkeys(found))


def arms(policies: Iterable[str], delays: Sequence[float], forecaster_of_all: str | None = None) -> list[Arm]:
    """Those of all methods, each by itself."""
    found = [arm for method in methods(policies, delays, forecaster_of_all) for arm in method.arms]
    return list(dict.fromkeys(found))


def require_delays(delays: Iterable[float], scenario: Scenario) -> None:
    """PolicyError unless control delays that were asked for (s) are shorter than an episode."""
    duration = scenario.episode.slots * scenario.control.slot_duration
    for delay in delays:
        if not 0 <= delay < duration:
            raise PolicyError(f"--delay is {delay}; expected seconds >= 0, less than an episode ({duration:g} s)")


def played_delays(scenarios: Sequence[Scenario], delays: Iterable[float]) -> list[float]:
    """The control delays that are played where `delays` are asked for, each once, with a warning if they are others.

    PolicyError where they would not be the same on all scenarios.
    """
    found: dict[float, None] = {}
    for delay in delays:
        played = {played_delay(scenario, delay): scenario.name for scenario in scenarios}
        if len(played) > 1:
            told = ", ".join(f"{seconds:.12g} s on {name}" for seconds, name in played.items())
            raise PolicyError(f"--delay {delay} would be {told}: choose one that is whole slots of all")
        warn_if_rounded(scenarios[0], delay)
        found |= dict.fromkeys(played)
    return list(found)


def run_episode(
    scenario: Scenario,
    policy: Policy,
    seeds: EpisodeSeeds,
    *,
    delay: float = 0.0,
    forecaster: Any = None,
    data_dir: str | os.PathLike[str] | None = None,
    recorder: Recorder | None = None,
    label: str = "",
) -> tuple[EpisodeMetrics, Session]:
    """Play one episode to its end; returns its metrics and the session in its final state.

    `delay` (s) applies to central policies. `forecaster` overrides the policy's own.
    """
    forecaster = forecaster if forecaster is not None else policy.forecaster
    central = isinstance(policy, CentralPolicy)
    session = Session(scenario, delay=delay if central else None, forecaster=forecaster, data_dir=data_dir)
    session.begin(seeds)
    policy.reset(scenario, session.network, seeds.demand)
    if recorder is not None:
        recorder.begin(session, label)
    total = np.zeros(session.network.num_nodes)
    while not session.done:
        decision, forecast = _decided(session, policy)
        session.step(*decision)
        total += session.rewards()
        if recorder is not None:
            recorder.record(session, decision, forecast)
    return episode_metrics(session, total), session


def _decided(session: Session, policy: Policy) -> tuple[Decision, NDArray[np.float32] | None]:
    """What a policy decides in the current slot, and the forecast it was shown."""
    if isinstance(policy, LocalPolicy):
        seen = session.observer.table.read(session.observations())
        # Nodes cannot order their admissions.
        return policy.act(seen, session.masks())._replace(priority=None), session.forecast
    view = session.view()
    assert session.control is not None
    if view is None:
        return Decision(np.zeros(session.network.num_nodes, dtype=np.int64)), session.control.forecast
    return policy.act(view), session.control.forecast


@dataclass(frozen=True)
class ArmResult:
    """Metrics of one arm, episode by episode, in the order of the seeds."""

    arm: Arm
    episodes: list[EpisodeMetrics]

    def mean_and_interval(self, metric: str) -> tuple[float, float]:
        """Mean and half-width of the 95 % confidence interval (Student's t over episodes) of a metric."""
        values = np.array([getattr(episode, metric) for episode in self.episodes], dtype=np.float64)
        return mean_and_interval(values)


def mean_and_interval(values: Any) -> tuple[float, float]:
    """Mean and half-width of its 95 % Student interval; NaNs are left out, the width of one value is NaN."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    if len(values) == 1:
        return float(values[0]), float("nan")
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def paired_difference(a: ArmResult, b: ArmResult, metric: str) -> tuple[float, float]:
    """Mean of a - b over the common episodes, with the half-width of its 95 % interval."""
    pairs = zip(a.episodes, b.episodes, strict=False)
    return mean_and_interval([getattr(ours, metric) - getattr(theirs, metric) for ours, theirs in pairs])


def evaluate(
    scenario: Scenario,
    results: Sequence[ArmResult],
    num_seeds: int,
    *,
    split: Split = "evaluation",
    data_dir: str | os.PathLike[str] | None = None,
    recorder_of: Callable[[Arm, int], Recorder | None] = lambda arm, index: None,
    on_episode: Callable[[Arm, int, Session], None] = lambda arm, index, session: None,
) -> None:
    """Play the first `num_seeds` episodes of a split with every arm, appending to its result as episodes finish.

    Raises PolicyError for fewer than one seed. Interrupted, it leaves finished episodes in `results`.
    """
    if num_seeds < 1:
        raise PolicyError(f"seeds must be at least 1, given {num_seeds}")
    for index in range(num_seeds):
        seeds = episode_seeds(scenario, split, index)
        for result in results:
            arm = result.arm
            metrics, session = run_episode(
                scenario,
                arm.make(),
                seeds,
                delay=arm.delay or 0.0,
                forecaster=arm.forecaster,
                data_dir=data_dir,
                recorder=recorder_of(arm, index),
                label=arm.label,
            )
            result.episodes.append(metrics)
            on_episode(arm, index, session)
