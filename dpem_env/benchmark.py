"""A benchmark: a suite played by several policies, resumable, and the summary that compares them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env.anova import require_statsmodels
from dpem_env.comparison import Table, compare, on_network_size
from dpem_env.errors import DpemError, PolicyError, nearest
from dpem_env.evaluation import Arm, Method, methods
from dpem_env.files import make_writable, write_json
from dpem_env.records import simulator_version
from dpem_env.reports import TABLE, print_benchmark, progress, working
from dpem_env.runs import try_out
from dpem_env.scenarios import Scenario, Split
from dpem_env.statistics import Array, normalized_score
from dpem_env.suites import Suite, data_missing
from dpem_env.topology import data_folder
from dpem_env.tuning import Tuned
from dpem_env.work import BoundItem, EpisodeItem, WorkItem, play, played

METRICS = tuple(metric for metric, _, _ in TABLE)
FLOOR, BOUND = "random-legal", "clairvoyant"  # ends of the scale of scores
Episodes = dict[EpisodeItem, dict[str, Any]]


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

    Scenarios whose data is absent are left out, with a line that says so; DpemError if none is left. For scores, the
    random policy is added to the contestants. `topology` plays that one network in place of the split's.
    """
    chosen = []
    for scenario in suite.settings(scenarios):
        if missing := data_missing(scenario, data_dir):
            print(f"{scenario.name} left out: no {', '.join(missing)} data (dpem list says where to get it)")
        else:
            chosen.append(scenario if topology is None else scenario.on_topology(topology, split))
    if not chosen:
        raise DpemError(f"suite {suite.name}: no scenario is left to play; pass --data DIR or set DPEM_DATA")
    if len(forecasters) > 1:  # architecture by prediction; told before hours are played
        require_statsmodels()
    delays = delays or suite.delays
    contestants = [method for name in forecasters or (None,) for method in methods(policies, delays, name)]
    if score and FLOOR not in {method.policy for method in contestants}:
        contestants += methods([FLOOR], ())
    named = {name: method for method in reversed(contestants) for name in (method.policy, method.name, method.label)}
    if reference is not None and reference not in named:
        raise PolicyError(f"--reference is {reference!r}; {nearest(reference, named)}")
    first = contestants[0] if reference is None else named[reference]
    bound = BOUND if score else None
    return Plan(suite.name, tuple(chosen), tuple(contestants), first, num_seeds, split, tuned, bound)


def run_benchmark(
    plan: Plan,
    out: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> int:
    """Play what `out` does not hold yet, then compare; returns an exit code. Interrupted, it keeps what is finished."""
    items = plan.items()
    episodes = _finished(items, out)
    missing = [item for item in items if item not in episodes]
    try_out(list(dict.fromkeys(item.scenario for item in missing)), plan.split, data_dir)
    make_writable(out)
    folder = data_folder(data_dir)
    function = partial(play, data_dir=folder and folder.resolve())
    interrupted = False
    with progress() as bar, closing(played(function, missing, workers, ray)) as results:
        task = bar.add_task("playing", total=len(items), completed=len(episodes))
        try:
            for item, episode in results:
                _require_result_of(item, episode, "a worker")
                path = out / item.file
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, episode)
                episodes[item] = episode
                bar.update(task, advance=1, description=f"{item.scenario.name}: {', '.join(item.name)}")
        except KeyboardInterrupt:
            interrupted = True
    if not interrupted or any(plan.complete_seeds(scenario, episodes) for scenario in plan.scenarios):
        with working("comparing …"):
            summary = summarise(plan, episodes)
        _write_summary(out, summary)
        print_benchmark(summary)
        print(f"wrote {out / 'summary.json'} and {out / 'benchmark.png'}")
    if interrupted:
        print(
            f"interrupted after {len(episodes)} of {len(items)} episodes; the same command again plays the rest",
            file=sys.stderr,
        )
        return 130
    return 0


def _finished(items: Sequence[EpisodeItem], out: Path) -> Episodes:
    """The items whose results `out` holds; DpemError if it holds any of another version or scenario of that name."""
    hashes = {item.scenario.name: item.scenario.hash for item in items}
    found = {path: _read(path) for path in sorted(out.glob("episodes/*/*.json"))}
    for path, episode in found.items():
        wanted = {"version": simulator_version(), "scenario_hash": hashes.get(episode["scenario"])}
        for name, value in wanted.items():
            if value is not None and episode[name] != value:
                raise DpemError(f"{path} has {name} {episode[name]}, this run {value}; give another --out")
    episodes = {item: found[out / item.file] for item in items if out / item.file in found}
    for item, episode in episodes.items():
        _require_result_of(item, episode, str(out / item.file))
    return episodes


def _read(path: Path) -> dict[str, Any]:
    try:
        episode = json.loads(path.read_text(encoding="utf-8"))
        metrics = {"delivery_rate"} if "bound" in episode else set(METRICS)
        if episode["metrics"].keys() >= metrics and episode.keys() >= {"version", "scenario", "scenario_hash"}:
            return dict(episode)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    raise DpemError(f"{path} is no result of an episode; remove it")


def _require_result_of(item: EpisodeItem, episode: dict[str, Any], origin: str) -> None:
    for name, value in item.identity().items():
        if episode.get(name) != value:
            raise DpemError(f"{origin} has a result with {name} {episode.get(name)}, this run {value}")


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
    from dpem_env.render.benchmark_figure import save_benchmark_figure

    write_json(out / "summary.json", summary)
    save_benchmark_figure(out / "benchmark.png", summary)
