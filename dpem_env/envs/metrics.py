"""Episode metrics: delivery, contention, fidelity, latency, fairness and waste, from the simulator's own counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.envs.session import Session
from dpem_env.simulator import Simulator, Tally

CONTENDED = [Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS, Tally.CONTENDED_MEMORIES]


@dataclass(frozen=True)
class EpisodeMetrics:
    """What one episode came to. Rates of nothing (no request, no delivery) are NaN."""

    delivery_rate: float  # share of the requests whose last slot lies in the episode
    contention: float  # contended (resource, slot) / (3N · slots)
    contention_sources: float  # the same, sources only
    contention_swaps: float  # swap engines only
    contention_memories: float  # memories only
    collisions: float  # sources and swap engines claimed by two agents or more / (3N · slots)
    denied: float  # denied / submitted allocations
    contended_per_delivered: float
    fidelity: float  # mean over delivered pairs at delivery
    latency: float  # s, mean from arrival to delivery
    fairness: float  # Jain's index of the nodes' delivery rates
    waste: float  # finished pairs dropped unserved / finished pairs
    wasted_elementary: float  # elementary pairs lost to time-outs / emitted
    from_stock: float  # share of deliveries served by a stored pair
    reward: float  # mean over agents of the episode's sum
    requests: int  # counted in delivery_rate
    delivered: int
    submitted: int
    illegal: int  # illegal actions, taken as waits
    delivery_by_class: tuple[float, ...]  # per fidelity class, in order
    delivery_by_hops: tuple[float, ...]  # per hop count 1, 2, … of the pair's cheapest route

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, NaN as None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def episode_metrics(session: Session, total_reward: NDArray[np.float64]) -> EpisodeMetrics:
    """Metrics of a finished episode; `total_reward` is (N,), each agent's sum."""
    state, tally = session.simulator.state_of(0), session.simulator.state.tally[0]
    requests = session.demand.requests
    status = state["request_status"][: len(requests.slot)]  # the simulator has room for one even if there is none
    counted = requests.last_slot < session.slots
    served = status >= 0
    resource_slots = 3 * session.network.num_nodes * session.slots
    contended = tally[CONTENDED]
    hops = session.network.routes.hops[requests.source, requests.peer, 0]
    classes = len(session.scenario.demand.fidelity_classes)
    max_hops = session.scenario.routing.max_hops
    latency = (status - requests.slot)[served] * session.scenario.control.slot_duration
    return EpisodeMetrics(
        delivery_rate=delivery_rate(session.simulator),
        contention=contention(session.simulator),
        contention_sources=float(contended[0] / resource_slots),
        contention_swaps=float(contended[1] / resource_slots),
        contention_memories=float(contended[2] / resource_slots),
        collisions=float((tally[Tally.COLLIDED_SOURCES] + tally[Tally.COLLIDED_SWAPS]) / resource_slots),
        denied=_ratio(tally[Tally.DENIED], tally[Tally.SUBMITTED]),
        contended_per_delivered=_ratio(contended.sum(), tally[Tally.DELIVERED]),
        fidelity=_mean(physics.fidelity_from_werner(state["request_werner"][: len(status)][served])),
        latency=_mean(latency),
        fairness=jain_index(_rates_by_node(requests.source, served, counted, session.network.num_nodes)),
        waste=_ratio(tally[Tally.DROPPED_PAIRS], tally[Tally.FINISHED]),
        wasted_elementary=_ratio(tally[Tally.TIMED_OUT], tally[Tally.EMITTED]),
        from_stock=_ratio(tally[Tally.FROM_STOCK], tally[Tally.DELIVERED]),
        reward=float(total_reward.mean()),
        requests=int(counted.sum()),
        delivered=int(tally[Tally.DELIVERED]),
        submitted=int(tally[Tally.SUBMITTED]),
        illegal=int(tally[Tally.ILLEGAL]),
        delivery_by_class=tuple(
            _share(served & counted & (requests.wanted == c), counted & (requests.wanted == c)) for c in range(classes)
        ),
        delivery_by_hops=tuple(
            _share(served & counted & (hops == h), counted & (hops == h)) for h in range(1, max_hops + 1)
        ),
    )


def delivery_rate(simulator: Simulator, env: int = 0) -> float:
    """Share served of the requests whose last slot lies in the finished episode of an environment; NaN if none does."""
    episode = simulator.episodes[env]
    assert episode is not None
    counted = episode.demand.requests.last_slot < episode.slots
    return _share((simulator.state.request_status[env, : len(counted)] >= 0) & counted, counted)


def contention(simulator: Simulator, env: int = 0) -> float:
    """Contended (resource, slot) / (3N · slots) of the finished episode of an environment."""
    episode = simulator.episodes[env]
    assert episode is not None
    return float(simulator.state.tally[env, CONTENDED].sum() / (3 * episode.network.num_nodes * episode.slots))


def jain_index(rates: NDArray[np.float64]) -> float:
    """(Σx)²/(n·Σx²) of the finite rates: 1 when all are equal (Jain, Chiu & Hawe, DEC TR-301, 1984)."""
    rates = rates[np.isfinite(rates)]
    return _ratio(rates.sum() ** 2, len(rates) * (rates**2).sum())


def _rates_by_node(
    source: NDArray[np.int32], served: NDArray[np.bool_], counted: NDArray[np.bool_], nodes: int
) -> NDArray[np.float64]:
    asked = np.bincount(source[counted], minlength=nodes)
    got = np.bincount(source[counted & served], minlength=nodes)
    return np.where(asked > 0, got / np.maximum(asked, 1), np.nan)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return _ratio(part.sum(), whole.sum())


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _mean(values: NDArray[np.floating[Any]]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
