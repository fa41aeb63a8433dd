"""A model of Stable-Baselines3 with the networks it learns on; between two rollouts it can be saved and restored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from dpem_agents.checkpoints import Arrays
from dpem_agents.federated.embedded import LEDGER, Averaging
from dpem_agents.libraries import library_seed
from dpem_agents.ppo.budget import next_multiplier
from dpem_agents.ppo.checkpoint import EVENTS, FORMAT, Checkpoint, topology_hash
from dpem_agents.ppo.decision_ppo import DecisionPPO
from dpem_agents.ppo.layout import interface
from dpem_agents.ppo.stacked import StackedPolicy
from dpem_agents.ppo.vec_env import NodeVecEnv, Position
from dpem_env.network.network import build_network
from dpem_env.observations.features import FeatureTable
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError
from dpem_env.support.provenance import joined, stamp
from dpem_env.support.seeding import stream_key

if TYPE_CHECKING:
    from dpem_agents.ppo.start import Start
    from dpem_agents.ppo.training import Settings

LIBRARY_NAME = "mlp_extractor."  # of what holds actor and critic in a policy of Stable-Baselines3
MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}  # of Adam


class Learner:
    """PPO of one policy, or of a stack of them, on `hyperparameters.networks` networks.

    With a `start`, all of them begin at its weights.
    """

    def __init__(
        self,
        scenario: Scenario,
        settings: Settings,
        total: int,
        device: str,
        folder: Path,
        start: Start | None = None,
    ) -> None:
        chosen, begun = settings.hyperparameters, settings.start
        self.scenario, self.settings, self.total = scenario, settings, total
        world = scenario if settings.topology_seed is None else scenario.on_topology(settings.topology_seed, "train")
        self.env = NodeVecEnv(
            world,
            chosen.networks,
            delay=settings.delay,
            penalties=chosen.penalties,
            one_penalty=begun is not None and begun.penalty == "scenario",
            scaled=chosen.scaled_rewards,
            forecaster=settings.forecaster,
            routes=chosen.routes,
            conditional=chosen.conditional,
        )
        self.nodes = self.env.envs.agents_per_network
        federation = settings.federation
        rounds = 0 if federation is None else federation.rounds_of_policies(total, self._rollout)
        self._topology: str | None = None
        own: dict[str, Any] = {"table": FeatureTable(scenario), "hyperparameters": chosen}
        if settings.topology_seed is not None:
            own["nodes"] = self.nodes
            self._topology = topology_hash(build_network(world, settings.topology_seed))
        self.model = DecisionPPO(
            StackedPolicy,
            self.env,
            learning_rate=chosen.learning_rate_at,
            n_steps=chosen.slots,
            n_epochs=chosen.epochs,
            gamma=chosen.discount,
            gae_lambda=chosen.trace,
            clip_range=chosen.clip,
            ent_coef=chosen.entropy_weight,
            vf_coef=chosen.value_weight,
            max_grad_norm=chosen.gradient_norm,
            stats_window_size=self.env.num_envs,
            policy_kwargs=own,
            seed=library_seed(settings.seed),
            device=device,
        )
        self.env.seed(settings.seed)
        self.model.set_logger(configure(os.fspath(folder / EVENTS), ["tensorboard"]))
        if start is not None:
            start.put_into(self._weights())
        if begun is not None:
            self.model.critic_alone = begun.critic_alone * self._rollout
        self.multiplier = 1.0  # of the contention penalty
        self.stamp = stamp()  # of all code that it has learned with
        self.averaging: Averaging | None = None
        if federation is not None:
            self.averaging = Averaging(federation, self.model, rounds, folder / LEDGER, settings.name)

    @property
    def timesteps(self) -> int:
        """Done so far: slots × nodes, over all networks."""
        return self.model.num_timesteps

    def average_if_due(self) -> None:
        """Average what nodes share, if enough rollouts have passed; BudgetExhausted leaves all as it is."""
        if self.averaging is not None:
            due = self.timesteps // self._rollout // self.averaging.federation.period
            if due > self.averaging.rounds:
                self.averaging.average()

    def learn(self, at_boundary: Callable[[], None], at_step: Callable[[], None]) -> None:
        """Learn up to `total` timesteps, with calls before and after every rollout and after every slot."""
        callback = _Calls(self._prepare_rollout, self._finish_rollout, at_boundary, at_step)
        self.model.learn(max(self.total - self.timesteps, 0), callback, reset_num_timesteps=False)

    def log(self, values: dict[str, float]) -> None:
        """Write values to TensorBoard."""
        for name, value in values.items():
            self.model.logger.record(name, value)
        self.model.logger.dump(self.timesteps)

    def checkpoint(self, about: dict[str, Any]) -> Checkpoint:
        """Everything as of now, between two rollouts; `about` is added to what is known here."""
        position = self._position()
        known = {
            "format": FORMAT,
            "stamp": self.stamp,
            "mode": self.settings.mode,
            "scenario": self.scenario.name,
            "interface": interface(self.scenario),
            "nodes": self.nodes,
            "topology": self._topology,
            "timesteps": self.timesteps,
            "updates": self.model._n_updates,
            "rounds": position.rounds,
            "settings": self.settings.as_plain(),
        }
        arrays: Arrays = {"actions": position.actions.astype(np.int32)}
        state = self.model.policy.optimizer.state
        for name, weight in self._weights().items():
            arrays[f"weights.{name}"] = weight.detach().cpu().numpy().copy()
            for moment, library_name in MOMENTS.items():
                value = state[weight][library_name] if weight in state else torch.zeros_like(weight)
                arrays[f"{moment}.{name}"] = value.cpu().numpy().copy()
        if self.averaging is not None:
            known["federated_rounds"] = self.averaging.rounds
            arrays["federated.weights"] = self.averaging.averager.weights
        if self.settings.hyperparameters.contention_budget:
            known["penalty_multiplier"] = self.multiplier
        steps = {float(kept["step"]) for kept in state.values()}
        return Checkpoint(known | {"optimizer_steps": max(steps, default=0.0)} | about, arrays)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same settings."""
        about, arrays = checkpoint.about, checkpoint.arrays
        state = self.model.policy.optimizer.state
        with torch.no_grad():
            for name, weight in self._weights().items():
                weight.copy_(torch.from_numpy(arrays[f"weights.{name}"]))
                state[weight] = {"step": torch.tensor(about["optimizer_steps"])}
                for moment, library_name in MOMENTS.items():
                    state[weight][library_name] = torch.from_numpy(arrays[f"{moment}.{name}"]).to(weight)
        self.model.num_timesteps, self.model._n_updates = about["timesteps"], about["updates"]
        self.multiplier = about.get("penalty_multiplier", 1.0)
        self.stamp = joined([about["stamp"], self.stamp]) if self.timesteps < self.total else about["stamp"]
        if self.averaging is not None:
            self.averaging.restore(about["federated_rounds"], arrays["federated.weights"])
        if about["timesteps"]:
            position = Position(about["rounds"], arrays["actions"].astype(np.int64))
            self.model._last_obs = self.env.go_to(self.settings.seed, position)
            self.model._last_episode_starts = np.full(self.env.num_envs, len(position.actions) == 0)

    @property
    def _rollout(self) -> int:
        """Timesteps of one."""
        return self.settings.hyperparameters.slots * self.env.num_envs

    def _prepare_rollout(self) -> None:
        """Set luck and contention penalty by what a checkpoint tells, so that a training can go on anywhere."""
        key = int(stream_key("ppo rollout", self.settings.seed, self.timesteps))
        torch.manual_seed(key)
        np.random.seed(key % 2**32)  # noqa: NPY002 - Stable-Baselines3 shuffles by it
        share = self.settings.hyperparameters.penalty_share(self.timesteps / max(self.total, 1))
        self.env.set_attr("penalty_share", share * self.multiplier)
        self.env.set_attr("contention", 0.0)

    def _finish_rollout(self) -> None:
        chosen = self.settings.hyperparameters
        if chosen.contention_budget:
            contention = self.env.contention / chosen.slots
            self.multiplier = next_multiplier(self.multiplier, contention, chosen.contention_budget)
            self.model.logger.record("train/penalty_multiplier", self.multiplier)

    def _position(self) -> Position:
        return self.env.position() if self.timesteps else Position(0, np.zeros((0, self.env.num_envs), dtype=np.int64))

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return {name.removeprefix(LIBRARY_NAME): p for name, p in self.model.policy.named_parameters()}


def require_device(device: str) -> None:
    """Raise DpemError unless PyTorch can compute there."""
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise DpemError(f"device is {device!r}; {str(error).splitlines()[0]}") from None
    if known.type == "cuda" and not torch.cuda.is_available():
        raise DpemError(f"device is {device!r}, but PyTorch finds no CUDA device here: leave out device, or say 'cpu'")
    try:
        torch.zeros(1, device=known).cpu()
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:  # what PyTorch raises
        reason = str(error).splitlines()[0]
        raise DpemError(f"device is {device!r}, where PyTorch cannot compute: {reason}; expected 'cpu'") from None


class _Calls(BaseCallback):
    """Calls of one's own from within `learn`."""

    def __init__(
        self,
        prepare: Callable[[], None],
        finish: Callable[[], None],
        at_boundary: Callable[[], None],
        at_step: Callable[[], None],
    ) -> None:
        super().__init__()
        self.prepare, self.finish, self.at_boundary, self.at_step = prepare, finish, at_boundary, at_step

    def _on_rollout_start(self) -> None:
        self.at_boundary()
        self.prepare()

    def _on_step(self) -> bool:
        self.at_step()
        return True

    def _on_rollout_end(self) -> None:
        self.finish()

    def _on_training_end(self) -> None:
        self.at_boundary()
