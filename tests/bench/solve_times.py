"""How long central planners take per decision, as networks grow: the solve time in the control delay they are charged.

Meshes of equal density and load per node; every decision of one validation episode per size is timed, without control
delay, so that a planner has all demand to plan for. A planner that plans every few slots has decisions that only follow
the plan; the 95th percentile shows the others as long as it plans at least once in twenty slots.
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
from dpem_env.network.network import Network
from dpem_env.policies import CentralPolicy, Decision, NetworkView, get_policy
from dpem_env.scenarios import Scenario

PLANNERS = ("central-reactive", "central-lp", "q-cast", "reps")


class Timed(CentralPolicy):
    """A central policy, with the seconds that each of its decisions took."""

    def __init__(self, policy: CentralPolicy) -> None:
        self.policy, self.forecaster = policy, policy.forecaster
        self.seconds: list[float] = []

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Pass the episode on."""
        self.policy.reset(scenario, network, seed)

    def act(self, view: NetworkView) -> Decision:
        """The policy's decision, timed."""
        start = time.perf_counter()
        decision = self.policy.act(view)
        self.seconds.append(time.perf_counter() - start)
        return decision


def measure(name: str, scenario: Scenario, forecaster: str | None) -> dict[str, Any]:
    """Solve times of one planner in the first validation episode."""
    policy = get_policy(name)
    if not isinstance(policy, CentralPolicy):
        raise SystemExit(f"{name} is no central policy; write central:{name} to run it under central control")
    timed = Timed(policy)
    run_episode(scenario, timed, episode_seeds(scenario, "validation", 0), forecaster=forecaster)
    median, tail = np.percentile(timed.seconds, (50, 95)) * 1e3
    return {
        "policy": name,
        "forecaster": forecaster or "own",
        "nodes": scenario.network.nodes,
        "decisions": len(timed.seconds),
        "median_ms": round(float(median), 3),
        "p95_ms": round(float(tail), 3),
    }


def main() -> None:
    """Time every planner on every size, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=PLANNERS, help=f"central policies (default: {PLANNERS})")
    parser.add_argument("--nodes", type=int, nargs="+", default=(100, 200, 400))
    parser.add_argument("--forecaster", action="append", help="as for dpem run; may be given several times")
    parser.add_argument("--slots", type=int, default=400, help="decisions per episode")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    forecasters = arguments.forecaster or [None]  # their own
    jobs = [(n, name, f) for n in arguments.nodes for name in arguments.policies for f in forecasters]
    rows = []
    with Progress(transient=True) as progress:
        task = progress.add_task("solving", total=len(jobs))
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
