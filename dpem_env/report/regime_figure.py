"""Pictures of regimes: how much more a local policy delivers than central ones, by control delay and two fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from dpem_env.report.labels import shown
from dpem_env.report.results_figure import save

if TYPE_CHECKING:
    from dpem_env.experiments.regimes import Regime, RegimeMap

COLOURS = "PuOr"  # orange: central control delivers more; violet: local


def save_regime_figure(path: Path, regimes: RegimeMap) -> None:
    """Write a panel for each value of the second field, with a row for each of the first and a column for each delay.

    Colours and numbers are the local policy minus the best central one, in points of delivery; grey where the interval
    holds zero. The line goes through the crossovers, with their intervals: right of it the local policy is ahead.
    """
    rows, panels = (list(dict.fromkeys(each.values[place] for each in regimes.regimes)) for place in (0, 1))
    most = max(abs(each.value) for regime in regimes.regimes for each in regime.lines[-1].differences)
    figure = Figure(figsize=(1.6 + 3.4 * len(panels), 1.7 + 0.6 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    line = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(line, panels, strict=True):
        found = [(rows.index(each.values[0]), each) for each in regimes.regimes if each.values[1] == panel]
        mesh = _cells(axes, found, len(rows), len(regimes.delays), most or 1.0)
        _zero_line(axes, sorted(found, key=lambda each: each[0]), regimes.delays)
        axes.set_xticks(range(len(regimes.delays)), [f"{delay:g}" for delay in regimes.delays])
        axes.set_xlim(-0.5, len(regimes.delays) - 0.5)
        axes.set_xlabel("control delay (s)")
        axes.set_title(shown(f"{regimes.fields[1]} = {panel}"), fontsize=9)
    line[0].set_yticks(range(len(rows)), [shown(row) for row in rows])
    line[0].set_ylim(-0.5, len(rows) - 0.5)
    line[0].set_ylabel(shown(regimes.fields[0]))
    bar = figure.colorbar(mesh, ax=line, format=lambda value, _: f"{100 * value:+.0f}")
    bar.set_label(f"{shown(regimes.local)} − best central,\npoints of delivery", fontsize=8)
    save(figure, path)


def _cells(axes: Axes, found: Sequence[tuple[int, Regime]], rows: int, delays: int, most: float) -> QuadMesh:
    """Colours, and the numbers in them."""
    values = np.full((rows, delays), np.nan)
    for row, regime in found:
        for column, difference in enumerate(regime.lines[-1].differences):
            values[row, column] = difference.value
            strong = abs(difference.value) > 0.6 * most
            colour = ("white" if strong else "black") if difference.clear_of_zero else "0.45"
            text = f"{100 * difference.value:+.1f}"
            axes.text(column, row + 0.3, text, ha="center", va="center", fontsize=7, color=colour)
    return axes.pcolormesh(np.arange(delays), np.arange(rows), values, cmap=COLOURS, vmin=-most, vmax=most)


def _zero_line(axes: Axes, found: Sequence[tuple[int, Regime]], delays: Sequence[float]) -> None:
    """Through the crossovers row by row; one beyond the longest delay lies on the right edge."""

    def place(delay: float) -> float:
        return float(np.interp(delay, [*delays, np.inf], [*range(len(delays)), len(delays) - 0.5]))

    at = [place(regime.lines[-1].crossover.value) for _, regime in found]
    rows = [row for row, _ in found]
    axes.plot(at, rows, color="black", linewidth=1.2, marker="o", markersize=4)
    for row, regime in found:
        _, low, high = regime.lines[-1].crossover
        if not np.isnan(low):
            axes.plot([place(low), place(high)], [row, row], color="black", linewidth=1.2, marker="|", markersize=6)
