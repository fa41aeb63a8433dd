"""Linear forecasts from sums of past counts: what a node can learn without a recurrent network.

Every node has weights of its own, shared by its peers, for each slot ahead. They weigh the mean counts of the latest
1, 2, 4, … 128 slots and the pair's scale. Slots before the episode count as the scale: with nothing seen, the forecast
is near the mean rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dpem_agents.checkpoints import Arrays
from dpem_agents.forecasters.checkpoint import WINDOWS, Checkpoint, Learned
from dpem_agents.forecasters.history import History, draw_history, steps_ahead
from dpem_env.demand.forecast import F64, ForecastSetting, NewRequests
from dpem_env.scenarios import Scenario

LONGEST = WINDOWS[-1]


class RidgeForecaster(Learned):
    """Forecasts with the weights of a checkpoint of `train_ridge`."""

    models: ClassVar[tuple[str, ...]] = ("ridge",)

    def reset(self, setting: ForecastSetting) -> None:
        """Fill the windows with the scale."""
        learned = self.checkpoint.of(setting)
        self.setting = setting
        self._weights = learned["weights"].astype(np.float64)
        self._scale = learned["scale"].astype(np.float64)
        self._past = np.repeat(self._scale[None], LONGEST, axis=0)  # (128, N, D) counts, a ring
        self._slot = 0
        self._sums = np.array(WINDOWS)[:, None, None] * self._scale  # (windows, N, D)

    def observe(self, requests: NewRequests) -> None:
        """Slide all windows by one slot."""
        counts = self.setting.counts(requests)
        for number, window in enumerate(WINDOWS):
            self._sums[number] += counts - self._past[(self._slot - window) % LONGEST]
        self._past[self._slot % LONGEST] = counts
        self._slot += 1

    def predict(self, lead: int = 0) -> F64:
        """Weighted means, where they are positive."""
        means = self._sums / np.array(WINDOWS)[:, None, None]
        features = np.concatenate((means, self._scale[None])).transpose(1, 2, 0)  # (N, D, features)
        return np.maximum(features @ self._weights[:, :, self.steps(self.setting, lead)], 0.0)


def train_ridge(
    scenario: Scenario,
    topology_seeds: Sequence[int],
    *,
    hours: float = 24.0,
    penalty: float = 1.0,
) -> Checkpoint:
    """Weights for the nodes of these topologies, each from `hours` simulated hours of its own requests."""
    from dpem_env.report.tables import progress

    horizon = steps_ahead(scenario)
    with progress() as bar:
        topologies = []
        for seed in bar.track(topology_seeds, description="ridge: topologies"):
            topologies.append(fit(draw_history(scenario, seed, hours), horizon, penalty))
    return Checkpoint("ridge", scenario.name, scenario.hash, horizon, 0, tuple(topologies))


def fit(history: History, horizon: int, penalty: float = 1.0) -> Arrays:
    """Arrays of a checkpoint: per node min Σ (count - features·weights)²/scale + penalty·|weights|², over its peers.

    Dividing by the scale weighs pairs by the precision of their counts, whose variance grows with their mean.
    """
    history.require(horizon + 1)
    scale = history.scale()
    nodes, places = scale.shape
    weights = np.zeros((nodes, len(WINDOWS) + 1, horizon), dtype=np.float32)
    for i in range(nodes):
        gram = penalty * np.eye(len(WINDOWS) + 1)
        cross = np.zeros((len(WINDOWS) + 1, horizon))
        for d in range(places):
            if history.peers[i, d] >= 0:
                features = _features(history.counts[:, i, d], scale[i, d])[:-horizon]
                following = sliding_window_view(history.counts[1:, i, d].astype(np.float32), horizon)
                gram += features.T @ features / scale[i, d]
                cross += features.T @ following / scale[i, d]
        weights[i] = np.linalg.solve(gram, cross)
    return {"peers": history.peers, "scale": scale, "weights": weights}


def _features(counts: NDArray[np.uint8], scale: np.float32) -> NDArray[np.float32]:
    """(T, windows + 1) features after each slot of a pair's history."""
    total = np.cumsum(np.concatenate((np.full(LONGEST + 1, scale), counts)), dtype=np.float64)
    now = np.arange(LONGEST + 1, LONGEST + 1 + len(counts))
    features = np.empty((len(counts), len(WINDOWS) + 1), dtype=np.float32)
    for number, window in enumerate(WINDOWS):
        features[:, number] = (total[now] - total[now - window]) / window
    features[:, -1] = scale
    return features
