"""The card of a submission: who played what, on which seeds, with what outcome; the leaderboard is made of cards alone.

Every episode has its seeds, its log with the digest of its content, and its scores; every scenario their means with
95 % intervals, Student's over episodes. `checked` is what ``dpem submit check`` has verified, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments.leaderboard import TRACKS, V1, Track
from dpem_env.experiments.paper_table import markdown
from dpem_env.experiments.statistics import mean_interval
from dpem_env.report.labels import Estimate
from dpem_env.report.tables import cells
from dpem_env.scenarios.schema import Natural
from dpem_env.support.errors import DpemError
from dpem_env.support.files import Part, checked, read_json, reading
from dpem_env.support.seeding import generator

FORMAT, CARD = "dpem-card-1", "card.json"
MEANS = ("mean delivery: {delivery_rate}", "mean contention: {contention}")  # over scenarios


class Mean(Part):
    """Of a metric over episodes; no interval of a single one."""

    value: float
    low: float | None
    high: float | None


class Scores(Part):
    """Of an episode; None where there is nothing to measure, such as the fidelity of no pairs."""

    delivery_rate: float | None
    contention: float | None
    reward: float | None
    fidelity: float | None
    latency: float | None


SCORES = tuple(Scores.model_fields)


class Means(Part):
    """Of the scores of several."""

    delivery_rate: Mean | None
    contention: Mean | None
    reward: Mean | None
    fidelity: Mean | None
    latency: Mean | None


class Seeds(Part):
    """Of an episode."""

    topology: Natural
    demand: Natural


class Episode(Part):
    """An episode: its place in the declaration, its log below the folder of the submission, its scores."""

    index: Natural
    seeds: Seeds
    log: str
    digest: str
    scores: Scores


class Scenario(Part):
    """A scenario: the options that the policy was played with there, its episodes, and the means of their scores."""

    name: str
    hash: str
    options: dict[str, Any]
    episodes: list[Episode] = Field(min_length=1)
    means: Means


class Player(Part):
    """What plays, as `dpem run` takes it, its label, control delay (s) and forecaster, if another than its own."""

    plays: str
    called: str | None
    delay: float | None
    forecaster: str | None


class Declared(Part):
    """Which declaration was played."""

    version: str
    digest: str


class Checked(Part):
    """What was verified: how many logs, in words whose decisions were made again, and whether the seed decides, too."""

    by: str
    version: dict[str, str]
    stamp: str
    logs: Natural
    decisions: str
    seeded: bool


class Card(Part):
    """A submission on a track."""

    format: Literal["dpem-card-1"]
    name: str
    track: Track
    leaderboard: Declared
    beacon: str | None
    policy: Player
    version: dict[str, str]
    stamp: str
    sources: dict[str, str]
    scenarios: list[Scenario] = Field(min_length=1)
    checked: Checked | None = None


def read_card(path: Path) -> Card:
    """A card; DpemError, in a line, for something else."""
    with reading("card", path):
        return checked(Card, read_json(path), "card")


def means(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None] | None]:
    """Means of the scores of episodes, over those that have one; None where none has."""
    found: dict[str, dict[str, float | None] | None] = {}
    for metric in SCORES:
        values = [value for each in scores if (value := each[metric]) is not None]
        interval = mean_interval([values], generator("leaderboard")) if values else None
        found[metric] = interval and {
            name: None if math.isnan(number) else number for name, number in interval._asdict().items()
        }
    return found


def cards_in(paths: Iterable[Path]) -> list[Path]:
    """The files of cards: those given, and of a folder its card, or else all that lie in it."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
        elif (path / CARD).is_file():
            found.append(path / CARD)
        elif several := sorted(path.glob("*.json")):
            found += several
        else:
            raise DpemError(f"{str(path)!r} has no card; expected {CARD}, written by dpem submit, or a folder of cards")
    return found


def records(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """A row of the table for every card, by track and control delay, the best first."""
    rows = [(card, _row(card)) for card in cards]

    def place(row: tuple[Card, dict[str, Any]]) -> tuple[float, ...]:
        card, told = row
        best = told.get(V1.ranked_by)
        return TRACKS.index(card.track), card.policy.delay or 0.0, math.inf if best is None else -best.value

    return [told for _, told in sorted(rows, key=place)]


def leaderboard(cards: Sequence[Card]) -> str:
    """The table, as Markdown."""
    played = dict.fromkeys(scenario.name for card in cards for scenario in card.scenarios)
    columns = ["track", "policy", "seeds", "checked", *(f"{name}: {{{name} {V1.ranked_by}}}" for name in played)]
    titles, rows = cells(records(cards), [*columns, *MEANS], left=4)
    return markdown([titles, *([row.get(title, "-") for title in titles] for row in rows)], left=4)


def _row(card: Card) -> dict[str, Any]:
    delay = "" if card.policy.delay is None or card.track != "central" else f", {card.policy.delay:g} s"
    row: dict[str, Any] = {"policy": card.name, "track": f"{card.track}{delay}", "stamp": card.stamp}
    row["version"] = ", ".join(f"{name} {number}" for name, number in card.version.items())
    row["episodes"] = V1.episodes
    row["seeds"] = "held-out" if card.beacon is None else f"beacon {card.beacon[:8]}"
    whole = {each.name: len(each.episodes) for each in card.scenarios} == V1.played()
    if not whole:
        row["checked"] = "a trial"
    elif card.checked is None:
        row["checked"] = "no"
    else:
        row["checked"] = f"{card.checked.logs} logs{', draws lots' * card.checked.seeded}"
    for metric in SCORES:
        known = {each.name: mean for each in card.scenarios if (mean := getattr(each.means, metric)) is not None}
        row |= {f"{name} {metric}": _estimate(metric, mean) for name, mean in known.items()}
        if known and whole:
            row[metric] = Estimate(METRICS[metric], sum(mean.value for mean in known.values()) / len(known))
    return row


def _estimate(metric: str, mean: Mean) -> Estimate:
    return Estimate(METRICS[metric], mean.value, mean.low, mean.high)
