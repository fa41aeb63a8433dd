"""Pictures of results: metrics against control delay, paired differences, fronts; where the load was.

Intervals are of 95 %. Of fewer than `FEW` episodes there are none: every episode is a dot. Axes end where values do,
at the latest at what is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.report.envelope import envelope
from dpem_env.report.labels import Quantity, shown
from dpem_env.report.network_map import draw_network
from dpem_env.support.errors import DpemError
from dpem_env.support.files import whole_file

FEW = 5  # episodes
MOST = 8  # lines; more cannot be told apart
FAR = 4.0  # times the second largest: an outlier
APART = 0.055  # of the height of a panel: between labels at the ends of lines
FORMATS = (".png", ".pdf", ".svg")
Values = NDArray[np.float64]


class Load(NamedTuple):
    """What a map shows: mean load of nodes (N,) and links (L,), and whose."""

    network: Network
    memory_used: NDArray[np.float64]
    allocations: NDArray[np.float64]
    under: str


class Point(NamedTuple):
    """A contestant: its summary, and its episodes by metric, each (E,), over training seeds the mean."""

    summary: Mapping[str, Any]
    episodes: Mapping[str, Values]

    @property
    def name(self) -> str:
        """How its line is called."""
        forecaster = self.summary["forecaster"]
        return f"{self.summary['policy']}{f' +{forecaster}' if forecaster else ''}"

    def has(self, metric: str) -> bool:
        """Whether it has the metric."""
        return self.summary["metrics"].get(metric) is not None

    def interval(self, metric: str) -> Values:
        """(3,) mean, low and high; these are NaN where there is no interval."""
        mean = self.summary["metrics"][metric]["mean"]
        low, high = (mean[side] if len(self.episodes.get(metric, ())) >= FEW else None for side in ("low", "high"))
        return np.array([mean["value"], low, high], dtype=np.float64)


class Panelled(NamedTuple):
    """A scenario with all that is drawn of it."""

    summary: Mapping[str, Any]
    points: Sequence[Point]


def save_results_figure(
    path: Path,
    scenarios: Sequence[Panelled],
    quantities: Sequence[Quantity],
    compared: Quantity,
    loads: Mapping[str, Load] | None = None,
) -> None:
    """Write a figure, whole or not at all, in the format of its suffix, one of `FORMATS`.

    A row per scenario: its map where its load is known, every quantity against control delay, and the paired
    differences of the `compared` one to the reference. Contestants without control delay are horizontal lines. At most
    eight policies are shown, those with the largest rewards.
    """
    loads = loads or {}
    colours = _colours(scenarios)
    compares = any(each.summary["differences"] for each in scenarios)
    widths = [2.0] * bool(loads) + [1.15] * len(quantities) + [1.0] * compares
    figure = Figure(figsize=(4.2 * sum(widths), 3.9 * len(scenarios) + 1.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(scenarios), len(widths), squeeze=False, width_ratios=widths)
    for scenario, row in zip(scenarios, rows, strict=True):
        name = scenario.summary["name"]
        if loads:
            network, memory, allocations, under = loads[name]
            draw_network(row[0], network, memory, allocations, f"{shown(name)}: mean load under {shown(under)}")
        for axes, quantity in zip(row[bool(loads) :], quantities, strict=False):
            lines = _lines(scenario, quantity.name, colours)
            _against_delay(axes, lines, quantity, colours, scenario.summary.get("bound"))
            axes.set_title(shown(name), fontsize=9)
        if compares:
            _differences(row[-1], scenario, compared, colours)
    _legend(figure, rows, len(colours) < len({point.name for each in scenarios for point in each.points}))
    save(figure, path)


def save_front_figure(
    path: Path, prices: Sequence[Panelled], across: Quantity, up: Quantity, names: Sequence[str] = ()
) -> None:
    """Write how policies trade two quantities: the points of each at every price, and the front that they make.

    `names` of the policies shown; by default the eight with the largest rewards.
    """
    colours = _colours(prices, names)
    figure = Figure(figsize=(7.5, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, colour in colours.items():
        found = [point for scenario in prices for point in scenario.points if point.name == name]
        for delay in dict.fromkeys(point.summary["delay"] for point in found):
            points = [point for point in found if point.summary["delay"] == delay]
            x, low_x, high_x = np.array([point.interval(across.name) for point in points]).T
            y, low_y, high_y = np.array([point.interval(up.name) for point in points]).T
            error = {"xerr": np.nan_to_num([x - low_x, high_x - x]), "yerr": np.nan_to_num([y - low_y, high_y - y])}
            line = "-" if delay is None else (":" if delay else "--")
            axes.errorbar(x, y, **error, color=colour, linestyle="", marker="o", markersize=4, linewidth=1.2)
            axes.plot(*envelope(x, y), color=colour, linestyle=line, linewidth=1.2)
            label = shown(name) + ("" if delay is None else f", δ = {delay:g} s")
            axes.annotate(label, (x[0], y[0]), (5, -3), textcoords="offset points", fontsize=7, color=colour, va="top")
    axes.set_xlabel(across.title)
    axes.set_ylabel(up.title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=max(across.possible[0], axes.get_xlim()[0]))
    axes.set_ylim(bottom=0.0)
    save(figure, path)


def require_format(path: Path) -> None:
    """DpemError unless the name ends like that of a picture we can write."""
    if path.suffix.lower() not in FORMATS:
        raise DpemError(f"--out is {str(path)!r}; expected a name that ends with {', '.join(FORMATS)}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, in the format of the suffix of its name."""
    with whole_file(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".").lower())


def _colours(scenarios: Iterable[Panelled], names: Sequence[str] = ()) -> dict[str, str]:
    """Name -> colour, the best first; of many the best alone, and the references."""
    best: dict[str, float] = {}
    kept = set(names)
    for scenario in scenarios:
        for point in scenario.points:
            reward = point.interval("reward")[0] if point.has("reward") else -np.inf
            best[point.name] = max(best.get(point.name, -np.inf), float(reward))
            if not names and point.summary["label"] == scenario.summary.get("reference"):
                kept.add(point.name)
    ordered = sorted(best, key=lambda name: (name not in kept, -best[name]))
    chosen = [name for name in ordered if name in kept] if names else ordered[:MOST]
    return {name: f"C{number}" for number, name in enumerate(sorted(chosen, key=lambda name: -best[name]))}


def _lines(scenario: Panelled, metric: str, colours: Mapping[str, str]) -> dict[str, list[Point]]:
    """The points of every policy that is shown, by rising delay."""
    lines: dict[str, list[Point]] = {}
    for point in sorted(scenario.points, key=lambda point: point.summary["delay"] or 0.0):
        if point.name in colours and point.has(metric):
            lines.setdefault(point.name, []).append(point)
    return lines


def _against_delay(
    axes: Axes,
    lines: Mapping[str, list[Point]],
    quantity: Quantity,
    colours: Mapping[str, str],
    bound: Mapping[str, Any] | None,
) -> None:
    metric = quantity.name
    longest = max((point.summary["delay"] or 0.0 for points in lines.values() for point in points), default=0.0) or 1.0
    ends: list[tuple[float, str, str]] = []
    for name, points in lines.items():
        colour, delays = colours[name], [point.summary["delay"] for point in points]
        means, lows, highs = np.array([point.interval(metric) for point in points]).T
        if delays == [None]:
            axes.plot([0.0, longest], [means[0], means[0]], color=colour, label=shown(name))
            axes.fill_between([0.0, longest], [lows[0]] * 2, [highs[0]] * 2, color=colour, alpha=0.15, linewidth=0)
            delays = [longest]
        else:
            axes.plot(delays, means, color=colour, marker="o", markersize=4, label=shown(name))
            axes.fill_between(delays, lows, highs, color=colour, alpha=0.15, linewidth=0)
        for delay, point in zip(delays, points, strict=True):
            if np.isnan(point.interval(metric)[1]):
                dots = point.episodes.get(metric, np.zeros(0))
                axes.plot([delay] * len(dots), dots, ".", color=colour, alpha=0.5, markersize=5)
        ends.append((float(means[-1]), shown(name), colour))
    if bound and metric in bound:
        axes.axhline(bound[metric]["value"], color="black", linestyle="--", label=f"{bound['name']} bound")
    axes.set_xlabel("control delay (s)")
    axes.set_ylabel(quantity.title)
    axes.set_xlim(-0.04 * longest, 1.04 * longest)
    axes.spines[["top", "right"]].set_visible(False)
    _limit(axes, quantity, [max(float(p.interval(metric)[0]) for p in points) for points in lines.values()])
    _label_ends(axes, ends)


def _limit(axes: Axes, quantity: Quantity, peaks: Sequence[float]) -> None:
    """End the axis at what is possible, and leave out a line whose peak would squeeze all others."""
    low, high = axes.get_ylim()
    ordered = sorted(peaks)
    if len(ordered) >= 3 and ordered[-1] >= FAR * ordered[-2] > 0.0:
        high = 1.25 * ordered[-2]
    least, most = quantity.possible
    axes.set_ylim(max(low, least), min(high, most + 0.02 * (most - least) if np.isfinite(most - least) else most))


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right ends of lines, moved apart; those off the scale say their value."""
    low, high = axes.get_ylim()
    places = [(value - low) / ((high - low) or 1.0) for value, _, _ in ends]
    beneath = -np.inf
    for number in np.argsort(places, kind="stable").tolist():
        value, name, colour = ends[number]
        off = places[number] > 1.0
        beneath = max(min(places[number], 1.0), beneath + APART)
        text = f"{name}: {value:.3g} (off the scale)" if off else name
        where = {"xy": (1.01, beneath), "xycoords": "axes fraction"}
        axes.annotate(text, **where, fontsize=7, color=colour, va="center", annotation_clip=False)  # type: ignore[arg-type]


def _differences(axes: Axes, scenario: Panelled, quantity: Quantity, colours: Mapping[str, str]) -> None:
    """What each contestant has more than the reference, the best on top; of central ones those as late as that is."""
    reference = scenario.summary["reference"]
    by_label = {point.summary["label"]: point for point in scenario.points}
    delay = by_label[reference].summary["delay"]
    found = [
        (each["metrics"][quantity.name]["difference"], point)
        for each in scenario.summary["differences"]
        if each["metrics"].get(quantity.name) and (point := by_label[each["label"]]).name in colours
        if delay is None or point.summary["delay"] in (None, delay)
    ]
    found = sorted(found, key=lambda each: each[0]["value"])[-2 * MOST :]
    for place, (difference, point) in enumerate(found):
        colour, value = colours[point.name], difference["value"]
        own, other = (each.episodes.get(quantity.name, np.zeros(0)) for each in (point, by_label[reference]))
        if len(own) >= FEW:
            axes.plot([difference["low"], difference["high"]], [place, place], color=colour)
        elif len(own) == len(other):
            axes.plot(own - other, [place] * len(own), ".", color=colour, alpha=0.5, markersize=5)
        axes.plot([value], [place], "o", color=colour, markersize=5)
    axes.axvline(0.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(found)), [shown(point.summary["label"]) for _, point in found], fontsize=7)
    axes.set_xlabel(f"{quantity.title} − {shown(reference)}'s", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, rows: NDArray[Any], more: bool) -> None:
    """One for all panels."""
    found: dict[str, Any] = {}
    for axes in rows.ravel():
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            found.setdefault(label, handle)
    if found:
        title = "the best by reward; others are in the table" if more else None
        columns = min(len(found), 5)
        figure.legend(
            list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=8, title=title
        )
