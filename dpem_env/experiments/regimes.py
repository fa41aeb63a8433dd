"""Where local control pays: one local policy beside central ones, over control delay and two fields of a scenario.

A regime is a scenario of results whose scenarios differ in two fields, such as suite ``regimes``. There a local policy
has a difference in delivery rate to every central one at each control delay, on the same episodes. The *crossover* is
the delay from which on the local policy is ahead: where the straight lines between the measured differences last rise
through zero. It is 0 if the local policy is ahead at every delay, and infinite if it is behind at the longest. *The
best central policy* is chosen by its mean at each delay, on the episodes that it is compared on, and anew in every
resample: that flatters central control. The local policy is one for the whole map, so nothing is chosen for it cell by
cell. Intervals are percentiles of the paired bootstrap: evaluation seeds are resampled for all policies at once,
training seeds of each by themselves. Of some ten episodes or fewer they are on the narrow side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments.results import Key, Results, arrays, told_by
from dpem_env.experiments.statistics import LEVEL, RESAMPLES, Interval, percentiles, resampled_means, weights
from dpem_env.support.errors import DpemError, nearest

Array = NDArray[np.float64]

DELIVERY = METRICS["delivery_rate"]
BEST = "the best of them"


class Line(NamedTuple):
    """A local policy minus a central one in a regime, and where it gets ahead."""

    name: str  # of the central policy, or BEST
    differences: tuple[Interval, ...]  # at every delay
    crossover: Interval  # s


class Regime(NamedTuple):
    """A scenario by the values of its two fields: a line for each central policy, then for the best of them."""

    scenario: str
    values: tuple[str, str]
    lines: tuple[Line, ...]


class RegimeMap(NamedTuple):
    """A local policy beside central ones in every regime."""

    local: str  # label
    fields: tuple[str, str]
    delays: tuple[float, ...]  # s, of central policies, rising
    regimes: tuple[Regime, ...]
    episodes: int


def two_fields(summary: dict[str, Any]) -> tuple[str, str] | None:
    """The two fields that scenarios of results differ in, as their names say; None if it is not two of one base."""
    bases, changes = zip(*(told_by(each["name"]) for each in summary["scenarios"]), strict=True)
    if len({(base, *each) for base, each in zip(bases, changes, strict=True)}) > 1:
        return None
    varied = [field for field in changes[0] if len({each[field] for each in changes}) > 1]
    return (varied[0], varied[1]) if len(varied) == 2 else None


def regime_map(results: Results, local: str | None = None) -> RegimeMap:
    """The regimes of results.

    `local`: label of the policy without control delay; by default the reference, or if that is central, of the others
    the one that delivers most over all scenarios. DpemError unless scenarios differ in two fields, and a local policy
    and central ones of the same delays have played them.
    """
    summary = results.summary
    fields = two_fields(summary)
    if fields is None:
        raise DpemError("the scenarios do not differ in two fields; play a suite such as regimes")
    played = {each["name"]: _delivery(results, each["name"]) for each in summary["scenarios"]}
    keys = {each["label"]: Key.of(each) for each in summary["scenarios"][0]["contestants"]}
    central = _central(list(keys.values()))
    delays = tuple(key.delay or 0.0 for key in next(iter(central.values())))
    local = _local(local, summary["reference"], keys, list(played.values()))
    regimes = []
    for name, values in played.items():
        _, world = told_by(name)
        theirs = {rule: np.stack([values[key] for key in line]) for rule, line in central.items()}
        lines = compare_regime(values[keys[local]], theirs, delays, np.random.default_rng(0))
        regimes.append(Regime(name, (world[fields[0]], world[fields[1]]), lines))
    return RegimeMap(local, fields, delays, tuple(regimes), len(summary["scenarios"][0]["episodes"]))


def crossover_table(found: RegimeMap) -> tuple[list[dict[str, Any]], list[str]]:
    """A record per regime with the crossovers as text, and the columns of them.

    "0" is ahead at every delay, "> 2" behind at the longest, of 2 s.
    """
    names = [line.name for line in found.regimes[0].lines]
    records = [
        dict(zip(found.fields, regime.values, strict=True))
        | {"scenario": regime.scenario}
        | {f"line_{n}": _told(line.crossover, found.delays[-1]) for n, line in enumerate(regime.lines)}
        for regime in found.regimes
    ]
    return records, [*found.fields, *(f"{name}: {{line_{n}}}" for n, name in enumerate(names))]


def _told(crossover: Interval, longest: float) -> str:
    value, low, high = (f"> {longest:g}" if each > longest else f"{each:.2f}" if each else "0" for each in crossover)
    return value if np.isnan(crossover.low) else f"{value} [{low}, {high}]"


def compare_regime(
    ours: Array, theirs: Mapping[str, Array], delays: Sequence[float], rng: np.random.Generator
) -> tuple[Line, ...]:
    """A line for every central policy, and for the best of them.

    `ours` (T, E) deliveries of the local policy; `theirs` (K, U, E) by name, at K delays on the same E episodes.
    """
    episodes = weights(ours.shape[-1], RESAMPLES, rng)
    mine = resampled_means(ours[None], weights(len(ours), RESAMPLES, rng), episodes)  # (1 + R, 1)
    means = {
        name: resampled_means(values, weights(values.shape[1], RESAMPLES, rng), episodes)
        for name, values in theirs.items()
    }
    means[BEST] = np.max(list(means.values()), axis=0)
    return tuple(_line(name, mine - each, delays, ours.shape[-1]) for name, each in means.items())


def crossovers(differences: Array, delays: Sequence[float]) -> Array:
    """(R,) delays from which on each of R lines through (R, K) differences at K delays stays at zero or above."""
    found = np.zeros(len(differences))
    behind = differences < 0
    for place in range(len(delays) - 1):  # whoever rises again later, counts from there on
        rises = behind[:, place] & ~behind[:, place + 1]
        here, there = differences[rises, place], differences[rises, place + 1]
        found[rises] = delays[place] + here / (here - there) * (delays[place + 1] - delays[place])
    found[behind[:, -1]] = np.inf
    return found


def _line(name: str, differences: Array, delays: Sequence[float], episodes: int) -> Line:
    """Of (1 + R, K) differences: as they are, then resampled."""
    value, drawn = differences[0], differences[1:]
    each = tuple(percentiles(float(here), column, episodes) for here, column in zip(value, drawn.T, strict=True))
    crossing = crossovers(differences, delays)
    ends = [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]
    # Of some resamples it is infinite, so none of their values may be weighed with another.
    low, high = np.quantile(crossing[1:], ends, method="nearest") if episodes > 1 else (np.nan, np.nan)
    return Line(name, each, Interval(float(crossing[0]), float(low), float(high)))


def _central(keys: Sequence[Key]) -> dict[str, list[Key]]:
    """The central policies by name, each by rising delay; DpemError unless they share two delays or more."""
    lines: dict[str, list[Key]] = {}
    for key in sorted((key for key in keys if key.delay is not None), key=lambda key: key.delay or 0.0):
        lines.setdefault(key.policy + (f"+{key.forecaster}" if key.forecaster else ""), []).append(key)
    delays = {tuple(key.delay for key in line) for line in lines.values()}
    if len(delays) != 1 or len(delays.pop()) < 2:
        raise DpemError("a map of regimes needs central policies that all played the same control delays, two or more")
    return lines


def _local(asked: str | None, reference: str, keys: Mapping[str, Key], played: Sequence[Mapping[Key, Array]]) -> str:
    """Who was asked for, else the reference if it is local, else the local policy that delivers most."""
    local = [label for label, key in keys.items() if key.delay is None]
    if not local:
        raise DpemError("a map of regimes needs a local policy beside central ones")
    if asked is not None and asked not in local:
        raise DpemError(f"{asked!r} is no local policy of these results; {nearest(asked, local)}")
    most = max(local, key=lambda label: sum(float(values[keys[label]].mean()) for values in played))
    return asked or (reference if reference in local else most)


def _delivery(results: Results, scenario: str) -> dict[Key, Array]:
    """(T, E) delivery rates of every contestant."""
    found = arrays(results.frame, scenario)
    played = {key: values[DELIVERY.name] for key, values in found.items() if not key.policy.startswith("bound:")}
    if not all(np.isfinite(values).all() for values in played.values()):
        raise DpemError(f"{scenario} has episodes without requests, which have no {DELIVERY.label}")
    return played
