"""Results as one HTML page that needs no network: tables with intervals, figures, and what they were made with.

Learning curves are results, too: a folder may hold either, or both.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from dpem_env.envs.metric_labels import HEADLINE, METRICS
from dpem_env.experiments.fronts import CONTENTION, DELIVERY, FrontTable, front_table
from dpem_env.experiments.learning_curves import CURVES, read_curves
from dpem_env.experiments.profiles import Profile, profiles
from dpem_env.experiments.regimes import crossover_table, regime_map, two_fields
from dpem_env.experiments.results import SUMMARY, Results, panelled, read, records
from dpem_env.report.curve_figure import save_curve_figure
from dpem_env.report.labels import Estimate
from dpem_env.report.profile_figure import save_profile_figure
from dpem_env.report.regime_figure import save_regime_figure
from dpem_env.report.results_figure import Panelled, save_front_figure, save_results_figure
from dpem_env.report.tables import DIFFERENCES, cells, differences
from dpem_env.support.errors import DpemError
from dpem_env.support.files import whole_file

SHOWN = (*HEADLINE, "fidelity", "latency", "waste")  # metrics of the tables
PRICE = "contention_penalty"
PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5em 0 1.5em }
th, td { border-bottom: 1px solid #ddd; padding: 0.2em 0.8em; text-align: right; vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
caption { caption-side: bottom; text-align: left; color: #555; padding-top: 0.4em }
div { overflow-x: auto }
img { max-width: 100% }
</style>
<h1>$title</h1>
$body
</html>
"""
)


class Found(NamedTuple):
    """What a folder holds: results, learning curves, or both."""

    results: Results | None
    curves: dict[str, Any] | None


def read_found(folder: Path) -> Found:
    """What is in a folder; DpemError for one with neither results nor learning curves."""
    curves = read_curves(folder) if (folder / CURVES).exists() else None
    return Found(None if curves and not (folder / SUMMARY).exists() else read(folder), curves)


def write_report(path: Path, found: dict[str, Found]) -> None:
    """Write the page of what several folders hold, by their names, whole or not at all."""
    body = "\n".join(part for name, each in found.items() for part in _parts(name, each))
    with whole_file(path) as partial:
        partial.write_text(PAGE.substitute(title=escape(", ".join(found)), body=body), encoding="utf-8")


def _parts(name: str, found: Found) -> Iterator[str]:
    yield f"<h2>{escape(name)}</h2>"
    if found.results is not None:
        yield from _results(found.results)
    if found.curves is not None:
        yield from _curves(found.curves)


def _results(results: Results) -> Iterator[str]:
    summary, drawn = results.summary, panelled(results)
    told = [each for each in records(results) if not each["policy"].startswith("bound:")]
    for scenario in summary["scenarios"]:
        here = [each for each in told if each["scenario"] == scenario["name"]]
        episodes = f"{len(scenario['episodes'])} {summary['split']} episodes"
        yield f"<h3>{escape(scenario['name'])}</h3>"
        metrics = [metric for metric in SHOWN if any(metric in each for each in here)]
        yield _table(here, ["policy: {label}", *metrics], f"{episodes}; mean ± half of the 95 % interval")
        if compared := differences(scenario, [METRICS[metric] for metric in HEADLINE if metric in metrics]):
            yield _table(compared, DIFFERENCES, f"minus {summary['reference']}, paired on the same episodes")
    quantities = [DELIVERY, CONTENTION]
    yield _figure("results", lambda path: save_results_figure(path, drawn, quantities, METRICS["reward"]))
    if _of_prices(summary):
        yield from _front(drawn, front_table(results))
    if two_fields(summary):
        yield from _regimes(results)
    if found := profiles(results):
        yield from _profiles(found)
    yield _made_with(summary)


def _of_prices(summary: dict[str, Any]) -> bool:
    """Whether scenarios differ in the price of contention alone."""
    names = [scenario["name"].partition(f"+{PRICE}=") for scenario in summary["scenarios"]]
    return len(names) > 1 and len({base for base, _, _ in names}) == 1 and all(sign for _, sign, _ in names)


def _front(drawn: Sequence[Panelled], table: FrontTable) -> Iterator[str]:
    yield "<h3>Fronts</h3>"
    yield _figure("fronts", lambda path: save_front_figure(path, drawn, CONTENTION, DELIVERY))
    yield _table(table.records, table.fronts, f"delivery at a contention up to {table.limit:.3g}, 95 % intervals")
    if compared := [each for each in table.records if "more" in each]:
        yield _table(compared, table.differences, "minus the reference, on the same episodes")


def _regimes(results: Results) -> Iterator[str]:
    """The map, if a local policy and central ones have played what it takes."""
    try:
        found = regime_map(results)
    except DpemError:
        return
    told, columns = crossover_table(found)
    yield "<h3>Regimes</h3>"
    yield _figure("regimes", lambda path: save_regime_figure(path, found))
    caption = f"control delay in s from which {found.local} delivers more than each central policy, 95 % intervals"
    yield _table(told, columns, f"{caption}; the best of them is chosen at each delay, which flatters it")


def _curves(curves: dict[str, Any]) -> Iterator[str]:
    yield f"<h3>Learning curves: {escape(curves['scenario'])}</h3>"
    yield _figure("learning curves", lambda path: save_curve_figure(path, curves, curves["rules"]))
    rows = [
        {"name": each["name"], "seeds": len(each["training_seeds"]), "steps": each["timesteps"][-1]}
        | {metric: Estimate(METRICS[metric], *each[metric][-1]) for metric in HEADLINE}
        | {"converged": each["mean_converged_at"]}
        for each in curves["trainings"]
    ]
    columns = ["training: {name}", "training seeds: {seeds}", "agent-steps: {steps:,}", *HEADLINE]
    caption = "at the last validation; mean ± half of the 95 % interval over training seeds"
    yield _table(rows, [*columns, "converged after: {converged:,}"], caption)
    yield f"<p>Made with code {escape(str(curves.get('stamp', 'unknown')))}.</p>"


def _profiles(found: Sequence[Profile]) -> Iterator[str]:
    of = found[0].quantity.title
    yield "<h3>Performance profiles</h3>"
    yield _figure("profiles", lambda path: save_profile_figure(path, found))
    rows = [{"policy": each.label, "iqm": each.iqm} for each in found]
    yield _table(rows, ["policy", f"{of}, interquartile mean: {{iqm:interval}}"], "over all scenarios, 95 % intervals")


def _table(told: Sequence[Any], columns: Sequence[str], caption: str) -> str:
    titles, rows = cells(told, columns)
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(row.get(title, '-'))}</td>" for title in titles) + "</tr>" for row in rows
    )
    return f"<div><table><caption>{escape(caption)}</caption><tr>{head}</tr>\n{body}</table></div>"


def _figure(what: str, save: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{what}.svg"
        save(path)
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<div><img alt="{what}" src="data:image/svg+xml;base64,{content}"></div>'


def _made_with(summary: dict[str, Any]) -> str:
    version = ", ".join(f"{name} {number}" for name, number in summary["version"].items())
    scenarios = "; ".join(f"{each['name']} {each['hash']}" for each in summary["scenarios"])
    told = f"Made with {version}, code {summary.get('stamp', 'unknown')}; scenarios and their hashes: {scenarios}."
    return f"<p>{escape(told)}</p>"


def named(folders: Sequence[Path]) -> list[str]:
    """How the page calls results, by their folders; DpemError for one that is given twice."""
    names = [str(folder) for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise DpemError(f"results {name!r} are given twice")
    return names
