"""A policy that remembers: an LSTM that every node runs on what it has observed itself since its episode began.

python -m dpem_agents.examples.recurrent    # trains for less than a minute, then plays
"""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from dpem_agents.examples.episodes import StatefulPolicy, main
from dpem_env.observations.features import FeatureTable

WIDTH = 64


class Recurrent(StatefulPolicy):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), then a layer each for actor and critic."""

    def __init__(self, table: FeatureTable, num_actions: int) -> None:
        super().__init__(table, num_actions)
        self.lstm = nn.LSTM(table.width, WIDTH)
        self.actor, self.critic = nn.Linear(WIDTH, num_actions), nn.Linear(WIDTH, 1)
        self.actor.bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network

    def begin(self, routes: Tensor) -> Tensor:
        """(R, 2·WIDTH) zeros, for the LSTM's output and cell: nothing is remembered of earlier episodes."""
        return torch.zeros(len(routes), 2 * WIDTH)

    def forward(self, observations: Tensor, masks: Tensor, state: Tensor) -> tuple[Categorical, Tensor, Tensor]:
        """Distributions of actions, values, and what is remembered after."""
        output, cell = state[None].chunk(2, dim=2)
        outputs, state_after = self.lstm(observations, (output.contiguous(), cell.contiguous()))
        logits = self.actor(outputs).masked_fill(masks == 0, -1e9)
        return Categorical(logits=logits), self.critic(outputs).squeeze(-1), torch.cat(state_after, dim=2)[0]


if __name__ == "__main__":
    main(Recurrent)
