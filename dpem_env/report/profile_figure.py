"""Pictures of performance profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.report.labels import shown
from dpem_env.report.results_figure import MOST, save

if TYPE_CHECKING:
    from dpem_env.experiments.profiles import Profile


def save_profile_figure(path: Path, profiles: Sequence[Profile]) -> None:
    """Write the share of runs above every score, the best policies alone if they are many, with intervals."""
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, profile in enumerate(profiles[:MOST]):
        share, low, high = profile.share
        axes.plot(profile.thresholds, share, color=f"C{number}", linewidth=1.2, label=shown(profile.label))
        axes.fill_between(profile.thresholds, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    axes.set_xlabel(f"{profiles[0].quantity.title}, τ")
    axes.set_ylabel("share of runs above τ")
    axes.set_ylim(0.0, 1.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    save(figure, path)
