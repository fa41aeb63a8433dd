"""DPEM, the paper's system, put together: four layers, each one call or two of a public part.

1. *Predictive*: every node trains a recurrent network on its own request history, which forecasts its demand.
2. *Agents*: every node trains a policy of its own by PPO, on its topology, that forecast and its resources.
3. *Federated*: now and then a part of the policies is averaged under differential privacy and sent back.
4. *Control plane*: policies allocate; the simulator admits, generates, swaps, purifies and delivers.
"""

from __future__ import annotations

import os
from pathlib import Path

from dpem_agents.federation import Federation
from dpem_agents.forecasters.checkpoint import OF_TRAINING
from dpem_agents.forecasters.training import train_forecasters
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters
from dpem_agents.ppo.start import Start
from dpem_agents.ppo.training import require_booked, train
from dpem_env import scenarios
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.files import result_folder


def train_dpem(
    scenario: str | Scenario,
    timesteps: int,
    out: str | os.PathLike[str],
    *,
    topology_seed: int = 0,
    seed: int = 0,
    hours: float = 24.0,
    federation: Federation | None = None,
    hyperparameters: Hyperparameters | None = None,
    start: Start | None = None,
    validation_episodes: int = 4,
    resume: bool = True,
) -> Path:
    """Train layers 1 to 3 on the network of `topology_seed`; returns the checkpoint, which ``ppo:PATH`` plays.

    With a `start` policies begin at its weights; the forecasts of layer 1 are in place of those that it was trained on.
    `timesteps` are slots × nodes of layer 2, `hours` the simulated history of layer 1. With `resume`, forecasters that
    `out` holds are used as they are, and policies trained on. Ctrl-C ends it; forecasters are kept only when they are
    done. The rest is as in `dpem_agents.ppo.training.train`.
    """
    scenario, folder = scenarios.get(scenario), Path(out)
    forecaster = folder / OF_TRAINING
    chosen = federation or Federation()
    learning = hyperparameters or (start.hyperparameters("federated") if start else PRESETS["federated"])
    if start:
        start.require(scenario, "federated", learning, f"gru:{forecaster}")  # complain before it is late
    with result_folder(folder):
        require_booked(folder, resume)
        nodes = build_network(scenario.on_topology(topology_seed, "train"), topology_seed).num_nodes
        chosen.rounds_of_policies(timesteps, learning.slots * learning.networks * nodes)  # and here
        if not (resume and forecaster.exists()):
            learned = train_forecasters(scenario, [topology_seed], hours=hours, seed=seed)
            learned.save(forecaster)
    return train(
        scenario,
        "federated",
        timesteps,
        folder,
        seed=seed,
        hyperparameters=learning,
        federation=chosen,
        start=start,
        forecaster=f"gru:{forecaster}",
        topology_seed=topology_seed,
        validation_episodes=validation_episodes,
        resume=resume,
    )
