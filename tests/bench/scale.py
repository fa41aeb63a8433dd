"""How speed holds up: many networks at once on one core and two, bigger networks, and what starting costs.

Batches are timed in turn (one core, two cores, one core, …) and compared pair by pair; figures are medians. Actions are
those of local-reactive, recorded beforehand. What happens once per process is measured in fresh processes, with a warm
cache of compiled code and with an empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import save
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from dpem_env import make_vec, scenarios
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.envs.vector import EntanglementVectorEnv
from dpem_env.experiments.suites import mesh_of
from dpem_env.network import network as networks
from dpem_env.network.network import build_network
from dpem_env.policies import LocalPolicy, get_policy

FEW, NETWORKS, BATCH_SLOTS = 8, 64, 50
SIZES, SIZE_SLOTS = (100, 1_000, 10_000), 40

START = """
import resource, sys, time
began = time.perf_counter()
import dpem_env
imported = time.perf_counter()
env = dpem_env.parallel_env("mesh100-v0")
env.reset(seed=0)
env.step({agent: 0 for agent in env.agents})
stepped = time.perf_counter()
for _ in range(49):
    env.step({agent: 0 for agent in env.agents})
resets = []
for seed in range(20):
    start = time.perf_counter()
    env.reset(options={"topology_seed": 0, "demand_seed": seed})
    resets.append(time.perf_counter() - start)
import json, statistics
print(json.dumps({
    "import_s": imported - began,
    "import_and_first_step_s": stepped - began,
    "reset_same_topology_ms": 1e3 * statistics.median(resets),
    "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def record_batch(envs: EntanglementVectorEnv) -> list[NDArray[np.int64]]:
    """What local-reactive does in every network for some slots."""
    rule = get_policy("local-reactive")
    assert isinstance(rule, LocalPolicy)
    observations, infos = envs.reset(seed=0)
    recorded = []
    for _ in range(BATCH_SLOTS):
        rows = observations.reshape(envs.num_networks, envs.agents_per_network, -1)
        masks = infos["action_mask"].reshape(*rows.shape[:2], -1)
        acts = [rule.act(envs.observer.table.read(row), mask).action for row, mask in zip(rows, masks, strict=True)]
        recorded.append(np.concatenate(acts))
        observations, _, _, _, infos = envs.step(recorded[-1])
    return recorded


def time_batch(envs: EntanglementVectorEnv, actions: list[NDArray[np.int64]]) -> float:
    """Environment-slots per second of a batch, observations, masks and rewards included."""
    envs.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    return envs.num_networks * len(actions) / (time.perf_counter() - start)


def measure_batches(repeats: int) -> dict[str, Any]:
    """64 networks of mesh100-v0 on one thread and on two, and eight on one; no features of candidate routes."""
    few, one, two = (
        make_vec("mesh100-v0", networks, threads=threads, news=())
        for networks, threads in ((FEW, 1), (NETWORKS, 1), (NETWORKS, 2))
    )
    actions, of_few = record_batch(one), record_batch(few)
    rounds = [
        (time_batch(few, of_few), time_batch(one, actions), time_batch(two, actions))
        for _ in track(range(repeats), "64 networks at once", transient=True)
    ]
    return {
        "networks": NETWORKS,
        "env_steps_per_s_few": statistics.median(few for few, _, _ in rounds),
        "env_steps_per_s_1_thread": statistics.median(one for _, one, _ in rounds),
        "env_steps_per_s_2_threads": statistics.median(two for _, _, two in rounds),
        "speedup": statistics.median(two / one for _, one, two in rounds),
        "of_few": statistics.median(one / few for few, one, _ in rounds),
    }


def measure_size(nodes: int, repeats: int) -> dict[str, Any]:
    """Drawing, reading and stepping one network of `nodes`, array API, one core."""
    scenario = scenarios.get("mesh100-v0", **mesh_of(nodes))
    seeds = episode_seeds(scenario, "train", 0)
    seconds = []
    build_network(scenarios.get("mesh20-v0"), 0)  # nothing is left to compile
    with tempfile.TemporaryDirectory() as empty:
        os.environ["DPEM_CACHE"] = empty
        for _ in ("drawn", "read"):
            networks._build.cache_clear()
            start = time.perf_counter()
            build_network(scenario, seeds.topology)
            seconds.append(time.perf_counter() - start)
        session = Session(scenario)
        rule = get_policy("local-reactive")
        assert isinstance(rule, LocalPolicy)
        session.begin(seeds)
        actions = []
        for _ in range(SIZE_SLOTS):
            seen = session.observer.table.read(session.observations())
            actions.append(rule.act(seen, session.masks()).action)
            session.step(actions[-1])
        slot_seconds = []
        for _ in range(repeats):
            session.begin(seeds)
            start = time.perf_counter()
            for action in actions:
                session.step(action)
                session.observations()
                session.masks()
                session.rewards()
            slot_seconds.append((time.perf_counter() - start) / SIZE_SLOTS)
    per_slot = statistics.median(slot_seconds)
    return {
        "nodes": nodes,
        "network_drawn_s": seconds[0],
        "network_read_s": seconds[1],
        "ms_per_slot": 1e3 * per_slot,
        "us_per_agent_slot": 1e6 * per_slot / nodes,
    }


def measure_start() -> dict[str, Any]:
    """A fresh process with a warm cache (median of five), and the very first one, which compiles everything."""
    with tempfile.TemporaryDirectory() as empty:
        runs = []
        for _ in track(range(6), "starting fresh processes", transient=True):
            done = subprocess.run(
                [sys.executable, "-c", START],
                env=os.environ | {"DPEM_CACHE": empty},
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append((json.loads(done.stdout), done.stderr.strip()))
    (first, said), *warm = runs
    result: dict[str, Any] = {name: statistics.median(run[name] for run, _ in warm) for name in first}
    result["help_s"] = statistics.median(_seconds_of("--help") for _ in range(5))
    return result | {"first_ever_s": first["import_and_first_step_s"], "first_ever_says": said}


def _seconds_of(*words: str) -> float:
    """How long the command takes to answer."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "dpem"), *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    result = {
        "repeats": arguments.repeats,
        "start": measure_start(),
        "batch": measure_batches(arguments.repeats),
        "sizes": [measure_size(nodes, arguments.repeats) for nodes in track(SIZES, "bigger networks", transient=True)],
    }
    Console().print_json(data=result)
    save(arguments.out, result, "gymnasium")


if __name__ == "__main__":
    main()
