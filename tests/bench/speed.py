"""How fast the environment is, beside the fastest it could be: an empty ParallelEnv with the same spaces and masks.

Observations are measured without features of candidate routes, with those that rules rank routes by, and with all. All
figures come from one run, each the median of repeated runs taken in turn (A B C A B C …), so that a machine that
slows down slows everything. Actions are recorded beforehand: those of local-reactive (typical) and random legal ones
(worst case); none is drawn inside a timed loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from pettingzoo import ParallelEnv
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dpem_baselines.route_choice import READ
from dpem_env import parallel_env
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.policies import LocalPolicy, get_policy

SEED = 0
EMPTY = "empty ParallelEnv"
NEWS = {"none": (), "to rank routes": READ, "all": None}  # features of candidate routes in an observation


class EmptyEnv(ParallelEnv):  # type: ignore[misc]
    """The floor: same agents and spaces; copies one observation and one mask matrix and builds the dictionaries."""

    metadata = {"name": "empty"}  # noqa: RUF012

    def __init__(self, like: EntanglementEnv) -> None:
        self.possible_agents = like.possible_agents
        self.max_cycles = like.max_cycles
        self._matrix = like.session.observations()
        self._masks = like.session.masks()

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.agents, self._slot = self.possible_agents[:], 0
        return self._observe()

    def step(self, actions: dict[str, int]) -> Any:
        agents = self.agents
        np.array([actions[agent] for agent in agents])
        self._slot += 1
        over = self._slot >= self.max_cycles
        observations, infos = self._observe()
        rewards = dict.fromkeys(agents, 0.0)
        if over:
            self.agents = []
        return observations, rewards, dict.fromkeys(agents, False), dict.fromkeys(agents, over), infos

    def _observe(self) -> Any:
        matrix, masks = self._matrix.copy(), self._masks.copy()
        infos = {a: {"action_mask": mask} for a, mask in zip(self.possible_agents, masks, strict=True)}
        return dict(zip(self.possible_agents, matrix, strict=True)), infos


def record_actions(env: EntanglementEnv, kind: str) -> list[dict[str, int]]:
    """The actions of one episode, by local-reactive or random legal."""
    env.reset(seed=SEED)
    rule, rng = get_policy("local-reactive"), np.random.default_rng(SEED)
    assert isinstance(rule, LocalPolicy)
    rule.reset(env.scenario, env.session.network, SEED)
    recorded = []
    while env.agents:
        masks = env.session.masks()
        if kind == "random legal":
            action = np.argmax(rng.random(masks.shape) * masks, axis=1)
        else:
            action = rule.act(env.session.observer.table.read(env.session.observations()), masks).action
        recorded.append({agent: int(a) for agent, a in zip(env.possible_agents, action, strict=True)})
        env.step(recorded[-1])
    return recorded


def time_dicts(env: Any, recorded: list[dict[str, int]]) -> float:
    """Seconds per slot through the parallel API."""
    env.reset(seed=SEED)
    step = env.step
    start = time.perf_counter()
    for actions in recorded:
        step(actions)
    return (time.perf_counter() - start) / len(recorded)


def time_arrays(env: EntanglementEnv, matrix: np.ndarray, what: str) -> float:
    """Seconds per slot through arrays: the simulator alone, or with observations, masks and rewards."""
    env.reset(seed=SEED)
    session = env.session
    start = time.perf_counter()
    for action in matrix:
        session.step(action)
        if what == "array API":
            session.observations()
            session.masks()
            session.rewards()
    return (time.perf_counter() - start) / len(matrix)


def contestants(scenario: str, news: str) -> dict[tuple[str, ...], Callable[[], float]]:
    """What is timed, by news, path and actions; the floor has observations of the same width."""
    env = parallel_env(scenario, news=NEWS[news])
    actions = {kind: record_actions(env, kind) for kind in ("local-reactive", "random legal")}
    env.reset(seed=SEED)
    floor, found = EmptyEnv(env), {}
    for kind, recorded in actions.items():
        matrix = np.array([list(slot.values()) for slot in recorded])
        found[news, "parallel API", kind] = lambda r=recorded: time_dicts(env, r)
        found[news, "array API", kind] = lambda m=matrix: time_arrays(env, m, "array API")
        if news == "none":
            found[news, "simulator alone", kind] = lambda m=matrix: time_arrays(env, m, "simulator alone")
    found[news, EMPTY, "local-reactive"] = lambda: time_dicts(floor, actions["local-reactive"])
    return found


def measure(scenario: str, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` rounds, every contestant once per round."""
    timed = {key: run for news in NEWS for key, run in contestants(scenario, news).items()}
    seconds: dict[tuple[str, ...], list[float]] = {key: [] for key in timed}
    for _ in track(range(repeats), f"timing {scenario}", transient=True):
        for key, run in timed.items():
            seconds[key].append(run())
    agents = len(parallel_env(scenario).possible_agents)
    rows = [
        {
            "news": news,
            "path": path,
            "actions": kind,
            "env_steps_per_s": 1.0 / statistics.median(times),
            "agent_steps_per_s": agents / statistics.median(times),
            "ratio_to_empty": statistics.median(
                floor / own for floor, own in zip(seconds[news, EMPTY, "local-reactive"], times, strict=True)
            ),
        }
        for (news, path, kind), times in seconds.items()
    ]
    return {"scenario": scenario, "agents": agents, "repeats": repeats, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="mesh100-v0")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    result = measure(arguments.scenario, arguments.repeats)
    table = Table(title=f"{result['scenario']}: medians of {result['repeats']} runs")
    for column in ("news", "path", "actions", "env-steps/s", "agent-steps/s", "of empty"):
        table.add_column(column, justify="left" if column in ("news", "path", "actions") else "right")
    for row in result["rows"]:
        table.add_row(
            row["news"],
            row["path"],
            row["actions"],
            f"{row['env_steps_per_s']:,.0f}",
            f"{row['agent_steps_per_s']:,.0f}",
            f"{row['ratio_to_empty']:.2f}",
        )
    Console().print(table)
    save(arguments.out, result, "pettingzoo", "gymnasium")


if __name__ == "__main__":
    main()
