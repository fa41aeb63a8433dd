"""Deliveries where the next pair is asked for at once: the slots that each takes, and what it delivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.session import Look, Session
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import SaturatedDemand
from dpem_env.support.errors import DpemError

NETWORKS = 100  # played side by side


class DeliveryTime(NamedTuple):
    """The mean of independent delivery times."""

    mean: float  # slots
    error: float  # slots, standard error
    deliveries: int


class Deliveries(NamedTuple):
    """Independent deliveries, n of each of B networks."""

    slots: NDArray[np.int64]  # (B, n) that each took
    werner: NDArray[np.float64]  # (B, n) w of its pair


def first_where_legal(look: Look) -> NDArray[np.int64]:
    """Action 1: node 0 asks whenever it may; where relays decide on swaps, every one that can does."""
    return look.masks[:, :, 1].astype(np.int64)


def delivery_time(
    scenario: Scenario,
    deliveries: int,
    seed: int = 0,
    decide: Callable[[Look], NDArray[np.int64]] = first_where_legal,
) -> DeliveryTime:
    """The mean of at least so many delivery times; arguments and errors of `first_deliveries`."""
    times = first_deliveries(scenario, deliveries, seed, decide).slots
    return DeliveryTime(float(times.mean()), float(times.std(ddof=1) / np.sqrt(times.size)), times.size)


def first_deliveries(
    scenario: Scenario,
    deliveries: int,
    seed: int = 0,
    decide: Callable[[Look], NDArray[np.int64]] = first_where_legal,
) -> Deliveries:
    """At least so many deliveries from ordinary episodes, the first ones of each of `NETWORKS`.

    Every delivery starts from an empty route, so they are independent. `decide` tells what (B, N) all nodes do on what
    they see. Raises DpemError unless the demand is saturated, and where an episode ends before it has enough.
    """
    if not isinstance(scenario.demand, SaturatedDemand):
        raise DpemError(f"{scenario.name}: demand.kind is {scenario.demand.kind!r}; delivery times need 'saturated'")
    session = Session(scenario, NETWORKS, split="evaluation")
    session.reset(seed)
    each = -(-deliveries // NETWORKS)
    delivered = np.zeros(NETWORKS, dtype=np.int64)
    look = session.look()
    while delivered.min() < each:
        if session.done:
            told = f"one of {NETWORKS} episodes ends after {delivered.min()} of {each} deliveries; raise episode.slots"
            raise DpemError(f"{scenario.name}: {told}")
        turn = session.play(decide(look))
        look = Look(turn.observations, turn.masks)
        delivered += session.simulator.state.delivered.sum(axis=1)
    status = session.simulator.state.request_status
    served = [np.flatnonzero(of_one >= 0)[:each] for of_one in status]  # one request comes in every slot
    slots = np.array([of_one[places] for of_one, places in zip(status, served, strict=True)], dtype=np.int64)
    werner = [of_one[places] for of_one, places in zip(session.simulator.state.request_werner, served, strict=True)]
    return Deliveries(np.diff(slots, axis=1, prepend=-1), np.array(werner))
