"""Fronts: policies as curves of delivery against contention, compared as a whole.

Results of several scenarios that differ in what matters to a policy alone, such as the price of contention that it is
tuned or trained for (suite ``fronts``), hold several points of every policy, played on the same episodes. Whoever has
two policies can play one in some episodes and the other in the rest, so every point between two is one that can be had
as well, and doing nothing is a point of everybody: a front is the upper concave envelope of a policy's points and of
the origin, and as high beyond its last point as there. `share` is the mean of a front over contention from 0 to a
limit, which is the area below it, or hypervolume (Zitzler & Thiele, PPSN 1998), over the limit. Intervals resample
evaluation seeds, for all points and policies at once, and each policy's training seeds by themselves: percentiles where
a policy has several, else Student's t over the bootstrap's standard error, as percentiles of few episodes are too near
to each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments.results import Results, records
from dpem_env.experiments.statistics import RESAMPLES, Interval, percentiles, resampled_means, student, weights
from dpem_env.report.envelope import envelope
from dpem_env.report.labels import Estimate, Quantity
from dpem_env.support.errors import DpemError, nearest

Array = NDArray[np.float64]
Means = tuple[Array, Array]  # (1 + resamples, P) of contention and of delivery

CONTENTION, DELIVERY = METRICS["contention"], METRICS["delivery_rate"]
SHARE = Quantity("share", "share below the front", 4)
NEARLY = 0.9  # of its best delivery: points that deliver less are no rivals
CONFIDENCE = 0.99  # of one-sided bounds
LEVELS = 4  # levels of contention that fronts are compared at, unless they are named


class Points(NamedTuple):
    """All points of a policy: P scenarios by T training seeds by E episodes, or networks of several episodes each."""

    contention: Array  # (P, T, E)
    delivery: Array  # (P, T, E)


class Comparison(NamedTuple):
    """A front beside that of the reference; of the reference itself, nothing but zeros beside."""

    share: Interval
    delivery: tuple[Interval, ...]  # height at every level
    more: Interval  # share minus that of the reference
    higher: tuple[Interval, ...]  # height minus that of the reference, at every level


def points_of(results: Results) -> dict[str, Points]:
    """Of every contestant by its label; DpemError unless all played all scenarios, which differ in rewards alone."""
    _require_one_world(results.summary["scenarios"])
    found: dict[str, list[tuple[Array, ...]]] = {}
    networks = {each["name"]: [seeds["topology"] for seeds in each["seeds"]] for each in results.summary["scenarios"]}
    for each in records(results):
        if not each["policy"].startswith("bound:"):
            values = tuple(each[quantity.name].values for quantity in (CONTENTION, DELIVERY))
            if any(value is None for value in values):
                raise DpemError(f"the values of {each['label']} on {each['scenario']} are not kept")
            averaged = tuple(by_network(value, networks[each["scenario"]]) for value in values)
            found.setdefault(each["label"], []).append(averaged)
    scenarios = len(results.summary["scenarios"])
    for label, pairs in found.items():
        if len(pairs) != scenarios or len({pair[0].shape for pair in pairs}) > 1:
            raise DpemError(f"{label} did not play all {scenarios} scenarios alike; play the missing ones first")
    return {label: Points(*(np.stack(column) for column in zip(*pairs, strict=True))) for label, pairs in found.items()}


def by_network(values: Array, topologies: Sequence[int]) -> Array:
    """(T, E) values of episodes on these networks; (T, N) their means by network if each was played as often as others.

    Episodes on one network are alike: what is drawn anew, and resampled, is then the network. Episodes that are all on
    one network, or on networks of their own, stay as they are.
    """
    _, number, counts = np.unique(topologies, return_inverse=True, return_counts=True)
    if len(counts) == 1 or counts.min() != counts.max():
        return values
    grouped = values[:, np.argsort(number, kind="stable")].reshape(len(values), len(counts), -1)
    means: Array = grouped.mean(axis=2)
    return means


def _require_one_world(scenarios: Sequence[Mapping[str, Any]]) -> None:
    """DpemError if points would be of different networks or demands: a front is what can be had in one of them."""
    first, *others = ({**each["scenario"], "name": "", "summary": "", "reward": ""} for each in scenarios)
    for place, other in enumerate(others, start=1):
        if apart := [section for section in other if other[section] != first.get(section)]:
            raise DpemError(
                f"{scenarios[0]['name']} and {scenarios[place]['name']} differ in {', '.join(apart)}: a front is of "
                "scenarios that differ in rewards alone, such as those of dpem benchmark fronts with one --scenario"
            )


def heights(contention: Array, delivery: Array, levels: Array) -> Array:
    """(R, K) height of each of R fronts of (R, P) points at (K,) levels of contention."""
    rows = []
    for x, y in zip(contention, delivery, strict=True):
        corners = envelope(x, y)
        rows.append(np.interp(levels, *corners))
    return np.array(rows)


def shares(contention: Array, delivery: Array, limit: float) -> Array:
    """(R,) mean height of each of R fronts of (R, P) points over contention from 0 to the limit."""
    areas = []
    for x, y in zip(contention, delivery, strict=True):
        corner, height = envelope(x, y)
        across = np.append(corner[corner < limit], limit)
        areas.append(np.trapezoid(np.interp(across, corner, height), across))
    return np.array(areas) / limit


def compare_fronts(
    points: Mapping[str, Points], reference: str, limit: float, levels: Sequence[float], rng: np.random.Generator
) -> dict[str, Comparison]:
    """Every policy's front beside that of the reference, over contention up to the limit, and at some levels."""
    at = np.asarray(levels, dtype=np.float64)
    number = points[reference].delivery.shape[2]
    episodes = weights(number, RESAMPLES, rng)
    found = {label: resampled(each, episodes, rng) for label, each in points.items()}
    areas = {label: shares(*means, limit) for label, means in found.items()}
    tall = {label: heights(*means, at) for label, means in found.items()}

    def intervals(estimates: Array, *of: str) -> Interval:
        return _interval(estimates, number, max(points[label].delivery.shape[1] for label in of))

    return {
        label: Comparison(
            intervals(areas[label], label),
            tuple(intervals(column, label) for column in tall[label].T),
            intervals(areas[label] - areas[reference], label, reference),
            tuple(intervals(column, label, reference) for column in (tall[label] - tall[reference]).T),
        )
        for label in points
    }


def resampled(points: Points, episodes: Array, rng: np.random.Generator) -> Means:
    """(1 + resamples, P) means of contention and of delivery by weights of episodes: as they are, then resampled."""
    seeds = weights(points.delivery.shape[1], len(episodes), rng)
    contention, delivery = (resampled_means(values, seeds, episodes) for values in points)
    return contention, delivery


def _interval(estimates: Array, episodes: int, trainings: int) -> Interval:
    """Of the first estimate, by all others, which were resampled from so many seeds."""
    value, drawn = float(estimates[0]), estimates[1:]
    if trainings > 1:
        return percentiles(value, drawn, trainings * episodes)
    return student(value, float(standard_error(drawn, episodes)), episodes)


def standard_error(drawn: Array, number: int) -> Any:
    """(R, …) to (…): of estimates that were resampled R times from so many episodes, or networks."""
    return drawn.std(axis=0) * math.sqrt(number / max(number - 1, 1))


class Claim(NamedTuple):
    """What can be said of one point beside every point of another policy: ratios of means, the worst, and its bound."""

    delivery: float  # the least
    delivery_above: float  # all ratios are above it
    contention: float  # the largest
    contention_below: float  # all are below it


def claims(points: Mapping[str, Points], ours: str, theirs: str, rng: np.random.Generator) -> list[Claim]:
    """Of each point of a policy beside all of another's that deliver at least `NEARLY` of its best.

    Bounds are one-sided, of `CONFIDENCE` each, by Student's t over the bootstrap's standard error of the logarithm. To
    hold against every point is an intersection-union test (Berger, Technometrics 1982): each is tested at full level.
    """
    number = points[ours].delivery.shape[2]
    episodes = weights(number, RESAMPLES, rng)
    mine, other = (resampled(points[label], episodes, rng) for label in (ours, theirs))
    width = float(stats.t.ppf(CONFIDENCE, number - 1))
    told = []
    for point in range(len(points[ours].delivery)):
        contention, delivery = beside_rivals(mine, point, other)
        least, most = delivery[0].min(), contention[0].max()
        with np.errstate(invalid="ignore"):
            above = (delivery[0] - width * standard_error(delivery[1:], number)).min()
            below = (contention[0] + width * standard_error(contention[1:], number)).max()
        told.append(Claim(*(float(np.exp(each)) for each in (least, above, most, below))))
    return told


def beside_rivals(ours: Means, place: int, theirs: Means) -> Means:
    """Logarithms of ratios of one of our points to those of theirs that deliver at least `NEARLY` of their best."""
    rivals = theirs[1][0] >= NEARLY * theirs[1][0].max()
    with np.errstate(divide="ignore", invalid="ignore"):  # without contention a ratio is infinite, or unknown
        contention, delivery = (
            np.log(mean[:, [place]]) - np.log(of[:, rivals]) for mean, of in zip(ours, theirs, strict=True)
        )
    return contention, delivery


class FrontTable(NamedTuple):
    """Fronts as tables: a record per policy, the highest share first, and the columns of what is told of them."""

    records: list[dict[str, Any]]
    fronts: list[str]  # columns of each front by itself
    differences: list[str]  # columns of those beside the reference
    limit: float
    points: int  # of every policy
    episodes: int
    observed: str  # what of them an observation is: an episode, or a network


def front_table(
    results: Results, reference: str | None = None, limit: float | None = None, levels: Sequence[float] = ()
) -> FrontTable:
    """What fronts come to, and beside that of a reference.

    `reference`: a label (default: that of the results). `limit`: by default the contention of the reference's most
    contended point. `levels`: by default `LEVELS` of them, evenly up to the limit. DpemError for what there is none of.
    """
    points = points_of(results)
    reference = results.summary["reference"] if reference is None else reference
    if reference not in points:
        raise DpemError(f"--reference is {reference!r}; {nearest(str(reference), points)}")
    if limit is None:
        limit = float(points[reference].contention.mean(axis=(1, 2)).max())
        if limit == 0.0:
            raise DpemError(f"{reference} has no contention at any of its points; pass --limit")
    levels = levels or [limit * (place + 1) / LEVELS for place in range(LEVELS)]
    compared = compare_fronts(points, reference, limit, levels, np.random.default_rng(0))
    told = []
    for label, each in sorted(compared.items(), key=lambda item: -item[1].share.value):
        record: dict[str, Any] = {"policy": label, "share": Estimate(SHARE, *each.share)}
        record |= {f"delivery_{n}": Estimate(DELIVERY, *found) for n, found in enumerate(each.delivery)}
        if label != reference:
            record["more"] = Estimate(SHARE, *each.more)
            record |= {f"higher_{n}": Estimate(DELIVERY, *found) for n, found in enumerate(each.higher)}
        told.append(record)
    played, observed = len(results.summary["scenarios"][0]["episodes"]), points[reference].delivery.shape[2]
    titles = {n: f"at {level:.3g}" for n, level in enumerate(levels)}
    return FrontTable(
        told,
        [" : {policy}", "share: {share:interval}", *(f"{at}: {{delivery_{n}:interval}}" for n, at in titles.items())],
        [" : {policy}", "share: {more:change}", *(f"{at}: {{higher_{n}:change}}" for n, at in titles.items())],
        limit,
        len(points[reference].delivery),
        played,
        "episode" if observed == played else "network",
    )
