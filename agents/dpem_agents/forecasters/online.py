"""A recurrent forecaster whose nodes go on learning during the episode, each from the requests it has itself seen."""

from __future__ import annotations

import os
from collections import deque
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_agents.forecasters.cells import Batch, clip, loss
from dpem_agents.forecasters.checkpoint import Checkpoint
from dpem_agents.forecasters.recurrent import CELLS, WEIGHTS, RecurrentForecaster
from dpem_agents.libraries import one_thread, pytorch
from dpem_env.demand.forecast import ForecastSetting, NewRequests


class OnlineForecaster(RecurrentForecaster):
    """Every `every` slots one step down the gradient of each node's loss on the latest slots it has seen.

    The step is `learning_rate` times the gradient, shortened as in training. Episodes start with the weights of the
    checkpoint. Learning needs torch.
    """

    def __init__(
        self, checkpoint: Checkpoint | str | os.PathLike[str], every: int = 80, learning_rate: float = 0.05
    ) -> None:
        pytorch()
        super().__init__(checkpoint)
        self.every = every
        self.learning_rate = learning_rate

    def reset(self, setting: ForecastSetting) -> None:
        """Back to the checkpoint's weights, with nothing seen."""
        super().reset(setting)
        self._seen = 0
        self._latest: deque[NDArray[np.float32]] = deque(maxlen=self.every + self.checkpoint.horizon)

    def observe(self, requests: NewRequests) -> None:
        """One step of every node's network, now and then followed by one of learning."""
        super().observe(requests)
        self._seen += 1
        self._latest.append(self.setting.counts(requests).astype(np.float32))
        if self._seen % self.every == 0 and len(self._latest) == self._latest.maxlen:
            self._learn()

    def _learn(self) -> None:
        """From a window that starts like an episode, as segments do in training."""
        torch = pytorch()
        latest, (scale, size) = np.stack(self._latest)[None], (self.learned[name] for name in ("scale", "size"))
        batch = Batch(latest, scale, size, self.checkpoint.horizon)
        weights = {
            name: torch.tensor(array, requires_grad=True) for name, array in zip(WEIGHTS, self._weights, strict=True)
        }
        with one_thread():
            node_losses, _ = loss(self.checkpoint.model, weights, batch)
            node_losses.sum().backward()
            clip(weights)
        rate = self.learning_rate
        learned = {name: (weight.detach() - rate * weight.grad).numpy() for name, weight in weights.items()}
        self._use(self.learned | learned)


class OnlineGRU(OnlineForecaster):
    """Gated recurrent units that go on learning."""

    models: ClassVar[tuple[str, ...]] = CELLS[:1]
