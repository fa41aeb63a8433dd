"""What people read: the result tables, the list of scenarios and the progress bar."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from dpem_env import policies, scenarios
from dpem_env.demand import forecast
from dpem_env.policy_names import SYNTAX
from dpem_env.report.labels import Estimate, Quantity
from dpem_env.scenarios import OFFERED_LOADS, SCENARIOS, Scenario
from dpem_env.scenarios.data import SOURCES, checksum, data_folder, data_needed
from dpem_env.scenarios.schema import CoronetNetwork, FileNetwork, TopohubNetwork
from dpem_env.support.console import complain, printable
from dpem_env.support.errors import DpemError, DpemWarning

Record = Mapping[str, Any]
SILENCE = 10.0  # s, at most, while something is done
SIDE_BY_SIDE = 6  # contestants, at most
RELATIVE = Quantity("relative", "relative", 3)
DIFFERENCES = (
    " : {label}",
    "metric",
    "difference [95 % CI]: {difference:change}",
    "clear of 0: {clear}",
    "relative [95 % CI]: {relative:change}",
    "P(more): {probability_of_improvement[value]:.2f}",
    "d: {cohens_d:.2f}",
    "Wilcoxon p: {wilcoxon_p:.2g}",
)
TUNED = ("policy: {name}", "delay (s): {delay:.12g}", "by default: {default_reward:.3f}", "tuned: {best[reward]:.3f}")


class _Output(Console):
    """Standard output; cells of tables are as wide as its encoding makes them."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As every console, in characters that can be printed."""
        return super().render_str(printable(text), **options)


def plain(text: str) -> Text:
    """A text that rich shows as it is, with nothing in it taken for markup."""
    return Text(printable(text))


def console() -> Console:
    """Standard output; wide enough for tables when it is not a terminal."""
    return _Output() if sys.stdout.isatty() else _Output(width=140)


def _terminal() -> Console:
    """Standard error; silent where nobody watches."""
    terminal = Console(stderr=True)
    terminal.quiet = not terminal.is_terminal
    return terminal


class _Lines(Progress):
    """Progress where nobody watches a bar, as in a log: a line on standard error every ten seconds."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self._told = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As of every progress."""
        super().update(task_id, **changes)
        self._tell()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As of every progress."""
        super().advance(task_id, advance)
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() - self._told < SILENCE:
            return
        self._told = time.monotonic()
        for task in self.tasks:
            if not task.finished:
                done = f"{task.completed:,.0f}" + ("" if task.total is None else f" of {task.total:,.0f}")
                share = "" if not task.total else f" ({task.completed / task.total:.0%})"
                remaining = task.time_remaining
                left = "" if remaining is None else f", about {timedelta(seconds=int(remaining))} left"
                with suppress(OSError, ValueError):  # whoever reads has gone
                    complain(f"{task.description or 'at work'}: {done}{share}{left}")


def progress(shown: bool = True) -> Progress:
    """A progress bar on standard error, gone when done; without a terminal, a line every ten seconds."""
    if shown and not _terminal().is_terminal:
        return _Lines()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_terminal(),
        transient=True,
        disable=not shown,
    )


def working(what: str) -> Status:
    """A sign of life on standard error for work of unknown length."""
    return _terminal().status(printable(what), spinner="line")  # whose signs every encoding has


def cells(records: Sequence[Record], columns: Sequence[str], left: int = 1) -> tuple[list[str], list[dict[str, str]]]:
    """Titles of a table, and its rows by title.

    A column "title: cell" has two templates, filled with every record's fields; one that is the name of a field shows
    it, by the label of its quantity if it is an estimate. Records that agree in the first `left` columns share a row,
    unless they contradict each other in another. What a record does not have, or is None, is left out.
    """
    titles: dict[str, int] = {}
    rows: list[dict[str, str]] = []
    open_rows: dict[tuple[str, ...], dict[str, str]] = {}
    parted = [_templates(column, records) for column in columns]
    for record in records:
        known = {name: value for name, value in record.items() if value is not None}
        told: dict[str, str] = {}
        key: tuple[str, ...] = ()
        for place, (title, cell) in enumerate(parted):
            with suppress(KeyError):
                text, name = cell.format_map(known), title.format_map(known)
                titles.setdefault(name, place)
                told[name] = text
                key += (text,) if place < left else ()
        row = open_rows.get(key)
        if row is None or any(row.get(name, text) != text for name, text in told.items()):
            row = open_rows[key] = {}
            rows.append(row)
        row.update(told)
    return sorted(titles, key=titles.__getitem__), rows


def _templates(column: str, records: Sequence[Record]) -> tuple[str, str]:
    """Of the title and of the cells."""
    title, colon, cell = column.partition(": ")
    return (title.strip(), cell) if colon else (_title(column, records), f"{{{column}}}")


def _title(field: str, records: Sequence[Record]) -> str:
    shown = next((record[field] for record in records if record.get(field) is not None), None)
    return shown.quantity.title if isinstance(shown, Estimate) else field


def by_metric(records: Sequence[Record], metrics: Iterable[str]) -> list[Record]:
    """A record for every one and metric: its title as "metric", the one's estimate as "value"."""
    titles = {metric: _title(metric, records) for metric in metrics}
    return [{**each, "metric": titles[name], "value": each.get(name)} for each in records for name in titles]


def table(
    title: str, records: Sequence[Record], columns: Sequence[str], *, right: slice = slice(1, None), left: int = 1
) -> Table:
    """For the console; "-" where nothing is known."""
    titles, rows = cells(records, columns, left)
    shown = Table(title=plain(title))
    for name in titles:
        shown.add_column(plain(name), justify="right" if name in titles[right] else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(plain(row.get(name, "-")) for name in titles))
    return shown


def print_results(
    summary: dict[str, Any], records: Sequence[Record], quantities: Sequence[Quantity], headline: Sequence[Quantity]
) -> None:
    """The tables of results: per scenario what every contestant came to, then every other against the reference.

    A few contestants stand side by side with all that is known of them, many below each other with the headline.
    """
    out = console()
    for scenario in summary["scenarios"]:
        played = [record for record in records if record["scenario"] == scenario["name"]]
        what = f"{scenario['name']} ({scenario['hash']}): {len(scenario['episodes'])} {summary['split']} seed(s)"
        caption = f"{what}, mean ± 95 % CI"
        if len(played) <= SIDE_BY_SIDE:
            told = by_metric(played, [quantity.name for quantity in quantities])
            out.print(table(caption, told, [" : {metric}", "{label}: {value}"]))
        else:
            out.print(table(caption, played, [" : {label}", *(quantity.name for quantity in headline)]))
        if scenario["bound"]:
            out.print(f"score: 0 is random-legal, 1 the {scenario['bound']['name']} bound")
        if scenario["differences"]:
            minus = f"{what}; minus {summary['reference']} on the same episodes"
            found = differences(scenario, headline[:2])
            out.print(table(minus, found, DIFFERENCES, right=slice(2, None), left=2))


def differences(scenario: Record, quantities: Sequence[Quantity]) -> list[Record]:
    """What every contestant of a scenario in a summary has more than the reference: the records of `DIFFERENCES`."""
    return [_difference(each, quantity) for each in scenario["differences"] for quantity in quantities]


def _difference(each: Record, quantity: Quantity) -> Record:
    compared = each["metrics"].get(quantity.name) or {}
    told = {"label": each["label"], "metric": quantity.label}
    if compared:
        told["clear"] = "yes" if compared["clear_of_zero"] else "no"
    for field, kind in (("difference", quantity), ("relative", RELATIVE)):
        interval = compared.get(field) or {"value": None}
        told[field] = None if interval["value"] is None else Estimate(kind, **interval)
    return compared | told


def print_tuned(tuned: Iterable[Record], labels: Mapping[str, str]) -> None:
    """What a search found, policy by policy; `labels` by the name of those that have one."""
    found = [of_tuned({**each, "policy": labels.get(each["policy"], each["policy"])}) for each in tuned]
    console().print(table("mean reward on validation episodes", found, [*TUNED, "options"], right=slice(1, 4)))


def of_tuned(found: Record) -> Record:
    """What was found for a policy, with its name and its options as text."""
    name = found["policy"] + (f"+{found['forecaster']}" if found["forecaster"] else "")
    options = ", ".join(f"{option}={value}" for option, value in found["best"]["options"].items()) or "its defaults"
    return {**found, "name": name, "options": options}


def print_fronts(title: str, records: Sequence[Record], fronts: Sequence[str], differences: Sequence[str]) -> None:
    """What fronts come to, policy by policy, then those beside the reference, which has nothing there."""
    console().print(table(f"{title}: delivery at a contention, with 95 % CI", records, fronts))
    compared = [each for each in records if "more" in each]
    if compared:
        reference = next(each["policy"] for each in records if "more" not in each)
        console().print(table(f"minus {reference} on the same episodes", compared, differences))


def print_forecasts(summary: dict[str, Any]) -> None:
    """Deviance skill of every forecaster, slot by slot ahead, with its interval for the first and the last."""
    horizon = len(summary["forecasters"][0]["skill"])
    what = f"{summary['scenario']} ({summary['scenario_hash']}): {len(summary['seeds'])} {summary['split']} episode(s)"
    columns = [" : {name}", *(f"{ahead}: {{skill_{ahead}:.3f}}" for ahead in range(1, horizon + 1))]
    columns += [*(f"MASE {ahead}: {{mase_{ahead}:.2f}}" for ahead in (1, horizon)), "µs/slot: {us_per_slot:.0f}"]
    records = [
        {f"{score}_{ahead}": value for score in ("skill", "mase") for ahead, value in enumerate(each[score], start=1)}
        | {"name": each["name"] + (" (clairvoyant)" if each["clairvoyant"] else ""), "us_per_slot": each["us_per_slot"]}
        for each in summary["forecasters"]
    ]
    title = f"{what}; deviance skill over the true mean rates by slots ahead, MASE, time"
    console().print(table(title, records, columns))


def print_list(data_dir: str | os.PathLike[str] | None, suites: Mapping[str, str]) -> None:
    """Scenarios, policies and forecasters, and where data that is not shipped comes from."""
    out = console()
    known = [
        {
            "name": scenario.name,
            "nodes": num_nodes(scenario),
            "requests/s": f"{scenario.requests_per_slot / scenario.control.slot_duration:g}",
            "load ρ": f"{OFFERED_LOADS[scenario.name]:.2f}" if scenario.name in OFFERED_LOADS else "-",
            "data": ", ".join(data_needed(scenario)) or "-",
            "what it is": scenario.summary,
        }
        for scenario in (*SCENARIOS.values(), *_announced())
    ]
    title = "scenarios (-v0 rules are provisional until release 0.1)"
    out.print(table(title, known, list(known[0]), right=slice(1, 4)))
    out.print("  load ρ: requests/s over the rate of which 0.8 could be delivered at best", highlight=False)
    out.print("policies:", ", ".join(sorted(policies.available())), highlight=False)
    out.print("  (central:NAME puts a local policy under central control)", highlight=False)
    out.print(f"  ({SYNTAX}; LABEL= before it names its row)", highlight=False, markup=False)
    out.print("forecasters:", ", ".join(["none", *forecast.available()]), highlight=False)
    out.print(f"  ({forecast.SYNTAX})", highlight=False, markup=False)
    out.print("suites:", ", ".join(f"{name} ({summary})" for name, summary in suites.items()), highlight=False)
    out.print("\ndata that is not shipped (put it into a folder; pass --data DIR or set DPEM_DATA):", highlight=False)
    folder = data_folder(data_dir)
    for name, source in SOURCES.items():
        presence = _presence(folder, source.file, source.sha256)
        out.print(f"  {name}: {source.file} [{presence}]", highlight=False, markup=False)
        out.print(f"    from {source.origin}; licence {source.licence}", highlight=False, markup=False)
        out.print(f"    sha256 {source.sha256}", highlight=False)


def _announced() -> Iterator[Scenario]:
    """The scenarios of other packages; one that cannot be made is told of, and the rest goes on."""
    for name in scenarios.available():
        try:
            yield scenarios.get(name)
        except DpemError as error:
            warnings.warn(DpemWarning(name, f"{error}"), stacklevel=2)


def _presence(folder: Path | None, file: str, sha256: str) -> str:
    if folder is None:
        return "no data folder given"
    path = folder / file
    if not path.is_file():
        return "missing"
    return "present" if checksum(path) == sha256 else "present, but another checksum"


def num_nodes(scenario: Scenario) -> str:
    """How many nodes networks of a scenario have, as far as it says."""
    match scenario.network:
        case TopohubNetwork() as network:
            import topohub

            return str(len(topohub.get(network.topology)["nodes"]))
        case CoronetNetwork():
            return "100"
        case FileNetwork():
            return "-"
        case network:
            return str(network.nodes)
