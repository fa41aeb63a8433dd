"""Tuned policies: an equal budget for every policy and control delay, on validation seeds only.

Every policy gets at most so many trials of its `search_space` (see `dpem_env.search`; the first is its defaults), each
played on the same validation episodes; the best mean reward wins. A central policy is tuned for every control delay on
its own. A scenario has one file; a search that is run again goes on from what the file holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env.errors import DpemError, PolicyError
from dpem_env.evaluation import Arm
from dpem_env.files import write_json
from dpem_env.records import simulator_version
from dpem_env.scenarios import Scenario
from dpem_env.search import trials
from dpem_env.seeding import generator
from dpem_env.work import WorkItem, play, played

FORMAT = "dpem-tuning-1"
TRIALS, EPISODES = 16, 3  # per policy and control delay; per trial
Found = dict[str, Any]


def tune(
    contestants: Sequence[Arm],
    scenario: Scenario,
    path: Path,
    budget: int = TRIALS,
    episodes: int = EPISODES,
    *,
    workers: int = 1,
    data_dir: str | os.PathLike[str] | None = None,
    on_start: Callable[[int], object] = lambda total: None,
    on_episode: Callable[[Arm], object] = lambda arm: None,
) -> list[Found]:
    """Tune every arm that the file does not hold yet; returns all it holds then. Each arm is saved when it is done.

    `on_start` is told the number of episodes to play.
    """
    made_with = header(scenario, budget, episodes)
    tuned = finished(path, made_with)
    known = {_key(found) for found in tuned}
    missing = [arm for arm in contestants if (arm.policy, arm.delay, arm.forecaster) not in known]
    searched = {arm: _candidates(arm, budget) for arm in missing}
    searcher = {candidate: arm for arm, candidates in searched.items() for candidate in candidates}
    items = [WorkItem(scenario, "validation", index, each) for each in searcher for index in range(episodes)]
    rewards: dict[Arm, dict[int, float]] = {candidate: {} for candidate in searcher}
    on_start(len(items))
    for item, result in played(partial(play, data_dir=data_dir), items, workers):
        arm = searcher[item.arm]
        rewards[item.arm][item.index] = result["metrics"]["reward"]
        on_episode(arm)
        if all(len(rewards[candidate]) == episodes for candidate in searched[arm]):
            means = [
                float(np.mean([rewards[candidate][index] for index in range(episodes)])) for candidate in searched[arm]
            ]
            tuned.append(_found(arm, searched[arm], means))
            write_json(path, made_with | {"tuned": tuned})
    return tuned


def _candidates(arm: Arm, budget: int) -> list[Arm]:
    """The arm with the options of every trial."""
    drawn = trials(_search_space(arm), budget, generator("tuning", 0))
    return [replace(arm, options=tuple(options.items())) for options in drawn]


def _found(arm: Arm, candidates: Sequence[Arm], rewards: Sequence[float]) -> Found:
    """All trials of an arm with their mean reward, and the best of them; ties go to the earlier trial."""
    tried = [
        {"options": dict(candidate.options), "reward": reward}
        for candidate, reward in zip(candidates, rewards, strict=True)
    ]
    return {
        "policy": arm.policy,
        "forecaster": arm.forecaster,
        "delay": arm.delay,
        "best": tried[int(np.argmax(rewards))],
        "default_reward": rewards[0],
        "trials": tried,
    }


def header(scenario: Scenario, budget: int, episodes: int) -> Found:
    """What a result file was made with; a search is only continued if all of it is the same."""
    return {
        "format": FORMAT,
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
    found = _read(path)
    for name, value in made_with.items():
        if found.get(name) != value:
            raise DpemError(f"{path} was made with {name} {found.get(name)!r}, not {value!r}; choose another --out")
    return list(found["tuned"])


class Tuned:
    """The tuned options in a folder that holds one file per scenario, SCENARIO.json."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DpemError(f"--tuned {str(folder)!r} is no folder; expected one with files written by dpem tune")
        self.folder = folder
        self._files: dict[str, Found] = {}

    def arm(self, scenario: Scenario, arm: Arm) -> Arm:
        """The arm with the options tuned for the scenario.

        Varied scenarios take those of the one they vary; an arm takes those found with its forecaster if there are any,
        else with the policy's own, at the control delay nearest to its own (of two, the shorter). A policy without a
        search space stays as it is. PolicyError if the policy was not tuned there.
        """
        if not _search_space(arm):
            return arm
        found = [each for each in self._of(scenario)["tuned"] if each["policy"] == arm.policy]
        own = [each for each in found if each["forecaster"] == arm.forecaster]
        candidates = own or [each for each in found if each["forecaster"] is None]
        if not candidates:
            raise PolicyError(
                f"{self._path(scenario)} holds no {arm.label}; "
                f"dpem tune --scenario {_base(scenario)} --policies {arm.policy} --out {self.folder} adds it"
            )
        delay = arm.delay or 0.0
        nearest = min(candidates, key=lambda each: (abs((each["delay"] or 0.0) - delay), each["delay"] or 0.0))
        return replace(arm, options=tuple(nearest["best"]["options"].items()))

    def _of(self, scenario: Scenario) -> Found:
        path = self._path(scenario)
        if _base(scenario) not in self._files:
            if not path.exists():
                raise PolicyError(f"no {path}; dpem tune --scenario {_base(scenario)} --out {self.folder} writes it")
            self._files[_base(scenario)] = _read(path)
        found = self._files[_base(scenario)]
        if found["scenario"] == scenario.name and found["scenario_hash"] != scenario.hash:
            raise PolicyError(f"{path} was tuned on another version of {scenario.name}; remove it and tune again")
        return found

    def _path(self, scenario: Scenario) -> Path:
        return self.folder / f"{_base(scenario)}.json"


def _read(path: Path) -> Found:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] == FORMAT:
            for each in found["tuned"]:
                Arm(*_key(each), options=tuple(each["best"]["options"].items()))
            return dict(found)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    raise DpemError(f"{path} is no result of dpem tune; remove it")


def _key(found: Found) -> tuple[str, float | None, str | None]:
    return found["policy"], found["delay"], found["forecaster"]


@cache  # a benchmark asks for every episode, and making a policy may read a checkpoint
def _search_space(arm: Arm) -> dict[str, tuple[Any, ...]]:
    return dict(getattr(replace(arm, options=()).make(), "search_space", {}))


def _base(scenario: Scenario) -> str:
    """The name of the scenario that this one varies."""
    return scenario.name.partition("+")[0]
