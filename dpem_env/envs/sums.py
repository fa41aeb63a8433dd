"""What metrics need of every slot of an episode, summed up while it is played."""

from __future__ import annotations

import numpy as np

from dpem_env.envs.metrics import EpisodeMetrics, episode_metrics
from dpem_env.envs.rewards import Outcome
from dpem_env.envs.session import Session


class EpisodeSums:
    """Rewards and charges of every agent of a session's first network, from the beginning of an episode."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.reward = np.zeros(session.network.num_nodes)
        self.charged = np.zeros(session.network.num_nodes, dtype=np.int64)

    def add(self, outcome: Outcome) -> None:
        """Add what the slot that was played brought."""
        self.reward += outcome.reward[0]
        self.charged += self.session.simulator.state.contended[0]

    def metrics(self) -> EpisodeMetrics:
        """Those of the episode, once it is over."""
        return episode_metrics(self.session, self.reward, self.charged)
