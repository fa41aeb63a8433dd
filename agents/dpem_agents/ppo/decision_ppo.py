"""PPO of a stack on the rows that decide: as many learners as the stack has, that learn in the same few products.

Losses, the normalisation of advantages and the clipping of gradients are a node's own, and Adam works entry by entry.
So each node learns what a separate MaskablePPO would have learned from its decisions in the same order; where every
row decides, a stack of one is MaskablePPO itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from dpem_agents.ppo.forward import F32
from dpem_agents.ppo.networks import Stack
from dpem_agents.ppo.rollout import Batch, DecisionBuffer
from dpem_agents.ppo.stacked import StackedPolicy
from dpem_agents.ppo.vec_env import NodeVecEnv

ILLEGAL = -1e8  # logit, as MaskablePPO has it
LOGGED = ("policy_gradient_loss", "value_loss", "entropy_loss", "clip_fraction")


class DecisionPPO(MaskablePPO):
    """MaskablePPO for a `StackedPolicy` on a `NodeVecEnv`, all of whose nodes end their episodes together.

    Who decides, and in how many minibatches it is learned from, is in the policy's hyperparameters; `batch_size` says
    nothing. There is no target_kl, nor clipping of values.
    """

    policy: StackedPolicy
    rollout_buffer: DecisionBuffer
    _last_obs: Any  # (num_envs, F)
    clip_range: Schedule  # once it is set up
    critic_alone = 0  # timesteps at the beginning, in which actors stay as they are

    def _setup_model(self) -> None:
        self.rollout_buffer_class = DecisionBuffer
        self.rollout_buffer_kwargs = {"nodes": self.policy_kwargs.get("nodes", 1)}
        super()._setup_model()

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """Play so many slots; rows with nothing to decide wait, unseen by any network."""
        assert isinstance(env, NodeVecEnv)
        buffer = self.rollout_buffer
        self.policy.set_training_mode(False)
        buffer.reset()
        callback.on_rollout_start()
        actor = self.policy.actor()
        buffer.begin(self._last_obs)
        for _ in range(n_rollout_steps):
            choices = actor.choices(*self.policy.read(self._last_obs), env.action_masks())
            chosen, log_probs = drawn(choices.logits)
            actions = np.zeros(env.num_envs, dtype=np.int64)
            actions[choices.rows] = chosen
            self._last_obs, rewards, dones, infos = env.step(actions)
            self._last_episode_starts = dones
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            final = None
            if dones.any():
                self._update_info_buffer(infos, dones)
                final = self._values(np.stack([info["terminal_observation"] for info in infos]))
            buffer.add(choices, chosen, log_probs, rewards, final)
        buffer.close()
        buffer.compute_returns_and_advantage(self._values_of_decisions(), self._values(self._last_obs))
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update every node's weights from its own decisions; those of a node that made none only coast."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)
        buffer, parameters = self.rollout_buffer, list(self.policy.parameters())
        advantages, returns, before = (
            self._on_device(a) for a in (buffer.advantages, buffer.returns, buffer.log_probs)
        )
        parts, seen = self.policy.hyperparameters.minibatches, []
        for _ in range(self.n_epochs):
            order = np.random.permutation(buffer.most)  # noqa: NPY002 - as Stable-Baselines3 shuffles
            for part, batch in enumerate(buffer.batches(parts, order)):
                values, log_prob, entropy = self._evaluate(batch)
                ratio = (log_prob - before[batch.places]).exp()
                advantage = normalised(advantages[batch.places], batch)
                gain = batch.mean(torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)))
                value_loss = batch.mean((returns[batch.places] - values).square())
                if buffer.idle.any():
                    value_loss = value_loss + self._idle_value_loss(part)
                losses = self.vf_coef * value_loss - gain - self.ent_coef * batch.mean(entropy)
                self.policy.optimizer.zero_grad()
                losses.sum().backward()
                if self.num_timesteps <= self.critic_alone:
                    for weight in self.policy.mlp_extractor.actor.parameters():
                        weight.grad = torch.zeros_like(weight)
                clip_each(parameters, self.max_grad_norm)
                self.policy.optimizer.step()
                clipped = batch.mean(((ratio - 1).abs() > clip).float())
                seen.append(torch.stack([-gain, value_loss, -batch.mean(entropy), clipped]).detach().mean(dim=1))
            self._n_updates += 1
        if seen:
            for name, value in zip(LOGGED, torch.stack(seen).mean(dim=0).tolist(), strict=True):
                self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _idle_value_loss(self, part: int) -> Tensor:
        """(N,) mean square errors of the values of rows that were idle at first: of one part of all of them."""
        buffer, networks = self.rollout_buffer, self.policy.mlp_extractor
        by_node = np.arange(len(buffer.idle)).reshape(-1, self.policy.nodes).T
        rows = by_node[:, part :: self.policy.hyperparameters.minibatches]
        idle = self._on_device(buffer.idle[rows])
        values = networks.critic(*networks.read(buffer.first[rows] * networks.visible)).squeeze(2)
        errors = (self._on_device(buffer.first_returns[rows]) - values).square() * idle
        return errors.sum(dim=1) / idle.sum(dim=1).clamp(min=1)

    def _values_of_decisions(self) -> F32:
        """Of all that the buffer holds."""
        buffer, parts = self.rollout_buffer, self.policy.hyperparameters.minibatches
        values = np.zeros(len(buffer.rows), dtype=np.float32)
        with torch.no_grad():
            for batch in buffer.batches(parts, np.arange(buffer.most)):
                there = batch.weight > 0
                of_batch = self._of(self.policy.mlp_extractor.critic, self._read(batch), batch).squeeze(2)
                values[batch.places[there].cpu().numpy()] = of_batch[there].cpu().numpy()
        return values

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(pieces, B) values, log-probabilities of what was done, and entropies."""
        buffer, networks = self.rollout_buffer, self.policy.mlp_extractor
        seen, legal = self._read(batch), buffer.legal[batch.places]
        logits = self._of(networks.actor, seen, batch) + buffer.prior[batch.places]
        log_probs = logits.masked_fill(~legal, ILLEGAL).log_softmax(dim=2)
        entropy = -(log_probs.exp() * log_probs * legal).sum(dim=2)
        log_prob = log_probs.gather(2, buffer.actions[batch.places].unsqueeze(2)).squeeze(2)
        return self._of(networks.critic, seen, batch).squeeze(2), log_prob, entropy

    def _read(self, batch: Batch) -> tuple[Tensor, ...]:
        """What networks read of a batch."""
        return self.policy.mlp_extractor.read(self.rollout_buffer.seen[batch.places])

    def _of(self, network: Stack, seen: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """(pieces, B, outputs) from what is read; all but first pieces go through copies of their nodes' networks."""
        if len(batch.others) == 0:
            return network(*seen)
        firsts, others = zip(*(part.split([network.nodes, len(batch.others)]) for part in seen), strict=True)
        return torch.cat([network(*firsts), network(*others, nodes=batch.others)])

    def _values(self, observations: Any) -> F32:
        """(num_envs,) of observations of all rows, by each node's own critic."""
        with torch.no_grad():
            values: F32 = self.policy.predict_values(self._on_device(observations)).squeeze(1).cpu().numpy()
        return values

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def drawn(logits: F32) -> tuple[NDArray[np.int64], F32]:
    """(k,) one action of each row by its probability, and the logarithm of that."""
    noise = np.random.gumbel(size=logits.shape)  # noqa: NPY002 - Stable-Baselines3 seeds it; the largest is such a draw
    chosen = (logits + noise).argmax(axis=1)
    log_probs = logits[np.arange(len(chosen)), chosen] - np.logaddexp.reduce(logits, axis=1)
    return chosen, log_probs.astype(np.float32)


def normalised(advantages: Tensor, batch: Batch) -> Tensor:
    """(pieces, B) advantages with mean 0 and standard deviation 1 over each node's own; the only one of a node is 0."""
    number = batch.sum(batch.weight > 0)
    centred = advantages - batch.of_pieces(batch.mean(advantages))
    variance = batch.mean(centred.square()) * number / (number - 1).clamp(min=1)
    return centred / batch.of_pieces(variance.sqrt() + 1e-8)


def clip_each(parameters: list[nn.Parameter], norm: float) -> None:
    """Scale the gradient of each node, over all its weights, down to `norm` where it is longer."""
    gradients = [parameter.grad.flatten(1) for parameter in parameters if parameter.grad is not None]
    longest = torch.stack([torch.linalg.vector_norm(each, dim=1) for each in gradients]).norm(dim=0)
    scale = (norm / (longest + 1e-6)).clamp(max=1.0)
    for each in gradients:
        each.mul_(scale[:, None])
