"""The networks in PyTorch: stacks, one network per node, or a single one that all nodes share.

Every weight has the node as its first axis and no number of one node ever meets one of another. A stack of one is what
all nodes share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpem_agents.ppo.forward import OWN
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.prior import prior
from dpem_env.observations.features import FeatureTable
from dpem_env.simulator.actions import ActionCode

HIDDEN = math.sqrt(2.0)  # gain of layers before a tanh
SMALL = 0.01  # gain of the last layer of an actor: it starts at the prior (Andrychowicz et al. 2021, choice C57)


class ActorCritic(nn.Module):
    """An actor on top of a prior, and a critic: the `mlp_extractor` of a policy whose latents are logits and value."""

    visible: Tensor  # (F,) 0 for the columns of hidden blocks

    def __init__(self, actor: Stack, critic: Stack, table: FeatureTable, hyperparameters: Hyperparameters) -> None:
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

    def apply_to_rows(self, network: Stack, rows: Tensor) -> Tensor:
        """What a stack makes of rows of a `NodeVecEnv`, which have the nodes inside the networks."""
        by_node = rows.unflatten(0, (-1, network.nodes)).transpose(0, 1)
        return network(by_node).transpose(0, 1).flatten(0, 1)


class PeerActor(nn.Module):
    """Logits from what a node sees of each peer, of itself and of its peers on average.

    Two tanh layers shared by all peers give a peer's Q logits; the logit of waiting comes from their mean over peers.
    """

    def __init__(self, nodes: int, table: FeatureTable, hidden: int) -> None:
        super().__init__()
        scenario = table.scenario
        self.nodes, self.peers = nodes, scenario.demand.peers
        # The first layer, in two parts: what differs between peers, and what does not.
        self.peer = StackedLinear(nodes, table.peer_width, hidden, HIDDEN, bias=False)
        self.context = StackedLinear(nodes, OWN + table.peer_width, hidden, HIDDEN)
        self.hidden = StackedLinear(nodes, hidden, hidden, HIDDEN)
        self.quality = StackedLinear(nodes, hidden, scenario.control.qualities, SMALL)
        self.wait = StackedLinear(nodes, hidden, 1, SMALL)

    def forward(self, observations: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, 1 + D·Q) from (N, B, F)."""
        own, blocks = split(observations, self.peers)
        context = self.context(torch.cat([own, blocks.mean(dim=2)], dim=2), nodes)
        hidden = torch.tanh(self.by_peer(self.peer, blocks, nodes) + context.unsqueeze(2))
        hidden = torch.tanh(self.by_peer(self.hidden, hidden, nodes))
        allocating = self.by_peer(self.quality, hidden, nodes).flatten(2)
        return torch.cat([self.wait(hidden.mean(dim=2), nodes), allocating], dim=2)

    def by_peer(self, layer: nn.Module, features: Tensor, nodes: Tensor | None) -> Tensor:
        """(N, B, D, outputs) from (N, B, D, inputs)."""
        return layer(features.flatten(1, 2), nodes).unflatten(1, (-1, self.peers))


class PooledCritic(nn.Module):
    """The value of what a node sees of itself, of its peers on average, and of the most of them."""

    def __init__(self, nodes: int, table: FeatureTable, hidden: int) -> None:
        super().__init__()
        self.nodes, self.peers = nodes, table.scenario.demand.peers
        self.layers = StackedNetwork(nodes, (OWN + 2 * table.peer_width, hidden, hidden, 1), 1.0)

    def forward(self, observations: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, 1) from (N, B, F)."""
        own, blocks = split(observations, self.peers)
        return self.layers(torch.cat([own, blocks.mean(dim=2), blocks.amax(dim=2)], dim=2), nodes)


class StackedLinear(nn.Module):
    """A linear layer of each node."""

    def __init__(self, nodes: int, inputs: int, outputs: int, gain: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(nodes, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(nodes, 1, outputs)) if bias else None
        for own in self.weight.data:  # Saxe, McClelland & Ganguli 2014
            nn.init.orthogonal_(own, gain)

    def forward(self, features: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, outputs) from (N, B, inputs): of all nodes, or of these."""
        weight = self.weight if nodes is None else self.weight.index_select(0, nodes)
        if self.bias is None:
            return torch.bmm(features, weight)
        return torch.baddbmm(self.bias if nodes is None else self.bias.index_select(0, nodes), features, weight)


class StackedNetwork(nn.ModuleList):
    """A multilayer perceptron of each node."""

    def __init__(self, nodes: int, widths: tuple[int, ...], last_gain: float) -> None:
        gains = [HIDDEN] * (len(widths) - 2) + [last_gain]
        super().__init__(
            StackedLinear(nodes, inputs, outputs, gain)
            for inputs, outputs, gain in zip(widths[:-1], widths[1:], gains, strict=True)
        )
        self.nodes = nodes

    def forward(self, features: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, outputs) from (N, B, inputs)."""
        *inner, last = self
        for layer in inner:
            features = torch.tanh(layer(features, nodes))
        return last(features, nodes)


Stack = PeerActor | PooledCritic | StackedNetwork


def actor_critic(nodes: int, table: FeatureTable, hyperparameters: Hyperparameters) -> ActorCritic:
    """The networks of so many nodes, of two tanh layers each."""
    hidden = hyperparameters.hidden
    if hyperparameters.encoder == "per-peer":
        actor, critic = PeerActor(nodes, table, hidden), PooledCritic(nodes, table, hidden)
        return ActorCritic(actor, critic, table, hyperparameters)
    actions = ActionCode.of(table.scenario).num_actions
    plain_actor = StackedNetwork(nodes, (table.width, hidden, hidden, actions), SMALL)
    plain_critic = StackedNetwork(nodes, (table.width, hidden, hidden, 1), 1.0)
    return ActorCritic(plain_actor, plain_critic, table, hyperparameters)


def split(observations: Tensor, peers: int) -> tuple[Tensor, Tensor]:
    """What nodes see of themselves (N, B, own), and of each peer (N, B, D, features)."""
    return observations[..., :OWN], observations[..., OWN:].unflatten(2, (peers, -1))
