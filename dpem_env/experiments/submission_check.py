"""What a submission claims, verified: its card against the declaration, every episode by replay, decisions by agents.

Whatever is wrong is one line: which file, what it says, what was expected. Episodes are replayed by `dpem_env.logs`,
decisions made again as `dpem_env.experiments.isolation` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dpem_env.envs.session import Session
from dpem_env.envs.sums import EpisodeSums
from dpem_env.experiments import cards
from dpem_env.experiments.cards import CARD, SCORES, Card, Episode
from dpem_env.experiments.contestants import PolicySpec, contestants
from dpem_env.experiments.isolation import decided_alone
from dpem_env.experiments.leaderboard import V1, beacon_value
from dpem_env.experiments.submission import LoggedItem, log_of, sources_of
from dpem_env.logs.recorder import EpisodeLog, read_log, simulator_version
from dpem_env.logs.replay import replay_log
from dpem_env.policies import CentralPolicy
from dpem_env.support.errors import DpemError
from dpem_env.support.provenance import of_other_code, stamp
from dpem_env.support.seeding import generator

NODES, SLOTS = 3, 48  # of an episode of every scenario: how many nodes are asked what they decide, in how many slots
AT_ONCE = 8  # processes of nodes


@dataclass(frozen=True)
class Sample:
    """Whose decisions are made again: drawn by a seed, or all of them."""

    seed: int
    whole: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    complaints: list[str]  # a line each
    logs: int  # that came out again bit for bit
    decisions: str  # whose were made again, in words
    seeded: bool = False  # whether the seed that policies are reset with changes decisions

    def lines(self) -> list[str]:
        """The verdict in plain words."""
        said = [*self.complaints, f"{self.logs} logs came out again bit for bit, with the scores of the card"]
        said.append(f"decisions made again by agents in processes of their own: {self.decisions}")
        if self.seeded:
            said.append(
                "reset with another seed, the policy decides otherwise: it draws lots, or knows what follows from "
                "it; its code tells which"
            )
        return said


@dataclass(frozen=True)
class Claim:
    """A card in the folder of a submission, and who says it plays."""

    folder: Path
    card: Card
    policy: PolicySpec

    @classmethod
    def read(cls, folder: Path, policy: str | None = None, trust: Sequence[str] = ()) -> Claim:
        """What a folder claims; `policy` is where the policy is to be found now. DpemError if there is no such card."""
        if not folder.is_dir():
            raise DpemError(f"{str(folder)!r} is no folder; expected one that dpem submit has written")
        card = cards.read_card(folder / CARD)
        player = card.policy
        [contestant] = contestants([policy or player.plays], [player.delay or 0.0], (), trust)
        [spec] = contestant.policies
        spec = replace(spec, delay=player.delay, forecaster=player.forecaster, called=player.called)
        return cls(folder, card, spec)

    def items(self, scenario: cards.Scenario) -> Iterator[tuple[Episode, LoggedItem]]:
        """The episodes of a scenario, each beside what was to be played."""
        declared = V1.scenario(scenario.name)
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in scenario.options.items()}
        policy = replace(self.policy, options=tuple(known.items()))
        for each in scenario.episodes:
            seeds = V1.seeds(declared, each.index, self.card.beacon)
            path = self.folder / log_of(declared.name, each.index)
            yield each, LoggedItem(declared, "evaluation", each.index, policy, seeds, path)

    @property
    def known(self) -> list[cards.Scenario]:
        """Scenarios that are declared."""
        return [each for each in self.card.scenarios if each.name in V1.scenarios]


def check(
    claim: Claim,
    sample: Sample,
    on_episode: Callable[[str], object] = lambda what: None,
    on_slot: Callable[[], object] = lambda: None,
) -> Verdict:
    """Verify everything; `on_episode` is told what is done next, `on_slot` is called for every slot of it.

    Whose logs do not verify is not asked what it decides.
    """
    complaints = [f"{CARD}: {told}" for told in _of_card(claim)]
    logs: dict[str, list[tuple[LoggedItem, EpisodeLog]]] = {}
    for scenario in claim.known:
        scores = []
        for episode, item in claim.items(scenario):
            on_episode(f"replaying {item.log.name}")
            told, log, found = _of_log(episode, item, on_slot)
            complaints += [f"{episode.log}: {each}" for each in told]
            if log is not None and not told:
                logs.setdefault(scenario.name, []).append((item, log))
            scores.append(found or episode.scores.model_dump())
        if scenario.means.model_dump() != cards.means(scores):
            complaints.append(f"{CARD}: the means of {scenario.name} are not those of its episodes")
    verified = sum(map(len, logs.values()))
    if complaints:
        return Verdict(complaints, verified, "none, as something else is wrong")
    if claim.card.track == "unrestricted":
        return Verdict(_incomplete(claim.card), verified, "none, as it may know anything")
    told, decisions, seeded = _of_decisions(logs, sample, on_episode, on_slot)
    return Verdict(told + _incomplete(claim.card), verified, decisions, seeded)


def slots_of(claim: Claim, sample: Sample) -> int:
    """How many slots there are to be played, at least."""
    replayed = sum(V1.scenario(each.name).episode.slots * len(each.episodes) for each in claim.known)
    asked = sum(V1.scenario(each.name).episode.slots for each in claim.known)
    return replayed + (replayed if sample.whole else asked) * (claim.card.track != "unrestricted")


def _of_card(claim: Claim) -> Iterator[str]:
    """What a card says that is not so."""
    card, policy = claim.card, claim.policy
    given = card.leaderboard
    if (given.version, given.digest) != (V1.version, V1.digest):
        yield f"it is for leaderboard {given.version} {given.digest}; expected {V1.version} {V1.digest}"
    if card.beacon is not None and card.beacon != beacon_value(card.beacon):
        yield f"beacon is {card.beacon!r}; expected it in lower case"
    if other := of_other_code(card.stamp):
        yield f"it was made by dpem_env {other}: play it again with this version"
    try:
        V1.require(card.track, card.policy.delay if card.track == "central" else None, policy.make(), policy.forecaster)
    except DpemError as error:
        yield f"track {card.track!r}: {error}"
    now = sources_of(policy, ())
    for name, content in now.items():
        if card.sources.get(name) != content:
            yield f"{name} is another one than was played; expected what was submitted"
    names = [each.name for each in card.scenarios]
    for each in card.scenarios:
        if names.count(each.name) > 1 or each.name not in V1.scenarios:
            once = ", ".join(V1.scenarios)
            yield f"scenario {each.name!r} is there {names.count(each.name)} times; expected once each of {once}"
        elif each.hash != V1.scenarios[each.name]:
            yield f"{each.name} has the hash {each.hash}; expected {V1.scenarios[each.name]}"
        indices = [episode.index for episode in each.episodes]
        if indices != list(range(len(indices))) or len(indices) > V1.episodes:
            yield f"episodes of {each.name} are {indices}; expected 0 to {V1.episodes - 1}, in order"


def _incomplete(card: Card) -> list[str]:
    """In plain words, what of the declared episodes is missing."""
    played = {each.name: len(each.episodes) for each in card.scenarios}
    missing = {name: lacking for name, number in V1.played().items() if (lacking := number - played.get(name, 0)) > 0}
    if not missing:
        return []
    told = ", ".join(f"{lacking} of {V1.episodes} episodes of {name}" for name, lacking in missing.items())
    return [f"{CARD}: incomplete, as a trial is: {told} are missing; submit again without --trial"]


def _of_log(
    episode: Episode, item: LoggedItem, on_slot: Callable[[], object]
) -> tuple[list[str], EpisodeLog | None, dict[str, float | None] | None]:
    """What of a log is wrong, the log, and the scores of its episode, made again."""
    name = log_of(item.scenario.name, item.index)
    if episode.log != name:
        return [f"expected the name {name}"], None, None
    seeds, expected = episode.seeds.model_dump(), item.seeds._asdict()
    if seeds != expected:
        return [f"the card gives it the seeds {seeds}; expected {expected}"], None, None
    try:
        log = read_log(item.log)
    except DpemError as error:
        return [str(error)], None, None
    told = list(_of_header(log, item, episode))
    if told:
        return told, log, None
    sums: list[EpisodeSums] = []

    def add(session: Session) -> None:
        sums[0].add(session.outcome())
        on_slot()

    report = replay_log(log, add, on_start=lambda session: sums.append(EpisodeSums(session)))
    if not report.verified:
        return [f"not verified: {line}" for line in report.lines()], log, None
    if report.not_drawn is not None:
        return [f"network and requests were not drawn again: {report.not_drawn}"], log, None
    metrics, claimed = sums[0].metrics().as_dict(), episode.scores.model_dump()
    scores = {each: metrics[each] for each in SCORES}
    wrong = [
        f"the card says that its {each} is {claimed[each]}; it is {value}"
        for each, value in scores.items()
        if claimed[each] != value
    ]
    return wrong, log, scores


def _of_header(log: EpisodeLog, item: LoggedItem, episode: Episode) -> Iterator[str]:
    """What a log says of itself that is not what was to be played."""
    expected = {
        "policy": (log.header["policy"], item.policy.label),
        "scenario": (log.header["scenario_hash"], item.scenario.hash),
        "seeds": (log.header["seeds"], item.seeds._asdict()),
        "slots": (log.header["slots"], item.scenario.episode.slots),
        "digest": (log.digest, episode.digest),
    }
    for name, (given, wanted) in expected.items():
        if given != wanted:
            yield f"its {name} is {given}; expected {wanted}"


def _of_decisions(
    logs: dict[str, list[tuple[LoggedItem, EpisodeLog]]],
    sample: Sample,
    on_episode: Callable[[str], object],
    on_slot: Callable[[], object],
) -> tuple[list[str], str, bool]:
    """What agents decide otherwise by themselves, in words who was asked, and whether the seed decides, too."""
    complaints: list[str] = []
    asked, seeded = [], False
    for name, played in logs.items():
        rng = generator(f"submission {name}", sample.seed)
        chosen = played if sample.whole else [played[rng.integers(len(played))]]
        for item, log in chosen:
            slots = len(log.rows) if sample.whole else SLOTS
            groups, who = _agents(item, log, sample, rng)
            for group in groups:
                on_episode(f"asking {who} of {item.log.name}")
                found = decided_alone(item, log, group, slots, on_slot)
                seeded |= found.seeded
                if found.difference is not None:
                    complaints.append(f"{log_of(name, item.index)}, {found.difference}")
                    break
            asked.append(f"{item.log.stem}: {who}")
    if sample.whole:
        return complaints, "all", seeded
    return complaints, f"{SLOTS} slots of {'; '.join(asked)}", seeded


def _agents(item: LoggedItem, log: EpisodeLog, sample: Sample, rng: np.random.Generator) -> tuple[list[list[int]], str]:
    """Groups of nodes that are asked at a time, and in words who they are; for a controller one group, of nobody."""
    if isinstance(item.policy.make(), CentralPolicy):
        return [[]], "the controller"
    nodes = len(log.header["network"]["names"])
    if sample.whole:
        return [list(range(nodes))[at : at + AT_ONCE] for at in range(0, nodes, AT_ONCE)], "all nodes"
    drawn = sorted(rng.permutation(nodes)[:NODES].tolist())
    return [drawn], f"nodes {', '.join(map(str, drawn))}"


def seal(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """The card with what was verified."""
    found = {
        "by": "dpem submit check",
        "version": simulator_version(),
        "stamp": stamp(),
        "logs": verdict.logs,
        "decisions": verdict.decisions,
        "seeded": verdict.seeded,
    }
    return claim.card.model_dump(mode="json") | {"checked": found}
