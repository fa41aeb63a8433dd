"""The picture of results: where the load was, delivery and contention against control delay, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.report.labels import Quantity, shown
from dpem_env.report.network_map import draw_network
from dpem_env.support.files import whole_file

LINES = ("-", "--", ":")  # one for every ten policies
FAR = 4.0  # times the second largest: an outlier


class Load(NamedTuple):
    """What a map shows: mean load of nodes (N,) and links (L,), and whose."""

    network: Network
    memory_used: NDArray[np.float64]
    allocations: NDArray[np.float64]
    under: str


def save_results_figure(
    path: Path, summary: dict[str, Any], quantities: Sequence[Quantity], loads: Mapping[str, Load] | None = None
) -> None:
    """Write the PNG, whole or not at all: a row per scenario, its map first where its load is known.

    Contestants without control delay are horizontal lines.
    """
    scenarios, loads = summary["scenarios"], loads or {}
    widths = [2.2] * bool(loads) + [1.0] * len(quantities)
    figure = Figure(figsize=(11 + 5 * bool(loads), 3.6 * len(scenarios) + (2.0 if loads else 0.8)), dpi=120)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(scenarios), len(widths), squeeze=False, width_ratios=widths)
    for scenario, row in zip(scenarios, rows, strict=True):
        if loads:
            network, memory, allocations, under = loads[scenario["name"]]
            title = f"{shown(scenario['name'])}: mean load under {shown(under)}, first seed"
            draw_network(row[0], network, memory, allocations, title)
        panels = row[bool(loads) :]
        for axes, quantity in zip(panels, quantities, strict=True):
            _draw(axes, scenario["contestants"], quantity.name)
            _leave_out_outliers(axes, scenario["contestants"], quantity.name)
            if quantity.name == "delivery_rate" and scenario["bound"]:
                bound = scenario["bound"]["delivery_rate"]["value"]
                axes.axhline(bound, color="black", linestyle="--", label=f"{scenario['bound']['name']} bound")
            axes.set_title(shown(scenario["name"]), fontsize=9)
            axes.set_xlabel("control delay (s)")
            axes.set_ylabel(quantity.title)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()  # those of the bound, too
        panels[-1].legend(handles, labels, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _draw(axes: Axes, contestants: list[dict[str, Any]], metric: str) -> None:
    policies: dict[str, list[dict[str, Any]]] = {}
    for each in contestants:
        if each["metrics"].get(metric) is not None:
            name = each["policy"] + (f" +{each['forecaster']}" if each["forecaster"] else "")
            policies.setdefault(name, []).append(each)
    longest = max((each["delay"] or 0.0 for each in contestants), default=0.0) or 1.0
    for number, (name, members) in enumerate(policies.items()):
        colour, line = f"C{number % 10}", LINES[number // 10 % len(LINES)]
        members.sort(key=lambda each: each["delay"] or 0.0)
        delays = [each["delay"] for each in members]
        means, lows, highs = np.array(
            [[each["metrics"][metric]["mean"][part] for part in ("value", "low", "high")] for each in members],
            dtype=np.float64,
        ).T
        if delays == [None]:
            delays, (means, lows, highs) = [0.0, longest], np.repeat([means, lows, highs], 2, axis=1)
            axes.plot(delays, means, line, color=colour, label=shown(name))
        else:
            errors = [means - lows, highs - means]
            axes.errorbar(delays, means, errors, fmt=line, color=colour, marker="o", capsize=3, label=shown(name))
        axes.fill_between(delays, lows, highs, color=colour, alpha=0.2, linewidth=0)


def _leave_out_outliers(axes: Axes, contestants: list[dict[str, Any]], metric: str) -> None:
    """Values that would squeeze all others to a line run out of the picture, with a note."""
    means = {
        each["label"]: each["metrics"][metric]["mean"]["value"]
        for each in contestants
        if each["metrics"][metric] is not None
    }
    ordered = sorted(means.values())
    if len(ordered) < 3 or ordered[-1] < FAR * ordered[-2] or ordered[-2] <= 0.0:
        return
    [label] = [name for name, value in means.items() if value == ordered[-1]][:1]
    axes.set_ylim(-0.02 * ordered[-2], 1.25 * ordered[-2])
    note = f"{shown(label)}: {ordered[-1]:.3g} (off the scale)"
    axes.text(0.02, 0.98, note, transform=axes.transAxes, va="top", fontsize=7)
