"""Draw the figures of the pages from committed result files.

python docs/figures.py    # as dpem reproduce pages does
"""

from __future__ import annotations

from pathlib import Path

from compared import played
from learned_tables import TRAININGS, trainings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.envs.metric_labels import METRICS
from dpem_env.report.results_figure import save_results_figure
from dpem_env.support.files import whole_file

DOCS = Path(__file__).resolve().parent
SHOWN = ("local-reactive", "local-predictive", "maxweight", "central-reactive", "central-lp", "central-maxweight")
PANELS = [METRICS["delivery_rate"], METRICS["contention"]]


def main() -> None:
    """All of them."""
    [mesh] = played("delay-curve")
    shown = mesh.told | {"contestants": [row.told for row in mesh.rows if row.name in SHOWN]}
    save_results_figure(DOCS / "delay-curve.png", {"scenarios": [shown]}, PANELS)
    save_privacy_curve(DOCS / "privacy-curve.png")


def save_privacy_curve(path: Path) -> None:
    """Delivery and contention against ε, by what nodes share; learning alone and rules as levels."""
    _, found, rules = trainings()
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    places = {2.0: 0, 8.0: 1, None: 2}  # of ε on the axis
    for axes, quantity in zip(figure.subplots(1, 2), PANELS, strict=True):
        for number, kind in enumerate((("head", "central"), ("whole", "central"), ("head", "local"))):
            shown = {
                places[epsilon]: found[folder].told["metrics"][quantity.name]["mean"]
                for folder, (share, mode, epsilon) in TRAININGS.items()
                if share == kind[0] and mode in (kind[1], "off") and not (kind[1] == "local" and mode == "off")
            }
            values, lows, highs = zip(
                *((each["value"], each["low"], each["high"]) for each in shown.values()), strict=True
            )
            errors = [
                [value - low for value, low in zip(values, lows, strict=True)],
                [high - value for value, high in zip(values, highs, strict=True)],
            ]
            shifted = [place + 0.05 * (number - 1) for place in shown]
            axes.errorbar(shifted, values, errors, marker="o", capsize=3, label=", ".join(kind))
        for number, (name, row) in enumerate({"alone": found["alone"], **rules}.items(), start=3):
            axes.axhline(row.mean(quantity.name), color=f"C{number}", linestyle="--", label=name)
        axes.set_xticks(list(places.values()), ["ε = 2", "ε = 8", "no privacy"])
        axes.set_ylabel(quantity.title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


if __name__ == "__main__":
    main()
