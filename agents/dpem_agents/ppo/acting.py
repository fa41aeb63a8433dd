"""An actor in numpy, without torch: which rows of an observation matrix decide, and the logits of their actions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.forward import F32, Weights, learned_logits, of_nodes
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.idle import deciding
from dpem_agents.ppo.layout import Layout
from dpem_agents.ppo.prior import prior
from dpem_env.observations.features import Observations


class Choices(NamedTuple):
    """The rows that decide, k of them, and what they choose from; all others wait."""

    rows: NDArray[np.int64]  # (k,) their places in the matrix
    matrix: F32  # (k, F) what their networks see
    masks: NDArray[np.int8]  # (k, actions)
    prior: F32  # (k, actions) logits that nothing was learned of
    logits: F32  # (k, actions) of prior and network; -inf where an action is illegal

    def best(self, number: int) -> NDArray[np.int64]:
        """(number,) the most likely action of every row of the matrix; those that do not decide wait."""
        action = np.zeros(number, dtype=np.int64)
        action[self.rows] = self.logits.argmax(axis=1)
        return action


class NumpyActor:
    """The actors of a stack; row r of a matrix is for the one of r modulo their number."""

    def __init__(self, weights: Weights, hyperparameters: Hyperparameters, layout: Layout) -> None:
        self.weights, self.hyperparameters, self.layout = weights, hyperparameters, layout
        self._stack = len(next(iter(weights.values())))

    def choices(self, observations: Observations, told: F32, masks: NDArray[np.int8]) -> Choices:
        """What there is to choose from; `told` (N, 0 or 1) is what a row tells beside the observation."""
        chosen, table = self.hyperparameters, observations.table
        rows = np.flatnonzero(deciding(chosen.idle_forecast, observations, masks))
        seen = table.read(observations.matrix[rows])
        visible = np.concatenate([seen.matrix * table.hiding(chosen.hidden_blocks), told[rows]], axis=1)
        if len(rows) == 0:
            nothing = np.zeros((0, masks.shape[1]), dtype=np.float32)
            return Choices(rows, visible, masks[rows], nothing, nothing)
        weights = of_nodes(self.weights, rows % self._stack)
        start = prior(chosen.warm_start, seen, self.layout.code)
        logits = learned_logits(chosen.encoder, weights, self.layout, visible) + start
        return Choices(rows, visible, masks[rows], start, np.where(masks[rows] == 1, logits, -np.inf))
