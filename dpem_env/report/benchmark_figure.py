"""The picture of a benchmark: delivery and contention against control delay, with 95 % intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.report.labels import shown
from dpem_env.support.files import whole_file

LINES = ("-", "--", ":")  # one for every ten schemes
FAR = 4.0  # times the second largest: an outlier
METRICS = {"delivery_rate": "delivery rate", "contention": "contention"}


def save_benchmark_figure(path: Path, summary: dict[str, Any]) -> None:
    """Write the PNG, whole or not at all: a row per scenario; arms without control delay are horizontal."""
    scenarios = summary["scenarios"]
    figure = Figure(figsize=(11, 3.6 * len(scenarios) + 0.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for scenario, row in zip(scenarios, figure.subplots(len(scenarios), len(METRICS), squeeze=False), strict=True):
        for axes, (metric, name) in zip(row, METRICS.items(), strict=True):
            _draw(axes, scenario["methods"], metric)
            _leave_out_outliers(axes, scenario["methods"], metric)
            if metric == "delivery_rate" and scenario["bound"]:
                bound = float(np.mean(scenario["bound"]["delivery_rate"]))
                axes.axhline(bound, color="black", linestyle="--", label=f"{scenario['bound']['name']} bound")
            axes.set_title(shown(scenario["name"]), fontsize=9)
            axes.set_xlabel("control delay (s)")
            axes.set_ylabel(name)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = row[0].get_legend_handles_labels()  # those of the bound, too
        row[-1].legend(handles, labels, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _draw(axes: Axes, arms: list[dict[str, Any]], metric: str) -> None:
    schemes: dict[str, list[dict[str, Any]]] = {}
    for arm in arms:
        if arm["metrics"][metric] is not None:
            name = arm["policy"] + (f" +{arm['forecaster']}" if arm["forecaster"] else "")
            schemes.setdefault(name, []).append(arm)
    longest = max((arm["delay"] or 0.0 for arm in arms), default=0.0) or 1.0
    for number, (name, members) in enumerate(schemes.items()):
        colour, line = f"C{number % 10}", LINES[number // 10 % len(LINES)]
        members.sort(key=lambda arm: arm["delay"] or 0.0)
        delays = [arm["delay"] for arm in members]
        means, lows, highs = np.array(
            [[arm["metrics"][metric]["mean"][part] for part in ("value", "low", "high")] for arm in members],
            dtype=np.float64,
        ).T
        if delays == [None]:
            delays, (means, lows, highs) = [0.0, longest], np.repeat([means, lows, highs], 2, axis=1)
            axes.plot(delays, means, line, color=colour, label=shown(name))
        else:
            errors = [means - lows, highs - means]
            axes.errorbar(delays, means, errors, fmt=line, color=colour, marker="o", capsize=3, label=shown(name))
        axes.fill_between(delays, lows, highs, color=colour, alpha=0.2, linewidth=0)


def _leave_out_outliers(axes: Axes, arms: list[dict[str, Any]], metric: str) -> None:
    """Values that would squeeze all others to a line run out of the picture, with a note."""
    means = {
        arm["label"]: arm["metrics"][metric]["mean"]["value"] for arm in arms if arm["metrics"][metric] is not None
    }
    ordered = sorted(means.values())
    if len(ordered) < 3 or ordered[-1] < FAR * ordered[-2] or ordered[-2] <= 0.0:
        return
    [label] = [name for name, value in means.items() if value == ordered[-1]][:1]
    axes.set_ylim(-0.02 * ordered[-2], 1.25 * ordered[-2])
    note = f"{shown(label)}: {ordered[-1]:.3g} (off the scale)"
    axes.text(0.02, 0.98, note, transform=axes.transAxes, va="top", fontsize=7)
