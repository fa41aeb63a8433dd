"""Where policies start: logits computed from the observation, to which a network adds what it learns.

A random policy floods the network, and almost every allocation is then punished by contention, so PPO first collapses
to waiting and climbs back slowly. Networks therefore begin at a rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.hyperparameters import WarmStart
from dpem_agents.ppo.idle import wanted
from dpem_baselines.local import needed_quality
from dpem_env.observations.features import Observations
from dpem_env.simulator.actions import ActionCode

# Logits of allocations; waiting has 0. What is unlikely must still be tried now and then, or nothing is learned of it.
WANTED, UNWANTED = 3.0, -6.0
URGENCY = 1.0  # added to a wanted one as its slack runs out, from 0 at a whole deadline


def prior(warm_start: WarmStart, observations: Observations) -> NDArray[np.float32]:
    """(N, actions) logits that the network's own are added to.

    "reactive" is `LocalReactive` as a distribution: its most likely action is what that rule does. "waiting" seldom
    allocates, "none" prefers nothing.
    """
    code, rows = ActionCode.of(observations.table.scenario), len(observations.matrix)
    logits = np.full((rows, code.peers, code.qualities), 0.0 if warm_start == "none" else UNWANTED)
    if warm_start == "reactive":
        pending, slack = observations.pending, observations.slack
        needed = needed_quality(pending, observations.min_quality[..., None, :], code.qualities)[..., 0]
        urgency = 1.0 - slack / observations.table.scale["slack"]
        serving = wanted(observations)[:, :, None] & (needed[:, :, None] == np.arange(1, code.qualities + 1))
        logits = np.where(serving, WANTED + URGENCY * urgency[:, :, None], logits)
    return code.arrange(np.zeros(rows), logits).astype(np.float32)
