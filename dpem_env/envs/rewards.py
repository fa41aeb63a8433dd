"""The reward: what a slot's deliveries are worth minus what its contention costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios import Scenario
from dpem_env.simulator import Simulator


def rewards(simulator: Simulator, scenario: Scenario) -> NDArray[np.float64]:
    """(B, N) delivered_i - β·contended_i of the last step."""
    state = simulator.state
    return state.delivered - scenario.reward.contention_penalty * state.contended
