"""What the tests of forecasters share: requests from tables of counts, a small world, checkpoints without training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_agents.forecasters.checkpoint import Checkpoint, shapes
from dpem_env import scenarios
from dpem_env.demand.forecast import ForecastSetting, NewRequests

PEERS = np.array([[1, 2], [2, -1], [0, 1]], dtype=np.int32)
RATES = np.array([[0.1, 0.2], [0.3, 0.0], [0.4, 0.5]])
SCENARIO = scenarios.get("chain3-v0", predictability=1.0, forecast_horizon=3)
LEARNED = 5  # slots ahead that the checkpoints below have learned


def setting(peers: NDArray[Any] = PEERS) -> ForecastSetting:
    """An episode of three nodes with two places for peers each."""
    return ForecastSetting(SCENARIO, peers, np.resize(RATES, peers.shape))


def requests_of(slot: int, peers: NDArray[Any], counts: NDArray[Any]) -> NewRequests:
    """The requests of a slot in which node i asks for its d-th peer counts[i, d] times."""
    node, place = np.nonzero(counts)
    times = counts[node, place].astype(np.int64)
    node, place = np.repeat(node, times), np.repeat(place, times)
    destination = peers[node, place].astype(np.int64)
    return NewRequests(slot, np.full(len(node), slot * 0.25), node, destination, np.full(len(node), 0.7))


def drawn_counts(slots: int, seed: int = 0) -> NDArray[np.int64]:
    """(slots, 3, 2) counts at the places of peers."""
    counts = np.random.default_rng(seed).poisson(0.7, (slots, *PEERS.shape))
    return np.where(PEERS >= 0, counts, 0)


def drawn_checkpoint(model: str, hidden: int = 4, seed: int = 0, **changed: NDArray[Any]) -> Checkpoint:
    """A checkpoint for PEERS with weights that were drawn, not learned."""
    draws = np.random.default_rng(seed)
    hidden = 0 if model == "ridge" else hidden
    own = {"peers": PEERS, "scale": np.where(PEERS >= 0, 0.3, 0.0).astype(np.float32)}
    if model != "ridge":
        own["size"] = np.where(PEERS >= 0, 0.5, 0.0).astype(np.float32)
    for name, shape in shapes(model, hidden, LEARNED).items():
        own[name] = draws.normal(0.0, 0.5, (len(PEERS), *shape)).astype(np.float32)
    return Checkpoint(model, "chain3-v0", "0" * 12, LEARNED, hidden, ({**own, **changed},))


def observed(forecaster: Any, counts: NDArray[Any], first: int = 0, peers: NDArray[Any] = PEERS) -> list[NDArray[Any]]:
    """Forecasts after each slot of `counts`."""
    forecasts = []
    for slot, table in enumerate(counts, start=first):
        forecaster.observe(requests_of(slot, peers, table))
        forecasts.append(forecaster.predict())
    return forecasts
