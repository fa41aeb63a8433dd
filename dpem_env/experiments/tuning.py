"""Tuned policies: an equal budget for every policy and control delay, on validation seeds only.

Every policy gets at most so many trials of its `search_space` (see `dpem_env.experiments.search`; the first is its
defaults), by lot or by an evolution strategy, each played on the same validation episodes; the best mean reward wins.
A central policy is tuned for every control delay on its own. Every trial is kept with what it came to, so that the
best at any other price of contention is known as well: a front, at no further cost. A scenario has one file; a search
that is run again goes on from what the file holds. What was found there with other code or files, or on another
scenario of that name, is searched again.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.origins import Origins, Sources, changed
from dpem_env.experiments.search import SEARCHES, Method, Options, Search
from dpem_env.experiments.workers import WorkItem, play, played, require_result_of
from dpem_env.logs.recorder import simulator_version
from dpem_env.scenarios import SCENARIOS, Scenario, get
from dpem_env.scenarios.schema import Section, on_network
from dpem_env.simulator import require_rules
from dpem_env.support.errors import DpemError, PolicyError
from dpem_env.support.errors import nearest as suggest
from dpem_env.support.files import checked, file_name, read_json, reading, sole_writer, staying, write_json
from dpem_env.support.provenance import UNKNOWN, stamp, warn_of_other_code
from dpem_env.support.seeding import generator
from dpem_env.support.shipped import TUNED

FORMAT = "dpem-tuning-2"
TRIALS, EPISODES = 16, 3  # per policy and control delay; per trial
OUTCOMES = ("reward", "contention", "charges")  # metrics of a trial that are kept
Found = dict[str, Any]
Key = tuple[str, float | None, str | None]  # policy, delay, forecaster
Real = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Scalar = Annotated[bool, Field(strict=True)] | Whole | Real | str | None
Option = Scalar | list[Scalar]
VARIATION = re.compile(r"(?P<varied>.+)\+\w+=", re.DOTALL)  # a varied scenario's name, as `override` writes it
REGISTERED = re.compile(r"\+registered=\w*")  # in such a name, as `registered` writes it


def tune(
    policies: Sequence[PolicySpec],
    scenario: Scenario,
    path: Path,
    budget: int = TRIALS,
    episodes: int = EPISODES,
    *,
    method: Method = "random",
    workers: int = 1,
    on_start: Callable[[int], object] = lambda total: None,
    on_episode: Callable[[PolicySpec], object] = lambda policy: None,
) -> list[Found]:
    """Tune every policy that the file does not hold yet; returns all it holds then. Each is saved when done.

    `on_start` is told the largest number of episodes to play. DpemError if another process is writing the file.
    """
    made_with, origins = header(scenario, budget, episodes, method), Origins()
    with sole_writer(path), staying(path.parent):
        tuned = finished(path, made_with)
        sources = {policy: origins.of_scenario(scenario) | origins.of_policy(policy) for policy in policies}
        outdated = _outdated(tuned, sources)
        for what, number in Counter(outdated.values()).items():
            print(f"tuning {number} contestant{'s' * (number > 1)} again: {what} changed", file=sys.stderr)
        tuned = [found for found in tuned if _key(found) not in outdated]
        known = {_key(found) for found in tuned}
        missing = [policy for policy in policies if (policy.name, policy.delay, policy.forecaster) not in known]
        on_start(len(missing) * budget * episodes)
        searching = [_Searching(policy, SEARCHES[method], budget, episodes) for policy in missing]
        while searching:
            round_of = {candidate: each for each in searching for candidate in each.asked}
            items = [WorkItem(scenario, "validation", i, candidate) for candidate in round_of for i in range(episodes)]
            for item, result in played(play, items, workers):
                each = round_of[item.policy]
                require_result_of(item.identity() | {"sources": sources[each.policy]}, result, "a worker")
                on_episode(each.policy)
                if each.add(item, result["metrics"]) and not each.next_round():
                    tuned.append(_found(each.policy, each.tried) | {"sources": sources[each.policy]})
                    write_json(path, made_with | {"tuned": tuned})
            searching = [each for each in searching if each.asked]
    return tuned


def _outdated(tuned: Sequence[Found], sources: dict[PolicySpec, Sources]) -> dict[Key, str]:
    """What has changed of the sources of policies that were tuned; files that name none are taken as right."""
    now = {(policy.name, policy.delay, policy.forecaster): found for policy, found in sources.items()}
    changes = {
        _key(found): changed(found["sources"], now[_key(found)])
        for found in tuned
        if found.get("sources") and _key(found) in now
    }
    return {key: ", ".join(names) for key, names in changes.items() if names}


class _Searching:
    """A policy whose options are being searched, round by round."""

    def __init__(self, policy: PolicySpec, search: Callable[..., Search], budget: int, episodes: int) -> None:
        self.policy, self.tried, self.episodes = policy, list[Found](), episodes
        self._search = search(_search_space(policy), budget, generator("tuning", 0))
        self._ask(next(self._search))

    def add(self, item: WorkItem, metrics: Found) -> bool:
        """Take what an episode came to; returns whether it was the last of the round."""
        self._outcomes[item.policy][item.index] = metrics
        return all(len(of_candidate) == self.episodes for of_candidate in self._outcomes.values())

    def next_round(self) -> bool:
        """Go on from what the round came to; returns whether there is another."""
        trials = [_trial(candidate, list(self._outcomes[candidate].values())) for candidate in self.asked]
        self.tried += trials
        try:
            self._ask(self._search.send([trial["reward"] for trial in trials]))
        except StopIteration:
            self._ask([])
        return bool(self.asked)

    def _ask(self, options: Sequence[Options]) -> None:
        self.asked = [replace(self.policy, options=tuple(each.items())) for each in options]
        self._outcomes: dict[PolicySpec, dict[int, Found]] = {candidate: {} for candidate in self.asked}


def _trial(candidate: PolicySpec, metrics: Sequence[Found]) -> Found:
    """A trial with the means of what it came to, over its episodes in any order."""
    means = {name: math.fsum(each[name] for each in metrics) / len(metrics) for name in OUTCOMES}
    return {"options": dict(candidate.options)} | means


def _found(policy: PolicySpec, tried: Sequence[Found]) -> Found:
    """All trials of a policy, and the best of them; ties go to the earlier trial."""
    return {
        "policy": policy.name,
        "forecaster": policy.forecaster,
        "delay": policy.delay,
        "best": max(tried, key=lambda trial: trial["reward"]),
        "default_reward": tried[0]["reward"],
        "trials": list(tried),
    }


def header(scenario: Scenario, budget: int, episodes: int, method: Method = "random") -> Found:
    """What a result file was made with."""
    return {
        "format": FORMAT,
        "version": simulator_version(),
        "stamp": stamp(),
        "scenario": scenario.name,
        "scenario_hash": scenario.hash,
        "split": "validation",
        "method": method,
        "trials": budget,
        "episodes": episodes,
        "contention_penalty": scenario.reward.contention_penalty,
    }


def finished(path: Path, made_with: Found) -> list[Found]:
    """What the file holds already; nothing if it was found by other code; DpemError if it was asked for otherwise."""
    if not path.exists():
        return []
    found = _read(path)
    for name in ("format", "scenario", "split", "method", "trials", "episodes"):
        if found[name] != made_with[name]:
            raise DpemError(
                f"{path} was made with {name} {found[name]!r}, not {made_with[name]!r}; choose another --out"
            )
    for name, what in (("stamp", "the code of dpem_env"), ("scenario_hash", "the scenario")):
        if found[name] != made_with[name]:
            print(f"tuning all contestants again: {what} changed", file=sys.stderr)
            return []
    return list(found["tuned"])


class Tuned:
    """The tuned options in a folder that holds one file per scenario, SCENARIO.json, or per network of one.

    "shipped" stands for those that come with the package. `asked_for` are scenarios as the user names them, by path
    perhaps: an error tells what to type.
    """

    def __init__(self, folder: Path, asked_for: Sequence[str] = ()) -> None:
        if str(folder) == "shipped" and not folder.exists():
            folder = TUNED
        if not folder.is_dir():
            raise DpemError(
                f"--tuned {str(folder)!r} is no folder; expected one with files written by dpem tune, or 'shipped'"
            )
        self.folder, self.asked_for = folder, asked_for
        self._files: dict[Path, Found] = {}

    def policy(self, scenario: Scenario, policy: PolicySpec, topology_seed: int | None = None) -> PolicySpec:
        """The policy with the options tuned for the scenario, on the network that is named if there are any of there.

        Varied scenarios that have no file with the policy take those of the one they vary, the best by their own price
        of contention. Taken are those found with the policy's forecaster if there are any, else with its own, at the
        control delay nearest to its own (of two, the shorter). A policy without a search space stays as it is.
        PolicyError if the policy was not tuned there.
        """
        if not _search_space(policy):
            return policy
        path, file = self._of(scenario, policy, topology_seed)
        found = [each for each in file["tuned"] if each["policy"] == policy.name]
        own = [each for each in found if each["forecaster"] == policy.forecaster]
        candidates = own or [each for each in found if each["forecaster"] is None]
        if not candidates:
            budget = f"--trials {file['trials']} --episodes {file['episodes']}"
            raise PolicyError(
                f"{path} holds no {policy.label}; {self._command(file['scenario'], policy)} {budget} adds it"
            )
        delay = policy.delay or 0.0
        nearest = min(candidates, key=lambda each: (abs((each["delay"] or 0.0) - delay), each["delay"] or 0.0))
        dearer = scenario.reward.contention_penalty - file["contention_penalty"]
        best = max(nearest["trials"], key=lambda trial: trial["reward"] - dearer * trial["charges"])
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in best["options"].items()}
        for name, value in options.items():
            _require_option(path, policy, name, value)
        return replace(policy, options=tuple(options.items()))

    def _of(self, scenario: Scenario, policy: PolicySpec, topology_seed: int | None) -> tuple[Path, Found]:
        """The file of the scenario or of one that it varies: the first with the policy, else the first there is."""
        names, found = _names(scenario), list[tuple[Path, Found]]()
        if topology_seed is not None:
            names = [*(on_network(name, topology_seed) for name in names), *names]
        for name in names:
            path = result_file(self.folder, name)
            if path not in self._files and path.exists():
                self._files[path] = self._opened(path, name, policy)
            if path in self._files:
                self._require_scenario(path, name, scenario)
                found.append((path, self._files[path]))
                if any(each["policy"] == policy.name for each in self._files[path]["tuned"]):
                    return found[-1]
        if found:
            return found[0]
        base = names[-1]
        raise PolicyError(f"no {result_file(self.folder, base)}; {self._command(base, policy)} writes it")

    def _opened(self, path: Path, name: str, policy: PolicySpec) -> Found:
        """A file, of today's rules, with a warning if it is of other code."""
        file = _read(path)
        with reading("tuning file", path, PolicyError):
            require_rules(file["version"].get("rules", "v0"), f"{self._command(name, policy)} tunes again")
        warn_of_other_code(str(path), file["stamp"], "what was best there may not be any more")
        return file

    def _require_scenario(self, path: Path, name: str, scenario: Scenario) -> None:
        """PolicyError unless the file is of the scenario of that name, as it is today if that is the one asked for."""
        file = self._files[path]
        if file["scenario"] != name:
            raise PolicyError(f"{path} is of {file['scenario']!r}, not of {name!r}; remove it and tune again")
        if name == scenario.name and file["scenario_hash"] != scenario.hash:
            raise PolicyError(f"{path} was tuned on another version of {name}; remove it and tune again")

    def _command(self, scenario: str, policy: PolicySpec) -> str:
        """What tunes there; to be typed as it stands, if it is known how the user names the scenario."""
        named = {get(name).name: name for name in self.asked_for}
        where = scenario if scenario in SCENARIOS else named.get(scenario, "FILE.toml")
        return shlex.join(("dpem", "tune", "--scenario", where, "--policy", policy.name, "--out", str(self.folder)))


def result_file(folder: Path, scenario: str) -> Path:
    """Where what was tuned on a scenario of this name is kept."""
    return folder / f"{file_name(scenario)}.json"


def _names(scenario: Scenario) -> list[str]:
    """The name of the scenario, then those of the ones it varies: without its last override, its last two, …

    Each also without what it was registered with, which decides the networks that are drawn, and not the world.
    """
    names = [scenario.name]
    while found := VARIATION.match(names[-1]):
        names.append(found["varied"])
    return list(dict.fromkeys(each for name in names for each in (name, REGISTERED.sub("", name))))


def _require_option(path: Path, policy: PolicySpec, name: str, value: Any) -> None:
    """PolicyError for an option that the policy does not leave to tuning, or a value of another kind or size."""
    space = _search_space(policy)
    if name not in space:
        raise PolicyError(f"{path}: {policy.name} has no option {name!r} to tune; {suggest(name, space)}")
    numbers = [known for known in space[name] if isinstance(known, int | float) and not isinstance(known, bool)]
    fits = value in space[name] and value != "log"
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        whole = all(isinstance(known, int) for known in numbers)
        fits = min(numbers) <= value <= max(numbers) and (isinstance(value, int) or not whole)
    if not fits:
        raise PolicyError(f"{path}: {name} of {policy.name} is {value!r}; expected one of {space[name]}")


def _read(path: Path) -> Found:
    """What a search has found, checked; DpemError for another file."""
    with reading("tuning file", path, remedy="remove it"):
        return checked(_File, read_json(path), "it").model_dump()


class _Trial(Section):
    options: dict[str, Option]
    reward: Real
    contention: Real
    charges: Real


class _Tuned(Section):
    policy: str
    forecaster: str | None
    delay: Annotated[Real, Field(ge=0)] | None
    best: _Trial
    default_reward: Real
    trials: list[_Trial]
    sources: dict[str, str] = Field(default_factory=dict)  # none in files of before they were kept


class _File(Section):
    format: Literal["dpem-tuning-2"]
    version: dict[str, str]
    stamp: str = UNKNOWN
    scenario: str
    scenario_hash: str
    split: str
    method: Method = "random"
    trials: Whole
    episodes: Whole
    contention_penalty: Real
    tuned: list[_Tuned]


def _key(found: Found) -> Key:
    return found["policy"], found["delay"], found["forecaster"]


@cache  # a benchmark asks for every episode, and making a policy may read a checkpoint
def _search_space(policy: PolicySpec) -> dict[str, tuple[Any, ...]]:
    return dict(getattr(replace(policy, options=()).make(), "search_space", {}))
