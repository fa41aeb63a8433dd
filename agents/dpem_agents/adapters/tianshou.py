"""Tianshou: its PPO on a vector environment of agents (its own PettingZoo support has them act in turns)."""

import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteCritic

from dpem_env import EntanglementVectorEnv, make_vec

LIBRARY, MASKS = "tianshou", 'logits masked by an actor that reads {"obs", "mask"}'
NETWORKS, SLOTS, EPOCHS, MINIBATCHES = 8, 128, 4, 4


class AgentVectorEnv:
    """What a `Collector` asks of a `BaseVectorEnv`; all sub-environments end, and are reset, together."""

    def __init__(self, envs: EntanglementVectorEnv, seed: int) -> None:
        self.envs, self._first_seed, self._begun = envs, seed, None
        self.is_async, self.action_space = False, [envs.single_action_space] * envs.num_envs
        self._no_infos = np.array([{}] * envs.num_envs)

    def __len__(self) -> int:
        return self.envs.num_envs

    def reset(self, env_id=None, **_):
        """Begin the next episodes, or hand out those that have begun."""
        observations, infos = self._begun or self.envs.reset(seed=self._first_seed)
        self._begun = self._first_seed = None
        return Batch(obs=observations, mask=infos["action_mask"]), self._no_infos

    def step(self, action, id=None):
        """Play a slot."""
        observations, *rewards_and_flags, infos = self.envs.step(action)
        # The step that truncates has begun the next episode: that one is for reset, the final observation for now.
        self._begun = (observations, infos) if "final_obs" in infos else None
        followed_by = Batch(obs=infos.get("final_obs", observations), mask=infos["action_mask"])
        return followed_by, *rewards_and_flags, self._no_infos


class Body(Net):
    """Layers that read all of an observation but its mask."""

    def forward(self, obs, state=None, info=None):
        """The features, (B, 64), or with ``action_shape`` the logits, (B, actions)."""
        return super().forward(obs.obs, state)


class MaskedActor(Body):
    """Gives illegal actions no probability."""

    def forward(self, obs, state=None, info=None):
        """The logits, (B, actions)."""
        logits, state = super().forward(obs, state)
        return logits.masked_fill(torch.as_tensor(obs.mask) == 0, -1e9), state


def train(scenario: str = "star8-v0", timesteps: int = 300_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    np.random.seed(seed)  # noqa: NPY002 Tianshou shuffles by the global generator
    torch.manual_seed(seed)
    envs = AgentVectorEnv(make_vec(scenario, NETWORKS, **arguments), seed)
    shape, num_actions = envs.envs.single_observation_space.shape, envs.action_space[0].n
    layers = {"state_shape": shape, "hidden_sizes": [64, 64], "activation": torch.nn.Tanh}
    actor, critic = MaskedActor(**layers, action_shape=num_actions), DiscreteCritic(preprocess_net=Body(**layers))
    actor.model.model[-1].bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network
    policy = DiscreteActorPolicy(actor=actor, action_space=envs.action_space[0])
    algorithm = PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=3e-3), gamma=0.95, gae_lambda=0.9)
    batch = SLOTS * len(envs)
    collector = Collector(algorithm, envs, VectorReplayBuffer(batch, len(envs)))
    plan = {"max_epochs": 1, "epoch_num_steps": timesteps, "collection_step_num_env_steps": batch}
    plan |= {"update_step_num_repetitions": EPOCHS, "batch_size": batch // MINIBATCHES, "show_progress": False}
    algorithm.run_training(OnPolicyTrainerParams(training_collector=collector, **plan))
    return lambda seen, masks: actor(Batch(obs=seen, mask=masks))[0].argmax(dim=1).numpy()
