"""Who is compared. A policy is what plays, by its spec; a contestant is a row of a table: a policy, or several.

A learner is one contestant by all its checkpoints, one policy per training seed. A central policy is a contestant per
control delay. All contestants play the same episodes: same topologies, demand, emissions, outages and admission order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.control import played_delay, warn_if_rounded
from dpem_env.policies import LocalPolicy, Policy, available, get_policy
from dpem_env.policy_names import OWN, PolicyName, labelled, require_label
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.files import matching
from dpem_env.support.own_code import Place


@dataclass(frozen=True)
class PolicySpec:
    """What plays: a policy by name, its options, forecaster and, if central, its control delay in s."""

    name: str  # of an object, what it is
    delay: float | None = None
    forecaster: str | None = None
    options: tuple[tuple[str, Any], ...] = ()  # constructor arguments of the policy
    called: str | None = None  # the label that its user has given it
    trusted: bool = False  # whether code that its file holds may be run
    player: Any = field(default=None, compare=False)  # the object that plays, where it is none that is named

    @property
    def label(self) -> str:
        """How tables call it."""
        forecast = f" +{self.forecaster}" if self.forecaster else ""
        chosen = f" [{self.settings}]" if self.options else ""
        delay = "" if self.delay is None else f" (delay {self.delay:.12g} s)"
        return (self.called or self.name) + chosen + forecast + delay

    @property
    def file_parts(self) -> list[str]:
        """What names its files: policy, forecaster if another than its own, delay if central."""
        delay = None if self.delay is None else f"delay{self.delay:.12g}"
        parts = (self.called or self.name, self.forecaster and f"+{self.forecaster}", delay)
        return [part for part in parts if part is not None]

    @property
    def own(self) -> bool:
        """Whether its user has brought it, or the code of its forecaster: no installed package announces it."""
        brought = self.player is not None or PolicyName.alone(self.name).kind == OWN
        return brought or Place.parse(self.forecaster or "") is not None

    @property
    def settings(self) -> str:
        """The options as text."""
        return ", ".join(f"{name}={value}" for name, value in self.options)

    def make(self) -> Policy:
        """The policy itself; raises PolicyError for an unknown name or option."""
        trusted = {"trusted": True} if self.trusted else {}
        return get_policy(self.name if self.player is None else self.player, **dict(self.options), **trusted)


@dataclass(frozen=True)
class Contestant:
    """A row of a table: a rule, or a learner by its checkpoints, one policy per training seed."""

    policy: str  # its label, or as it was asked for: a name, perhaps with a pattern that its checkpoints match
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
    policies: Iterable[str] | Mapping[str, Any],
    delays: Sequence[float],
    forecasters: Sequence[str] = (),
    trust: Sequence[str | os.PathLike[str]] = (),
) -> list[Contestant]:
    """Local policies once, central ones once per delay (0 if none is given), all of them with every forecaster.

    "NAME+FORECASTER" has its own forecaster. "NAME:PATTERN" is one contestant with every checkpoint whose path matches,
    as in ``ppo:runs/seed*/final.zip``; a path that exists is none. "LABEL=POLICY" has that label; so has a policy, by
    name or as an object, in a mapping. Code in the files of `trust`, paths or patterns, may be run. Raises PolicyError
    for what is unknown or matches nothing, and for two policies of one label.
    """
    named = policies.items() if isinstance(policies, Mapping) else map(labelled, policies)
    asked = [(label, what) for label, what in named]
    trusted = {os.path.abspath(path): os.fspath(given) for given in trust for path in matching(os.fspath(given))}
    found = [
        Contestant(label or name, played)
        for forecaster in forecasters or (None,)
        for label, what in asked
        for name, played in _played(label, what, delays, forecaster, trusted)
    ]
    _require_used(trust, trusted, found)
    found = list(dict.fromkeys(found))
    _require_labels_of_their_own(found)
    return found


def _played(
    label: str | None, what: Any, delays: Sequence[float], forecaster: str | None, trusted: Mapping[str, str]
) -> Iterable[tuple[str, tuple[PolicySpec, ...]]]:
    """What a contestant is asked for as, and all who play for it, once per delay if central."""
    if isinstance(what, str):
        parsed = PolicyName.parse(what)
        forecaster = forecaster if parsed.forecaster is None else parsed.forecaster
        asked, player = str(parsed.policy), None
        members = [(str(each), os.path.abspath(each.path) in trusted) for each in parsed.policy.members()]
    else:
        kind = what if hasattr(what, "__qualname__") else type(what)
        asked, player = f"{kind.__module__}.{kind.__qualname__}", what
        members = [(asked, False)]
    get_forecaster(forecaster)
    if label is not None and label != asked:
        require_label(label)
        if _plays_by_itself(label):
            raise PolicyError(f"label {label!r} is the name of another policy; give {asked!r} another one")
    called = None if label == asked else label
    played = [PolicySpec(name, None, forecaster, (), called, trust, player) for name, trust in members]
    local = isinstance(played[0].make(), LocalPolicy)
    for delay in (None,) if local else dict.fromkeys(delays or (0.0,)):
        yield asked, tuple(replace(each, delay=delay) for each in played)


def _plays_by_itself(name: str) -> bool:
    try:
        return name in available() and isinstance(get_policy(name), Policy)
    except DpemError:  # such as one that needs an argument
        return False


def _require_used(
    trust: Sequence[str | os.PathLike[str]], trusted: Mapping[str, str], found: Sequence[Contestant]
) -> None:
    """PolicyError for a file that is trusted in vain: misspelt, perhaps."""
    played = {os.path.abspath(PolicyName.alone(each.name).path) for of in found for each in of.policies}
    used = {given for path, given in trusted.items() if path in played}
    for path in trust:
        if (given := os.fspath(path)) not in used:
            raise PolicyError(f"--trust is {given!r}, which no policy that plays is read from")


def _require_labels_of_their_own(found: Sequence[Contestant]) -> None:
    """Rows and files are told apart by labels."""
    known: dict[str, Contestant] = {}
    for each in found:
        if (other := known.setdefault(each.label, each)) != each:
            both = f"{other.policies[0].name!r} and {each.policies[0].name!r}"
            raise PolicyError(f"two policies are called {each.label!r}, {both}: label one of them LABEL=POLICY")


def policy_specs(
    policies: Iterable[str], delays: Sequence[float], trust: Sequence[str | os.PathLike[str]] = ()
) -> list[PolicySpec]:
    """Those of all contestants, each by itself and once, whatever it is called."""
    found = [policy for contestant in contestants(policies, delays, (), trust) for policy in contestant.policies]
    return list({(policy.name, policy.delay, policy.forecaster): policy for policy in reversed(found)}.values())[::-1]


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
