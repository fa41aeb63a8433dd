"""The picture of a run: where the load was, who delivered how much and at what contention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.experiments.evaluation import ArmResult
from dpem_env.report.labels import shown
from dpem_env.report.network_map import LoadMeter, draw_network
from dpem_env.support.files import whole_file

KINDS = {"contention_sources": "sources", "contention_swaps": "swap engines", "contention_memories": "memories"}


def save_results_figure(path: Path, scenario: str, results: Sequence[ArmResult], meter: LoadMeter, map_of: str) -> None:
    """Write the PNG, whole or not at all: network map left, delivery and contention with 95 % intervals right."""
    figure = Figure(figsize=(14, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    map_axes, delivery, contention = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
    slots = max(meter.slots, 1)
    title = f"{shown(scenario)}: mean load under {shown(map_of)}, first seed"
    draw_network(map_axes, meter.network, meter.memory_used / slots, meter.allocations / slots, title)
    places = np.arange(len(results))
    labels = [shown(result.arm.label).replace(" (", "\n(") for result in results]
    means, widths = np.array([result.mean_and_interval("delivery_rate") for result in results]).T
    delivery.bar(places, means, yerr=np.nan_to_num(widths), color="0.6", capsize=4, width=0.6)
    delivery.set_title("delivery rate (higher is better)", fontsize=10)
    delivery.set_ylim(0.0, 1.0)
    base = np.zeros(len(results))
    for kind, name in KINDS.items():
        share = np.array([result.mean_and_interval(kind)[0] for result in results])
        contention.bar(places, share, bottom=base, width=0.6, label=name)
        base = base + share
    _, widths = np.array([result.mean_and_interval("contention") for result in results]).T
    contention.errorbar(places, base, yerr=np.nan_to_num(widths), fmt="none", ecolor="black", capsize=4)
    contention.set_title("contention: contended share of\nall (resource, slot) (lower is better)", fontsize=10)
    contention.legend(fontsize=8)
    for axes in (delivery, contention):
        axes.set_xticks(places, labels, rotation=20, ha="right", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
