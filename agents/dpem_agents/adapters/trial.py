"""Whether a library trains here: train its adapter, play what it learned, write down what happened.

python -m dpem_agents.adapters.trial cleanrl --out cleanrl.json
python -m dpem_agents.adapters.trial cleanrl --routes --conditional --out cleanrl-more-actions.json

An adapter is a module of this package with ``LIBRARY``, the distribution it uses, ``MASKS``, how illegal actions are
kept out, in a few words, and ``train(scenario, timesteps, seed, **arguments)``, which trains one policy that agents
share, for so many agents × slots of a scenario (its name or itself) in environments made with these arguments, and
returns it as an `Actor`. It steps environments in this process, whose simulators count what they play.
``ILLEGAL_ACTIONS_POSSIBLE = True`` says that the library cannot mask: then only those played fail the trial.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from dpem_env import make_vec, scenarios
from dpem_env.experiments.workers import ONE_THREAD
from dpem_env.logs.recorder import simulator_version
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Simulator
from dpem_env.simulator.actions import ActionCode
from dpem_env.simulator.simulator import _step as PLAYING
from dpem_env.support.files import write_json
from dpem_env.support.provenance import stamp

# (N, F) observations and (N, actions) masks to the (N,) most likely legal actions
Actor = Callable[[NDArray[np.float32], NDArray[np.int8]], NDArray[np.int64]]
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem != "trial")
SCENARIO = "star8-v0"
CROWDED = {"rows": 1}  # of allocations, instead of 4: there, and hardly ever before, actions are illegal
CROWDED_TIMESTEPS = 50_000
EPISODES = 40  # of the validation split, played by the learned policy and by random legal actions


@contextmanager
def watched(on_play: Callable[[int], object]) -> Iterator[Counter[str]]:
    """Count the decisions, and the illegal ones, that any simulator here carries out, whoever has made it."""
    plays, run = Counter(decided=0, illegal=0), Simulator.run

    def counting(simulator: Simulator, *calls: Any) -> None:
        run(simulator, *calls)
        if any(call[0] is PLAYING for call in calls):
            refused = simulator.refused
            plays.update(decided=refused.size, illegal=int(refused.sum()))
            on_play(refused.size)

    with patch.object(Simulator, "run", counting):
        yield plays


def play(scenario: Scenario, actor: Actor, **arguments: bool) -> tuple[NDArray[np.float64], int]:
    """(EPISODES,) returns, means over agents, and the number of illegal actions."""
    envs = make_vec(scenario, EPISODES, split="validation", **arguments)
    observations, infos = envs.reset(seed=0)
    returns = np.zeros(envs.num_envs)
    for _ in range(envs.max_cycles):
        observations, rewards, _, _, infos = envs.step(actor(observations, infos["action_mask"]))
        returns += rewards
    return returns.reshape(EPISODES, -1).mean(axis=1), int(infos["final_info"]["illegal_actions"].sum())


def at_random() -> Actor:
    """Every node takes one of its legal actions, all equally likely, as `random-legal` does."""
    rng = np.random.default_rng(0)
    return lambda _, masks: (rng.random(masks.shape) * masks).argmax(axis=1)


def trial(name: str, timesteps: int | None = None, routes: bool = False, conditional: bool = False) -> dict[str, Any]:
    """Train and play the adapter of that name; plain data, with what is wrong under "failures".

    `routes` and `conditional` are those of `dpem_env.parallel_env`: which actions there are. A second, short training
    on nodes of one row each, where a node that waits for its pair may do nothing else, is for the counts of illegal
    actions alone.
    """
    adapter = importlib.import_module(f"dpem_agents.adapters.{name}")
    scenario, arguments = scenarios.get(SCENARIO), {"routes": routes, "conditional": conditional}
    random_returns, _ = play(scenario, at_random(), **arguments)  # first: it compiles the simulator
    timesteps = timesteps or inspect.signature(adapter.train).parameters["timesteps"].default
    with progress() as bar, watched(lambda decisions: bar.advance(task, decisions)) as plays:
        task = bar.add_task(f"training {name}", total=timesteps)
        start, cpu_start = time.perf_counter(), time.process_time()
        actor = adapter.train(SCENARIO, timesteps=timesteps, seed=0, **arguments)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    crowded = scenarios.get(SCENARIO, **CROWDED)
    with watched(lambda decisions: None) as crowded_plays:
        crowded_actor = adapter.train(crowded, timesteps=min(timesteps, CROWDED_TIMESTEPS), seed=0, **arguments)
    returns, illegal = play(scenario, actor, **arguments)
    _, crowded_illegal = play(crowded, crowded_actor, **arguments)
    gain = returns - random_returns  # paired: of the same episodes
    result = {
        "library": adapter.LIBRARY,
        "version": importlib.metadata.version(adapter.LIBRARY),
        "masks": adapter.MASKS,
        "lines": len(Path(inspect.getfile(adapter)).read_text(encoding="utf-8").splitlines()),
        "scenario": scenario.name,
        "scenario_hash": scenario.hash,
        "simulator": simulator_version(),
        "stamp": stamp(),
        **arguments,
        "actions": ActionCode.of(scenario, routes, int(conditional)).num_actions,
        "timesteps": timesteps,
        "agent_steps": plays["decided"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "agent_steps_per_second": plays["decided"] / cpu_seconds,  # of this process: others disturb less
        "illegal_actions_possible": getattr(adapter, "ILLEGAL_ACTIONS_POSSIBLE", False),
        "illegal_actions_training": plays["illegal"] + crowded_plays["illegal"],
        "illegal_actions_playing": illegal + crowded_illegal,
        "episodes": EPISODES,
        "return": returns.mean(),
        "return_random_legal": random_returns.mean(),
        "difference": gain.mean(),
        "standard_error": gain.std(ddof=1) / np.sqrt(EPISODES),
        "python": f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
    return result | {"failures": (failures := list(complaints(result))), "passed": not failures}


def complaints(result: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the result of a trial."""
    gain, error = result["difference"], result["standard_error"]
    if 2 * result["agent_steps"] < result["timesteps"]:
        yield f"{result['agent_steps']} of {result['timesteps']} agent-steps: is the environment in another process?"
    if result["illegal_actions_training"] and not result["illegal_actions_possible"]:
        yield f"{result['illegal_actions_training']} illegal actions while training"
    if result["illegal_actions_playing"]:
        yield f"{result['illegal_actions_playing']} illegal actions while playing"
    if not gain > 2 * error:
        yield f"return minus that of random-legal is {gain:.3f}, not above two standard errors of {error:.3f}"


def main() -> int:
    """Command line; exit code 1 if the trial fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--routes", action="store_true", help="actions name a route, too")
    parser.add_argument("--conditional", action="store_true", help='every allocation also comes "only if free"')
    parser.add_argument("--timesteps", type=int, help="agent-steps of training (default: the adapter's)")
    parser.add_argument("--out", type=Path, required=True, help="result file to write (JSON)")
    chosen = parser.parse_args()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    os.environ |= ONE_THREAD  # before PyTorch is loaded: at these sizes one thread is the fastest
    result = trial(chosen.name, chosen.timesteps, routes=chosen.routes, conditional=chosen.conditional)
    write_json(chosen.out, result)
    print(
        f"{chosen.name}: {result['difference']:+.2f} in return to random legal actions", *result["failures"], sep="; "
    )
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
