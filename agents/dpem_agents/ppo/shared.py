"""One policy for all nodes in PyTorch: every peer goes through the same small network, whatever the number of nodes."""

from __future__ import annotations

from typing import Any

from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.networks import actor_critic
from dpem_env.observations.features import FeatureTable


class SharedPolicy(MaskableActorCriticPolicy):
    """Actor and critic that all nodes share, for Stable-Baselines3.

    The actor is an encoder per peer (`PeerActor`) on top of the prior of the warm start, the critic a network of its
    own on what is pooled over peers (`PooledCritic`): what nodes share of an actor stays free of values. With the
    "plain" encoder both are multilayer perceptrons of the whole observation.
    """

    def __init__(
        self, *arguments: Any, table: FeatureTable, hyperparameters: Hyperparameters | None = None, **named: Any
    ) -> None:
        self.table, self.hyperparameters = table, hyperparameters or Hyperparameters()
        super().__init__(*arguments, **named)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = actor_critic(1, self.table, self.hyperparameters)
        self.action_net = self.value_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"table": self.table, "hyperparameters": self.hyperparameters}
        return super()._get_constructor_parameters() | own
