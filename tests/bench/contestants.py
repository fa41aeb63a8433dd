"""What peers.py times, each run in the virtual environment that holds it: python contestants.py rware

Prints one line of JSON. Nothing but the standard library is imported up here, since those environments differ. Actions
are drawn beforehand, random (and legal) everywhere; building and resetting are not timed.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEED = 0
AGENTS = 100
WARM_UP = 5  # steps before the clock starts
Measured = dict[str, Any]


def timed(step: Callable[[Any], Any], actions: Sequence[Any]) -> float:
    """CPU-seconds of all steps after the warm-up."""
    for action in actions[:WARM_UP]:
        step(action)
    start = time.process_time()
    for action in actions[WARM_UP:]:
        step(action)
    return time.process_time() - start


def measure_parallel(nodes: int) -> Measured:
    """The parallel API of mesh100-v0, or of a smaller mesh of its kind."""
    from speed import record_actions

    from dpem_env import parallel_env

    env = parallel_env("mesh100-v0", nodes=nodes, max_cycles=WARM_UP + 4000)
    actions = record_actions(env, "random legal")
    env.reset(seed=SEED)
    steps = len(actions) - WARM_UP
    return {"steps": steps, "agents": nodes, "seconds": timed(env.step, actions)} | simulated(env.scenario, steps)


def simulated(scenario: Any, slots: int) -> Measured:
    return {"simulated_seconds": slots * scenario.control.slot_duration}


NETWORKS, VECTOR_SLOTS = 8, 200


def legal_actions(envs: Any) -> list[Any]:
    """Random legal actions of the first slots of the episodes of SEED."""
    import numpy as np

    rng, drawn = np.random.default_rng(SEED), []
    _, infos = envs.reset(seed=SEED)
    for _ in range(WARM_UP + VECTOR_SLOTS):
        masks = infos["action_mask"]
        drawn.append(np.argmax(rng.random(masks.shape) * masks, axis=1))
        *_, infos = envs.step(drawn[-1])
    return drawn


def measure_vector() -> Measured:
    """`make_vec` alone, in the environment that holds TorchRL."""
    from dpem_env import make_vec

    envs = make_vec("mesh100-v0", NETWORKS)
    actions = legal_actions(envs)
    envs.reset(seed=SEED)
    steps = NETWORKS * VECTOR_SLOTS
    seconds = timed(envs.step, actions)
    return {"steps": steps, "agents": envs.agents_per_network, "seconds": seconds} | simulated(envs.scenario, steps)


def measure_torchrl() -> Measured:
    """The same game through the `EnvBase` of the TorchRL adapter, collected by TorchRL's rollout."""
    import torch

    from dpem_agents.adapters.torchrl import EntanglementTorchEnv
    from dpem_env import make_vec

    torch.set_num_threads(1)
    envs = make_vec("mesh100-v0", NETWORKS)
    actions = [torch.from_numpy(action) for action in legal_actions(envs)]
    env = EntanglementTorchEnv(envs)
    env.rollout(WARM_UP, actions=actions)
    env.set_seed(SEED)
    begun = env.reset()
    start = time.process_time()
    env.rollout(VECTOR_SLOTS, actions=actions, auto_reset=False, tensordict=begun)
    seconds, steps = time.process_time() - start, NETWORKS * VECTOR_SLOTS
    return {"steps": steps, "agents": envs.agents_per_network, "seconds": seconds} | simulated(envs.scenario, steps)


def measure_simple_spread() -> Measured:
    """MPE's simple_spread through its parallel API; every agent also has a landmark."""
    import numpy as np
    from mpe2 import simple_spread_v3

    steps = 25
    env = simple_spread_v3.parallel_env(N=AGENTS, max_cycles=WARM_UP + steps)
    env.reset(seed=SEED)
    drawn = np.random.default_rng(SEED).integers(5, size=(WARM_UP + steps, AGENTS)).tolist()
    actions = [dict(zip(env.agents, slot, strict=True)) for slot in drawn]
    return {"steps": steps, "agents": AGENTS, "seconds": timed(env.step, actions)}


def measure_jax_spread() -> Measured:
    """JaxMARL's simple_spread, compiled by XLA, as many at once as `make_vec` plays."""
    import jax
    import jaxmarl

    steps = 100
    env = jaxmarl.make("MPE_simple_spread_v3", num_agents=AGENTS, num_landmarks=AGENTS)
    keys = jax.random.split(jax.random.PRNGKey(SEED), NETWORKS)
    _, state = jax.jit(jax.vmap(env.reset))(keys)
    advance = jax.jit(jax.vmap(env.step))
    drawn = jax.random.randint(jax.random.PRNGKey(SEED), (WARM_UP + steps, len(env.agents), NETWORKS), 0, 5)
    actions = [dict(zip(env.agents, slot, strict=True)) for slot in drawn]

    def step(action: Any) -> None:
        nonlocal state
        _, state, reward, _, _ = advance(keys, state, action)
        jax.block_until_ready(reward)

    return {"steps": NETWORKS * steps, "agents": AGENTS, "seconds": timed(step, actions)}


def measure_vmas() -> Measured:
    """VMAS's dispersion, whose agents do not collide, in PyTorch, as many at once as `make_vec` plays."""
    import torch
    import vmas

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    steps = 5
    env = vmas.make_env("dispersion", NETWORKS, "cpu", continuous_actions=False, n_agents=AGENTS, n_food=AGENTS)
    env.seed(SEED)
    env.reset()
    actions = list(torch.randint(5, (WARM_UP + steps, AGENTS, NETWORKS, 1)))
    seconds = timed(lambda action: env.step(list(action)), actions)
    return {"steps": NETWORKS * steps, "agents": AGENTS, "seconds": seconds}


def measure_connector() -> Measured:
    """Jumanji's Connector, whose agents join pairs of cells by paths that must not meet, compiled by XLA."""
    import jax
    import jumanji
    from jumanji.environments.routing.connector.generator import RandomWalkGenerator

    side, steps = 32, 400
    env = jumanji.make("Connector-v3", generator=RandomWalkGenerator(side, AGENTS), time_limit=WARM_UP + steps)
    reset, advance = jax.jit(env.reset), jax.jit(env.step)
    state, shown = reset(jax.random.PRNGKey(SEED))

    @jax.jit
    def legal(key: Any, mask: Any) -> Any:
        return jax.numpy.argmax(jax.random.uniform(key, mask.shape) * mask, axis=1)

    actions = []
    for key in jax.random.split(jax.random.PRNGKey(SEED), WARM_UP + steps):
        actions.append(legal(key, shown.observation.action_mask))
        state, shown = advance(state, actions[-1])
    state, _ = reset(jax.random.PRNGKey(SEED))

    def step(action: Any) -> None:
        nonlocal state
        state, shown = advance(state, action)
        shown.reward.block_until_ready()

    return {"steps": steps, "agents": AGENTS, "seconds": timed(step, actions)}


def measure_rware() -> Measured:
    """RWARE's large warehouse, which registers up to 19 robots, with 100."""
    import numpy as np
    from rware.warehouse import RewardType, Warehouse

    steps = 400
    env = Warehouse(
        shelf_rows=3,
        shelf_columns=5,
        column_height=8,
        n_agents=AGENTS,
        msg_bits=0,
        sensor_range=1,
        request_queue_size=AGENTS,
        max_inactivity_steps=None,
        max_steps=WARM_UP + steps,
        reward_type=RewardType.INDIVIDUAL,
    )
    env.reset(seed=SEED)
    actions = np.random.default_rng(SEED).integers(5, size=(WARM_UP + steps, AGENTS)).tolist()
    return {"steps": steps, "agents": AGENTS, "seconds": timed(env.step, actions)}


def measure_sequence() -> Measured:
    """SeQUeNCe on a ring of ten routers, where each wants pairs with the third one further on, one at a time.

    Links of 10 km, 0.2 dB/km, heralded half way; Bell-diagonal formalism, which has to be set in Python.
    """
    from itertools import combinations

    from sequence.app.request_app import RequestApp
    from sequence.constants import BELL_DIAGONAL_STATE_FORMALISM, SECOND, SINGLE_HERALDED
    from sequence.entanglement_management.generation import EntanglementGenerationA, EntanglementGenerationB
    from sequence.entanglement_management.swapping import EntanglementSwappingA, EntanglementSwappingB
    from sequence.kernel.quantum_manager import QuantumManager
    from sequence.topology.router_net_topo import RouterNetTopo

    for generation in (EntanglementGenerationA, EntanglementGenerationB):
        generation.set_global_type(SINGLE_HERALDED)
    for swapping in (EntanglementSwappingA, EntanglementSwappingB):
        swapping.set_formalism(BELL_DIAGONAL_STATE_FORMALISM)
    QuantumManager.set_global_manager_formalism(BELL_DIAGONAL_STATE_FORMALISM)
    routers, length, attenuation = 10, 10_000, 0.2 / 1000  # m, dB/m
    duration = 0.2  # s
    start = SECOND // 100  # reservations take their time
    stop = start + round(duration * SECOND)
    names = [f"r{i}" for i in range(routers)]
    detector = {"efficiency": 1.0, "count_rate": 5e7}
    config: Measured = {
        "formalism": BELL_DIAGONAL_STATE_FORMALISM,
        "stop_time": stop,
        "templates": {
            "router": {
                "MemoryArray": {"fidelity": 0.98, "efficiency": 1.0, "frequency": 1e6},
                "EntanglementSwapping": {"swapping_success_prob": 0.9},
            },
            "station": {
                "encoding_type": SINGLE_HERALDED,
                "SingleHeraldedBSM": {"detectors": [detector, detector]},
            },
        },
        "nodes": [
            {"name": name, "type": "QuantumRouter", "seed": i, "memo_size": 12, "template": "router"}
            for i, name in enumerate(names)
        ],
        "qconnections": [
            {
                "node1": name,
                "node2": names[(i + 1) % routers],
                "attenuation": attenuation,
                "distance": length,
                "type": "meet_in_the_middle",
                "seed": 100 + i,
                "template": "station",
            }
            for i, name in enumerate(names)
        ],
        "cconnections": [{"node1": one, "node2": other, "distance": length} for one, other in combinations(names, 2)],
    }
    network = RouterNetTopo(config)
    timeline = network.get_timeline()
    apps = [RequestApp(timeline.get_entity_by_name(name)) for name in names]
    timeline.init()
    for i, app in enumerate(apps):
        app.start(names[(i + 3) % routers], start, stop, memo_size=1, fidelity=0.5)
    began = time.process_time()
    timeline.run()
    seconds = time.process_time() - began
    if not all(app.memory_counter for app in apps):
        raise RuntimeError("a router got no pair at all: its request was refused")
    return {"agents": routers, "seconds": seconds, "simulated_seconds": duration}


MEASURE: dict[str, tuple[Callable[[], Measured], tuple[str, ...]]] = {
    "parallel-100": (lambda: measure_parallel(AGENTS), ("dpem-env", "numpy", "numba")),
    "parallel-10": (lambda: measure_parallel(10), ("dpem-env", "numpy", "numba")),
    "vector": (measure_vector, ("dpem-env", "numpy", "numba")),
    "torchrl": (measure_torchrl, ("dpem-env", "torch", "torchrl")),
    "rware": (measure_rware, ("rware", "numpy")),
    "simple-spread": (measure_simple_spread, ("mpe2", "pettingzoo", "numpy")),
    "jax-spread": (measure_jax_spread, ("jaxmarl", "jax")),
    "vmas": (measure_vmas, ("vmas", "torch")),
    "connector": (measure_connector, ("jumanji", "jax")),
    "sequence": (measure_sequence, ("sequence", "numpy")),
}


if __name__ == "__main__":
    run, packages = MEASURE[sys.argv[1]]
    versions = {"python": platform.python_version()} | {package: version(package) for package in packages}
    print(json.dumps(run() | {"versions": versions}))
