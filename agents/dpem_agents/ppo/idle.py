"""Who has something to decide: in most slots most nodes have nobody to serve, and wait without being asked.

A learner that is asked all the same spends nearly all its time on rows that decide nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.local import uncovered
from dpem_env.observations.features import Observations


def wanted(seen: Observations) -> NDArray[np.bool_]:
    """(N, D) whether more requests are pending than allocations are open, and some can still be served."""
    # Where a controller's view is old, a slack of 0 says that all of a peer's requests are overdue by now.
    return uncovered(seen) & (seen.slack > 0)


def deciding(idle_forecast: float, seen: Observations, masks: NDArray[np.int8]) -> NDArray[np.bool_]:
    """(N,) which rows decide: those with a choice that serve somebody, or expect so many requests of a peer.

    `idle_forecast` is in requests, over all slots of the forecast; 0 means that every row decides.
    """
    if idle_forecast == 0.0:
        return np.ones(len(masks), dtype=np.bool_)
    expecting: NDArray[np.bool_] = seen.forecast.sum(axis=2).max(axis=1) >= idle_forecast
    choice: NDArray[np.bool_] = (masks[:, 1:] == 1).any(axis=1)
    decides: NDArray[np.bool_] = choice & (expecting | wanted(seen).any(axis=1))
    return decides
