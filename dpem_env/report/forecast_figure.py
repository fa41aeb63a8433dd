"""The picture of forecast skill: deviance skill with 95 % intervals, and scaled absolute error, by slots ahead."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.report.labels import shown
from dpem_env.support.files import whole_file
from dpem_env.support.plugins import PluginName

MARKERS = ("o", "s", "^")  # one for every ten forecasters


def save_forecast_figure(path: Path, summary: dict[str, Any]) -> None:
    """Write the PNG, whole or not at all; forecasters far below the mean rates run out of the picture."""
    figure = Figure(figsize=(12, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    skill, error = figure.subplots(1, 2)
    ahead = np.arange(1, len(summary["forecasters"][0]["skill"]) + 1)
    for number, forecaster in enumerate(summary["forecasters"]):
        name = PluginName.parse(forecaster["name"])
        short = name if name.argument is None else replace(name, argument=os.path.basename(name.argument))
        told = f"{short} (clairvoyant)" if forecaster["clairvoyant"] else str(short)
        line = "--" if forecaster["clairvoyant"] else "-"
        style = {"color": f"C{number % 10}", "marker": MARKERS[number // 10 % len(MARKERS)]}
        values, low, high, mase = (
            np.array(forecaster[score], dtype=np.float64) for score in ("skill", "skill_low", "skill_high", "mase")
        )
        skill.plot(ahead, values, line, label=shown(told), **style)
        skill.fill_between(ahead, low, high, color=style["color"], alpha=0.2, linewidth=0)
        error.plot(ahead, mase, line, **style)
    best = max((s for f in summary["forecasters"] for s in f["skill_high"] if s is not None), default=0.1)
    skill.set_ylim(-0.5 * max(best, 0.1), 1.15 * max(best, 0.1))
    skill.set_title("deviance skill over mean rates (higher is better)", fontsize=10)
    error.set_title("MASE: absolute error, scaled (lower is better)", fontsize=10)
    for axes in (skill, error):
        axes.set_xlabel(f"slots ahead ({summary['slot_duration']:g} s each)")
        axes.spines[["top", "right"]].set_visible(False)
    error.legend(*skill.get_legend_handles_labels(), fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(shown(summary["scenario"]), fontsize=10)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
