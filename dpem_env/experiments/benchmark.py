"""A benchmark: a suite played by several policies, resumable, and the summary that compares them."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from dpem_env.envs.metric_labels import HEADLINE, METRICS, SCORE
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments import results
from dpem_env.experiments.anova import require_statsmodels
from dpem_env.experiments.comparison import compare, on_network_size
from dpem_env.experiments.contestants import Contestant, PolicySpec, contestants, played_delays, require_delays
from dpem_env.experiments.origins import Origins, changed
from dpem_env.experiments.results import FRAME, PICTURE, SUMMARY, Key, Results, Rows
from dpem_env.experiments.statistics import Array, mean_interval, normalized_score
from dpem_env.experiments.suites import Suite
from dpem_env.experiments.tuning import Tuned
from dpem_env.experiments.workers import BoundItem, EpisodeItem, WorkItem, expected_of, play, played, require_result_of
from dpem_env.logs.recorder import simulator_version
from dpem_env.policy_contract import check_forecaster, check_policy
from dpem_env.report.tables import print_results, progress, working
from dpem_env.scenarios import Scenario, Split
from dpem_env.scenarios.data import data_folder, data_missing
from dpem_env.scenarios.schema import Count
from dpem_env.support.errors import DpemError, DpemWarning, PolicyError, nearest
from dpem_env.support.files import (
    Part,
    checked,
    read_json,
    reading,
    require_files,
    result_folder,
    write_json,
)
from dpem_env.support.own_code import Place
from dpem_env.support.provenance import stamp
from dpem_env.support.seeding import generator

if TYPE_CHECKING:
    from dpem_env.report.results_figure import Load

FLOOR, BOUND = "random-legal", "clairvoyant"  # ends of the scale of scores
Episodes = dict[EpisodeItem, dict[str, Any]]
Expected = dict[EpisodeItem, dict[str, Any]]  # what each result must say of itself
# What a kept result says of itself: where it belongs, by its name, and what may have changed since.
PLACE = ("scenario", "split", "index", "policy", "delay", "forecaster", "bound")
CONTENT = {
    "format": "the format of results",
    "stamp": "the code of dpem_env",
    "scenario_hash": "the scenario",
    "seeds": "the seeds",
    "options": "the options",
    "plays": "what plays under its label",
}


@dataclass(frozen=True)
class Plan:
    """What is played: every policy of all contestants, the first `num_seeds` episodes of a split of every scenario.

    With a bound, every episode is bounded, too, and every contestant gets a score.
    """

    suite: str
    scenarios: tuple[Scenario, ...]
    contestants: tuple[Contestant, ...]
    reference: Contestant
    num_seeds: int
    split: Split = "evaluation"
    tuned: Tuned | None = None
    bound: str | None = None

    def items(self) -> list[EpisodeItem]:
        """All work, seed by seed: an interrupted benchmark compares the seeds it finished."""
        return [
            item
            for index in range(self.num_seeds)
            for scenario in self.scenarios
            for item in (*self.played(scenario, index), self.bound_item(scenario, index))
            if item is not None
        ]

    def item(self, scenario: Scenario, policy: PolicySpec, index: int) -> WorkItem:
        """An episode of a policy, with the options tuned for the scenario, or for the network that is played."""
        topology = episode_seeds(scenario, self.split, index).topology
        tuned = self.tuned.policy(scenario, policy, topology) if self.tuned else policy
        return WorkItem(scenario, self.split, index, tuned)

    def played(self, scenario: Scenario, index: int) -> list[WorkItem]:
        """An episode of every policy of every contestant."""
        return [self.item(scenario, policy, index) for each in self.contestants for policy in each.policies]

    def bound_item(self, scenario: Scenario, index: int) -> BoundItem | None:
        """The bound of an episode, if there is to be one."""
        return BoundItem(scenario, self.split, index, self.bound) if self.bound else None

    def complete_seeds(self, scenario: Scenario, episodes: Episodes) -> list[int]:
        """Indices of the episodes of which all is known."""
        return [
            index
            for index in range(self.num_seeds)
            if all(item in episodes for item in self.played(scenario, index))
            and (self.bound is None or self.bound_item(scenario, index) in episodes)
        ]


def make_plan(
    suite: Suite,
    policies: Sequence[str],
    num_seeds: int,
    *,
    scenarios: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    delays: Sequence[float] = (),
    forecasters: Sequence[str] = (),
    reference: str | None = None,
    split: Split = "evaluation",
    tuned: Tuned | None = None,
    score: bool = False,
    topology: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    trust: Sequence[str | os.PathLike[str]] = (),
) -> Plan:
    """The suite's scenarios and delays, or those given instead; the reference is named by policy or label.

    `changes` to fields of scenarios are made before the suite varies them.

    Scenarios whose data is absent are left out, with a line that says so; DpemError if none is left, or if two of them
    have one name. For scores, the random policy is added to the contestants. `topology` plays that one network in place
    of the split's. Whatever is named twice is played once. Code in the files of `trust` may be run.
    """
    chosen: list[Scenario] = []
    for scenario in suite.settings(scenarios, data_dir, changes):
        if missing := data_missing(scenario):
            print(f"{scenario.name} left out: no {', '.join(missing)} data (dpem list says where to get it)")
        else:
            chosen.append(scenario if topology is None else scenario.on_topology(topology, split))
    if not chosen:
        raise DpemError(f"suite {suite.name}: no scenario is left to play; pass --data DIR or set DPEM_DATA")
    chosen = list(dict.fromkeys(chosen))
    _require_names_of_their_own(chosen)
    for scenario in chosen:
        require_delays(delays, scenario)
    forecasters = list(dict.fromkeys(forecasters))
    if len(forecasters) > 1:  # architecture by prediction; told before hours are played
        require_statsmodels()
    delays = played_delays(chosen, delays or suite.delays)
    found = contestants(policies, delays, forecasters, trust)
    if score and FLOOR not in {policy.name for each in found for policy in each.policies}:
        found += contestants([FLOOR], ())
    found = list(dict.fromkeys(found))
    named = {name: each for each in reversed(found) for name in (each.policy, each.name, each.label)}
    if reference is not None and reference not in named:
        raise PolicyError(f"--reference is {reference!r}; {nearest(reference, named)}")
    first = found[0] if reference is None else named[reference]
    bound = BOUND if score else None
    return Plan(suite.name, tuple(chosen), tuple(found), first, num_seeds, split, tuned, bound)


def _require_names_of_their_own(chosen: Sequence[Scenario]) -> None:
    """Results are kept and told by the names of scenarios."""
    known: dict[str, Scenario] = {}
    for scenario in chosen:
        if known.setdefault(scenario.name, scenario) != scenario:
            raise DpemError(f"two scenarios are called {scenario.name!r}: give one of them another name")


def run_benchmark(
    plan: Plan,
    out: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
) -> int:
    """Play what `out` does not hold yet, then compare; returns an exit code. Interrupted, it keeps what is finished.

    Kept episodes that were made from something else, such as other code or another checkpoint of that name, are played
    again; so are those of another scenario of that name.
    """
    at_hand = [scenario.override(data_dir=data_folder(scenario.data_dir)) for scenario in plan.scenarios]
    plan, origins = replace(plan, scenarios=tuple(at_hand)), Origins()  # another machine has no DPEM_DATA
    expected = {item: expected_of(item, origins) for item in plan.items()}
    kept, _ = _kept(expected, out)
    try_out([item for item in expected if item not in kept])
    with result_folder(out):
        episodes, outdated = _kept(expected, out)
        for what, number in outdated.items():
            print(f"playing {number} episode{'s' * (number > 1)} again: {what} changed", file=sys.stderr)
        interrupted = _play_missing(expected, episodes, out, play, workers, ray)
        require_files(out, [out / item.file for item in episodes])
        if not interrupted or any(plan.complete_seeds(scenario, episodes) for scenario in plan.scenarios):
            conclude(plan, episodes, out)
            print(f"wrote {out / FRAME}, {SUMMARY} and {PICTURE}")
    if interrupted:
        print(
            f"interrupted after {len(episodes)} of {len(expected)} episodes; the same command again plays the rest",
            file=sys.stderr,
        )
        return 130
    return 0


def try_out(items: Iterable[EpisodeItem]) -> None:
    """Play a slot of each scenario: bad input, or a network too big for this machine, fails before anything is written.

    Policies and forecasters that users have brought must keep their contracts.
    """
    items = list(items)
    with working("preparing (compiles the simulator once) …"):
        for scenario, split in dict.fromkeys((item.scenario, item.split) for item in items):
            trial = Session(scenario)
            trial.begin(episode_seeds(scenario, split, 0))
            trial.step(np.zeros(trial.network.num_nodes))
            if getattr(scenario.demand, "request_rate", 1.0) == 0.0:
                told = "demand.request_rate is 0, so nobody asks for anything"
                warnings.warn(DpemWarning(scenario.name, told), stacklevel=2)
        played = ((item.scenario, item.split, item.policy) for item in items if isinstance(item, WorkItem))
        for scenario, split, policy in dict.fromkeys(played):
            if policy.forecaster and Place.parse(policy.forecaster):
                check_forecaster(policy.forecaster, scenario, split=split, called=f"forecaster {policy.forecaster}")
            if policy.own:
                check_policy(
                    policy.make(), scenario, split=split, forecaster=policy.forecaster, called=f"policy {policy.label}"
                )


def conclude(plan: Plan, episodes: Episodes, out: Path, loads: Mapping[str, Load] | None = None) -> None:
    """Compare, write table, summary and picture, print; `loads` are those of the scenarios that have a map."""
    from dpem_env.report.results_figure import save_results_figure

    with working("comparing …"):
        found = summarise(plan, episodes)
    results.write(out, found)
    pictured = [METRICS["delivery_rate"], METRICS["contention"]]
    save_results_figure(out / PICTURE, results.panelled(found), pictured, METRICS["reward"], loads)
    scored = [SCORE] * (plan.bound is not None)
    headline = [METRICS[metric] for metric in (*HEADLINE, "latency")]
    print_results(found.summary, results.records(found), [*METRICS.values(), *scored], headline + scored)


def _play_missing(
    expected: Expected,
    episodes: Episodes,
    out: Path,
    function: Callable[[EpisodeItem], dict[str, Any]],
    workers: int,
    ray: str | None,
) -> bool:
    """Play what `episodes` lacks and keep it there and in `out`; returns whether Ctrl-C ended it."""
    missing = [item for item in expected if item not in episodes]
    (out / "episodes").mkdir(exist_ok=True)
    with progress() as bar, closing(played(function, missing, workers, ray)) as results:
        task = bar.add_task("playing", total=len(expected), completed=len(episodes))
        try:
            for item, episode in results:
                require_result_of(expected[item], episode, "a worker")
                path = out / item.file
                path.parent.mkdir(exist_ok=True)  # but none above it: whoever removed those wants no results
                write_json(path, episode)
                episodes[item] = episode
                bar.update(task, advance=1, description=f"{item.scenario.name}: {', '.join(item.name)}")
        except KeyboardInterrupt:
            return True
    return False


def _kept(expected: Expected, out: Path) -> tuple[Episodes, Counter[str]]:
    """The results that `out` holds, and of how many others what has changed; DpemError for what is no result."""
    episodes: Episodes = {}
    outdated: Counter[str] = Counter()
    for item, wanted in expected.items():
        path = out / item.file
        if not path.exists():
            continue
        episode = _read(path, item)
        for name in PLACE:
            if episode.get(name) != wanted.get(name):
                raise DpemError(
                    f"{path} has a result with {name} {episode.get(name)}, this run {wanted.get(name)}; remove it"
                )
        changes = [word for name, word in CONTENT.items() if episode.get(name) != wanted.get(name)]
        if not changes:
            changes = changed(wanted["sources"], episode["sources"])
        if changes:
            outdated[", ".join(changes)] += 1
        else:
            episodes[item] = episode
    return episodes, outdated


class _Bounded(Part):
    metrics: dict[str, Any]
    sources: dict[str, str] = Field(default_factory=dict)  # none in results of before they were kept


class _Played(_Bounded):
    nodes: Count


def _read(path: Path, item: EpisodeItem) -> dict[str, Any]:
    """A result with all that the comparison reads; DpemError for another file."""
    of_policy = isinstance(item, WorkItem)
    with reading("result of an episode", path, remedy="remove it"):
        episode = read_json(path)
        checked(_Played if of_policy else _Bounded, episode, "it")
        episode.setdefault("sources", {})
        for name in METRICS if of_policy else ("delivery_rate",):
            if not isinstance(value := episode["metrics"][name], int | float | None):
                raise ValueError(f"{name} is {value!r}; expected a number")
    return episode


def summarise(plan: Plan, episodes: Episodes) -> Results:
    """All values, and the comparison: per scenario, and on network size where scenarios differ in it alone.

    Of the seeds that all contestants have finished.
    """
    rows = Rows()
    for scenario in plan.scenarios:
        _add_episodes(rows, plan, scenario, episodes)
    frame = rows.frame()
    scenarios, tables = [], []
    for scenario in plan.scenarios:
        indices = plan.complete_seeds(scenario, episodes)
        if not indices:
            continue
        values = results.arrays(frame, scenario.name)
        metrics = [*METRICS, SCORE.name] if plan.bound else list(METRICS)
        table = {metric: [values[Key.of(each)][metric] for each in plan.contestants] for metric in metrics}
        compared = compare(plan.contestants, plan.reference, table)
        for told, each in zip(compared["contestants"], plan.contestants, strict=True):
            told["policies"] = [policy.name for policy in each.policies]
            told["options"] = dict(plan.item(scenario, each.policies[0], indices[0]).policy.options)
        nodes = episodes[plan.played(scenario, indices[0])[0]]["nodes"]
        scenarios.append(
            {
                "name": scenario.name,
                "hash": scenario.hash,
                "scenario": scenario.model_dump(mode="json", exclude_none=True),
                "nodes": nodes,
                "episodes": indices,
                "seeds": [plan.played(scenario, index)[0].seeds._asdict() for index in indices],
                "bound": None if plan.bound is None else _bound(plan.bound, values),
            }
            | compared
        )
        if len({played.network.generator for played in plan.scenarios}) == 1:
            tables.append((nodes, table))
    summary = {
        "format": results.FORMAT,
        "version": simulator_version(),
        "stamp": stamp(),
        "suite": plan.suite,
        "split": plan.split,
        "tuned": plan.tuned is not None,
        "complete": len(episodes) == len(plan.items()),
        "reference": plan.reference.label,
        "sources": {name: content for each in episodes.values() for name, content in each.get("sources", {}).items()},
        "scenarios": scenarios,
        "network_size": on_network_size(plan.contestants, tables),
    }
    return Results(summary, frame)


def _add_episodes(rows: Rows, plan: Plan, scenario: Scenario, episodes: Episodes) -> None:
    """Of the complete seeds of a scenario; with a bound, the score of every episode among its metrics."""
    for index in plan.complete_seeds(scenario, episodes):
        scores: dict[PolicySpec, Array] = {}
        bound = plan.bound_item(scenario, index)
        if bound is not None:
            most = episodes[bound]["metrics"]["delivery_rate"]
            rows.add(
                scenario.name, scenario.hash, Key(f"bound:{bound.bound}", None, None), 0, index, {"delivery_rate": most}
            )
            scores = _scores(plan, scenario, index, episodes, most)
        for each in plan.contestants:
            for number, policy in enumerate(each.policies):
                metrics = dict(episodes[plan.item(scenario, policy, index)]["metrics"])
                if policy in scores:
                    metrics[SCORE.name] = float(scores[policy])
                rows.add(scenario.name, scenario.hash, Key.of(each), number, index, metrics)


def _scores(plan: Plan, scenario: Scenario, index: int, episodes: Episodes, bound: float) -> dict[PolicySpec, Array]:
    """Where each delivery rate lies between acting at random and the bound."""
    policies = [policy for each in plan.contestants for policy in each.policies]
    rates = {policy: episodes[plan.item(scenario, policy, index)]["metrics"]["delivery_rate"] for policy in policies}
    [floor] = [rates[policy] for policy in policies if policy.name == FLOOR][:1]
    known = {policy: np.nan if rate is None else rate for policy, rate in rates.items()}
    return {policy: normalized_score(rate, floor, bound) for policy, rate in known.items()}


def _bound(name: str, values: dict[Key, dict[str, Array]]) -> dict[str, Any]:
    """The mean of the largest delivery rates possible."""
    rates = values[Key(f"bound:{name}", None, None)]["delivery_rate"]
    mean = mean_interval(rates, generator("benchmark bound")) if np.isfinite(rates).all() else None
    return {"name": name, "delivery_rate": None if mean is None else mean._asdict()}
