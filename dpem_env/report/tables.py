"""What people read: the result tables, the list of scenarios and the progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from dpem_env import policies
from dpem_env.demand import forecast
from dpem_env.report.labels import Quantity
from dpem_env.scenarios import OFFERED_LOADS, SCENARIOS, Scenario
from dpem_env.scenarios.data import SOURCES, checksum, data_folder, data_needed
from dpem_env.scenarios.schema import CoronetNetwork, TopohubNetwork
from dpem_env.support.console import printable

SIDE_BY_SIDE = 6  # contestants, at most
DIFFERENCES = ("", "metric", "difference [95 % CI]", "clear of 0", "relative [95 % CI]", "P(more)", "d", "Wilcoxon p")


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


def progress(shown: bool = True) -> Progress:
    """A progress bar on standard error, gone when done."""
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


def print_results(summary: dict[str, Any], quantities: Sequence[Quantity], headline: Sequence[Quantity]) -> None:
    """The tables of results: per scenario what every contestant came to, then every other against the reference.

    A few contestants stand side by side with all that is known of them, many below each other with the headline.
    """
    out = console()
    for scenario in summary["scenarios"]:
        what = f"{scenario['name']} ({scenario['hash']}): {len(scenario['episodes'])} {summary['split']} seed(s)"
        few = len(scenario["contestants"]) <= SIDE_BY_SIDE
        out.print(_contestants(scenario, f"{what}, mean ± 95 % CI", quantities if few else headline, few))
        if scenario["bound"]:
            rate = scenario["bound"]["delivery_rate"]["value"]
            out.print(f"score: 0 is random-legal, 1 the {scenario['bound']['name']} bound, delivery rate {rate:.3f}")
        if scenario["differences"]:
            out.print(
                _differences(scenario, f"{what}; minus {summary['reference']} on the same episodes", headline[:2])
            )


def _contestants(scenario: dict[str, Any], title: str, quantities: Sequence[Quantity], few: bool) -> Table:
    rows = [
        [quantity.estimate((each["metrics"].get(quantity.name) or {}).get("mean")) for quantity in quantities]
        for each in scenario["contestants"]
    ]
    labels = [plain(each["label"]) for each in scenario["contestants"]]
    titles = [plain(quantity.title) for quantity in quantities]
    table = Table(title=plain(title))
    table.add_column("", overflow="fold")
    for name in labels if few else titles:
        table.add_column(name, justify="right", overflow="fold", no_wrap=not few)
    for name, cells in zip(titles, zip(*rows, strict=True), strict=True) if few else zip(labels, rows, strict=True):
        table.add_row(name, *cells)
    return table


def _differences(scenario: dict[str, Any], title: str, quantities: Sequence[Quantity]) -> Table:
    table = Table(title=plain(title))
    for name in DIFFERENCES:
        table.add_column(name, justify="left" if name in ("", "metric") else "right", overflow="fold")
    for each in scenario["differences"]:
        for quantity in quantities:
            cells = _difference_cells(each["metrics"].get(quantity.name), quantity.decimals)
            table.add_row(plain(each["label"]), quantity.label, *cells)
    return table


def _difference_cells(compared: dict[str, Any] | None, decimals: int) -> list[str]:
    if compared is None:
        return ["-"] * 6
    d = compared["cohens_d"]
    return [
        _bracketed(compared["difference"], decimals),
        "yes" if compared["clear_of_zero"] else "no",
        _bracketed(compared["relative"], 3),
        f"{compared['probability_of_improvement']['value']:.2f}",
        "-" if d is None else f"{d:.2f}",
        f"{compared['wilcoxon_p']:.2g}",
    ]


def _bracketed(interval: dict[str, float | None], decimals: int) -> str:
    """An estimate and its interval as read from a summary, where unknown numbers are None."""
    value, low, high = ("-" if x is None else f"{x:.{decimals}f}" for x in interval.values())
    return value if low == "-" else f"{value} [{low}, {high}]"


def print_tuned(tuned: Sequence[dict[str, Any]]) -> None:
    """What a search found, policy by policy."""
    table = Table(title="mean reward on validation episodes")
    for column in ("policy", "delay (s)", "by default", "tuned", "options"):
        table.add_column(column, justify="left" if column in ("policy", "options") else "right", overflow="fold")
    for found in tuned:
        label = found["policy"] + (f"+{found['forecaster']}" if found["forecaster"] else "")
        delay = "-" if found["delay"] is None else f"{found['delay']:.12g}"
        options = ", ".join(f"{name}={value}" for name, value in found["best"]["options"].items()) or "its defaults"
        table.add_row(
            plain(label), delay, f"{found['default_reward']:.3f}", f"{found['best']['reward']:.3f}", plain(options)
        )
    console().print(table)


def print_forecasts(summary: dict[str, Any]) -> None:
    """Deviance skill of every forecaster, slot by slot ahead, with its interval for the first and the last."""
    horizon = len(summary["forecasters"][0]["skill"])
    what = f"{summary['scenario']} ({summary['scenario_hash']}): {len(summary['seeds'])} {summary['split']} episode(s)"
    table = Table(title=plain(f"{what}; deviance skill over the true mean rates by slots ahead, MASE, time"))
    table.add_column("", overflow="fold")
    for name in (*(str(ahead) for ahead in range(1, horizon + 1)), "MASE 1", f"MASE {horizon}", "µs/slot"):
        table.add_column(name, justify="right", no_wrap=True)
    for forecaster in summary["forecasters"]:
        skills = ("-" if skill is None else f"{skill:.3f}" for skill in forecaster["skill"])
        errors = ("-" if error is None else f"{error:.2f}" for error in (forecaster["mase"][0], forecaster["mase"][-1]))
        name = forecaster["name"] + (" (clairvoyant)" if forecaster["clairvoyant"] else "")
        table.add_row(plain(name), *skills, *errors, f"{forecaster['us_per_slot']:.0f}")
    console().print(table)


def print_list(data_dir: str | os.PathLike[str] | None, suites: Mapping[str, str]) -> None:
    """Scenarios, policies and forecasters, and where data that is not shipped comes from."""
    out = console()
    table = Table(title="scenarios (-v0 rules are provisional until release 0.1)")
    for column in ("name", "nodes", "requests/s", "load ρ", "data", "what it is"):
        number = column in ("nodes", "requests/s", "load ρ")
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for scenario in SCENARIOS.values():
        rate = getattr(scenario.demand, "request_rate", None)
        table.add_row(
            scenario.name,
            _nodes(scenario),
            "file" if rate is None else f"{rate:g}",
            f"{OFFERED_LOADS[scenario.name]:.2f}",
            ", ".join(data_needed(scenario)) or "-",
            scenario.summary,
        )
    out.print(table)
    out.print("  load ρ: requests/s over the rate of which 0.8 could be delivered at best", highlight=False)
    out.print("policies:", ", ".join(sorted(policies.available())), highlight=False)
    out.print("  (central:NAME puts a local policy under central control)", highlight=False)
    out.print("forecasters:", ", ".join(["none", *forecast.available()]), highlight=False)
    out.print("suites:", ", ".join(f"{name} ({summary})" for name, summary in suites.items()), highlight=False)
    out.print("\ndata that is not shipped (put it into a folder; pass --data DIR or set DPEM_DATA):", highlight=False)
    folder = data_folder(data_dir)
    for name, source in SOURCES.items():
        presence = _presence(folder, source.file, source.sha256)
        out.print(f"  {name}: {source.file} [{presence}]", highlight=False, markup=False)
        out.print(f"    from {source.origin}; licence {source.licence}", highlight=False, markup=False)
        out.print(f"    sha256 {source.sha256}", highlight=False)


def _presence(folder: Path | None, file: str, sha256: str) -> str:
    if folder is None:
        return "no data folder given"
    path = folder / file
    if not path.is_file():
        return "missing"
    return "present" if checksum(path) == sha256 else "present, but another checksum"


def _nodes(scenario: Scenario) -> str:
    match scenario.network:
        case TopohubNetwork() as network:
            import topohub

            return str(len(topohub.get(network.topology)["nodes"]))
        case CoronetNetwork():
            return "100"
        case network:
            return str(network.nodes)
