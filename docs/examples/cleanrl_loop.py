"""Proximal policy optimisation (Schulman et al. 2017) in one file, after CleanRL: every agent is a sub-environment.

pip install dpem-env torch, then: python cleanrl_loop.py --scenario mesh20-v0 --updates 10
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from dpem_env import EntanglementVectorEnv, make_vec

DISCOUNT, TRACE = 0.95, 0.9  # γ and λ of generalised advantage estimation
CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT = 0.2, 0.5, 0.01
EPOCHS, MINIBATCHES, LEARNING_RATE, GRADIENT_NORM = 4, 4, 5e-4, 0.5


class Agent(nn.Module):
    """One actor and one critic, shared by all sub-environments."""

    def __init__(self, observation_size: int, num_actions: int) -> None:
        super().__init__()
        self.actor, self.critic = (
            nn.Sequential(
                nn.Linear(observation_size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, width)
            )
            for width in (num_actions, 1)
        )

    def policy(self, observations: Tensor, masks: Tensor) -> torch.distributions.Categorical:
        """Illegal actions get no probability."""
        return torch.distributions.Categorical(logits=self.actor(observations).masked_fill(masks == 0, -1e9))

    def value(self, observations: Tensor) -> Tensor:
        """Expected discounted return."""
        return self.critic(observations).squeeze(-1)


def advantages(rewards: Tensor, values: Tensor, next_values: Tensor, over: Tensor) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all (slots, num_envs).

    An episode that is over was truncated: its last slot still expects the value of the final observation. Only the
    sum over later slots ends there, since those belong to another episode.
    """
    errors = rewards + DISCOUNT * next_values - values
    estimates, later = torch.empty_like(errors), torch.zeros_like(errors[0])
    for slot in reversed(range(len(errors))):
        later = estimates[slot] = errors[slot] + DISCOUNT * TRACE * later * ~over[slot]
    return estimates


@torch.no_grad()
def collect(envs: EntanglementVectorEnv, agent: Agent, observations: np.ndarray, masks: np.ndarray, slots: int):
    """Play `slots` slots; returns flat training data, the rewards, and where to go on."""
    seen = []
    for _ in range(slots):
        observed, legal = torch.from_numpy(observations), torch.from_numpy(masks)
        policy = agent.policy(observed, legal)
        action, value = policy.sample(), agent.value(observed)
        observations, rewards, _, truncations, infos = envs.step(action.numpy())
        masks = infos["action_mask"]
        # The autoreset is SAME_STEP: after a truncation `observations` belong to the next episode.
        next_value = agent.value(torch.from_numpy(infos.get("final_obs", observations)))
        reward, over = torch.from_numpy(rewards).float(), torch.from_numpy(truncations)
        seen.append((observed, legal, action, policy.log_prob(action), value, reward, next_value, over))
    *data, values, rewards, next_values, over = (torch.stack(column) for column in zip(*seen, strict=True))
    estimates = advantages(rewards, values, next_values, over)
    data = [column.flatten(0, 1) for column in (*data, estimates, estimates + values)]
    return data, rewards, observations, masks


def learn(agent: Agent, optimizer: torch.optim.Optimizer, data: list[Tensor]) -> None:
    """A few epochs over the collected data."""
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data[0])).chunk(MINIBATCHES):
            observations, masks, actions, old_log_prob, advantage, returns = (column[batch] for column in data)
            policy = agent.policy(observations, masks)
            ratio = (policy.log_prob(actions) - old_log_prob).exp()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            gain = torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
            value_loss = (agent.value(observations) - returns).square().mean()
            loss = VALUE_WEIGHT * value_loss - gain - ENTROPY_WEIGHT * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), GRADIENT_NORM)
            optimizer.step()


def train(envs: EntanglementVectorEnv, updates: int, slots: int, seed: int) -> tuple[Agent, list[float]]:
    """The trained agent, and its mean reward per agent and slot in every update."""
    torch.manual_seed(seed)
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), LEARNING_RATE, eps=1e-5)
    observations, infos = envs.reset(seed=seed)
    masks, earned = infos["action_mask"], []
    for _ in track(range(updates), "training", transient=True):
        data, rewards, observations, masks = collect(envs, agent, observations, masks, slots)
        learn(agent, optimizer, data)
        earned.append(rewards.mean().item())
    return agent, earned


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="mesh20-v0")
    for name, default in (("networks", 8), ("updates", 10), ("slots", 128), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the fastest at these sizes
    envs = make_vec(chosen.scenario, chosen.networks)
    start = time.perf_counter()
    _, earned = train(envs, chosen.updates, chosen.slots, chosen.seed)
    speed = chosen.updates * chosen.slots * envs.num_envs / (time.perf_counter() - start)
    returns = ", ".join(f"{reward * envs.max_cycles:.2f}" for reward in earned)
    print(f"{speed:,.0f} agent-steps/s; return of an episode, mean over agents, in each update: {returns}")
