"""RLlib, new API stack: its PPO on the PettingZoo environment, one masked module for all agents, all in one process."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env
from torch import nn

from dpem_env import parallel_env

LIBRARY, MASKS = "ray", "logits of illegal actions set to -1e9 in an RLModule"
BATCH, MINIBATCH = 3200, 800  # agent-steps


class MaskedModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic on observations {"observation", "action_mask"}."""

    def setup(self) -> None:
        """Called by RLlib once the spaces are known."""
        inputs, widths = self.observation_space["observation"].shape[0], (int(self.action_space.n), 1)
        self.actor, self.critic = (
            nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, width))
            for width in widths
        )
        self.actor[-1].bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network

    def _forward(self, batch, **_):
        seen = batch[Columns.OBS]
        logits = self.actor(seen["observation"])
        return {Columns.ACTION_DIST_INPUTS: logits.masked_fill(seen["action_mask"] == 0, -1e9)}

    def compute_values(self, batch, embeddings=None):
        """What PPO bootstraps from."""
        return self.critic(batch[Columns.OBS]["observation"]).squeeze(-1)


def train(scenario: str = "star8-v0", timesteps: int = 200_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    register_env("dpem", lambda _: ParallelPettingZooEnv(parallel_env(scenario, observation="dict", **arguments)))
    config = (
        PPOConfig()
        .environment("dpem", disable_env_checking=True)  # the check plays a slot against the masks
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared", count_steps_by="agent_steps")
        .rl_module(rl_module_spec=RLModuleSpec(module_class=MaskedModule))
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(train_batch_size_per_learner=BATCH, minibatch_size=MINIBATCH, num_epochs=4, lr=3e-3, gamma=0.95)
        .training(lambda_=0.9, entropy_coeff=0.01, grad_clip=0.5, clip_param=0.2, use_kl_loss=False)
        .debugging(seed=seed)
    )
    algorithm = config.build_algo()
    for _ in range(max(timesteps // BATCH, 1)):
        algorithm.train()
    module = algorithm.get_module("shared")
    algorithm.stop()

    def actor(observations, masks):
        seen = {"observation": torch.from_numpy(observations), "action_mask": torch.from_numpy(masks)}
        return module.forward_inference({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS].argmax(dim=1).numpy()

    return actor
