"""Figures of the page on physics: formulas beside density matrices, and the simulator beside exact chains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from analyses import records
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from qutip import Qobj, expect

from dpem_env import physics
from dpem_env.physics import fidelity_from_werner, werner_from_fidelity
from dpem_env.report.results_figure import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from physics.density_matrices import PHI_PLUS, purified, stored, swapped, twirled, werner_state

Floats = NDArray[np.float64]

FIDELITIES = np.linspace(0.25, 1.0, 151)
TIMES = np.linspace(0.0, 60.0, 121)  # s
EVERY = 15  # of these points, one is worked out with density matrices
COHERENCE = 60.0  # s
HARDWARE = {
    "ideal": (1.0, 1.0),
    "gates 0.995, readouts 0.998": (0.995, 0.998),
    "gates 0.97, readouts 0.98": (0.97, 0.98),
}


def save_formulas(path: Path) -> None:
    """Swap, storage and purification: lines by `dpem_env.physics`, dots by density matrices of the qubits."""
    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    (swap, storage), (success, outcome) = figure.subplots(2, 2)
    w = werner_from_fidelity(FIDELITIES)
    for name, (gate, readout) in HARDWARE.items():
        draw(swap, FIDELITIES, fidelity_from_werner(w * w * physics.swap_factor(gate, readout)), name)
        draw(success, FIDELITIES, physics.purification_success(w, w, gate, readout), name)
        draw(outcome, FIDELITIES, fidelity_from_werner(physics.purified_werner(w, w, gate, readout)), name)
        pairs = [(werner_state(each), gate, readout) for each in w[::EVERY]]
        dots(swap, FIDELITIES, [fidelity(twirled(swapped(pair, pair, *noise))) for pair, *noise in pairs])
        rounds = [purified(pair, pair, *noise) for pair, *noise in pairs]
        dots(success, FIDELITIES, [chance for chance, _ in rounds])
        dots(outcome, FIDELITIES, [fidelity(state) for _, state in rounds])
    for fresh in (1.0, 0.95, 0.85):
        werner = werner_from_fidelity(fresh)
        left = np.array([werner * physics.decay_factor(time, COHERENCE, COHERENCE) for time in TIMES])
        draw(storage, TIMES, fidelity_from_werner(left), f"fresh {fresh:g}")
        states = [stored(werner_state(werner), time, COHERENCE, COHERENCE) for time in TIMES[::EVERY]]
        dots(storage, TIMES, [fidelity(state) for state in states])
    outcome.plot(FIDELITIES, FIDELITIES, color="0.7", linewidth=0.8, zorder=0)
    finish(swap, "Two equal pairs, swapped and twirled", "fidelity of each pair", "fidelity of the outcome")
    finish(storage, f"One pair, both ends stored (T = {COHERENCE:g} s)", "time, s", "fidelity left")
    finish(success, "Two equal pairs, one BBPSSW round", "fidelity of each pair", "probability of success")
    finish(outcome, "What a successful round leaves", "fidelity of each pair", "fidelity of the outcome")
    save(figure, path)


def save_simulator(path: Path) -> None:
    """Time between deliveries of repeater chains: simulated over exact, in per cent, with two standard errors."""
    rows = sorted(records("results/truth/simulated.json:rows"), key=lambda row: -float(row["exact"]))
    exact, mean, error = (np.array([row[field] for row in rows]) for field in ("exact", "mean", "error"))
    figure = Figure(figsize=(11, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(0.0, color="0.7", linewidth=0.8)
    axes.errorbar(100.0 * (mean / exact - 1.0), range(len(rows)), xerr=200.0 * error / exact, fmt="o", capsize=3)
    names = [
        f"{row['policy']}, {row['nodes']} nodes, p = {row['generation']:g}, p_s = {row['swap_success']:g}, "
        f"cutoff {row['cutoff']}: {row['exact']:.4g} slots"
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xlabel("time between deliveries, simulated minus exact, % (± 2 standard errors)")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def fidelity(state: Qobj) -> float:
    """Overlap with Φ⁺."""
    return float(expect(PHI_PLUS, state))


def draw(axes: Any, places: Floats, formula: Floats, name: str) -> None:
    """A line of what a formula says."""
    axes.plot(places, formula, label=name)


def dots(axes: Any, places: Floats, matrices: list[float]) -> None:
    """What density matrices say, in the colour of the last line."""
    color = axes.lines[-1].get_color()
    axes.plot(places[::EVERY], matrices, "o", color=color, markersize=5, markerfacecolor="white")


def finish(axes: Any, title: str, across: str, up: str) -> None:
    """Words around a panel."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
