"""Episode metrics: delivery, contention, fidelity, latency, fairness and waste, from the simulator's own counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import physics
from dpem_env.envs.session import Session
from dpem_env.network.network import Network
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Simulator, Tally

CONTENDED = [Tally.CONTENDED_SOURCES, Tally.CONTENDED_SWAPS, Tally.CONTENDED_MEMORIES]


@dataclass(frozen=True)
class EpisodeMetrics:
    """What one episode came to. Rates of nothing (no request, no delivery) are NaN."""

    delivery_rate: float  # share of the requests whose last slot lies in the episode, all their pairs delivered
    weighted_delivery: float  # the same, each request weighted by the value of its class
    key_rate: float  # secret bits/s over the network, from the fidelity of every pair at delivery
    ebit_rate: float  # distillable ebits/s, at least; the same
    contention: float  # contended (resource, slot) / (3N · slots)
    contention_sources: float  # the same, sources only
    contention_swaps: float  # swap engines only
    contention_memories: float  # memories only
    contention_lenient: float  # the same, not counting sources and swap engines that refusals alone make contended
    collisions: float  # sources and swap engines claimed by two agents or more / (3N · slots)
    denied: float  # denied / submitted allocations
    refusals: float  # routes/s, per node, on which a claimed source or swap engine refused a conditional allocation
    messages: float  # 1/s, per node: how many others it asks for news, on the arrival of a command at the latest
    contended_per_delivered: float  # pairs
    fidelity: float  # mean over delivered pairs at delivery
    latency: float  # s, mean from arrival to the delivery of the last pair
    fairness: float  # Jain's index of the nodes' delivery rates
    waste: float  # finished pairs dropped unserved / finished pairs
    wasted_elementary: float  # elementary pairs lost to time-outs / emitted
    from_stock: float  # share of deliveries served by a stored pair
    reward: float  # mean over agents of the episode's sum
    charges: float  # contended resources that an agent had a claim to, one per slot, mean of their sums: what β prices
    requests: int  # counted in delivery_rate
    delivered: int  # with all their pairs
    submitted: int
    illegal: int  # illegal actions, taken as waits
    withheld: int  # commands that nodes did not submit
    delivery_by_class: tuple[float, ...]  # per fidelity class, in order
    delivery_by_hops: tuple[float, ...]  # per hop count 1, 2, … of the pair's cheapest route

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, NaN as None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def episode_metrics(
    session: Session, total_reward: NDArray[np.float64], charged: NDArray[np.integer[Any]]
) -> EpisodeMetrics:
    """Metrics of a finished episode; of every agent (N,) sums of rewards and of contended resources charged to it."""
    scenario, network = session.scenario, session.network
    state, tally = session.simulator.state_of(0), session.simulator.state.tally[0]
    table, n = session.demand.requests, scenario.demand.pairs_per_request
    slot, source, peer, wanted, last_slot = (column[::n] for column in table[:-1])
    status = state["request_status"][: len(table.slot)]  # the simulator has room for one even if there is none
    werner = state["request_werner"][: len(table.slot)][status >= 0]
    status = status.reshape(-1, n)  # of the pairs of each request
    served, counted = np.all(status >= 0, axis=1), last_slot < session.slots
    latency = (status.max(axis=1) - slot)[served] * scenario.control.slot_duration
    seconds = session.slots * scenario.control.slot_duration
    resource_slots = 3 * network.num_nodes * session.slots
    contended = tally[CONTENDED]
    read = messages_per_second(scenario, network) if session.nodes_decide else 0.0
    hops = network.routes.hops[source, peer, 0]
    classes = len(scenario.demand.fidelity_classes)
    value = np.array(scenario.reward.class_values or np.ones(classes))[wanted]
    return EpisodeMetrics(
        delivery_rate=delivery_rate(session.simulator),
        weighted_delivery=_ratio(value[served & counted].sum(), value[counted].sum()),
        key_rate=float(physics.key_fraction(werner).sum() / seconds),
        ebit_rate=float(physics.hashing_bound(werner).sum() / seconds),
        contention=contention(session.simulator),
        contention_sources=float(contended[0] / resource_slots),
        contention_swaps=float(contended[1] / resource_slots),
        contention_memories=float(contended[2] / resource_slots),
        contention_lenient=float((contended.sum() - tally[Tally.CONTENDED_BY_REFUSAL]) / resource_slots),
        collisions=float((tally[Tally.COLLIDED_SOURCES] + tally[Tally.COLLIDED_SWAPS]) / resource_slots),
        denied=_ratio(tally[Tally.DENIED], tally[Tally.SUBMITTED]),
        refusals=float(tally[Tally.REFUSED] / (network.num_nodes * seconds)),
        messages=read + float(tally[Tally.COMMAND_MESSAGES] / (network.num_nodes * seconds)),
        contended_per_delivered=_ratio(contended.sum(), tally[Tally.DELIVERED]),
        fidelity=_mean(physics.fidelity_from_werner(werner)),
        latency=_mean(latency),
        fairness=jain_index(_rates_by_node(source, served, counted, network.num_nodes)),
        waste=_ratio(tally[Tally.DROPPED_PAIRS], tally[Tally.FINISHED]),
        wasted_elementary=_ratio(tally[Tally.TIMED_OUT], tally[Tally.EMITTED]),
        from_stock=_ratio(tally[Tally.FROM_STOCK], tally[Tally.DELIVERED]),
        reward=float(total_reward.mean()),
        charges=float(charged.mean()),
        requests=int(counted.sum()),
        delivered=int(served.sum()),
        submitted=int(tally[Tally.SUBMITTED]),
        illegal=int(tally[Tally.ILLEGAL]),
        withheld=int(tally[Tally.WITHHELD]),
        delivery_by_class=tuple(
            _share(served & counted & (wanted == c), counted & (wanted == c)) for c in range(classes)
        ),
        delivery_by_hops=tuple(
            _share(served & counted & (hops == h), counted & (hops == h))
            for h in range(1, scenario.routing.max_hops + 1)
        ),
    )


def delivery_rate(simulator: Simulator, env: int = 0) -> float:
    """Share served, with all their pairs, of the requests whose last slot lies in an environment's finished episode.

    NaN if there is none.
    """
    episode = simulator.episodes[env]
    assert episode is not None
    requests = episode.demand.requests
    counted = requests.last_slot < episode.slots
    pairs = (simulator.state.request_status[env, : len(counted)] >= 0) & counted
    n = simulator.scenario.demand.pairs_per_request
    return _share(np.all(pairs.reshape(-1, n), axis=1), counted[::n])


def contention(simulator: Simulator, env: int = 0) -> float:
    """Contended (resource, slot) / (3N · slots) of the finished episode of an environment."""
    episode = simulator.episodes[env]
    assert episode is not None
    return float(simulator.state.tally[env, CONTENDED].sum() / (3 * episode.network.num_nodes * episode.slots))


def messages_per_second(scenario: Scenario, network: Network) -> float:
    """Messages that a node sends for news, mean over nodes: one per period to every other node on a candidate route."""
    if scenario.control.news_period is None:
        return 0.0
    nodes, routes = network.num_nodes, network.routes.nodes.reshape(network.num_nodes, -1)
    asked = np.zeros((nodes, nodes + 1), dtype=np.bool_)
    asked[np.arange(nodes)[:, None], routes] = True  # padding, -1, is the last column
    asked[np.arange(nodes), np.arange(nodes)] = False
    return float(asked[:, :nodes].sum() / nodes / scenario.control.news_period)


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
