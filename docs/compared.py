"""Contestants of committed results, their cells, and tables of them as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from dpem_env.envs.metric_labels import HEADLINE, METRICS, SCORE
from dpem_env.experiments import results
from dpem_env.experiments.statistics import Array, paired_difference, relative_difference

RESULTS = Path(__file__).resolve().parents[1] / "baselines" / "results"
QUANTITIES = METRICS | {SCORE.name: SCORE}
POINT = 0.5  # s, control delay at which policies are compared where there is room for one


@dataclass(frozen=True)
class Row:
    """A contestant on a scenario: what the summary tells, and its values by metric, (training seeds, episodes)."""

    told: dict[str, Any]
    values: dict[str, Array]

    @property
    def name(self) -> str:
        """Policy, and forecaster if not its own."""
        return str(self.told["policy"]) + (f"+{self.told['forecaster']}" if self.told["forecaster"] else "")

    @property
    def delay(self) -> float | None:
        """Control delay in s, if central."""
        return self.told["delay"]  # type: ignore[no-any-return]

    def mean(self, metric: str) -> float:
        """As in the summary."""
        return float(self.told["metrics"][metric]["mean"]["value"])

    def cell(self, metric: str) -> str:
        """Mean ± half its interval."""
        return QUANTITIES[metric].estimate((self.told["metrics"][metric] or {}).get("mean"))

    def cells(self, metrics: Iterable[str] = HEADLINE) -> dict[str, str]:
        """By title."""
        return {QUANTITIES[metric].title: self.cell(metric) for metric in metrics}

    def gain(self, other: Row, metric: str = "reward") -> str:
        """The paired difference with its interval."""
        pair = self.values[metric], other.values[metric]
        return QUANTITIES[metric].change(paired_difference(*pair, np.random.default_rng(0)))

    def relative(self, other: Row, metric: str) -> str:
        """How much more it is, in per cent, with its interval."""
        ratio = relative_difference(self.values[metric], other.values[metric], np.random.default_rng(0))
        return "{:+.0f} [{:+.0f}, {:+.0f}]".format(*(100 * part for part in ratio))


@dataclass(frozen=True)
class Played:
    """A scenario of a benchmark."""

    told: dict[str, Any]
    rows: list[Row]
    note: str  # how it was measured

    @property
    def bound(self) -> str:
        """The mean of the largest delivery rates possible."""
        return f"{self.told['bound']['delivery_rate']['value']:.3f}"

    @property
    def delays(self) -> list[float]:
        """Control delays played."""
        return sorted({row.delay for row in self.rows if row.delay is not None})

    @property
    def names(self) -> list[str]:
        """Local ones first, the best first among each."""
        best = {row.name: (row.delay is not None, -row.mean("reward")) for row in sorted(self.rows, key=_reward)}
        return sorted(best, key=lambda name: best[name])

    def row(self, name: str, delay: float = POINT) -> Row:
        """The one of that name, at that delay if central."""
        [found] = [row for row in self.rows if row.name == name and row.delay in (None, delay)]
        return found


@cache
def played(folder: str) -> list[Played]:
    """All scenarios of committed results."""
    summary, frame = results.read(RESULTS / folder)
    version = ", ".join(f"{name} {number}" for name, number in summary["version"].items())
    found = []
    for scenario in summary["scenarios"]:
        values = results.arrays(frame, scenario["name"])
        rows = [Row(each, values[results.Key.of(each)]) for each in scenario["contestants"]]
        note = f"{len(scenario['episodes'])} paired evaluation episodes, mean ± 95 % CI ({version})."
        found.append(Played(scenario, rows, note))
    return found


def best_first(rows: Iterable[Row]) -> list[Row]:
    """By mean reward."""
    return sorted(rows, key=_reward, reverse=True)


def _reward(row: Row) -> float:
    return row.mean("reward")


def load(path: str) -> Any:
    """A committed result file of another kind."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def told(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of a result file by title, each as its template has it."""
    return [{title: template.format(**row) for title, template in columns.items()} for row in rows]


def markdown(rows: Iterable[Mapping[str, object]] | DataFrame, note: str = "", left: int = 1) -> str:
    """A table, all columns but the first so many to the right, with a paragraph below it."""
    frame = DataFrame(rows).fillna("").astype(str)
    titles = [title.strip() for title in frame.columns]
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *frame.to_numpy().tolist())]
    lines.insert(1, "|" + "---|" * left + "---:|" * (len(titles) - left))
    return "\n".join(lines) + (f"\n\n{note}" if note else "")
