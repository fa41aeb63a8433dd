"""Policies for Stable-Baselines3: a stack of one per node, or of a single one that all nodes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from dpem_agents.ppo.acting import NumpyActor
from dpem_agents.ppo.forward import F32
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.idle import deciding
from dpem_agents.ppo.networks import ActorCritic, actor_critic
from dpem_env.observations.features import FeatureTable, Observations


class StackedPolicy(MaskableActorCriticPolicy):
    """Actors and critics of a stack: row r of a batch is for the one of r modulo `nodes`.

    One plays any number of nodes, on any network. As many as there are nodes keep their places: they are for the one
    topology they were trained on.

    The actor is an encoder per peer (`PeerActor`) on top of the prior of the warm start, the critic a network of its
    own on what is pooled over peers (`PooledCritic`): what nodes share of an actor stays free of values. With the
    "plain" encoder both are multilayer perceptrons of the whole observation.
    """

    mlp_extractor: ActorCritic  # type: ignore[assignment] # it has all that the library calls
    action_net: nn.Identity  # latents are logits and values already
    value_net: nn.Identity  # type: ignore[assignment]

    def __init__(
        self, *arguments: Any, table: FeatureTable, hyperparameters: Hyperparameters, nodes: int = 1, **named: Any
    ) -> None:
        self.table, self.nodes, self.hyperparameters = table, nodes, hyperparameters
        super().__init__(*arguments, **named)

    def actor(self) -> NumpyActor:
        """All actors in numpy, whose weights are no copies where they lie on the CPU."""
        named = self.mlp_extractor.named_parameters()
        weights = {name: weight.detach().cpu().numpy() for name, weight in named if name.startswith("actor.")}
        return NumpyActor(weights, self.hyperparameters, self.mlp_extractor.layout)

    def read(self, rows: F32) -> tuple[Observations, F32]:
        """The observations of rows, and (N, 0 or 1) what else these tell."""
        width = self.table.width
        return self.table.read(rows[:, :width]), rows[:, width:]

    def _predict(
        self, observation: Any, deterministic: bool = False, action_masks: NDArray[Any] | None = None
    ) -> Tensor:
        """As every policy, and rows with nothing to decide wait."""
        action = super()._predict(observation, deterministic, action_masks)
        seen, _ = self.read(observation.cpu().numpy())
        masks = np.ones((len(action), 2), dtype=np.int8) if action_masks is None else np.atleast_2d(action_masks)
        decides = deciding(self.hyperparameters.idle_forecast, seen, masks)
        return action * torch.from_numpy(decides).to(action.device)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = actor_critic(self.nodes, self.table, self.hyperparameters)
        self.action_net = self.value_net = nn.Identity()
        optimizer: Any = self.optimizer_class  # its base class is declared, which takes no rate
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), fused=True, **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"table": self.table, "nodes": self.nodes, "hyperparameters": self.hyperparameters}
        return super()._get_constructor_parameters() | own
