"""The picture of learning curves: reward, delivery and contention on validation episodes, with the rules beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.report.labels import shown
from dpem_env.report.results_figure import save

TITLES = {"reward": "reward per agent and episode", "delivery_rate": "delivery rate", "contention": "contention"}


def save_curve_figure(path: Path, curves: dict[str, Any], rules: dict[str, dict[str, float]]) -> None:
    """Write curves that `dpem curve` has put together, in the format of the suffix.

    `rules` are mean metrics by label, drawn as levels.
    """
    figure = Figure(figsize=(13, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        for number, training in enumerate(curves["trainings"]):
            steps = np.array(training["timesteps"]) / 1e6
            value, low, high = np.array(training[metric], dtype=np.float64).T
            seeds = len(training["training_seeds"])
            label = shown(training["name"]) + (f", {seeds} seeds" if seeds > 1 else "")
            axes.plot(steps, value, color=f"C{number}", label=label)
            axes.fill_between(steps, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
        for number, (label, means) in enumerate(rules.items(), start=len(curves["trainings"])):
            axes.axhline(means[metric], color=f"C{number}", linestyle="--", linewidth=1, label=shown(label))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("agent-steps (millions)")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(f"{shown(curves['scenario'])}, validation episodes; bands: 95 % over training seeds", fontsize=10)
    save(figure, path)
