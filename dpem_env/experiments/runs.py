"""One run from the command line: evaluate, show progress, write table, results, picture and logs."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID

from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.evaluation import Arm, ArmResult, Recorder, evaluate, paired_difference
from dpem_env.experiments.origins import Origins, Sources, unchanged
from dpem_env.logs.recorder import EpisodeRecorder, simulator_version
from dpem_env.report.tables import TABLE, print_results, progress, working
from dpem_env.scenarios import Scenario, Split
from dpem_env.support.files import file_name, require_files, result_folder, write_json


def run_and_save(
    scenario: Scenario,
    contestants: Sequence[Arm],
    num_seeds: int,
    *,
    out: Path,
    split: Split = "evaluation",
    data_dir: str | os.PathLike[str] | None = None,
    log_all: bool = False,
) -> int:
    """Evaluate and write everything to `out`; returns an exit code. Interrupted, it keeps what was finished."""
    try_out([scenario], split, data_dir)
    with result_folder(out):
        return _run_and_save(scenario, contestants, num_seeds, out, split, data_dir, log_all)


def _run_and_save(
    scenario: Scenario,
    contestants: Sequence[Arm],
    num_seeds: int,
    out: Path,
    split: Split,
    data_dir: str | os.PathLike[str] | None,
    log_all: bool,
) -> int:
    from dpem_env.report.network_map import LoadMeter
    from dpem_env.report.results_figure import save_results_figure

    meter = LoadMeter()
    results = [ArmResult(arm, []) for arm in contestants]
    saved: list[Path] = []
    interrupted = False

    def sources(origins: Origins) -> list[Sources]:
        return [origins.of_scenario(scenario), *map(origins.of_arm, contestants)]

    with unchanged(sources, data_dir), progress() as bar:
        task = bar.add_task("", total=num_seeds * len(contestants))
        logs: dict[Arm, EpisodeRecorder] = {}

        def recorder_of(arm: Arm, index: int) -> Recorder:
            bar.update(task, description=f"seed {index + 1} of {num_seeds}: {arm.label}")
            recorders: list[Recorder] = [_Ticker(bar, task)]
            if arm == contestants[0] and index == 0:
                recorders.append(meter)
            if log_all or index == 0:
                logs[arm] = EpisodeRecorder()
                recorders.append(logs[arm])
            return _Several(recorders)

        def on_episode(arm: Arm, index: int, session: Session) -> None:
            if arm in logs:
                saved.append(out / f"{file_name(*arm.file_parts)}-{index}.parquet")
                logs.pop(arm).save(saved[-1])
            bar.update(task, completed=sum(len(result.episodes) for result in results))

        try:
            evaluate(
                scenario,
                results,
                num_seeds,
                split=split,
                data_dir=data_dir,
                recorder_of=recorder_of,
                on_episode=on_episode,
            )
        except KeyboardInterrupt:
            interrupted = True
    require_files(out, saved)
    complete = min(len(result.episodes) for result in results)
    if complete == 0:
        print("dpem: interrupted before the first seed was finished; no results", file=sys.stderr)
        return 130
    results = [ArmResult(result.arm, result.episodes[:complete]) for result in results]
    write_json(out / "results.json", _summary(scenario, split, results, num_seeds))
    save_results_figure(out / "results.png", scenario.name, results, meter, contestants[0].label)
    print_results(scenario, split, results)
    print(f"wrote {out / 'results.json'}, {out / 'results.png'} and episode logs (*.parquet)")
    if interrupted:
        print(f"interrupted after {complete} of {num_seeds} seeds; results hold these")
        return 130
    return 0


def try_out(scenarios: Sequence[Scenario], split: Split, data_dir: str | os.PathLike[str] | None) -> None:
    """Play a slot of each: bad input, or a network too big for this machine, fails before anything is written."""
    with working("preparing (compiles the simulator once) …"):
        for scenario in scenarios:
            trial = Session(scenario, data_dir=data_dir)
            trial.begin(episode_seeds(scenario, split, 0))
            trial.step(np.zeros(trial.network.num_nodes))


class _Ticker:
    """Moves the progress bar on with every slot, one per episode."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar, self.task = bar, task

    def begin(self, session: Session, label: str) -> None:
        pass

    def record(self, session: Session, decision: Any, forecast: Any) -> None:
        self.bar.advance(self.task, 1 / session.slots)


class _Several:
    """Several recorders as one."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self.recorders = recorders

    def begin(self, session: Session, label: str) -> None:
        for recorder in self.recorders:
            recorder.begin(session, label)

    def record(self, session: Session, decision: Any, forecast: Any) -> None:
        for recorder in self.recorders:
            recorder.record(session, decision, forecast)


def _summary(scenario: Scenario, split: Split, results: Sequence[ArmResult], wanted: int) -> dict[str, Any]:
    count = len(results[0].episodes)
    return {
        "format": "dpem-results-1",
        "version": simulator_version(),
        "scenario": scenario.model_dump(mode="json", exclude_none=True),
        "scenario_hash": scenario.hash,
        "split": split,
        "seeds": [episode_seeds(scenario, split, index)._asdict() for index in range(count)],
        "complete": count == wanted,
        "arms": [
            {
                "label": result.arm.label,
                "policy": result.arm.policy,
                "delay": result.arm.delay,
                "forecaster": result.arm.forecaster,
                "summary": {metric: _numbers(*result.mean_and_interval(metric)) for metric, _, _ in TABLE},
                "minus_first": {
                    metric: _numbers(*paired_difference(result, results[0], metric)) for metric, _, _ in TABLE
                },
                "episodes": [episode.as_dict() for episode in result.episodes],
            }
            for result in results
        ],
    }


def _numbers(mean: float, width: float) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in (("mean", mean), ("ci95", width))}
