"""The forecasts of several networks: a forecaster for each, told the requests as they come."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.forecast import Arrivals, Forecaster, get_forecaster, setting_of
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Episode
from dpem_env.support.errors import PolicyError


class Forecasts:
    """What is expected in B networks; without a forecaster nothing is.

    One's own forecaster serves a single network as it is; of several networks each gets a copy.
    """

    def __init__(self, scenario: Scenario, forecaster: str | Forecaster | None, num_networks: int) -> None:
        self.scenario = scenario
        chosen = get_forecaster(forecaster)
        self.forecasters: list[Forecaster] = []
        if chosen is not None:
            several = num_networks > 1
            self.forecasters = [copy.deepcopy(chosen) if several else chosen for _ in range(num_networks)]
        self._episodes: Sequence[Episode] = ()
        self._arrivals: list[Arrivals] = []

    def begin(self, episodes: Sequence[Episode]) -> None:
        """Forget everything: every network begins an episode."""
        self._episodes = episodes
        self._arrivals = [Arrivals(self.scenario, e.network, e.demand) for e in episodes if self.forecasters]
        for forecaster, episode in zip(self.forecasters, episodes, strict=False):  # no forecaster, or one for each
            forecaster.reset(setting_of(self.scenario, episode.network, episode.demand, forecaster.clairvoyant))

    def observe(self, slot: int) -> None:
        """Take in the requests of a slot; slots come in order."""
        for forecaster, arrivals in zip(self.forecasters, self._arrivals, strict=True):
            forecaster.observe(arrivals.of_slot(slot))

    def predict(self, lead: int = 0) -> NDArray[np.float32] | None:
        """(B, N, D, H) expected new requests in each of H slots, `lead` slots further on; None without forecaster.

        Raises PolicyError if a forecaster returns anything but (N, D, H) finite numbers.
        """
        if not self.forecasters:
            return None
        shape = (*self._episodes[0].network.peers.shape, self.scenario.observation.forecast_horizon)
        forecast = np.empty((len(self.forecasters), *shape), dtype=np.float32)
        for room, forecaster in zip(forecast, self.forecasters, strict=True):
            expected = np.asarray(forecaster.predict(lead))
            if expected.shape == shape:
                room[:] = expected
            if expected.shape != shape or not np.isfinite(room).all():
                raise PolicyError(
                    f"predict() of the forecaster returned an array of shape {expected.shape}; "
                    f"expected (N, D, H) = {shape} finite numbers"
                )
        return forecast
