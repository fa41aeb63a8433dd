"""A policy that passes messages on a graph: the candidate routes of a node, joined where they share another node.

python -m dpem_agents.examples.message_passing    # trains for less than a minute, then plays

A node that decides for itself may pass messages only among what it knows (docs/rules.md): itself, now; and of the nodes
on its candidate routes, up to H hops away, what they answered it, one slot ago. All of that is in its own observation.
So every node has a graph of its own. Its edges, which routes share a node, are public and fixed for an episode.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from dpem_agents.examples.episodes import StatefulPolicy, main
from dpem_env.observations.features import NEWS, FeatureTable

WIDTH, ROUNDS = 32, 2


class MessagePassing(StatefulPolicy):
    """Routes hear from the routes that they share a node with; a peer is judged by all routes that lead to it."""

    def __init__(self, table: FeatureTable, num_actions: int) -> None:
        super().__init__(table, num_actions)
        self.peers, self.news = table.scenario.demand.peers, len(NEWS)
        self.routes = table.scenario.routing.routes_per_peer
        self.node_width, self.peer_width = table.node_width, table.peer_width - self.news * self.routes
        self.read = nn.Linear(self.node_width + self.peer_width + self.news, WIDTH)
        self.rounds = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(ROUNDS))
        self.actor, self.critic = nn.Linear(WIDTH, (num_actions - 1) // self.peers), nn.Linear(WIDTH, 1)
        self.waiting = nn.Linear(WIDTH, 1)
        self.waiting.bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network

    def begin(self, routes: Tensor) -> Tensor:
        """(R, V, V) the weights with which each of the V = D·k routes of a node hears the others, itself included."""
        nodes = routes[..., 1:].flatten(1, 2)  # (R, V, H): all of them begin at the node itself
        same = nodes[:, :, None, :, None] == nodes[:, None, :, None, :]
        joined = (same & (nodes >= 0)[:, :, None, :, None]).flatten(3).any(dim=3).float()
        return joined / joined.sum(dim=2, keepdim=True).clamp(min=1.0)

    def forward(self, observations: Tensor, masks: Tensor, state: Tensor) -> tuple[Categorical, Tensor, Tensor]:
        """Distributions of actions, values, and the same graph."""
        heard = torch.relu(self.read(self.vertices(observations)))  # (T, R, V, WIDTH)
        for update in self.rounds:
            heard = torch.relu(update(torch.cat((heard, state @ heard), dim=3)))
        of_peers = heard.reshape(*heard.shape[:2], self.peers, self.routes, WIDTH).amax(dim=3)
        of_node = of_peers.mean(dim=2)
        allocating = self.actor(of_peers).flatten(2)  # (T, R, D·Q)
        logits = torch.cat((self.waiting(of_node), allocating), dim=2).masked_fill(masks == 0, -1e9)
        return Categorical(logits=logits), self.critic(of_node).squeeze(-1), state

    def vertices(self, observations: Tensor) -> Tensor:
        """(T, R, V, …) what a node knows of itself, of a peer, and of a route to it."""
        shape = (*observations.shape[:2], self.peers, self.routes)
        of_node, of_peers = observations.tensor_split((self.node_width,), dim=2)
        of_peer, news = of_peers.reshape(*shape[:3], -1).tensor_split((self.peer_width,), dim=3)
        of_route = news.reshape(*shape[:3], self.news, self.routes).transpose(3, 4)
        of_node, of_peer = of_node[:, :, None, None].expand(*shape, -1), of_peer[:, :, :, None].expand(*shape, -1)
        return torch.cat((of_node, of_peer, of_route), dim=4).flatten(2, 3)


if __name__ == "__main__":
    main(MessagePassing)
