"""Draw the figures of the pages from committed result files.

python docs/figures.py    # after make results
"""

from __future__ import annotations

import json
from pathlib import Path

from dpem_env.render.benchmark_figure import save_benchmark_figure

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("local-reactive", "local-predictive", "maxweight", "central-reactive", "central-lp", "central-maxweight")


def main() -> None:
    """Delivery and contention against control delay, of a few policies."""
    summary = json.loads((ROOT / "baselines" / "results" / "delay-curve" / "summary.json").read_text(encoding="utf-8"))
    [scenario] = summary["scenarios"]
    arms = [arm for arm in scenario["methods"] if arm["policy"] in SHOWN and arm["forecaster"] is None]
    save_benchmark_figure(ROOT / "docs" / "delay-curve.png", summary | {"scenarios": [scenario | {"methods": arms}]})


if __name__ == "__main__":
    main()
