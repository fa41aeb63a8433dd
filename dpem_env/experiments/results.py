"""Results as they are kept: one tidy table, and a summary of what was played and what it came to.

`results.parquet` has a row for every value: scenario, scenario_hash, policy (as it was asked for), forecaster (none:
its own), delay (s; none for local policies), training_seed (number of the checkpoint; 0 for a rule), seed (number of
the episode in its split), metric, value (NaN where it does not exist, such as the fidelity of no pairs). The members of
a metric that is a list, such as the delivery rate by hops, are metrics with a number, from 1 on. The bound of an
episode is the delivery rate of a policy "bound:NAME". `summary.json` has the estimates of every metric, those of which
results of before kept no values, too, and the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dpem_env.envs.metric_labels import HEADLINE, QUANTITIES
from dpem_env.experiments.contestants import Contestant
from dpem_env.experiments.statistics import Array, paired_difference, relative_difference
from dpem_env.report.labels import Estimate, Quantity
from dpem_env.support.errors import DpemError, nearest
from dpem_env.support.files import read_json, reading, whole_file, write_json
from dpem_env.support.provenance import UNKNOWN

if TYPE_CHECKING:
    from pandas import DataFrame

    from dpem_env.report.results_figure import Panelled

FORMAT = "dpem-results-2"
FRAME, SUMMARY, PICTURE = "results.parquet", "summary.json", "results.png"
PER_CENT = Quantity("per_cent", "per cent", 0)
COLUMNS = {
    "scenario": "string",
    "scenario_hash": "string",
    "policy": "string",
    "forecaster": "string",
    "delay": "float64",
    "training_seed": "int64",
    "seed": "int64",
    "metric": "string",
    "value": "float64",
}


class Key(NamedTuple):
    """What tells contestants apart in a table."""

    policy: str
    forecaster: str | None
    delay: float | None

    @classmethod
    def of(cls, contestant: Contestant | Mapping[str, Any]) -> Key:
        """Of a contestant, or of one in a summary."""
        if isinstance(contestant, Contestant):
            return cls(contestant.policy, contestant.forecaster, contestant.delay)
        return cls(contestant["policy"], contestant["forecaster"], contestant["delay"])


class Rows:
    """A table in the making."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(
        self, scenario: str, scenario_hash: str, key: Key, training_seed: int, seed: int, metrics: Mapping[str, Any]
    ) -> None:
        """The metrics of an episode."""
        for metric, value in flat(metrics):
            self._rows.append((scenario, scenario_hash, *key, training_seed, seed, metric, value))

    def frame(self) -> DataFrame:
        """All of it."""
        from pandas import DataFrame

        names = ["scenario", "scenario_hash", *Key._fields, "training_seed", "seed", "metric", "value"]
        return DataFrame(self._rows, columns=names)[list(COLUMNS)].astype(COLUMNS)


def flat(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number with its name; None is NaN."""
    for name, value in metrics.items():
        if isinstance(value, list | tuple):
            yield from flat({f"{name}_{place}": member for place, member in enumerate(value, start=1)})
        else:
            yield name, np.nan if value is None else float(value)


def arrays(frame: DataFrame, scenario: str) -> dict[Key, dict[str, Array]]:
    """Of every contestant on a scenario (T, E) arrays by metric: training seeds by episodes, in the order of both."""
    names = [*Key._fields, "metric"]
    ordered = frame[frame["scenario"] == scenario].sort_values(["training_seed", "seed"], kind="stable")
    group = ordered.groupby(names, dropna=False, sort=False).ngroup().to_numpy()
    _, first, counts = np.unique(group, return_index=True, return_counts=True)
    # Group by group, which pandas takes a hundred times as long to walk through.
    by_group, ends = np.argsort(group, kind="stable"), np.cumsum(counts)[:-1]
    values, trainings = (np.split(ordered[name].to_numpy()[by_group], ends) for name in ("value", "training_seed"))
    heads = ordered[names].iloc[first].astype(object)
    found: dict[Key, dict[str, Array]] = {}
    for head, of_group, seeds in zip(heads.where(heads.notna(), None).values, values, trainings, strict=True):
        policy, forecaster, delay, metric = head
        found.setdefault(Key(str(policy), forecaster, delay), {})[str(metric)] = of_group.reshape(
            len(np.unique(seeds)), -1
        )
    return found


class Results(NamedTuple):
    """What a folder of results holds: a summary as plain data, and all values (see the head of this module)."""

    summary: dict[str, Any]
    frame: DataFrame

    def __repr__(self) -> str:
        played = "; ".join(
            f"{each['name']}, {len(each['episodes'])} episodes: {', '.join(of['label'] for of in each['contestants'])}"
            for each in self.summary["scenarios"]
        )
        return f"<Results of {played or 'nothing'}; see table()>"

    def table(self, *metrics: str, reference: str | None = None) -> DataFrame:
        """A row per scenario and contestant, as texts for a paper: each metric as ``0.517 [0.509, 0.525]``.

        Beside it what the contestant has more than the one of the label `reference` (default: that of the results), as
        ``+0.012 [+0.004, +0.020]``: the paired difference on the same episodes. All intervals are of 95 %. Without
        `metrics` those that policies are judged by. DpemError for a metric or a label that there is none of.
        """
        from pandas import DataFrame

        reference = self.summary["reference"] if reference is None else reference
        found = [each for each in records(self) if not each["policy"].startswith("bound:")]
        known = {name for each in found for name, value in each.items() if isinstance(value, Measured)}
        labels = [each["label"] for each in found]
        for name, given, possible in (("metric", metrics, known), ("reference", (reference,), labels)):
            for each in given:
                if each not in possible:
                    raise DpemError(f"{name} is {each!r}; {nearest(str(each), possible)}")
        rows = []
        for contestant in found:
            row = {"scenario": contestant["scenario"], "label": contestant["label"]}
            for metric in metrics or HEADLINE:
                if (measured := contestant.get(metric)) is not None:
                    row |= {
                        metric: f"{measured:interval}",
                        f"{metric} minus {reference}": f"{measured:minus {reference}}",
                    }
            rows.append(row)
        return DataFrame(rows).set_index(["scenario", "label"]).fillna("")

    def intervals(self) -> DataFrame:
        """A row per scenario, contestant and metric: mean with its 95 % interval, and how many episodes have it."""
        return self._table("contestants", "mean", {"mean": "value"})

    def differences(self) -> DataFrame:
        """A row per scenario, contestant and metric: what it has more than the reference on the same episodes.

        With the 95 % interval, whether that is clear of zero, and the p of Wilcoxon's signed ranks.
        """
        return self._table("differences", "difference", {"difference": "value"}, "clear_of_zero", "wilcoxon_p")

    def _table(self, part: str, estimate: str, renamed: Mapping[str, str], *more: str) -> DataFrame:
        from pandas import DataFrame

        rows = [
            {"scenario": scenario["name"], "label": each["label"], "metric": metric}
            | {name: found[estimate][field] for name, field in (*renamed.items(), ("low", "low"), ("high", "high"))}
            | {name: found[name] for name in (*more, "episodes")}
            for scenario in self.summary["scenarios"]
            for each in scenario[part]
            for metric, found in each["metrics"].items()
            if found is not None
        ]
        return DataFrame(rows)


@dataclass(frozen=True, eq=False)
class Measured(Estimate):
    """A metric of a contestant: the values behind the estimate, (T, E) or none, and all who played the scenario.

    As text, besides what an `Estimate` has: "{x:minus LABEL}" is the paired difference to another contestant, "{x:to
    LABEL}" how much more that one has, in per cent; empty for the contestant itself.
    """

    label: str = ""
    values: Array | None = None
    others: Mapping[str, Measured] = field(default_factory=dict)

    def __format__(self, spec: str) -> str:
        kind, _, label = spec.partition(" ")
        if not label:
            return super().__format__(spec)
        if self._other(label).label == self.label:
            return ""
        if kind == "minus":
            difference = self.minus(label)
            return "" if difference is None else format(difference, "change")
        ours, theirs = self._both(label)
        more = (100 * part for part in relative_difference(theirs, ours, np.random.default_rng(0)))
        return format(Estimate(PER_CENT, *more), "change")

    def minus(self, label: str) -> Estimate | None:
        """The paired difference to another contestant, on the episodes in which both have a value; None without any."""
        ours, theirs = self._both(label)
        known = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
        if not known.any():
            return None
        return Estimate(self.quantity, *paired_difference(ours[:, known], theirs[:, known], np.random.default_rng(0)))

    def _other(self, label: str) -> Measured:
        if label not in self.others:
            raise DpemError(f"a table compares {self.label} with {label!r}; {nearest(label, self.others)}")
        return self.others[label]

    def _both(self, label: str) -> tuple[Array, Array]:
        ours, theirs = self.values, self._other(label).values
        if ours is None or theirs is None:
            raise DpemError(
                f"a table compares {self.label} with {label}, but values of {self.quantity.name} are not kept"
            )
        return ours, theirs


def records(*found: Results) -> list[dict[str, Any]]:
    """A record of every contestant, and every bound, of every scenario: who, on what, and each metric as `Measured`.

    Of a scenario "BASE+FIELD=VALUE" there are the base and that field, too. All who played a scenario of one name can
    be compared, whichever of the results they are in.
    """
    told: list[dict[str, Any]] = []
    known: defaultdict[tuple[str, str], dict[str, Measured]] = defaultdict(dict)
    for summary, frame in found:
        version = ", ".join(f"{name} {number}" for name, number in summary["version"].items())
        for scenario in summary["scenarios"]:
            values = arrays(frame, scenario["name"])
            base, changes = told_by(scenario["name"])
            world: dict[str, Any] = {
                **changes,
                "scenario": scenario["name"],
                "base": base,
                "episodes": len(scenario["episodes"]),
            }
            world |= {"split": summary["split"], "version": version, "stamp": summary.get("stamp", UNKNOWN)}
            for each in (*scenario["contestants"], *_bound(scenario["bound"])):
                name = each["policy"] + (f"+{each['forecaster']}" if each["forecaster"] else "")
                control = "local" if each["delay"] is None else f"delay {each['delay']:g} s"
                record = world | {"name": name, "control": control} | each
                for metric, estimate in each["metrics"].items():
                    if estimate is not None:
                        others = known[scenario["name"], metric]
                        of = values.get(Key.of(each), {}).get(metric)
                        measured = Measured(
                            QUANTITIES[metric], **estimate["mean"], label=each["label"], values=of, others=others
                        )
                        others[each["label"]] = record[metric] = measured
                told.append(record)
    return told


def panelled(found: Results) -> list[Panelled]:
    """Every scenario as figures take it: contestants with the means of their episodes over training seeds."""
    from dpem_env.report.results_figure import Panelled, Point

    drawn = []
    for scenario in found.summary["scenarios"]:
        values = arrays(found.frame, scenario["name"])
        points = [
            Point(each, {name: array.mean(axis=0) for name, array in values.get(Key.of(each), {}).items()})
            for each in scenario["contestants"]
        ]
        drawn.append(Panelled(scenario | {"reference": found.summary["reference"]}, points))
    return drawn


def told_by(name: str) -> tuple[str, dict[str, str]]:
    """The base of a scenario of this name, and the fields that are not those of its base, as text."""
    base, *changes = name.split("+")
    return base, {field: value for field, _, value in (change.partition("=") for change in changes)}


def together(found: Sequence[Results]) -> Results:
    """Results of other contestants on the same episodes as those of one benchmark, with the reference of the first.

    DpemError for other scenarios or episodes, or a contestant that is in several of them.
    """
    from pandas import concat

    first, *others = found
    scenarios = [dict(scenario) for scenario in first.summary["scenarios"]]
    for other in others:
        if _played(other) != _played(first):
            raise DpemError("the results are not of the same scenarios and episodes: compare those that are")
        for scenario, more in zip(scenarios, other.summary["scenarios"], strict=True):
            labels = {each["label"] for each in scenario["contestants"]}
            if twice := [each["label"] for each in more["contestants"] if each["label"] in labels]:
                raise DpemError(f"{twice[0]!r} is in several of the results; expected each policy in one of them")
            scenario["contestants"] = [*scenario["contestants"], *more["contestants"]]
    return Results(first.summary | {"scenarios": scenarios}, concat([each.frame for each in found], ignore_index=True))


def _played(found: Results) -> list[Any]:
    return [found.summary["split"], *((each["hash"], each["episodes"]) for each in found.summary["scenarios"])]


def _bound(bound: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """As a contestant."""
    if bound is not None:
        label, policy = f"{bound['name']} bound", f"bound:{bound['name']}"
        who = {"label": label, "name": label, "policy": policy, "forecaster": None, "delay": None}
        yield who | {"metrics": {"delivery_rate": {"mean": bound["delivery_rate"]}}}


def write(folder: Path, results: Results) -> None:
    """Both files, each whole or not at all."""
    with whole_file(folder / FRAME) as partial:
        results.frame.to_parquet(partial, index=False, compression="zstd")
    write_json(folder / SUMMARY, results.summary)


def read(folder: Path) -> Results:
    """What `write` has written; DpemError for something else."""
    import pandas

    with reading("summary of results", folder / SUMMARY):
        summary = read_json(folder / SUMMARY)
        if summary.get("format") != FORMAT:
            raise DpemError(f"expected the format {FORMAT}: written by dpem run or dpem benchmark")
    with reading("table of results", folder / FRAME):
        frame = pandas.read_parquet(folder / FRAME).astype(COLUMNS)
    return Results(summary, frame)
