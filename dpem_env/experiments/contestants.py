"""Who is compared. A policy is what plays, by its spec; a contestant is a row of a table: a policy, or several.

A learner is one contestant by all its checkpoints, one policy per training seed. A central policy is a contestant per
control delay. All contestants play the same episodes: same topologies, demand, emissions, outages and admission order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.control import played_delay, warn_if_rounded
from dpem_env.policies import CentralPolicy, Policy, get_policy
from dpem_env.policy_names import PolicyName
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import PolicyError


@dataclass(frozen=True)
class PolicySpec:
    """What plays: a policy by name, its options, forecaster and, if central, its control delay in s."""

    name: str
    delay: float | None = None
    forecaster: str | None = None
    options: tuple[tuple[str, Any], ...] = ()  # constructor arguments of the policy

    @property
    def label(self) -> str:
        """How tables call it."""
        forecast = f" +{self.forecaster}" if self.forecaster else ""
        chosen = f" [{self.settings}]" if self.options else ""
        return self.name + chosen + forecast + ("" if self.delay is None else f" (delay {self.delay:.12g} s)")

    @property
    def file_parts(self) -> list[str]:
        """What names its files: policy, forecaster if another than its own, delay if central."""
        delay = None if self.delay is None else f"delay{self.delay:.12g}"
        return [part for part in (self.name, self.forecaster and f"+{self.forecaster}", delay) if part is not None]

    @property
    def settings(self) -> str:
        """The options as text."""
        return ", ".join(f"{name}={value}" for name, value in self.options)

    def make(self) -> Policy:
        """The policy itself; raises PolicyError for an unknown name or option."""
        return get_policy(self.name, **dict(self.options))


@dataclass(frozen=True)
class Contestant:
    """A row of a table: a rule, or a learner by its checkpoints, one policy per training seed."""

    policy: str  # as it was asked for: a name, perhaps with a pattern that its checkpoints match
    policies: tuple[PolicySpec, ...]

    @property
    def label(self) -> str:
        """How tables call it."""
        seeds = f", {len(self.policies)} training seeds" if len(self.policies) > 1 else ""
        return replace(self.policies[0], name=self.policy).label + seeds

    @property
    def name(self) -> str:
        """How it is asked for."""
        return self.policy + (f"+{self.forecaster}" if self.forecaster else "")

    @property
    def delay(self) -> float | None:
        """Control delay in s, if central."""
        return self.policies[0].delay

    @property
    def forecaster(self) -> str | None:
        """The forecaster, if not the policy's own."""
        return self.policies[0].forecaster


def contestants(
    policies: Iterable[str], delays: Sequence[float], forecaster_of_all: str | None = None
) -> list[Contestant]:
    """Local policies once, central ones once per delay (0 if none is given).

    "NAME+FORECASTER" has its own forecaster. "NAME:PATTERN" is one contestant with every checkpoint whose path matches,
    as in ``ppo:runs/seed*/final.zip``; a path that exists is none. Raises PolicyError for what is unknown or matches
    nothing.
    """
    found = []
    for policy in policies:
        name = PolicyName.parse(policy)
        forecaster = forecaster_of_all if name.forecaster is None else name.forecaster
        get_forecaster(forecaster)
        played = [str(member) for member in name.policy.members()]
        central = isinstance(get_policy(played[0]), CentralPolicy)
        for delay in dict.fromkeys(delays or (0.0,)) if central else (None,):
            found.append(
                Contestant(str(name.policy), tuple(PolicySpec(member, delay, forecaster) for member in played))
            )
    return list(dict.fromkeys(found))


def policy_specs(policies: Iterable[str], delays: Sequence[float]) -> list[PolicySpec]:
    """Those of all contestants, each by itself."""
    found = [policy for contestant in contestants(policies, delays) for policy in contestant.policies]
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
