"""The networks in PyTorch: stacks, one network per node, or a single one that all nodes share.

Every weight has the node as its first axis and no number of one node ever meets one of another. A stack of one is what
all nodes share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.layout import Layout, interface
from dpem_agents.ppo.prior import prior
from dpem_env.observations.features import FeatureTable

HIDDEN = math.sqrt(2.0)  # gain of layers before a tanh
SMALL = 0.01  # gain of the last layer of an actor: it starts at the prior (Andrychowicz et al. 2021, choice C57)


class ActorCritic(nn.Module):
    """An actor on top of a prior, and a critic: the `mlp_extractor` of a policy whose latents are logits and value."""

    visible: Tensor  # (F,) 0 for the columns of hidden blocks

    def __init__(
        self, actor: Stack, critic: Stack, table: FeatureTable, layout: Layout, hyperparameters: Hyperparameters
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.table, self.layout = actor, critic, table, layout
        self.warm_start = hyperparameters.warm_start
        hiding = torch.from_numpy(table.hiding(hyperparameters.hidden_blocks))
        self.register_buffer("visible", torch.cat([hiding, torch.ones(layout.told)]), persistent=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(B, actions) logits and (B, 1) values."""
        return self.forward_actor(observations), self.forward_critic(observations)

    def forward_actor(self, observations: Tensor) -> Tensor:
        """(B, actions) logits."""
        return self.apply_to_rows(self.actor, observations) + self.prior(observations)

    def forward_critic(self, observations: Tensor) -> Tensor:
        """(B, 1) values."""
        return self.apply_to_rows(self.critic, observations)

    def prior(self, observations: Tensor) -> Tensor:
        """(B, actions) logits that depend on no weight."""
        seen = self.table.read(observations[:, : self.table.width].cpu().numpy())
        return torch.from_numpy(prior(self.warm_start, seen, self.layout.code)).to(observations.device)

    def apply_to_rows(self, network: Stack, rows: Tensor) -> Tensor:
        """What a stack makes of rows of a `NodeVecEnv`, which have the nodes inside the networks."""
        by_node = (rows * self.visible).unflatten(0, (-1, network.nodes)).transpose(0, 1)
        return network(*self.read(by_node)).transpose(0, 1).flatten(0, 1)

    def read(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What both networks are called with for (N, B, F) rows, whose hidden columns are 0."""
        if isinstance(self.actor, PeerActor):
            own, each = self.layout.split(rows, torch)
            return own, each, each.mean(dim=2)
        return (rows,)


class PeerActor(nn.Module):
    """Logits from what a node sees of each candidate, of itself and of all candidates on average.

    A candidate is a peer, or a route to it where routes are named. Two tanh layers shared by all of them give each its
    logits, one for every quality on every condition; the logit of waiting comes from their mean.
    """

    def __init__(self, nodes: int, layout: Layout, hidden: int) -> None:
        super().__init__()
        self.nodes, self.layout = nodes, layout
        # The first layer, in two parts: what differs between candidates, and what does not.
        self.peer = StackedLinear(nodes, layout.of_each, hidden, HIDDEN, bias=False)
        self.context = StackedLinear(nodes, layout.own + layout.of_each, hidden, HIDDEN)
        self.hidden = StackedLinear(nodes, hidden, hidden, HIDDEN)
        self.quality = StackedLinear(nodes, hidden, layout.conditions * layout.qualities, SMALL)
        self.wait = StackedLinear(nodes, hidden, 1, SMALL)

    def forward(self, own: Tensor, each: Tensor, mean: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, actions) from (N, B, own) columns, (N, B, candidates, of each) and their (N, B, of each) means."""
        context = self.context(torch.cat([own, mean], dim=2), nodes)
        hidden = torch.tanh(by_candidate(self.peer, each, nodes) + context.unsqueeze(2))
        hidden = torch.tanh(by_candidate(self.hidden, hidden, nodes))
        allocating, waiting = by_candidate(self.quality, hidden, nodes), self.wait(hidden.mean(dim=2), nodes)
        logits: Tensor = self.layout.arrange(waiting, allocating, torch)
        return logits


def by_candidate(layer: nn.Module, features: Tensor, nodes: Tensor | None) -> Tensor:
    """(N, B, candidates, outputs) from (N, B, candidates, inputs)."""
    outputs: Tensor = layer(features.flatten(1, 2), nodes).unflatten(1, features.shape[1:3])
    return outputs


class PooledCritic(nn.Module):
    """The value of what a node sees of itself, of its candidates on average, and of the most of them."""

    def __init__(self, nodes: int, layout: Layout, hidden: int) -> None:
        super().__init__()
        self.nodes, self.layout = nodes, layout
        self.layers = StackedNetwork(nodes, (layout.own + 2 * layout.of_each, hidden, hidden, 1), 1.0)

    def forward(self, own: Tensor, each: Tensor, mean: Tensor, nodes: Tensor | None = None) -> Tensor:
        """(N, B, 1) from what a `PeerActor` sees."""
        values: Tensor = self.layers(torch.cat([own, mean, each.amax(dim=2)], dim=2), nodes)
        return values


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
    hidden, layout = hyperparameters.hidden, layout_of(table, hyperparameters)
    if hyperparameters.encoder == "per-peer":
        actor, critic = PeerActor(nodes, layout, hidden), PooledCritic(nodes, layout, hidden)
        return ActorCritic(actor, critic, table, layout, hyperparameters)
    seen = table.width + layout.told
    plain_actor = StackedNetwork(nodes, (seen, hidden, hidden, layout.code.num_actions), SMALL)
    plain_critic = StackedNetwork(nodes, (seen, hidden, hidden, 1), 1.0)
    return ActorCritic(plain_actor, plain_critic, table, layout, hyperparameters)


def layout_of(table: FeatureTable, hyperparameters: Hyperparameters) -> Layout:
    """Of the rows and actions of policies on the observations of a table."""
    return Layout.of(interface(table.scenario, table.news), hyperparameters)
