"""Proximal policy optimisation (Schulman et al. 2017) on whole episodes, for policies that have a state.

A minibatch is an episode of some of the nodes, from its first slot to its last: gradients flow through all of it. The
rest is as in the adapter `cleanrl`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical

from dpem_agents.adapters.cleanrl import EPOCHS, GRADIENT_NORM, LEARNING_RATE, MINIBATCHES, advantages, clipped_loss
from dpem_env import EntanglementVectorEnv, evaluate, make_vec
from dpem_env.network.network import Network
from dpem_env.observations.features import FeatureTable, Observations
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.scenarios import Scenario

NETWORKS, SLOTS = 2, 100


class StatefulPolicy(nn.Module):
    """Actor and critic of nodes that have F features, A actions, D peers, and to each k routes of at most H hops."""

    def __init__(self, table: FeatureTable, num_actions: int) -> None:
        super().__init__()

    def begin(self, routes: Tensor) -> Tensor:
        """(R, …) the state in which R nodes begin an episode; `routes` (R, D, k, H + 1): the nodes on each, or -1."""
        raise NotImplementedError

    def forward(self, observations: Tensor, masks: Tensor, state: Tensor) -> tuple[Categorical, Tensor, Tensor]:
        """Distributions of actions and values in T slots, and the state after: of (T, R, F), (T, R, A) and (R, …)."""
        raise NotImplementedError


class Trained(LocalPolicy):
    """Every node takes the likeliest action of a policy: what `dpem_env.evaluate` plays."""

    def __init__(self, policy: StatefulPolicy) -> None:
        self.policy = policy

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """An episode begins."""
        self.state = self.policy.begin(torch.from_numpy(network.routes.nodes.astype(np.int64)))

    @torch.no_grad()
    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """Decide for all nodes."""
        seen, allowed = torch.from_numpy(observations.matrix), torch.from_numpy(masks)
        policy, _, self.state = self.policy(seen[None], allowed[None], self.state)
        return Decision(policy.logits[0].argmax(dim=1).numpy())


def train(kind: type[StatefulPolicy], scenario: str = "mesh20-v0", episodes: int = 20, seed: int = 0) -> Trained:
    """Train a policy of that kind on so many episodes of `NETWORKS` networks each."""
    torch.manual_seed(seed)
    envs = make_vec(scenario, NETWORKS, max_cycles=SLOTS)
    agent = kind(envs.observer.table, envs.observer.code.num_actions)
    optimizer = torch.optim.Adam(agent.parameters(), LEARNING_RATE, eps=1e-5)
    position = envs.reset(seed=seed)
    for _ in range(episodes):
        state, data, position = play_episode(envs, agent, *position)
        for nodes in (part for _ in range(EPOCHS) for part in torch.randperm(envs.num_envs).chunk(MINIBATCHES)):
            seen, masks, *taken = (column[:, nodes] for column in data)
            policy, values, _ = agent(seen, masks, state[nodes])
            optimizer.zero_grad()
            clipped_loss(policy, values, *taken).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), GRADIENT_NORM)
            optimizer.step()
    return Trained(agent)


@torch.no_grad()
def play_episode(envs: EntanglementVectorEnv, agent: StatefulPolicy, observations: Any, infos: Any) -> Any:
    """Returns the states in which nodes begin, training data (slots, num_envs, …), and how the next episode begins."""
    state = first = agent.begin(torch.from_numpy(envs.graph().routes))
    columns = []
    for _ in range(envs.max_cycles):
        seen, masks = torch.from_numpy(observations), torch.from_numpy(infos["action_mask"])
        policy, value, state = agent(seen[None], masks[None], state)
        action = policy.sample()
        observations, reward, _, truncated, infos = envs.step(action[0].numpy())
        taken = (action[0], policy.log_prob(action)[0], value[0])
        columns.append((seen, masks, *taken, torch.from_numpy(reward).float(), torch.from_numpy(truncated)))
    *data, values, rewards, over = (torch.stack(column) for column in zip(*columns, strict=True))
    last_seen, last_masks = infos["final_obs"], infos["final_info"]["action_mask"]
    _, last_value, _ = agent(torch.from_numpy(last_seen)[None], torch.from_numpy(last_masks)[None], state)
    estimates = advantages(rewards, values, torch.cat((values[1:], last_value)), over)
    return first, (*data, estimates, estimates + values), (observations, infos)


def main(kind: type[StatefulPolicy]) -> None:
    """Train for less than a minute, which teaches nodes not to flood the network, and play what was learned."""
    torch.set_num_threads(1)
    policies = {"trained": train(kind), "random-legal": "random-legal"}
    print(evaluate(policies, "mesh20-v0", seeds=3).table("reward", "delivery_rate", "contention").to_string())
