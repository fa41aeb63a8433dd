"""A budget of contention: what the contention penalty is multiplied by, so that training keeps to it."""

from __future__ import annotations

import math

STEP = 0.05  # most that the logarithm of the multiplier changes by after a rollout
LARGEST = 1000.0  # multiplier; the smallest is one over it


def next_multiplier(multiplier: float, contention: float, budget: float) -> float:
    """After a rollout of such contention: larger where that was above the budget, smaller where it was below.

    It is a Lagrange multiplier of the constraint that contention is at most the budget, by dual ascent in its logarithm
    (PPO-Lagrangian: Ray, Achiam & Amodei, Benchmarking safe exploration in deep RL, 2019). Contention is that of all
    networks in a rollout: a training has few episodes. A step is in parts of the budget, and bounded: where training
    begins far above it, the multiplier must not rise faster than policies follow.

    >>> [round(next_multiplier(1.0, contention, 0.002), 3) for contention in (0.0, 0.001, 0.002, 0.003, 0.1)]
    [0.951, 0.975, 1.0, 1.025, 1.051]
    """
    excess = min(contention / budget - 1.0, 1.0)
    return min(max(multiplier * math.exp(STEP * excess), 1.0 / LARGEST), LARGEST)
