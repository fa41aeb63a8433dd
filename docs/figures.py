"""Draw the figures of the pages from committed result files.

python docs/figures.py    # as dpem reproduce pages does
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from analyses import BASELINES, played_on, records
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from physics_figures import save_formulas, save_simulator

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments import results
from dpem_env.experiments.regimes import regime_map
from dpem_env.report.regime_figure import save_regime_figure
from dpem_env.report.results_figure import save, save_front_figure, save_results_figure

DOCS = Path(__file__).resolve().parent
SHOWN = ("local-reactive", "local-predictive", "maxweight", "central-reactive", "central-lp", "central-maxweight")
SHOWN += ("hybrid-maxweight", "q-cast")
CLAIMED = ("DPEM", "maxweight", "hybrid-maxweight", "central-reactive", "central-maxweight", "central-lp")
FRONTS = ("local-reactive", "maxweight", "hybrid-maxweight", "central-reactive", "central-lp", "central-maxweight")
PANELS = [METRICS["delivery_rate"], METRICS["contention"]]
EPSILONS = ("ε = 2", "ε = 8", "no privacy")
SEES = {"joint": "one agent for all relays", "chain": "relays told of the chain", "own": "relays, own segments"}
LEARNERS = {"q": "tabular Q-learning", "ppo": "PPO"}
CHAINS = {"four": "4 nodes, p = 0.3, p_s = 0.5", "five": "5 nodes, p = 0.9, p_s = 0.5"}
# Federated trainings by what nodes share, in the order of ε.
TRAININGS = {
    "head": ("head-epsilon2", "head-epsilon8", "head-off"),
    "whole policy": ("whole-epsilon2", "whole-epsilon8", "whole-off"),
    "head, noise of each node": (None, "head-local8", None),
}


def main() -> None:
    """All of them."""
    [mesh] = results.panelled(results.read(BASELINES / "results" / "delay-curve"))
    points = [point for point in mesh.points if point.name in SHOWN]
    compared = [each for each in mesh.summary["differences"] if each["label"] in {p.summary["label"] for p in points}]
    mesh = mesh._replace(points=points, summary=mesh.summary | {"differences": compared})
    save_results_figure(DOCS / "delay-curve.png", [mesh], PANELS, METRICS["reward"])
    save_regime_figure(DOCS / "regimes.png", regime_map(results.read(BASELINES / "results" / "regimes")))
    fronts = results.panelled(results.read(BASELINES / "results" / "fronts"))
    save_front_figure(DOCS / "fronts.png", fronts, METRICS["contention"], METRICS["delivery_rate"], FRONTS)
    learned = results.panelled(results.read(BASELINES / "results" / "learning" / "fronts" / "evaluation"))
    save_front_figure(DOCS / "learned-fronts.png", learned, METRICS["contention"], METRICS["delivery_rate"])
    claimed = results.panelled(played_on("mesh100-v0"))
    save_front_figure(DOCS / "paper-fronts.png", claimed, METRICS["contention"], METRICS["delivery_rate"], CLAIMED)
    save_privacy_curve(DOCS / "privacy-curve.png")
    save_advantages(DOCS / "swap-advantages.png")
    save_swap_learning(DOCS / "swap-learning.png")
    save_sequence(DOCS / "sequence-chains.png")
    save_formulas(DOCS / "physics-formulas.png")
    save_simulator(DOCS / "physics-simulator.png")


def save_privacy_curve(path: Path) -> None:
    """Delivery and contention against ε, by what nodes share; learning alone and rules as levels."""
    played = {each["label"].removeprefix("ppo:runs/privacy/").partition("/")[0]: each for each in _best_first()}
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, quantity in zip(figure.subplots(1, 2), PANELS, strict=True):
        for number, (shared, trainings) in enumerate(TRAININGS.items()):
            places = [place + 0.05 * (number - 1) for place, name in enumerate(trainings) if name]
            found = [played[name][quantity.name] for name in trainings if name]
            errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
            axes.errorbar(places, list(map(float, found)), errors, marker="o", capsize=3, label=shared)
        levels = [name for name, each in played.items() if name == "alone" or not each["policy"].startswith("ppo:")]
        for number, name in enumerate(levels, start=len(TRAININGS)):
            axes.axhline(float(played[name][quantity.name]), color=f"C{number}", linestyle="--", label=name)
        axes.set_xticks(range(len(EPSILONS)), EPSILONS)
        axes.set_ylabel(quantity.title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def save_advantages(path: Path) -> None:
    """How much longer swap-asap and nested take than the optimum, by link, swap and cutoff: all chains solved."""
    rows = records("results/truth/advantages.json:rows")
    compared = [(4, "asap"), (5, "asap"), (5, "nested")]
    successes = sorted({row["swap_success"] for row in rows})
    figure = Figure(figsize=(11, 8.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(compared), len(successes), sharex=True, sharey="row")
    for line, (nodes, rule) in zip(panels, compared, strict=True):
        for axes, success in zip(line, successes, strict=True):
            chosen = [row for row in rows if (row["nodes"], row["swap_success"]) == (nodes, success)]
            for cutoff in sorted({row["cutoff"] for row in chosen}):
                curve = [row for row in chosen if row["cutoff"] == cutoff]
                p, more = [row["generation"] for row in curve], [row[rule] for row in curve]
                axes.plot(p, more, marker=".", label=f"t_cut = {cutoff}")
            axes.set_title(f"swap-{rule}, n = {nodes}, p_s = {success:g}", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("% longer than the optimum")
    for axes in panels[-1]:
        axes.set_xlabel("p, link per slot")
    panels[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def save_swap_learning(path: Path) -> None:
    """Grades of learners of swaps while they learn: every seed, and the mean; rules as levels."""
    learned = records("results/swapping/*/*.json")
    levels = records("results/truth/views.json:rows")
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for line, learner in zip(figure.subplots(2, 2), ("q", "ppo"), strict=True):
        for axes, chain in zip(line, ("four", "five"), strict=True):
            for number, sees in enumerate(SEES):
                [found] = [
                    row for row in learned if (row["chain"], row["learner"], row["sees"]) == (chain, learner, sees)
                ]
                slots = [played / 1e6 for played in found["curves"][0]["slots"]]
                grades = np.array([curve["per_cent"] for curve in found["curves"]])
                axes.plot(slots, grades.T, color=f"C{number}", linewidth=0.5, alpha=0.4)
                axes.plot(slots, grades.mean(axis=0), color=f"C{number}", label=SEES[sees])
            for number, level in enumerate(row for row in levels if row["chain"] == chain and row["rule"] != "optimum"):
                style = ("--", ":", "-.")[number]
                axes.axhline(level["per_cent"], color="black", linestyle=style, linewidth=0.8, label=level["rule"])
            axes.set_ylim(80, 100.3)
            axes.set_title(f"{LEARNERS[learner]}, {CHAINS[chain]}", fontsize=10)
            axes.set_xlabel("slots played (millions)")
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("% of the optimum")
        line[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def save_sequence(path: Path) -> None:
    """Times and fidelities of chains in SeQUeNCe and here, with and without what its messages take."""
    rows = [row for row in records("results/truth/sequence.json:rows") if row["swap_success"] == 1.0]
    nodes = np.array([row["nodes"] for row in rows])
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, title) in zip(
        figure.subplots(1, 2), (("time", "time between deliveries, ms"), ("fidelity", "fidelity")), strict=True
    ):
        theirs, errors, ours, bare = (
            [row[field] for row in rows]
            for field in (f"{name}_sequence", f"{name}_sequence_error", name, f"bare_{name}")
        )
        axes.errorbar(nodes - 0.05, theirs, 2 * np.array(errors), fmt="o", capsize=3, label="SeQUeNCe, ± 2 errors")
        axes.plot(nodes + 0.05, ours, "x", color="C1", markersize=8, label="dpem_env, and messages")
        axes.plot(nodes + 0.05, bare, "+", color="C2", markersize=8, label="dpem_env, slots alone")
        axes.set_xticks(nodes)
        axes.set_xlabel("nodes")
        axes.set_ylabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def _best_first() -> list[dict[str, object]]:
    return sorted(records("results/federated/privacy"), key=lambda each: -float(each["reward"]))


if __name__ == "__main__":
    main()
