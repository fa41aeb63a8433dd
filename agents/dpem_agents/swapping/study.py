"""Train learners of swaps with several seeds, and write their grades: a step of `dpem reproduce swapping`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpem_agents.swapping.chains import Grading
from dpem_agents.swapping.ppo import PpoLearning
from dpem_agents.swapping.q_learning import QLearning
from dpem_agents.swapping.views import SEES
from dpem_baselines.swap_chain import SwapChain
from dpem_env.report.tables import progress
from dpem_env.support.files import write_json

CHAINS = {"four": SwapChain(4, 0.3, 0.5, 2), "five": SwapChain(5, 0.9, 0.5, 2)}
LEARNERS: dict[str, tuple[type[QLearning] | type[PpoLearning], int]] = {
    "q": (QLearning, 4_000_000),  # slots played, of all chains together
    "ppo": (PpoLearning, 400_000),
}
REPORTS = 20


def curve(chain: SwapChain, learner: str, sees: str, seed: int) -> dict[str, Any]:
    """Grades in per cent of the optimum while it learns, the last one at the end."""
    kind, slots = LEARNERS[learner]
    grading = Grading(chain)
    learning = kind(chain, sees, grading.table, seed)
    points = [(played, round(grading.per_cent(learning.decide), 4)) for played in learning.learn(slots, REPORTS)]
    played, grades = zip(*points, strict=True)
    return {"seed": seed, "slots": list(played), "per_cent": list(grades)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", choices=CHAINS, required=True)
    parser.add_argument("--learner", choices=LEARNERS, required=True)
    parser.add_argument("--sees", choices=SEES, required=True)
    parser.add_argument("--seed", type=int, action="append", required=True, help="of a training")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    chain = CHAINS[asked.chain]
    with progress() as bar:
        seeds = bar.track(asked.seed, description=f"{asked.learner} {asked.sees}")
        curves = [curve(chain, asked.learner, asked.sees, seed) for seed in seeds]
    finals = [each["per_cent"][-1] for each in curves]
    about = {"chain": asked.chain, "learner": asked.learner, "sees": asked.sees, "seeds": len(asked.seed)}
    found = {"mean": round(sum(finals) / len(finals), 4), "least": min(finals), "most": max(finals)}
    write_json(asked.out, about | {"slots": curves[0]["slots"][-1]} | found | {"curves": curves})


if __name__ == "__main__":
    main()
