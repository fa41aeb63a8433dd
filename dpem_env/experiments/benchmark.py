"""A benchmark: a suite played by several policies, resumable, and the summary that compares them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env.experiments.anova import require_statsmodels
from dpem_env.experiments.comparison import Table, compare, on_network_size
from dpem_env.experiments.evaluation import Arm, Method, methods, played_delays, require_delays
from dpem_env.experiments.origins import Origins, changed
from dpem_env.experiments.runs import try_out
from dpem_env.experiments.statistics import Array, normalized_score
from dpem_env.experiments.suites import Suite
from dpem_env.experiments.tuning import Tuned
from dpem_env.experiments.workers import BoundItem, EpisodeItem, WorkItem, expected_of, play, played, require_result_of
from dpem_env.logs.recorder import simulator_version
from dpem_env.report.tables import TABLE, print_benchmark, progress, working
from dpem_env.scenarios import Scenario, Split
from dpem_env.scenarios.data import data_folder, data_missing
from dpem_env.support.errors import DpemError, PolicyError, nearest
from dpem_env.support.files import read_json, require_files, result_folder, write_json

METRICS = tuple(metric for metric, _, _ in TABLE)
FLOOR, BOUND = "random-legal", "clairvoyant"  # ends of the scale of scores
Episodes = dict[EpisodeItem, dict[str, Any]]
Expected = dict[EpisodeItem, dict[str, Any]]  # what each result must say of itself
# What a kept result says of itself: where it belongs, by its name, and what may have changed since.
PLACE = ("scenario", "split", "index", "policy", "delay", "forecaster", "bound")
CONTENT = {
    "format": "the format of results",
    "version": "the version of dpem_env",
    "scenario_hash": "the scenario",
    "seeds": "the seeds",
    "options": "the options",
}


@dataclass(frozen=True)
class Plan:
    """What a benchmark plays: every arm of every method, the first `num_seeds` episodes of a split of every scenario.

    With a bound, every episode is bounded, too, and every method gets a score.
    """

    suite: str
    scenarios: tuple[Scenario, ...]
    methods: tuple[Method, ...]
    reference: Method
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

    def item(self, scenario: Scenario, arm: Arm, index: int) -> WorkItem:
        """An episode of an arm, with the options tuned for the scenario."""
        return WorkItem(scenario, self.split, index, self.tuned.arm(scenario, arm) if self.tuned else arm)

    def played(self, scenario: Scenario, index: int) -> list[WorkItem]:
        """An episode of every arm of every method."""
        return [self.item(scenario, arm, index) for method in self.methods for arm in method.arms]

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
    delays: Sequence[float] = (),
    forecasters: Sequence[str] = (),
    reference: str | None = None,
    split: Split = "evaluation",
    tuned: Tuned | None = None,
    score: bool = False,
    topology: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Plan:
    """The suite's scenarios and delays, or those given instead; the reference is named by policy or label.

    Scenarios whose data is absent are left out, with a line that says so; DpemError if none is left, or if two of them
    have one name. For scores, the random policy is added to the contestants. `topology` plays that one network in place
    of the split's. Whatever is named twice is played once.
    """
    chosen: list[Scenario] = []
    for scenario in suite.settings(scenarios):
        if missing := data_missing(scenario, data_dir):
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
    contestants = [method for name in forecasters or (None,) for method in methods(policies, delays, name)]
    if score and FLOOR not in {method.policy for method in contestants}:
        contestants += methods([FLOOR], ())
    contestants = list(dict.fromkeys(contestants))
    named = {name: method for method in reversed(contestants) for name in (method.policy, method.name, method.label)}
    if reference is not None and reference not in named:
        raise PolicyError(f"--reference is {reference!r}; {nearest(reference, named)}")
    first = contestants[0] if reference is None else named[reference]
    bound = BOUND if score else None
    return Plan(suite.name, tuple(chosen), tuple(contestants), first, num_seeds, split, tuned, bound)


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
    data_dir: str | os.PathLike[str] | None = None,
) -> int:
    """Play what `out` does not hold yet, then compare; returns an exit code. Interrupted, it keeps what is finished.

    Kept episodes that were made from something else, such as other code or another checkpoint of that name, are played
    again; so are those of another scenario of that name.
    """
    folder = data_folder(data_dir)
    folder = folder and folder.resolve()
    origins = Origins(folder)
    expected = {item: expected_of(item, origins) for item in plan.items()}
    kept, _ = _kept(expected, out)
    try_out(list(dict.fromkeys(item.scenario for item in expected if item not in kept)), plan.split, data_dir)
    with result_folder(out):
        episodes, outdated = _kept(expected, out)
        for what, number in outdated.items():
            print(f"playing {number} episode{'s' * (number > 1)} again: {what} changed", file=sys.stderr)
        interrupted = _play_missing(expected, episodes, out, partial(play, data_dir=folder), workers, ray)
        require_files(out, [out / item.file for item in episodes])
        if not interrupted or any(plan.complete_seeds(scenario, episodes) for scenario in plan.scenarios):
            with working("comparing …"):
                summary = summarise(plan, episodes)
            _write_summary(out, summary)
            print_benchmark(summary)
            print(f"wrote {out / 'summary.json'} and {out / 'benchmark.png'}")
    if interrupted:
        print(
            f"interrupted after {len(episodes)} of {len(expected)} episodes; the same command again plays the rest",
            file=sys.stderr,
        )
        return 130
    return 0


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


def _read(path: Path, item: EpisodeItem) -> dict[str, Any]:
    """A result with all that the comparison reads; DpemError for another file."""
    try:
        episode = read_json(path)
        metrics = episode["metrics"]
        for name in METRICS if isinstance(item, WorkItem) else ("delivery_rate",):
            if not isinstance(metrics[name], int | float | None):
                raise ValueError(f"{name} is {metrics[name]!r}")
        if isinstance(item, WorkItem) and not (isinstance(episode["nodes"], int) and episode["nodes"] > 0):
            raise ValueError(f"nodes is {episode['nodes']!r}")
        if not isinstance(episode.setdefault("sources", {}), dict):
            raise ValueError(f"sources is {episode['sources']!r}")
    except Exception as error:  # whatever decoders raise on damaged files
        raise DpemError(f"{path} is no result of an episode; remove it ({type(error).__name__}: {error})") from None
    return episode


def summarise(plan: Plan, episodes: Episodes) -> dict[str, Any]:
    """The comparison as plain data: per scenario, and on network size where scenarios differ in it alone."""
    scenarios, tables = [], []
    for scenario in plan.scenarios:
        indices = plan.complete_seeds(scenario, episodes)
        if not indices:
            continue
        rows = [
            [[episodes[plan.item(scenario, arm, index)] for index in indices] for arm in method.arms]
            for method in plan.methods
        ]
        table: Table = {
            metric: [
                np.array([[episode["metrics"][metric] for episode in of_arm] for of_arm in row], dtype=np.float64)
                for row in rows
            ]
            for metric in METRICS
        }
        bounds = _bounds(plan, scenario, indices, episodes)
        if bounds is not None:
            table["score"] = _scores(plan, table["delivery_rate"], bounds)
        nodes = rows[0][0][0]["nodes"]
        compared = compare(plan.methods, plan.reference, table)
        for method, row in zip(compared["methods"], rows, strict=True):
            method["options"] = row[0][0]["options"]
        scenarios.append(
            {"name": scenario.name, "hash": scenario.hash, "nodes": nodes, "episodes": indices}
            | {"bound": None if bounds is None else {"name": plan.bound, "delivery_rate": bounds.tolist()}}
            | compared
        )
        if len({played.network.generator for played in plan.scenarios}) == 1:
            tables.append((nodes, table))
    return {
        "format": "dpem-benchmark-3",
        "version": simulator_version(),
        "suite": plan.suite,
        "split": plan.split,
        "tuned": plan.tuned is not None,
        "complete": len(episodes) == len(plan.items()),
        "reference": plan.reference.label,
        "scenarios": scenarios,
        "network_size": on_network_size(plan.methods, tables),
    }


def _bounds(plan: Plan, scenario: Scenario, indices: Sequence[int], episodes: Episodes) -> Array | None:
    """(episodes,) the largest delivery rate possible in each, if a bound was computed."""
    items = [plan.bound_item(scenario, index) for index in indices]
    found = [episodes[item]["metrics"]["delivery_rate"] for item in items if item is not None]
    return np.array(found, dtype=np.float64) if found else None


def _scores(plan: Plan, delivery_rates: Sequence[Array], bounds: Array) -> list[Array]:
    """Where each delivery rate lies between acting at random and the bound."""
    [floor] = [rates for method, rates in zip(plan.methods, delivery_rates, strict=True) if method.policy == FLOOR][:1]
    return [normalized_score(rates, floor, bounds) for rates in delivery_rates]


def _write_summary(out: Path, summary: dict[str, Any]) -> None:
    from dpem_env.report.benchmark_figure import save_benchmark_figure

    write_json(out / "summary.json", summary)
    save_benchmark_figure(out / "benchmark.png", summary)
