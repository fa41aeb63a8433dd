"""A submission: the declared evaluation, played as a benchmark that keeps the log of every episode, and its card.

The folder has `card.json`, a log of every episode below `logs`, and what `dpem benchmark` writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.benchmark import Plan, run_benchmark
from dpem_env.experiments.cards import CARD, FORMAT, SCORES, means
from dpem_env.experiments.contestants import Contestant, PolicySpec, contestants
from dpem_env.experiments.evaluation import Recorder
from dpem_env.experiments.leaderboard import V1, Track, beacon_value, usual_track
from dpem_env.experiments.origins import Origins, Sources
from dpem_env.experiments.tuning import Tuned
from dpem_env.experiments.workers import WorkItem
from dpem_env.logs.recorder import EpisodeRecorder, recorded_digest, simulator_version
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import file_name, read_json, write_json
from dpem_env.support.provenance import joined, stamp

LOGS = "logs"
FOLDERS = re.compile(r"^(the file |the code in ).*[/\\]")  # where a file lies, which is elsewhere for others


@dataclass(frozen=True)
class LoggedItem(WorkItem):
    """An episode of a submission: on seeds of its own, and kept as a log."""

    drawn: EpisodeSeeds
    log: Path

    @property
    def seeds(self) -> EpisodeSeeds:
        """Those that the declaration gives it."""
        return self.drawn

    def play(self, recorder: Recorder | None = None) -> dict[str, Any]:
        """The number of nodes and the metrics; unless another recorder is given, the log is kept."""
        if recorder is not None:
            return super().play(recorder)
        log = EpisodeRecorder()
        found = super().play(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        log.save(self.log)
        return found


@dataclass(frozen=True)
class Submission(Plan):
    """The declared evaluation of one contestant."""

    track: Track = "unrestricted"
    beacon: str | None = None
    folder: Path = Path()

    @property
    def contestant(self) -> Contestant:
        """Who submits."""
        return self.reference

    def item(self, scenario: Scenario, policy: PolicySpec, index: int) -> LoggedItem:
        """An episode of the declaration."""
        usual = super().item(scenario, policy, index)
        log = self.folder / log_of(scenario.name, index)
        return LoggedItem(scenario, self.split, index, usual.policy, V1.seeds(scenario, index, self.beacon), log)

    def episodes(self, scenario: Scenario) -> list[LoggedItem]:
        """All of a scenario."""
        [policy] = self.contestant.policies
        return [self.item(scenario, policy, index) for index in range(self.num_seeds)]


def log_of(scenario: str, index: int) -> str:
    """Where the log of an episode lies in a submission."""
    return f"{LOGS}/{file_name(scenario)}-{index:02d}.parquet"


def make_submission(
    policy: str,
    out: Path,
    *,
    track: Track | None = None,
    delay: float | None = None,
    beacon: str | None = None,
    trial: bool = False,
    tuned: Path | None = None,
    trust: Sequence[str] = (),
) -> Submission:
    """What is to be played; PolicyError for a policy that may not play on the track, or for several."""
    found = contestants([policy], [delay or 0.0], (), trust)
    if len(found) > 1 or len(found[0].policies) > 1:
        raise PolicyError(f"--policy {policy!r} names several policies; submit each by itself")
    [contestant] = found
    [spec] = contestant.policies
    made = spec.make()
    track = track or usual_track(made)
    V1.require(track, delay, made, spec.forecaster)
    played = V1.played(trial)
    return Submission(
        suite=f"leaderboard {V1.version}",
        scenarios=tuple(map(V1.scenario, played)),
        contestants=(contestant,),
        reference=contestant,
        num_seeds=max(played.values()),
        tuned=Tuned(tuned, list(played)) if tuned else None,
        track=track,
        beacon=beacon and beacon_value(beacon),
        folder=out.absolute(),
    )


def submit(plan: Submission, out: Path, workers: int = 1) -> int:
    """Play what is missing and write the card; returns an exit code. Interrupted, it keeps what is finished."""
    for scenario in plan.scenarios:
        for item in plan.episodes(scenario):
            if not item.log.exists():  # an episode without its log is played again
                (out / item.file).unlink(missing_ok=True)
    if code := run_benchmark(plan, out, workers=workers):
        return code
    write_json(out / CARD, card_of(plan, out))
    print(f"wrote {out / CARD} and a log of every episode; dpem submit check {out} verifies them")
    return 0


def card_of(plan: Submission, out: Path) -> dict[str, Any]:
    """The card of a submission that is finished."""
    [spec] = plan.contestant.policies
    return {
        "format": FORMAT,
        "name": plan.contestant.name,
        "track": plan.track,
        "leaderboard": {"version": V1.version, "digest": V1.digest},
        "beacon": plan.beacon,
        "policy": {
            "plays": spec.name,
            "called": spec.called,
            "delay": spec.delay,
            "forecaster": spec.forecaster,
        },
        "version": simulator_version(),
        "stamp": stamp(),
        "sources": sources_of(spec, plan.scenarios),
        "scenarios": [_scenario(plan, scenario, out) for scenario in plan.scenarios],
    }


def _scenario(plan: Submission, scenario: Scenario, out: Path) -> dict[str, Any]:
    items = plan.episodes(scenario)
    metrics = [read_json(out / item.file)["metrics"] for item in items]
    scores = [{name: of_episode[name] for name in SCORES} for of_episode in metrics]
    episodes = [
        {
            "index": item.index,
            "seeds": item.seeds._asdict(),
            "log": log_of(scenario.name, item.index),
            "digest": recorded_digest(item.log),
            "scores": of_episode,
        }
        for item, of_episode in zip(items, scores, strict=True)
    ]
    options = dict(items[0].policy.options)
    return {
        "name": scenario.name,
        "hash": scenario.hash,
        "options": options,
        "episodes": episodes,
        "means": means(scores),
    }


def sources_of(policy: PolicySpec, played: Sequence[Scenario]) -> Sources:
    """What a policy's episodes follow from besides; of files the name without the folder, and the content."""
    origins = Origins()
    found: dict[str, list[str]] = {}
    for each in (origins.of_policy(policy), *map(origins.of_scenario, played)):
        for name, content in sorted(each.items()):
            found.setdefault(FOLDERS.sub(r"\1", name), []).append(content)
    return {name: joined(several) for name, several in found.items()}
