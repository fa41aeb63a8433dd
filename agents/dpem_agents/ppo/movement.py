"""How far a training has moved a policy from the one that it started from."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.acting import Choices
from dpem_agents.ppo.checkpoint import Checkpoint
from dpem_agents.ppo.forward import F32, learned_logits, of_nodes
from dpem_agents.ppo.policy import PpoPolicy
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision

MOVEMENT = ("kl_from_start", "changed_decisions", "weight_distance")  # in learning curves


class MovedPolicy(PpoPolicy):
    """A policy that compares itself, in every decision it takes, with the one that its training started from."""

    def __init__(self, checkpoint: Checkpoint, start: Checkpoint) -> None:
        super().__init__(checkpoint)
        actor = self.actor.weights
        # One for each node, so that the same weights come to the same numbers, to the last bit.
        self._start = {name: np.repeat(weight, len(actor[name]), axis=0) for name, weight in start.actor.items()}
        self._decisions, self._changed, self._divergence = 0, 0, 0.0

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The most likely legal action of each node."""
        choices = self.actor.asked(observations, masks)
        if len(choices.rows):
            self._compare(choices)
        return self.actor.decided(choices, len(masks))

    def movement(self) -> dict[str, float]:
        """Over all decisions so far: mean of KL(policy ‖ start), and the share that the start would take otherwise.

        NaN where none was taken. And the mean over nodes of the L2 distance of a node's weights.
        """
        taken = self._decisions or math.nan
        values = (self._divergence / taken, self._changed / taken, self._distance())
        return dict(zip(MOVEMENT, values, strict=True))

    def _compare(self, choices: Choices) -> None:
        weights = of_nodes(self._start, choices.rows % len(next(iter(self._start.values()))))
        learned = learned_logits(self.actor.hyperparameters.encoder, weights, self.actor.layout, choices.matrix)
        before = np.where(choices.masks == 1, learned + choices.prior, -np.inf)
        self._decisions += len(choices.rows)
        self._changed += int((before.argmax(axis=1) != choices.logits.argmax(axis=1)).sum())
        ours, theirs = _log_probabilities(choices.logits), _log_probabilities(before)
        difference = np.subtract(ours, theirs, where=choices.masks == 1, out=np.zeros_like(ours))
        self._divergence += float((np.exp(ours) * difference).sum())

    def _distance(self) -> float:
        ours = self.actor.weights
        squares = [np.square(ours[name] - start).reshape(len(start), -1) for name, start in self._start.items()]
        return float(np.sqrt(np.concatenate(squares, axis=1).sum(axis=1, dtype=np.float64)).mean())


def _log_probabilities(logits: F32) -> NDArray[np.float64]:
    """(k, actions) of (k, actions) logits, of which at least one of a row is finite."""
    wide = logits.astype(np.float64)
    return wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
