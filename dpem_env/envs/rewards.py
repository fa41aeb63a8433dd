"""The reward: what a slot's deliveries are worth minus what its contention costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_env.scenarios import Scenario
from dpem_env.simulator import Simulator


def rewards(simulator: Simulator, scenario: Scenario) -> NDArray[np.float64]:
    """(B, N) earned_i - β·contended_i of the last step."""
    return earned(simulator) - scenario.reward.contention_penalty * simulator.state.contended


def earned(simulator: Simulator) -> NDArray[np.float64]:
    """(B, N) what the pairs are worth that served each node's requests in the last step: 1 each, or by class."""
    state, values = simulator.state, simulator.scenario.reward.class_values
    if not values:
        return state.delivered.astype(np.float64)
    # In phases 1-6 of the slot before no stored pair has served, in phase 0 of the present one nothing else.
    played = state.slot - 1 + state.request_from_stock
    batch, request = np.nonzero((state.request_status == played) & (state.request_status >= 0))
    worth = np.zeros(state.delivered.shape)
    source, wanted = simulator.world.request_source, simulator.world.request_class
    np.add.at(worth, (batch, source[batch, request]), np.array(values)[wanted[batch, request]])
    return worth
