"""How long deciding takes as networks grow: of central planners a part of their control delay, of nodes one of theirs.

Meshes of equal density and load per node; every decision of one validation episode per size is timed, without control
delay, so that a planner has all demand to plan for. A planner that plans every few slots has decisions that only follow
the plan; the 95th percentile shows the others as long as it plans at least once in twenty slots. A local policy decides
for all nodes at once here: a node that decides for itself alone takes no longer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.suites import mesh_of
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario

PLANNERS = ("central-reactive", "central-predictive", "central-maxweight", "central-lp", "q-cast", "reps")
LOCAL = ("maxweight", "ppo:mesh100")


def measure(name: str, scenario: Scenario, forecaster: str | None) -> dict[str, Any]:
    """Times of the decisions of one policy in the first validation episode."""
    policy, seconds = get_policy(name), []
    decide = policy.act

    def timed(*seen: Any) -> Any:
        start = time.perf_counter()
        decision = decide(*seen)
        seconds.append(time.perf_counter() - start)
        return decision

    policy.act = timed  # type: ignore[method-assign]
    run_episode(scenario, policy, episode_seeds(scenario, "validation", 0), forecaster=forecaster)
    median, tail = np.percentile(seconds, (50, 95)) * 1e3
    return {
        "policy": name,
        "forecaster": forecaster or "own",
        "nodes": scenario.network.nodes,
        "decisions": len(seconds),
        "median_ms": round(float(median), 3),
        "p95_ms": round(float(tail), 3),
    }


def main() -> None:
    """Time every policy on every size, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=PLANNERS + LOCAL, help="(default: %(default)s)")
    parser.add_argument("--nodes", type=int, nargs="+", default=(100, 400, 1000, 4000))
    parser.add_argument("--forecaster", action="append", help="as for dpem run; may be given several times")
    parser.add_argument("--slots", type=int, default=100, help="decisions per episode")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    forecasters = arguments.forecaster or [None]  # their own
    jobs = [(n, name, f) for n in arguments.nodes for name in arguments.policies for f in forecasters]
    rows = []
    with Progress(transient=True) as progress:
        task = progress.add_task("deciding", total=len(jobs))
        for nodes, name, forecaster in jobs:
            progress.update(task, description=f"{name}, {nodes} nodes")
            rows.append(measure(name, scenarios.get("mesh100-v0", slots=arguments.slots, **mesh_of(nodes)), forecaster))
            progress.advance(task)
    save(arguments.out, {"rows": rows}, "scipy")
    table = Table(title="Time per decision")
    for column in ("policy", "forecaster", "nodes", "median ms", "95 % ms"):
        table.add_column(column, justify="left" if column in ("policy", "forecaster") else "right")
    for row in rows:
        figures = (f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}")
        table.add_row(row["policy"], row["forecaster"], str(row["nodes"]), *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
