"""What people read: the result tables, the list of scenarios and the progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from dpem_env import policies
from dpem_env.demand import forecast
from dpem_env.experiments.evaluation import ArmResult, paired_difference
from dpem_env.experiments.suites import SUITES
from dpem_env.scenarios import OFFERED_LOADS, SCENARIOS, Scenario
from dpem_env.scenarios.data import SOURCES, checksum, data_folder, data_needed
from dpem_env.scenarios.schema import CoronetNetwork, TopohubNetwork
from dpem_env.support.console import printable

# metric, how it is called, decimals
TABLE = (
    ("delivery_rate", "delivery rate", 3),
    ("contention", "contention", 4),
    ("contention_sources", "  of sources", 4),
    ("contention_swaps", "  of swap engines", 4),
    ("contention_memories", "  of memories", 4),
    ("collisions", "collisions", 4),
    ("contended_per_delivered", "contended / delivered", 3),
    ("denied", "denied / submitted", 3),
    ("fidelity", "fidelity", 3),
    ("latency", "latency (s)", 3),
    ("fairness", "fairness (Jain)", 3),
    ("waste", "pairs wasted", 3),
    ("wasted_elementary", "links timed out / emitted", 3),
    ("from_stock", "served from stock", 3),
    ("reward", "reward", 3),
    ("requests", "requests counted", 0),
)


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


def print_results(scenario: Scenario, split: str, results: Sequence[ArmResult]) -> None:
    """The table of a run: mean ± 95 % interval over paired seeds, one column per contestant."""
    seeds = len(results[0].episodes)
    table = Table(title=plain(f"{scenario.name} ({scenario.hash}): {seeds} {split} seed(s), mean ± 95 % CI"))
    table.add_column("")
    for result in results:
        table.add_column(plain(result.arm.label), justify="right", overflow="fold")
    for metric, name, decimals in TABLE:
        table.add_row(name, *(interval(*result.mean_and_interval(metric), decimals) for result in results))
    out = console()
    out.print(table)
    for other in results[1:]:
        for metric, name, decimals in TABLE[:2]:
            mean, width = paired_difference(results[0], other, metric)
            out.print(
                f"{name}, {results[0].arm.label} minus {other.arm.label}: {interval(mean, width, decimals)}",
                highlight=False,
                markup=False,
            )


def print_benchmark(summary: dict[str, Any]) -> None:
    """The tables of a benchmark: per scenario every method, then every other against the reference."""
    out = console()
    for scenario in summary["scenarios"]:
        shown = [row for row in TABLE if row[0] in ("delivery_rate", "contention", "reward", "latency")]
        if scenario["bound"]:
            shown.append(("score", "score", 3))
        what = f"{scenario['name']} ({scenario['hash']}): {len(scenario['episodes'])} {summary['split']} episode(s)"
        table = Table(title=plain(f"{what}; mean [95 % CI], below it the interquartile mean"))
        table.add_column("", overflow="fold")
        for _, name, _ in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for arm in scenario["methods"]:
            cells = (_lines(arm["metrics"][metric], ("mean", "iqm"), decimals) for metric, _, decimals in shown)
            table.add_row(plain(arm["label"]), *cells)
        out.print(table)
        if scenario["bound"]:
            rate = sum(scenario["bound"]["delivery_rate"]) / len(scenario["bound"]["delivery_rate"])
            out.print(f"score: 0 is random-legal, 1 the {scenario['bound']['name']} bound, delivery rate {rate:.3f}")
        if not scenario["differences"]:
            continue
        table = Table(title=plain(f"{what}; minus {summary['reference']} on the same episodes"))
        for name in DIFFERENCES:
            table.add_column(name, justify="left" if name in ("", "metric") else "right", overflow="fold")
        for arm in scenario["differences"]:
            for metric, name, decimals in shown[:2]:
                table.add_row(plain(arm["label"]), name, *_difference_cells(arm["metrics"][metric], decimals))
        out.print(table)


def _lines(estimates: dict[str, Any] | None, names: Sequence[str], decimals: int) -> str:
    return "-" if estimates is None else "\n".join(_estimate(estimates[name], decimals) for name in names)


def _difference_cells(compared: dict[str, Any] | None, decimals: int) -> list[str]:
    if compared is None:
        return ["-"] * 6
    d = compared["cohens_d"]
    return [
        _estimate(compared["difference"], decimals),
        "yes" if compared["clear_of_zero"] else "no",
        _estimate(compared["relative"], 3),
        f"{compared['probability_of_improvement']['value']:.2f}",
        "-" if d is None else f"{d:.2f}",
        f"{compared['wilcoxon_p']:.2g}",
    ]


def _estimate(interval: dict[str, float | None], decimals: int) -> str:
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


def print_list(data_dir: str | None) -> None:
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
    out.print("suites:", ", ".join(f"{suite.name} ({suite.summary})" for suite in SUITES.values()), highlight=False)
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


def interval(mean: float, width: float, decimals: int) -> str:
    """Mean ± half-width as tables show it; "-" for NaN, no ± for a NaN width."""
    if math.isnan(mean):
        return "-"
    spread = "" if math.isnan(width) else f" ± {width:.{decimals}f}"
    return f"{mean:.{decimals}f}{spread}"
