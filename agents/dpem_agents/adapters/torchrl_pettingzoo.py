"""TorchRL on the PettingZoo environment, with nothing to write but the keys; `torchrl` is many times as fast.

Observations are dictionaries here. With flat ones the features are at ("agent", "observation"); nothing else changes.
"""

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from dpem_env import parallel_env

LIBRARY, MASKS = "torchrl", "MaskedCategorical on the wrapper's action_mask"
SLOTS, EPOCHS, MINIBATCHES, LEARNING_RATE, GRADIENT_NORM = 400, 4, 4, 3e-3, 0.5
OBSERVATION = ("agent", "observation", "observation")
MASK, ACTION, REWARD = (("agent", name) for name in ("action_mask", "action", "reward"))
LOGITS, VALUE, DONE, TERMINATED = (("agent", name) for name in ("logits", "state_value", "done", "terminated"))


def train(scenario: str = "star8-v0", timesteps: int = 100_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    torch.manual_seed(seed)
    # It takes the masks out of the observations and stacks the agents, agent_0 to agent_7, as one group "agent".
    made = parallel_env(scenario, observation="dict", **arguments)
    env = PettingZooWrapper(made, categorical_actions=True, seed=seed)
    inputs, widths = env.observation_spec[OBSERVATION].shape[-1], (env.full_action_spec[ACTION].space.n, 1)
    logits, value = (MLP(inputs, width, depth=2, num_cells=64, activation_class=nn.Tanh) for width in widths)
    logits[-1].bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network
    policy = ProbabilisticActor(
        TensorDictModule(logits, [OBSERVATION], [LOGITS]),
        in_keys={"logits": LOGITS, "mask": MASK},
        out_keys=[ACTION],
        distribution_class=MaskedCategorical,
        return_log_prob=True,
    )
    critic = ValueOperator(value, [OBSERVATION], [VALUE])
    loss = ClipPPOLoss(policy, critic, normalize_advantage=True)
    loss.set_keys(action=ACTION, reward=REWARD, done=DONE, terminated=TERMINATED, value=VALUE)
    gae = GAE(gamma=0.95, lmbda=0.9, value_network=critic)
    gae.set_keys(reward=REWARD, done=DONE, terminated=TERMINATED, value=VALUE)
    optimizer = torch.optim.Adam(loss.parameters(), LEARNING_RATE)
    slots = timesteps // len(env.possible_agents)
    for data in Collector(env, policy, frames_per_batch=SLOTS, total_frames=slots):
        with torch.no_grad():
            gae(data)
        for batch in (data[part] for _ in range(EPOCHS) for part in torch.randperm(len(data)).chunk(MINIBATCHES)):
            optimizer.zero_grad()
            sum(part for name, part in loss(batch).items() if name.startswith("loss_")).backward()
            nn.utils.clip_grad_norm_(loss.parameters(), GRADIENT_NORM)
            optimizer.step()
    tensor = torch.from_numpy
    return lambda seen, masks: MaskedCategorical(logits(tensor(seen)), mask=tensor(masks).bool()).mode.numpy()
