"""Tune the baselines: the same budget for every policy and control delay, on validation seeds only.

Every policy gets at most so many trials of its `search_space` (the first is its defaults), each played on the same
validation episodes; the best mean reward wins. A central policy is tuned for every control delay on its own. What is
finished is kept in the result file; the same command again goes on from there.

python baselines/tune.py --scenario mesh100-v0 --policies central-reactive,local-predictive --delay 0 --delay 0.5 \\
                         --workers 2 --out baselines/tuned/mesh100-v0.json
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dpem_baselines.search import trials
from dpem_env import scenarios
from dpem_env.errors import DpemError
from dpem_env.evaluation import Arm, arms
from dpem_env.files import write_json
from dpem_env.records import simulator_version
from dpem_env.reports import progress
from dpem_env.scenarios import Scenario
from dpem_env.seeding import generator
from dpem_env.work import WorkItem, play, played

TRIALS, EPISODES = 16, 3  # per policy and control delay; per trial
Found = dict[str, Any]


def tune(
    arm: Arm,
    scenario: Scenario,
    budget: int,
    episodes: int,
    workers: int = 1,
    data_dir: str | os.PathLike[str] | None = None,
    on_episode: Callable[[], object] = lambda: None,
) -> Found:
    """All trials of an arm with their mean reward, and the options of the best; ties go to the earlier trial."""
    rng = generator("tuning", 0)
    candidates = [
        Arm(arm.policy, arm.delay, arm.forecaster, tuple(options.items()))
        for options in trials(getattr(arm.make(), "search_space", {}), budget, rng)
    ]
    items = [WorkItem(scenario, each, "validation", index) for each in candidates for index in range(episodes)]
    rewards: dict[Arm, dict[int, float]] = {each: {} for each in candidates}
    for item, result in played(partial(play, data_dir=data_dir), items, workers):
        rewards[item.arm][item.index] = result["metrics"]["reward"]
        on_episode()
    tried = [
        {"options": dict(each.options), "reward": float(np.mean([rewards[each][index] for index in range(episodes)]))}
        for each in candidates
    ]
    best = max(tried, key=lambda trial: trial["reward"])
    return {
        "policy": arm.policy,
        "delay": arm.delay,
        "best": best,
        "default_reward": tried[0]["reward"],
        "trials": tried,
    }


def header(scenario: Scenario, budget: int, episodes: int) -> Found:
    """What a result file was made with; a search is only continued if all of it is the same."""
    return {
        "format": "dpem-tuning-1",
        "version": simulator_version(),
        "scenario": scenario.name,
        "scenario_hash": scenario.hash,
        "split": "validation",
        "trials": budget,
        "episodes": episodes,
    }


def finished(path: Path, made_with: Found) -> list[Found]:
    """What the file holds already; DpemError if it was made with something else."""
    if not path.exists():
        return []
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    for name, value in made_with.items():
        if found.get(name) != value:
            raise DpemError(f"{path} was made with {name} {found.get(name)!r}, not {value!r}; choose another --out")
    return list(found["tuned"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--policies", required=True, metavar="A,B,…")
    parser.add_argument("--delay", action="append", type=float, default=[], metavar="S", help="of central policies")
    parser.add_argument("--trials", type=int, default=TRIALS, help="per policy and delay (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="per trial (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="folder of data that is not shipped (default: $DPEM_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        scenario = scenarios.get(arguments.scenario)
        made_with = header(scenario, arguments.trials, arguments.episodes)
        tuned = finished(arguments.out, made_with)
        known = {(found["policy"], found["delay"]) for found in tuned}
        contestants = arms(arguments.policies.split(","), arguments.delay)
        with progress() as bar:
            for arm in (each for each in contestants if (each.policy, each.delay) not in known):
                task = bar.add_task(f"tuning {arm.label}", total=arguments.trials * arguments.episodes)
                tuned.append(
                    tune(
                        arm,
                        scenario,
                        arguments.trials,
                        arguments.episodes,
                        arguments.workers,
                        arguments.data,
                        lambda task=task: bar.advance(task),
                    )
                )
                bar.update(task, completed=arguments.trials * arguments.episodes)
                write_json(arguments.out, made_with | {"tuned": tuned})
    except DpemError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"interrupted; {arguments.out} holds what was finished, the same command goes on from there")
        return 130
    for found in tuned:
        delay = "" if found["delay"] is None else f" (delay {found['delay']:g} s)"
        print(
            f"{found['policy']}{delay}: reward {found['best']['reward']:.3f}, "
            f"by default {found['default_reward']:.3f}; {found['best']['options'] or 'its defaults'}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
