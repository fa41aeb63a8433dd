"""One policy for all nodes in PyTorch: every peer goes through the same small network, whatever the number of nodes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from dpem_agents.ppo.forward import OWN
from dpem_agents.ppo.prior import WarmStart, prior
from dpem_env.features import FeatureTable

SMALL = 0.01  # gain of the last layer of an actor: it starts at the prior (Andrychowicz et al. 2021, choice C57)


class SharedPolicy(MaskableActorCriticPolicy):
    """Actor and critic that all nodes share, for Stable-Baselines3.

    The actor is an encoder per peer (`PeerActor`) on top of the prior of `warm_start`, the critic a network of its own
    on what is pooled over peers (`PooledCritic`): what nodes share of an actor stays free of values.
    """

    def __init__(
        self, *arguments: Any, table: FeatureTable, warm_start: WarmStart = "reactive", hidden: int = 64, **named: Any
    ) -> None:
        self.table, self.warm_start, self.hidden = table, warm_start, hidden
        super().__init__(*arguments, **named)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = ActorCritic(
            PeerActor(self.table, self.hidden), PooledCritic(self.table, self.hidden), self.table, self.warm_start
        )
        self.action_net = self.value_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"table": self.table, "warm_start": self.warm_start, "hidden": self.hidden}
        return super()._get_constructor_parameters() | own


class ActorCritic(nn.Module):
    """An actor on top of a prior, and a critic: the `mlp_extractor` of a policy whose latents are logits and value."""

    def __init__(self, actor: nn.Module, critic: nn.Module, table: FeatureTable, warm_start: WarmStart) -> None:
        super().__init__()
        self.actor, self.critic, self.table, self.warm_start = actor, critic, table, warm_start

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(B, actions) logits and (B, 1) values."""
        return self.forward_actor(observations), self.forward_critic(observations)

    def forward_actor(self, observations: Tensor) -> Tensor:
        """(B, actions) logits."""
        return self.actor(observations) + self.prior(observations)

    def forward_critic(self, observations: Tensor) -> Tensor:
        """(B, 1) values."""
        return self.critic(observations)

    def prior(self, observations: Tensor) -> Tensor:
        """(B, actions) logits that depend on no weight."""
        seen = self.table.read(observations.cpu().numpy())
        return torch.from_numpy(prior(self.warm_start, seen)).to(observations.device)


class PeerActor(nn.Module):
    """Logits from what a node sees of each peer, of itself and of its peers on average.

    Two tanh layers shared by all peers give a peer's Q logits; the logit of waiting comes from their mean over peers.
    """

    def __init__(self, table: FeatureTable, hidden: int) -> None:
        super().__init__()
        scenario = table.scenario
        self.peers = scenario.demand.peers
        # The first layer, in two parts: what differs between peers, and what does not.
        self.peer = nn.Linear(table.peer_width, hidden, bias=False)
        self.context = nn.Linear(OWN + table.peer_width, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.quality = nn.Linear(hidden, scenario.control.qualities)
        self.wait = nn.Linear(hidden, 1)
        for layer in (self.peer, self.context, self.hidden):
            orthogonal(layer, math.sqrt(2.0))
        for layer in (self.quality, self.wait):
            orthogonal(layer, SMALL)

    def forward(self, observations: Tensor) -> Tensor:
        """(B, 1 + D·Q) from (B, F)."""
        blocks = observations[:, OWN:].unflatten(1, (self.peers, -1))
        context = self.context(torch.cat([observations[:, :OWN], blocks.mean(dim=1)], dim=1))
        hidden = torch.tanh(self.peer(blocks) + context.unsqueeze(1))
        hidden = torch.tanh(self.hidden(hidden))
        return torch.cat([self.wait(hidden.mean(dim=1)), self.quality(hidden).flatten(1)], dim=1)


class PooledCritic(nn.Module):
    """The value of what a node sees of itself, of its peers on average, and of the most of them."""

    def __init__(self, table: FeatureTable, hidden: int) -> None:
        super().__init__()
        self.peers = table.scenario.demand.peers
        widths = (OWN + 2 * table.peer_width, hidden, hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [orthogonal(nn.Linear(inputs, outputs), math.sqrt(2.0)), nn.Tanh()]
        self.layers = nn.Sequential(*layers, orthogonal(nn.Linear(hidden, 1), 1.0))

    def forward(self, observations: Tensor) -> Tensor:
        """(B, 1) from (B, F)."""
        blocks = observations[:, OWN:].unflatten(1, (self.peers, -1))
        pooled = [observations[:, :OWN], blocks.mean(dim=1), blocks.amax(dim=1)]
        return self.layers(torch.cat(pooled, dim=1))


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """The layer with orthogonal weights (Saxe, McClelland & Ganguli 2014) and no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
