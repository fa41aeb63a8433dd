"""A run: a benchmark of one scenario, played here and now, that also keeps episode logs and a map of the load."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID

from dpem_env.envs.session import Session
from dpem_env.experiments.benchmark import Episodes, Plan, conclude, try_out
from dpem_env.experiments.evaluation import Recorder
from dpem_env.experiments.origins import Origins, Sources, unchanged
from dpem_env.experiments.results import FRAME, PICTURE, SUMMARY
from dpem_env.experiments.workers import WorkItem
from dpem_env.logs.recorder import EpisodeRecorder
from dpem_env.policies import Decision
from dpem_env.report.tables import progress
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import file_name, require_files, result_folder


def run_and_log(plan: Plan, out: Path, *, log_all: bool = False) -> int:
    """Play a plan of one scenario and write everything to `out`; returns an exit code.

    Of every policy the first episode is logged, or all. Interrupted, it keeps what was finished. Raises PolicyError for
    fewer than one seed.
    """
    if plan.num_seeds < 1:
        raise PolicyError(f"seeds must be at least 1, given {plan.num_seeds}")
    [scenario] = plan.scenarios
    try_out(plan.played(scenario, 0))
    with result_folder(out):
        episodes, meter = Episodes(), LoadMeter()
        interrupted = _play(plan, episodes, meter, out, log_all)
        complete = len(plan.complete_seeds(scenario, episodes))
        if complete == 0:
            print("dpem: interrupted before the first seed was finished; no results", file=sys.stderr)
            return 130
        conclude(plan, episodes, out, {scenario.name: meter.load(plan.contestants[0].label)})
        print(f"wrote {out / FRAME}, {SUMMARY}, {PICTURE} and episode logs (*.parquet)")
        if interrupted:
            print(f"interrupted after {complete} of {plan.num_seeds} seeds; results hold these")
            return 130
    return 0


def _play(plan: Plan, episodes: Episodes, meter: LoadMeter, out: Path, log_all: bool) -> bool:
    """Play all episodes, log them and put them into `episodes`; returns whether Ctrl-C ended it."""
    [scenario] = plan.scenarios
    items = [item for index in range(plan.num_seeds) for item in plan.played(scenario, index)]
    policies = list(dict.fromkeys(item.policy for item in items))
    saved: list[Path] = []

    def sources(origins: Origins) -> list[Sources]:
        return [origins.of_scenario(scenario), *map(origins.of_policy, policies)]

    interrupted = False
    with unchanged(sources), progress() as bar:
        found: Sources = {name: content for each in sources(Origins()) for name, content in each.items()}
        task = bar.add_task("", total=len(items))
        try:
            for item in items:
                described = f"seed {item.index + 1} of {plan.num_seeds}: {item.policy.label}"
                bar.update(task, completed=len(episodes), description=described)
                log = EpisodeRecorder() if log_all or item.index == 0 else None
                watching: list[Recorder | None] = [_Ticker(bar, task), log, meter if item == items[0] else None]
                result = item.play(_Several([one for one in watching if one is not None]))
                if log is not None:
                    path = _log_path(out, item)
                    log.save(path)
                    saved.append(path)
                episodes[item] = item.identity() | result | {"sources": found}
        except KeyboardInterrupt:
            interrupted = True
    require_files(out, saved)
    return interrupted


def _log_path(out: Path, item: WorkItem) -> Path:
    return out / f"{file_name(*item.policy.file_parts)}-{item.index}.parquet"


class LoadMeter:
    """Mean load of nodes and links over the slots recorded."""

    def begin(self, session: Session, label: str) -> None:
        """Start from nothing."""
        self.network = session.network
        self.slots = 0
        self.memory_used = np.zeros(session.network.num_nodes)  # (N,) share of qubits, summed over slots
        self.allocations = np.zeros(session.network.topology.num_links)  # (L,) open allocations, summed over slots

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        """Add one slot."""
        from dpem_env.report.network_map import current_load

        memory, allocations = current_load(session.network, session.simulator.state)
        self.memory_used += memory
        self.allocations += allocations
        self.slots += 1

    def load(self, under: str) -> Any:
        """The means, for a map."""
        from dpem_env.report.results_figure import Load

        return Load(self.network, self.memory_used / self.slots, self.allocations / self.slots, under)


class _Ticker:
    """Moves the progress bar on with every slot, one per episode."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar, self.task = bar, task

    def begin(self, session: Session, label: str) -> None:
        pass

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        self.bar.advance(self.task, 1 / session.slots)


class _Several:
    """Several recorders as one."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self.recorders = recorders

    def begin(self, session: Session, label: str) -> None:
        for recorder in self.recorders:
            recorder.begin(session, label)

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        for recorder in self.recorders:
            recorder.record(session, decision, forecast)
