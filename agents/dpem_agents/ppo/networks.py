"""The networks in PyTorch: of an actor that all nodes share, and stacks of networks, one per node.

In a stack every weight has the node as its first axis and no number of one node ever meets one of another.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from dpem_agents.ppo.forward import OWN
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.prior import prior
from dpem_env.features import FeatureTable

SMALL = 0.01  # gain of the last layer of an actor: it starts at the prior (Andrychowicz et al. 2021, choice C57)


class ActorCritic(nn.Module):
    """An actor on top of a prior, and a critic: the `mlp_extractor` of a policy whose latents are logits and value."""

    def __init__(
        self, actor: nn.Module, critic: nn.Module, table: FeatureTable, hyperparameters: Hyperparameters
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.table, self.warm_start = actor, critic, table, hyperparameters.warm_start
        self.register_buffer("visible", torch.from_numpy(table.hiding(hyperparameters.hidden_blocks)), persistent=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(B, actions) logits and (B, 1) values."""
        return self.forward_actor(observations), self.forward_critic(observations)

    def forward_actor(self, observations: Tensor) -> Tensor:
        """(B, actions) logits."""
        return self.apply_to_rows(self.actor, observations * self.visible) + self.prior(observations)

    def forward_critic(self, observations: Tensor) -> Tensor:
        """(B, 1) values."""
        return self.apply_to_rows(self.critic, observations * self.visible)

    def prior(self, observations: Tensor) -> Tensor:
        """(B, actions) logits that depend on no weight."""
        seen = self.table.read(observations.cpu().numpy())
        return torch.from_numpy(prior(self.warm_start, seen)).to(observations.device)

    def apply_to_rows(self, network: nn.Module, rows: Tensor) -> Tensor:
        """What a network makes of rows of a `NodeVecEnv`, which have the nodes inside the networks."""
        if not isinstance(network, StackedNetwork):
            return network(rows)
        by_node = rows.unflatten(0, (-1, network.nodes)).transpose(0, 1)
        return network(by_node).transpose(0, 1).flatten(0, 1)


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


class StackedLinear(nn.Module):
    """A linear layer of each node."""

    def __init__(self, nodes: int, inputs: int, outputs: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(nodes, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(nodes, 1, outputs))
        for own in self.weight.data:
            nn.init.orthogonal_(own, gain)

    def forward(self, features: Tensor) -> Tensor:
        """(N, B, outputs) from (N, B, inputs)."""
        return torch.baddbmm(self.bias, features, self.weight)


class StackedNetwork(nn.ModuleList):
    """A multilayer perceptron of each node."""

    def __init__(self, nodes: int, widths: tuple[int, ...], last_gain: float) -> None:
        gains = [math.sqrt(2.0)] * (len(widths) - 2) + [last_gain]
        super().__init__(
            StackedLinear(nodes, inputs, outputs, gain)
            for inputs, outputs, gain in zip(widths[:-1], widths[1:], gains, strict=True)
        )
        self.nodes = nodes

    def forward(self, features: Tensor) -> Tensor:
        """(N, B, outputs) from (N, B, inputs)."""
        *inner, last = self
        for layer in inner:
            features = torch.tanh(layer(features))
        return last(features)


def plain_networks(nodes: int, table: FeatureTable, hidden: int) -> tuple[StackedNetwork, StackedNetwork]:
    """Actors and critics of the whole observation, two tanh layers each."""
    scenario = table.scenario
    actions = 1 + scenario.demand.peers * scenario.control.qualities
    actor = StackedNetwork(nodes, (table.width, hidden, hidden, actions), SMALL)
    return actor, StackedNetwork(nodes, (table.width, hidden, hidden, 1), 1.0)


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """The layer with orthogonal weights (Saxe, McClelland & Ganguli 2014) and no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
