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
from dpem_baselines.maxweight import WeightRule
from dpem_baselines.route_choice import by_network, by_news
from dpem_env.observations.features import Observations
from dpem_env.simulator.actions import ActionCode

Logits = NDArray[np.float64]

# Logits of allocations; waiting has 0. What is unlikely must still be tried now and then, or nothing is learned of it.
WANTED, UNWANTED = 3.0, -6.0
URGENCY = 1.0  # added to a wanted one as its slack runs out, from 0 at a whole deadline
DETOUR = 10.0  # taken from one over a route by which it is less likely to finish in time than by the best, by how much
RULE = WeightRule(link_price=0.15, load_price=0.3, lookahead=8, forecast_weight=0.25)  # near what tuning finds
SHARPNESS = 8.0  # of a weight of 1, a request served at no cost


def prior(warm_start: WarmStart, observations: Observations, code: ActionCode) -> NDArray[np.float32]:
    """(N, actions) logits that the network's own are added to.

    "reactive" is `LocalReactive` as a distribution: its most likely action is what that rule does, over the route that
    is most likely to finish where one is named, on no condition; "maxweight" is `MaxWeight`, at fixed prices. "waiting"
    seldom allocates, "none" prefers nothing.
    """
    shape = (len(observations.matrix), code.peers, code.qualities, code.routes or 1)
    if warm_start == "reactive":
        logits = _reactive(observations, code)
    elif warm_start == "maxweight":
        logits = _maxweight(observations, code)
    else:
        logits = np.full(shape, 0.0 if warm_start == "none" else UNWANTED)
    on_conditions = np.broadcast_to(logits[:, None], (shape[0], 2 if code.condition else 1, *shape[1:]))
    return code.arrange(np.zeros(shape[0]), on_conditions).astype(np.float32)


def _reactive(seen: Observations, code: ActionCode) -> Logits:
    needed = needed_quality(seen.pending, seen.min_quality[..., None, :], code.qualities)[..., 0]
    urgency = 1.0 - seen.slack / seen.table.scale["slack"]
    serving = wanted(seen)[:, :, None] & (needed[:, :, None] == np.arange(1, code.qualities + 1))
    logits: Logits = np.where(serving, WANTED + URGENCY * urgency[:, :, None], UNWANTED)[..., None]
    if code.routes is None:
        return logits
    chance = seen.useful_in_time
    detour: Logits = DETOUR * (chance.max(axis=2, keepdims=True) - chance)[:, :, None]
    return logits - detour


def _maxweight(seen: Observations, code: ActionCode) -> Logits:
    if code.routes is None:
        offers = by_network(seen)
    else:  # all are taken to need the qualities of the current one: more is not observed of them
        exists, smallest = seen.candidate_hops > 0, seen.min_quality
        offers = by_news(seen, exists, np.broadcast_to(smallest[:, :, None], (*exists.shape, smallest.shape[2])))
    weight, quality = RULE.judge(seen, offers)
    right = quality[:, :, None] == np.arange(1, code.qualities + 1)[:, None]
    logits: Logits = np.where(right, SHARPNESS * weight[:, :, None], UNWANTED).clip(UNWANTED)
    return logits
