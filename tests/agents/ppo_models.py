"""What the tests of PPO share: learners on small networks, and checkpoints whose weights were drawn, not learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import configure

from dpem_agents.ppo.checkpoint import Checkpoint
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.training import Settings
from dpem_agents.ppo.vec_env import NodeVecEnv
from dpem_env import scenarios
from dpem_env.scenarios import Scenario

TOPOLOGY = 5  # seed of the one that independent policies are for


def settings(scenario: Scenario, mode: str, forecaster: str | None = None, **changed: Any) -> Settings:
    small = {"networks": 2, "slots": 16, "hidden": 8, "idle_forecast": 0.0}  # every row decides, unless told otherwise
    chosen = replace(PRESETS[mode], **(small | changed))
    delay, topology = 0.5 if mode == "central" else None, TOPOLOGY if mode == "independent" else None
    return Settings(scenario.hash, mode, 0, forecaster, delay, topology, chosen)


def masked_ppo(policy: Any, env: NodeVecEnv, chosen: Hyperparameters, steps: int, **more: Any) -> MaskablePPO:
    """The usual one of sb3-contrib, to compare with: so many steps of every sub-environment in a rollout."""
    model = MaskablePPO(
        policy,
        env,
        learning_rate=chosen.learning_rate,
        n_steps=steps,
        batch_size=math.ceil(steps * env.num_envs / chosen.minibatches),
        n_epochs=chosen.epochs,
        gamma=chosen.discount,
        gae_lambda=chosen.trace,
        clip_range=chosen.clip,
        ent_coef=chosen.entropy_weight,
        vf_coef=chosen.value_weight,
        device="cpu",
        **more,
    )
    model.set_logger(configure(None, []))
    return model


def learner(scenario: str | Scenario, mode: str, folder: Path, total: int = 1000, **changed: Any) -> Learner:
    scenario = scenarios.get(scenario)
    return Learner(scenario, settings(scenario, mode, **changed), total, "cpu", folder)


def checkpoint_of(made: Learner) -> Checkpoint:
    return made.checkpoint({"curve": [], "seconds": 0.0})


def draw_weights(made: Learner, spread: float = 0.5) -> None:
    """Give every weight a value that no initialisation would."""
    draws = np.random.default_rng(0)
    with torch.no_grad():
        for weight in made.model.policy.parameters():
            weight.copy_(torch.from_numpy(draws.normal(0.0, spread, weight.shape).astype(np.float32)))


def drawn_checkpoint(scenario: str | Scenario, mode: str, folder: Path, **changed: Any) -> Checkpoint:
    made = learner(scenario, mode, folder, **changed)
    draw_weights(made)
    return checkpoint_of(made)
