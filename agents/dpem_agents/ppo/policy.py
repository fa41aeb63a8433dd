"""A trained policy as a rule that every node follows by itself."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.forward import independent_logits, shared_logits
from dpem_agents.ppo.prior import prior
from dpem_env.features import Observations
from dpem_env.network import Network
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.scenarios import Scenario


class PpoPolicy(LocalPolicy):
    """Every node takes the legal action that a policy trained by PPO holds most likely.

    `checkpoint`: a file that `dpem_agents.ppo.training.train` has written, or the folder with it. A shared policy plays
    on any network of as many peers per node, qualities, fidelity classes and forecast slots as it was trained with; an
    independent one only on its own topology. Observations are filled by the forecaster that it was trained with.
    """

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
        about, weights = self.checkpoint.about, self.checkpoint.actor
        self.forecaster = about["settings"]["forecaster"]
        self._prior = partial(prior, about["warm_start"])
        self._logits = (
            partial(shared_logits, weights, about["interface"]["peers per node"])
            if about["mode"] == "shared"
            else partial(independent_logits, weights)
        )

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Check that the policy is one for this network."""
        self.checkpoint.require(scenario, network)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The most likely legal action of each node."""
        logits = self._logits(observations.matrix) + self._prior(observations)
        return Decision(np.where(masks == 1, logits, -np.inf).argmax(axis=1))
