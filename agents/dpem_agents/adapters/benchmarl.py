"""BenchMARL: its IPPO on a task of its own, the PettingZoo environment in TorchRL's wrapper, which finds the masks.

The wrapper makes one group, "agent", of agent_0, agent_1 and so on. BenchMARL counts slots of a network as frames.
"""

import warnings
from dataclasses import replace
from tempfile import TemporaryDirectory

import torch
from benchmarl.algorithms import IppoConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDict
from torchrl.envs import PettingZooWrapper

from dpem_env import parallel_env

LIBRARY, MASKS = "benchmarl", "MaskedCategorical of the library, from infos"
NETWORKS, SLOTS, EPOCHS, MINIBATCHES = 8, 128, 4, 4


class EntanglementTask(PettingZooClass):
    """A scenario; `config` holds the arguments of `parallel_env`."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        """A function that makes one network."""
        return lambda: PettingZooWrapper(parallel_env(**self.config), seed=seed, device=device)

    def supports_discrete_actions(self):
        """They are the only ones."""
        return True

    def has_render(self, env):
        """No pictures are asked for."""
        return False

    def max_steps(self, env):
        """Slots of an episode."""
        return env.max_cycles


def train(scenario: str = "star8-v0", timesteps: int = 300_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    warnings.filterwarnings("ignore", "PettingZoo in TorchRL is tested using version == 1.24.3")
    task = EntanglementTask("entanglement", {"scenario": scenario} | arguments)
    algorithm = replace(IppoConfig.get_from_yaml(), entropy_coef=0.01)
    model = replace(MlpConfig.get_from_yaml(), num_cells=[64, 64])
    frames, agents = NETWORKS * SLOTS, parallel_env(scenario).max_num_agents
    with TemporaryDirectory() as folder:
        config = replace(
            ExperimentConfig.get_from_yaml(),
            max_n_frames=timesteps // agents,
            on_policy_collected_frames_per_batch=frames,
            on_policy_n_envs_per_worker=NETWORKS,
            on_policy_n_minibatch_iters=EPOCHS,
            on_policy_minibatch_size=frames // MINIBATCHES,
            lr=3e-3,
            gamma=0.95,
            evaluation=False,
            loggers=[],
            create_json=False,
            save_folder=folder,
        )
        experiment = Experiment(task, algorithm, model, seed, config)
        # Waits at first, mostly: random allocations flood the network.
        list(experiment.policy.parameters())[-1].data[0] = 4.0
        experiment.run()

    def act(seen, masks):
        rows = {"observation": torch.from_numpy(seen), "action_mask": torch.from_numpy(masks).bool()}
        group = {name: each.unflatten(0, (-1, agents)) for name, each in rows.items()}  # of one network or several
        logits = experiment.policy(TensorDict({"agent": group}))["agent", "logits"].flatten(0, 1)
        return logits.masked_fill(~rows["action_mask"], -torch.inf).argmax(dim=1).numpy()

    return act
