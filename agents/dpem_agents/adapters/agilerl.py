"""AgileRL: its PPO on the vector environment as it is, whose sub-environments are the agents of several networks.

Not its IPPO, which in 2.58.0 stops at masks that are arrays (`None in group_masks` in `IPPO.extract_action_masks`:
"ValueError: The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"). Given lists
it plays, but learns from log-probabilities without the masks. PPO heeds masks in both.
"""

import numpy as np
import torch
from agilerl.algorithms import PPO
from agilerl.rollouts import collect_rollouts

from dpem_env import make_vec

LIBRARY, MASKS = "agilerl", "by the library, from infos"
NETWORKS, SLOTS, EPOCHS, MINIBATCHES = 8, 128, 4, 4


def train(scenario: str = "star8-v0", timesteps: int = 300_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    np.random.seed(seed)  # noqa: NPY002 AgileRL shuffles by the global generator
    torch.manual_seed(seed)
    envs = make_vec(scenario, NETWORKS, **arguments)
    batch = SLOTS * envs.num_envs
    layers = {"hidden_size": [64], "activation": "Tanh", "layer_norm": False}  # True normalises the logits, too
    agent = PPO(
        envs.single_observation_space,
        envs.single_action_space,
        net_config={"latent_dim": 64, "encoder_config": layers, "head_config": layers},
        share_encoders=False,
        num_envs=envs.num_envs,
        learn_step=batch,
        batch_size=batch // MINIBATCHES,
        update_epochs=EPOCHS,
        lr=3e-3,
        gamma=0.95,
        gae_lambda=0.9,
    )
    list(agent.actor.parameters())[-1].data[0] = 4.0  # waits at first, mostly: random allocations flood the network
    observations, infos = envs.reset(seed=seed)
    done, scores = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
    for _ in range(max(timesteps // batch, 1)):
        position = {"last_obs": observations, "last_done": done, "last_scores": scores, "last_info": infos}
        _, observations, done, scores, infos = collect_rollouts(agent, envs, **position)
        agent.learn()

    def act(seen, masks):
        agent.actor(torch.from_numpy(seen), action_mask=masks)
        return agent.actor.head_net.dist.logits.argmax(dim=1).numpy()

    return act
