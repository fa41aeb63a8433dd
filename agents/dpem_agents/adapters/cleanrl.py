"""Proximal policy optimisation (Schulman et al. 2017) in one file, after CleanRL: every agent is a sub-environment."""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from dpem_env import EntanglementVectorEnv, make_vec

LIBRARY, MASKS = "torch", "logits of illegal actions set to -1e9"
NETWORKS, SLOTS, EPOCHS, MINIBATCHES = 8, 128, 4, 4
DISCOUNT, TRACE = 0.95, 0.9  # γ and λ of generalised advantage estimation
CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT, LEARNING_RATE, GRADIENT_NORM = 0.2, 0.5, 0.01, 3e-3, 0.5


class Agent(nn.Module):
    """One actor and one critic, shared by all sub-environments."""

    def __init__(self, inputs: int, num_actions: int) -> None:
        super().__init__()
        self.actor, self.critic = (
            nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))
            for outputs in (num_actions, 1)
        )
        self.actor[-1].bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network

    def forward(self, observations: Tensor, masks: Tensor) -> tuple[Categorical, Tensor]:
        """The policy, in which illegal actions have no probability, and the value."""
        logits = self.actor(observations).masked_fill(masks == 0, -1e9)
        return Categorical(logits=logits), self.critic(observations).squeeze(-1)


def advantages(rewards: Tensor, values: Tensor, next_values: Tensor, over: Tensor) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all (slots, num_envs)."""
    errors = rewards + DISCOUNT * next_values - values
    estimates, later = torch.empty_like(errors), torch.zeros_like(errors[0])
    for slot in reversed(range(len(errors))):  # a truncated episode expects its next value, but no later slot's error
        later = estimates[slot] = errors[slot] + DISCOUNT * TRACE * later * ~over[slot]
    return estimates


@torch.no_grad()
def collect(envs: EntanglementVectorEnv, agent: Agent, observed: Tensor, legal: Tensor):
    """Play SLOTS slots; returns training data, one row per agent and slot, and where to go on."""
    seen = []
    for _ in range(SLOTS):
        policy, value = agent(observed, legal)
        action = policy.sample()
        observations, rewards, _, over, infos = envs.step(action.numpy())
        # The autoreset is SAME_STEP: after a truncation `observations` belong to the next episode.
        next_value = agent.critic(torch.from_numpy(infos.get("final_obs", observations))).squeeze(-1)
        credit = (torch.from_numpy(rewards).float(), value, next_value, torch.from_numpy(over))
        seen.append((observed, legal, action, policy.log_prob(action), *credit))
        observed, legal = torch.from_numpy(observations), torch.from_numpy(infos["action_mask"])
    *data, rewards, values, next_values, over = (torch.stack(column) for column in zip(*seen, strict=True))
    estimates = advantages(rewards, values, next_values, over)
    return [column.flatten(0, 1) for column in (*data, estimates, estimates + values)], observed, legal


def clipped_loss(policy: Categorical, value, actions, old_log_prob, advantage, returns) -> Tensor:
    """What an update reduces (Schulman et al. 2017, eq. 9), of a minibatch of any shape."""
    ratio = (policy.log_prob(actions) - old_log_prob).exp()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    gain = torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
    return VALUE_WEIGHT * (value - returns).square().mean() - gain - ENTROPY_WEIGHT * policy.entropy().mean()


def train(scenario: str = "star8-v0", timesteps: int = 300_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    torch.manual_seed(seed)
    envs = make_vec(scenario, NETWORKS, **arguments)
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), LEARNING_RATE, eps=1e-5)
    observations, infos = envs.reset(seed=seed)
    observed, legal = torch.from_numpy(observations), torch.from_numpy(infos["action_mask"])
    for _ in range(max(timesteps // (SLOTS * envs.num_envs), 1)):
        data, observed, legal = collect(envs, agent, observed, legal)
        for batch in (rows for _ in range(EPOCHS) for rows in torch.randperm(len(data[0])).chunk(MINIBATCHES)):
            seen, masks, *taken = (column[batch] for column in data)
            loss = clipped_loss(*agent(seen, masks), *taken)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), GRADIENT_NORM)
            optimizer.step()
    return lambda seen, masks: agent(torch.from_numpy(seen), torch.from_numpy(masks))[0].logits.argmax(dim=1).numpy()
