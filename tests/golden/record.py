"""The golden episodes, each to exercise rules of its own: `make golden` plays and writes them again.

The decisions of a log that is there are kept, so that only changes of the rules change it; policies decide once. Beside
every log lies a record of what every phase of every slot changed (see `golden.phases`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.logs.recorder import EpisodeRecorder, decision_of, read_log
from dpem_env.network.network import Network
from dpem_env.policies import CentralPolicy, Decision, NetworkView, Policy, get_policy
from dpem_env.scenarios import Scenario, get
from dpem_env.simulator.actions import ActionCode
from golden.phases import record
from support.worlds import IDEAL

FOLDER = Path(__file__).with_name("episodes")


class Erratic(CentralPolicy):
    """Anything a decision can say: waits, allocations, illegal actions, routes named or auto, priorities."""

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        nodes = network.num_nodes
        self.nodes, self.choices = nodes, ActionCode.of(scenario).num_actions
        self.routes = scenario.routing.routes_per_peer

    def act(self, view: NetworkView) -> Decision:
        acting = self.rng.random(self.nodes) < 0.4
        return Decision(
            np.where(acting, self.rng.integers(-1, self.choices + 1, self.nodes), 0),
            np.where(self.rng.random(self.nodes) < 0.5, self.rng.integers(0, self.routes + 1, self.nodes), -1),
            self.rng.integers(0, 3, self.nodes),
        )


class Conditional(Erratic):
    """The same with routes to fall back to, and conditions on most."""

    def act(self, view: NetworkView) -> Decision:
        decision = super().act(view)
        return decision._replace(
            condition=self.rng.choice([0, 1, 1, 1, 2, 4, 7], self.nodes),
            fallback=self.rng.integers(-1, self.routes, (self.nodes, self.routes - 1)),
        )


class Recorded(CentralPolicy):
    """The decisions of a log, whatever the policy that took them would decide by now."""

    def __init__(self, log: Path) -> None:  # of whatever rules
        present = [name for name in Decision._fields if name in pq.read_schema(log).names]
        self.rows = pq.read_table(log, columns=present).to_pylist()

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        self.slot = 0

    def act(self, view: NetworkView) -> Decision:
        self.slot += 1
        return decision_of(self.rows[self.slot - 1])


class Golden(NamedTuple):
    """How an episode comes about."""

    scenario: Scenario
    policy: Policy
    delay: float = 0.0  # s, of central policies


def episodes() -> dict[str, Golden]:
    """The golden episodes by name."""
    reactive, central = get_policy("local-reactive"), get_policy("central-reactive")
    now = get("mesh20-v0", slots=20, request_rate=24.0, predictability=0.0, news_period=None)
    busy = now.override(**IDEAL)
    # Paths from the repository's root. Deadlines of all lengths let requests overtake each other in their queues.
    requests = {"kind": "replay", "requests_file": "tests/golden/requests.csv"}
    return {
        "chain3": Golden(get("chain3-v0", slots=40, request_rate=4.0, **IDEAL), Erratic()),  # keeps a stock
        "star8-contention": Golden(get("star8-v0", slots=40, request_rate=16.0, **IDEAL), reactive),
        "abilene-requests": Golden(get("abilene-trace-v0", slots=40, **requests, **IDEAL), reactive),
        "mesh20-purification": Golden(busy.override(class_weights=(0.1, 0.3, 0.6)), reactive),
        "mesh20-noisy": Golden(now.override(class_weights=(0.1, 0.3, 0.6)), reactive),  # the defaults
        "mesh20-small-memory": Golden(busy.override(memory=(2, 4)), reactive),
        "mesh20-short-coherence": Golden(busy.override(coherence_time=2.0, swap_success=0.5), reactive),
        "mesh20-central": Golden(busy, central, delay=0.5),  # names routes and orders admissions
        "mesh20-outages": Golden(  # short rows that fill up, peers out of reach
            busy.override(outages={"mean_up": 5.0, "mean_down": 2.0}, rows=2, max_hops=3, peers=10), Erratic()
        ),
        "mesh20-conditional": Golden(
            now.override(news_period=0.25, memory=(4, 8), swap_rate=(0.5, 2.0)), Conditional()
        ),
        "mesh20-asap": Golden(busy.override(swapping="asap", cutoff=5), reactive),
        "swap-chain5": Golden(  # links made again inside longer segments
            get("swap-chain5-v0", slots=60, generation_rate=(0.5, 0.5), swap_success=0.9, cutoff=4), reactive
        ),
    }


def log_of(name: str, folder: Path = FOLDER) -> Path:
    """Where an episode's log lies."""
    return folder / f"{name}.log.parquet"


def phases_of(name: str, folder: Path = FOLDER) -> Path:
    """Where the record of an episode's phases lies."""
    return folder / f"{name}.phases.parquet"


def main() -> None:
    """Write all golden episodes."""
    for name, (scenario, policy, delay) in episodes().items():
        if log_of(name).exists():
            policy, delay = Recorded(log_of(name)), 0.0
        recorder = EpisodeRecorder()
        seeds = episode_seeds(scenario, "evaluation", 0)
        run_episode(scenario, policy, seeds, delay=delay, recorder=recorder, label=name)
        recorder.save(log_of(name))
        record(read_log(log_of(name)), phases_of(name))


if __name__ == "__main__":
    main()
