"""Played again: a sample of what a result file holds, by the code of today, compared bit for bit.

Of results, the first episode of every contestant on every scenario, and its bound. Of tuned options, every episode with
the best of each contestant. Of scored forecasters, the first episode of each. Of a training that is finished, its last
validation, by the policy beside the learning curve. What was kept with seven digits, as benchmarks once did, is
compared with as many; so are bounds and deviances of forecasts, whose last ones depend on solver and processor.
"""

from __future__ import annotations

import math
from ast import literal_eval
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpem_env.envs.metric_labels import HEADLINE, SCORE
from dpem_env.envs.session import EpisodeSeeds, episode_seeds
from dpem_env.experiments import forecast_skill, results, tuning
from dpem_env.experiments.contestants import PolicySpec, contestants
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.forecast_skill import SUMS, ForecastItem, score_episode
from dpem_env.experiments.results import Key, flat
from dpem_env.experiments.workers import BoundItem, EpisodeItem, WorkItem
from dpem_env.policies import get_policy
from dpem_env.policy_names import LABEL
from dpem_env.scenarios import Scenario, Split, get
from dpem_env.support.errors import DpemError
from dpem_env.support.files import read_json, reading

if TYPE_CHECKING:
    from pandas import DataFrame

LEARNING_CURVE = "dpem-learning-curve-1"
DIGITS = 7  # of numbers that results of before have
ROUNDING = 1e-12  # of a number: on another machine the last digit of a sum of logarithms was another
Values = Mapping[str, float]


class Compared(NamedTuple):
    """Values as they are kept and as they come out now, by name; or why they could not be made again."""

    of: str
    kept: Mapping[str, Any]
    now: Mapping[str, Any]
    prevented: str | None = None


class Checked(NamedTuple):
    """What playing a sample again has shown."""

    values: int  # that were made again
    differences: list[str]  # of those that came out otherwise
    prevented: list[str]  # what could not be made again, and why

    @classmethod
    def of(cls, compared: Iterable[Compared]) -> Checked:
        """Together."""
        found = list(compared)
        differences = [
            f"{name} of {each.of} was {value!r}, now {each.now.get(name)!r}"
            for each in found
            for name, value in each.kept.items()
            if not each.prevented and not _same(value, each.now.get(name))
        ]
        values = sum(len(each.kept) for each in found if not each.prevented)
        return cls(values, differences, [f"{each.of}: {each.prevented}" for each in found if each.prevented])

    def told(self) -> str:
        """In one line."""
        said = [f"{self.values:,} values came out the same" if self.values else "nothing could be made again"]
        if self.differences:
            said = [f"{len(self.differences):,} of {self.values:,} values came out otherwise: {self.differences[0]}"]
        if self.prevented:
            more = f" (and {len(self.prevented) - 1} more)" if len(self.prevented) > 1 else ""
            said.append(f"left out: {self.prevented[0]}{more}")
        return "; ".join(said)


def check(path: Path, data_dir: str | None = None) -> Checked | None:
    """Play a sample of a result file again; None for a file of another kind."""
    if path.suffix != ".json":
        return None
    with reading("results to check", path):
        found = read_json(path)
    again = AGAIN.get(found.get("format", LEARNING_CURVE if "curve" in found else None))
    return None if again is None else Checked.of(again(path, found, data_dir))


def compared_files(kept: Path, made: Path) -> Compared:
    """Of two JSON files, all that they say but their stamps."""
    old, new = ({name: value for name, value in _said(read_json(file)) if name != "stamp"} for file in (kept, made))
    return Compared(kept.name, old, new)


def of_results(path: Path, summary: dict[str, Any], data_dir: str | None) -> Iterator[Compared]:
    """The first episode of every contestant on every scenario."""
    frame = results.read(path.parent).frame
    for told in summary["scenarios"]:
        split, index = summary["split"], told["episodes"][0]
        scenario = named(told["name"], split, data_dir=data_dir)
        yield _hash(scenario, told["hash"])
        episode = frame[(frame["scenario"] == told["name"]) & (frame["seed"] == index)]
        if told["bound"] is not None:
            name = told["bound"]["name"]
            kept = _values(episode, Key(f"bound:{name}", None, None), 0)
            bound = _played(BoundItem(scenario, split, index, name), kept)
            yield bound._replace(kept=_rounded(bound.kept), now=_rounded(bound.now))
        for each in told["contestants"]:
            key = Key.of(each)
            try:
                played = _who_played(key, each.get("policies", []))
            except DpemError as error:
                yield Compared(each["label"], {}, {}, str(error))
                continue
            for number, policy in enumerate(played):
                item = WorkItem(scenario, split, index, _with_options(policy, each["options"]))
                yield _played(item, _values(episode, key, number))


def _who_played(key: Key, names: Sequence[str]) -> tuple[PolicySpec, ...]:
    """The policies of a contestant: those that results name, or else the one that it is called."""
    if names and [key.policy] != names and LABEL.fullmatch(key.policy):
        played = tuple(PolicySpec(name, key.delay, key.forecaster, called=key.policy) for name in names)
        for policy in played:
            policy.make()
        return played
    [contestant] = contestants([key.policy], [key.delay or 0.0], [key.forecaster] if key.forecaster else [])
    return contestant.policies


def of_tuned(path: Path, found: dict[str, Any], data_dir: str | None) -> Iterator[Compared]:
    """All episodes with the best options of every contestant."""
    scenario = named(found["scenario"], found["split"], data_dir=data_dir)
    yield _hash(scenario, found["scenario_hash"])
    for each in found["tuned"]:
        policy = _with_options(PolicySpec(each["policy"], each["delay"], each["forecaster"]), each["best"]["options"])
        items = [WorkItem(scenario, found["split"], index, policy) for index in range(found["episodes"])]
        reward = math.fsum(item.play()["metrics"]["reward"] for item in items) / len(items)
        yield Compared(policy.label, {"reward": each["best"]["reward"]}, {"reward": reward})


def of_forecasts(path: Path, found: dict[str, Any], data_dir: str | None) -> Iterator[Compared]:
    """The first episode of every forecaster."""
    horizon = len(found["forecasters"][0]["skill"])
    scenario = named(found["scenario"], found["split"], data_dir=data_dir, forecast_horizon=horizon)
    yield _hash(scenario, found["scenario_hash"])
    for each in found["forecasters"]:
        made = score_episode(ForecastItem(scenario, EpisodeSeeds(**found["seeds"][0]), each["name"]))
        kept, now = (_rounded(dict(flat({name: row[name] for name in SUMS}))) for row in (each["episodes"][0], made))
        yield Compared(each["name"], kept, now)


def of_training(path: Path, found: dict[str, Any], data_dir: str | None) -> Iterator[Compared]:
    """The last validation."""
    settings, last = found["settings"], found["curve"][-1]
    scenario = named(found["scenario"], "validation", data_dir=data_dir)
    yield _hash(scenario, settings["scenario_hash"])
    kind = found.get("policy", "central-ppo" if found["mode"] == "central" else "ppo")  # those of before do not say it
    policy, topology = get_policy(f"{kind}:{path.parent}"), settings["topology_seed"]
    played = []
    for index in range(found["validation_episodes"]):
        seeds = episode_seeds(scenario, "validation", index)
        seeds = seeds if topology is None else seeds._replace(topology=topology)
        played.append(run_episode(scenario, policy, seeds, delay=settings["delay"] or 0.0)[0])
    now = {name: sum(getattr(metrics, name) for metrics in played) / len(played) for name in HEADLINE}
    yield Compared(f"{kind}:{path.parent}", {name: last[name] for name in HEADLINE}, now)


AGAIN: dict[str | None, Callable[[Path, dict[str, Any], str | None], Iterator[Compared]]] = {
    results.FORMAT: of_results,
    tuning.FORMAT: of_tuned,
    forecast_skill.FORMAT: of_forecasts,
    LEARNING_CURVE: of_training,
}


def named(name: str, split: Split, **unnamed: Any) -> Scenario:
    """The scenario that results call so, with changes that its name does not tell."""
    base, changes = results.told_by(name)
    values = {field: _value(text) for field, text in changes.items()}
    topology = values.pop("topology") if isinstance(values.get("topology"), int) else None
    scenario = get(base, **values)
    scenario = scenario.override(name=scenario.name, **unnamed)
    return scenario if topology is None else scenario.on_topology(topology, split)


def _hash(scenario: Scenario, kept: str) -> Compared:
    return Compared(scenario.name, {"the hash": kept}, {"the hash": scenario.hash})


def _played(item: EpisodeItem, kept: Values) -> Compared:
    metrics = item.play()["metrics"]
    return Compared(f"{item.scenario.name}, {', '.join(item.name)}", kept, dict(flat(metrics)))


def _values(episode: DataFrame, key: Key, training_seed: int) -> Values:
    """Metrics of a contestant, but the score, which follows from others."""
    chosen = episode["training_seed"] == training_seed
    for name, value in key._asdict().items():
        chosen &= episode[name].isna() if value is None else episode[name] == value
    values = episode[chosen].set_index("metric")["value"]
    return {str(metric): float(value) for metric, value in values.items() if metric != SCORE.name}


def _rounded(values: Values) -> Values:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items()}


def _with_options(policy: PolicySpec, options: dict[str, Any]) -> PolicySpec:
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return replace(policy, options=tuple(known.items()))


def _value(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _said(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Whatever plain data says, each with its place."""
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _said(each, f"{place}.{name}")
    else:
        yield place.removeprefix("."), value


def _same(kept: Any, now: Any) -> bool:
    """Whether it is the same number but for rounding, or that of results of before; or whatever else is the same."""
    if not isinstance(now, float) or not isinstance(kept, float):
        return bool(kept == now)
    as_before = kept == float(f"{now:.{DIGITS}g}")
    return as_before or math.isclose(kept, now, rel_tol=ROUNDING) or (math.isnan(kept) and math.isnan(now))
