"""Draw the figures of the pages from committed result files.

python docs/figures.py    # as dpem reproduce pages does
"""

from __future__ import annotations

import json
from pathlib import Path

from federated_tables import ARMS, privacy_arms, rule_name, rules
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpem_env.report.benchmark_figure import METRICS, save_benchmark_figure
from dpem_env.support.files import whole_file

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("local-reactive", "local-predictive", "maxweight", "central-reactive", "central-lp", "central-maxweight")


def main() -> None:
    """All of them."""
    save_delay_curve(ROOT / "docs" / "delay-curve.png")
    save_privacy_curve(ROOT / "docs" / "privacy-curve.png")


def save_delay_curve(path: Path) -> None:
    """Delivery and contention against control delay, of a few policies."""
    summary = json.loads((ROOT / "baselines" / "results" / "delay-curve" / "summary.json").read_text(encoding="utf-8"))
    [scenario] = summary["scenarios"]
    arms = [arm for arm in scenario["methods"] if arm["policy"] in SHOWN and arm["forecaster"] is None]
    save_benchmark_figure(path, summary | {"scenarios": [scenario | {"methods": arms}]})


def save_privacy_curve(path: Path) -> None:
    """Delivery and contention against ε, by what nodes share; learning alone and rules as levels."""
    scenario, arms = privacy_arms()
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    places = {2.0: 0, 8.0: 1, None: 2}  # of ε on the axis
    levels = [("alone", arms["alone"]), *((rule_name(rule), rule) for rule in rules(scenario))]
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for number, kind in enumerate((("head", "central"), ("whole", "central"), ("head", "local"))):
            shown = {
                places[epsilon]: arms[folder]["metrics"][metric]["mean"]
                for folder, (share, mode, epsilon) in ARMS.items()
                if share == kind[0] and mode in (kind[1], "off") and not (kind[1] == "local" and mode == "off")
            }
            x = sorted(shown)
            value, low, high = ([shown[place][name] for place in x] for name in ("value", "low", "high"))
            errors = [
                [v - a for v, a in zip(value, low, strict=True)],
                [b - v for v, b in zip(value, high, strict=True)],
            ]
            shifted = [place + 0.05 * (number - 1) for place in x]
            axes.errorbar(shifted, value, errors, marker="o", capsize=3, label=f"{kind[0]}, {kind[1]}")
        for number, (name, arm) in enumerate(levels, start=3):
            axes.axhline(arm["metrics"][metric]["mean"]["value"], color=f"C{number}", linestyle="--", label=name)
        axes.set_xticks(list(places.values()), ["ε = 2", "ε = 8", "no privacy"])
        axes.set_ylabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


if __name__ == "__main__":
    main()
