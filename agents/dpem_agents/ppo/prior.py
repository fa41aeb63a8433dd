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
DETOUR = 10.0  # taken from one over a route by which it is less likely to finish in time than by the best, by how much


def prior(warm_start: WarmStart, observations: Observations, code: ActionCode) -> NDArray[np.float32]:
    """(N, actions) logits that the network's own are added to.

    "reactive" is `LocalReactive` as a distribution: its most likely action is what that rule does, over the route that
    is most likely to finish where one is named, on no condition. "waiting" seldom allocates, "none" prefers nothing.
    """
    rows = len(observations.matrix)
    logits = np.full((rows, code.peers, code.qualities, 1), 0.0 if warm_start == "none" else UNWANTED)
    if warm_start == "reactive":
        pending, slack = observations.pending, observations.slack
        needed = needed_quality(pending, observations.min_quality[..., None, :], code.qualities)[..., 0]
        urgency = 1.0 - slack / observations.table.scale["slack"]
        serving = wanted(observations)[:, :, None] & (needed[:, :, None] == np.arange(1, code.qualities + 1))
        logits = np.where(serving, WANTED + URGENCY * urgency[:, :, None], logits[..., 0])[..., None]
        if code.routes is not None:
            chance = observations.useful_in_time
            logits = logits - DETOUR * (chance.max(axis=2, keepdims=True) - chance)[:, :, None]
    logits = np.broadcast_to(logits, (*logits.shape[:3], code.routes or 1))
    on_conditions = np.broadcast_to(logits[:, None], (rows, 2 if code.condition else 1, *logits.shape[1:]))
    return code.arrange(np.zeros(rows), on_conditions).astype(np.float32)
