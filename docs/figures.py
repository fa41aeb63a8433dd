"""Draw the figures of the pages from committed result files.

python docs/figures.py    # as dpem reproduce pages does
"""

from __future__ import annotations

from pathlib import Path

from analyses import BASELINES, records
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments import results
from dpem_env.report.results_figure import save, save_front_figure, save_results_figure

DOCS = Path(__file__).resolve().parent
SHOWN = ("local-reactive", "local-predictive", "maxweight", "central-reactive", "central-lp", "central-maxweight")
SHOWN += ("hybrid-maxweight", "q-cast")
FRONTS = ("local-reactive", "maxweight", "hybrid-maxweight", "central-reactive", "central-lp", "central-maxweight")
PANELS = [METRICS["delivery_rate"], METRICS["contention"]]
EPSILONS = ("ε = 2", "ε = 8", "no privacy")
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
    fronts = results.panelled(results.read(BASELINES / "results" / "fronts"))
    save_front_figure(DOCS / "fronts.png", fronts, METRICS["contention"], METRICS["delivery_rate"], FRONTS)
    save_privacy_curve(DOCS / "privacy-curve.png")


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


def _best_first() -> list[dict[str, object]]:
    return sorted(records("results/federated/privacy"), key=lambda each: -float(each["reward"]))


if __name__ == "__main__":
    main()
