"""PPO of a stack: as many learners as nodes, that learn in the same few products.

Losses, the normalisation of advantages and the clipping of gradients are a node's own, and Adam works entry by entry.
So each node learns what a separate MaskablePPO would have learned from the same data in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import Tensor, nn

from dpem_agents.ppo.stacked import StackedPolicy


class IndependentPPO(MaskablePPO):
    """MaskablePPO for a `StackedPolicy`. `batch_size` is of one node; there is no target_kl, nor clipping of values."""

    policy: StackedPolicy
    clip_range: Schedule  # once it is set up

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *arguments: Any, **named: Any) -> bool:
        """As every PPO, but final observations are valued all at once: by themselves they do not say whose they are."""
        return super().collect_rollouts(_Bootstrapping(env, self), callback, *arguments, **named)

    def train(self) -> None:
        """Update every node's weights from its own part of the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)
        buffer, networks = self.rollout_buffer, self.policy.mlp_extractor
        observations, masks, actions, old_log_prob, advantages, returns = (
            self._by_node(array)
            for array in (
                buffer.observations,
                buffer.action_masks,
                buffer.actions,
                buffer.log_probs,
                buffer.advantages,
                buffer.returns,
            )
        )
        prior = networks.prior(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        observations = observations * networks.visible
        actions = actions.squeeze(-1).long()
        samples = observations.shape[1]
        seen = []
        for _ in range(self.n_epochs):
            for batch in torch.from_numpy(np.random.permutation(samples)).split(self.batch_size):  # noqa: NPY002
                logits = networks.actor(observations[:, batch]) + prior[:, batch]
                policy = MaskableCategorical(logits=logits, masks=masks[:, batch])
                log_prob, entropy = policy.log_prob(actions[:, batch]), policy.entropy()
                values = networks.critic(observations[:, batch]).squeeze(-1)
                advantage = advantages[:, batch]
                advantage = advantage - advantage.mean(dim=1, keepdim=True)
                advantage = advantage / (advantage.std(dim=1, keepdim=True) + 1e-8)
                ratio = (log_prob - old_log_prob[:, batch]).exp()
                gain = torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean(dim=1)
                value_loss = (returns[:, batch] - values).square().mean(dim=1)
                losses = self.vf_coef * value_loss - gain - self.ent_coef * entropy.mean(dim=1)
                self.policy.optimizer.zero_grad()
                losses.sum().backward()
                clip_each(list(self.policy.parameters()), self.max_grad_norm)
                self.policy.optimizer.step()
                seen.append((-gain.detach().mean(), value_loss.detach().mean(), -entropy.detach().mean()))
            self._n_updates += 1
        names = ("policy_gradient_loss", "value_loss", "entropy_loss")
        for name, values in zip(names, zip(*seen, strict=True), strict=True):
            self.logger.record(f"train/{name}", torch.stack(values).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _by_node(self, array: NDArray[Any]) -> Tensor:
        """(N, samples, …) from (slots, networks·N, …), a node's samples in the order of a buffer of its own."""
        nodes = self.policy.nodes
        split = array.reshape(len(array), -1, nodes, *array.shape[2:])
        ordered = np.ascontiguousarray(np.moveaxis(split, (2, 1, 0), (0, 1, 2)))
        return torch.from_numpy(ordered.reshape(nodes, -1, *array.shape[2:])).to(self.device)


def clip_each(parameters: list[nn.Parameter], norm: float) -> None:
    """Scale the gradient of each node, over all its weights, down to `norm` where it is longer."""
    squares = sum(p.grad.flatten(1).square().sum(dim=1) for p in parameters if p.grad is not None)
    scale = (norm / (torch.sqrt(torch.as_tensor(squares)) + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale[:, None, None])


class _Bootstrapping(VecEnvWrapper):
    """Adds the discounted value of final observations to the last rewards, so that nobody else does."""

    def __init__(self, venv: VecEnv, model: IndependentPPO) -> None:
        super().__init__(venv)
        self.model = model

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, over, infos = self.venv.step_wait()
        if over.any():
            final = np.stack([info["terminal_observation"] for info in infos])
            with torch.no_grad():
                values = self.model.policy.predict_values(torch.from_numpy(final).to(self.model.device))
            rewards = rewards + self.model.gamma * values.squeeze(-1).cpu().numpy()
            infos = [{"episode": info["episode"]} for info in infos]
        return observations, rewards, over, infos
