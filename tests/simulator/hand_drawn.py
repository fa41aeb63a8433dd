"""Networks and states drawn by hand, single phases played on them, and what changed.

Unless a test says otherwise nothing is lost or left to chance: fibres and memories are perfect, links and swaps have
w = 1, every source emits what `emit` says. Between routes of equal cost and length the one over earlier fibres leads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import poisson

from dpem_env import scenarios
from dpem_env.demand.requests import NO_PIECES, Demand, tabulate
from dpem_env.network.network import Network, with_routes
from dpem_env.network.topology import Layout, assemble
from dpem_env.scenarios import Scenario
from dpem_env.simulator import randomness
from dpem_env.simulator.actions import ActionCode
from dpem_env.simulator.simulator import Episode, Simulator
from dpem_env.simulator.state import State, Status, Tally, Verdict, Workspace, World
from dpem_env.support.compiled import cached
from phases import Look, Phase, play_phase

WAIT, ADMITTED, DENIED, ILLEGAL, WITHHELD = Verdict
PENDING, EXPIRED, NOT_ARRIVED = Status
CHAIN = ((0, 1), (1, 2))
NUMBERS = ("slot", "next_arrival", "next_expiry", "num_open", "flying_slot", "seen_slot")

Changes = dict[str, Any]


class Segment(NamedTuple):
    """What starts at a hop."""

    werner: float = 1.0
    hops: int = 1  # links it spans
    age: int = 0  # slots
    rounds: int | None = None  # of purification; none: all that the quality asks for


Hop = float | tuple[int, float] | Segment | None  # w of a link, (purification rounds, w), a segment, or nothing


@cached()
def bits(stream_key, slot, purpose, owner, row, hop, attempt):  # type: ignore[no-untyped-def]
    """The kernel's 64 random bits of a key."""
    return randomness.bits(randomness.slot_key(stream_key, slot), purpose, owner, row, hop, attempt)


@cached()
def uniform(stream_key, slot, purpose, owner, row, hop, attempt):  # type: ignore[no-untyped-def]
    """The kernel's uniform number of a key."""
    return randomness.uniform(randomness.slot_key(stream_key, slot), purpose, owner, row, hop, attempt)


@cached()
def poisson_count(mean, u):  # type: ignore[no-untyped-def]
    """The kernel's Poisson count at quantile u."""
    return randomness.poisson(mean, math.exp(-mean), u)


class HandDrawn:
    """A simulator of one environment whose state a test draws by hand."""

    def __init__(self, scenario: Scenario, network: Network, demand: Demand, slots: int, seed: int) -> None:
        self.simulator = Simulator(scenario)
        self.simulator.begin([Episode(network, demand, seed, slots)])
        self.world = World(*(array[0] for array in self.simulator.world))
        self.state = State(*(array[0] for array in self.simulator.state))
        self.work = Workspace(*(array[0] for array in self.simulator.work))

    def at(self, slot: int) -> None:
        """Make `slot` the slot about to be played."""
        self.state.slot[0] = slot

    def open(self, i: int, d: int, quality: int = 1, route: int = 0, since: int = 0, links: Sequence[Hop] = ()) -> int:
        """Open an allocation of node i to its d-th peer. Returns its row."""
        state, world = self.state, self.world
        row = int(np.flatnonzero(state.alloc_peer[i] < 0)[0])
        hops = int(world.route_hops[i, d, route])
        for h in range(hops + 1):
            state.free_memory[world.route_nodes[i, d, route, h]] -= 1 if h in (0, hops) else 2
        state.alloc_peer[i, row] = d
        state.alloc_quality[i, row] = quality
        state.alloc_route[i, row] = route
        state.alloc_slot[i, row] = since
        for h, link in enumerate(links):
            if link is not None:
                self.hold(i, row, h, link)
        complete = np.flatnonzero(state.link_rounds[i, row] == quality - 1)
        state.alloc_complete[i, row] = len({h + k for h in complete for k in range(state.link_hops[i, row, h])})
        state.age_order[state.num_open[0]] = i * state.alloc_peer.shape[1] + row
        state.num_open[0] += 1
        return row

    def hold(self, i: int, row: int, h: int, link: float | tuple[int, float] | Segment) -> None:
        """Let an allocation hold a segment from hop h."""
        if not isinstance(link, Segment):
            rounds, werner = link if isinstance(link, tuple) else (0, link)
            link = Segment(werner, rounds=rounds)
        state = self.state
        state.link_rounds[i, row, h] = state.alloc_quality[i, row] - 1 if link.rounds is None else link.rounds
        state.link_hops[i, row, h] = link.hops
        state.link_werner[i, row, h] = link.werner
        state.link_slot[i, row, h] = state.slot[0] - link.age

    def store(self, i: int, d: int, werner: float, hops: int = 1) -> None:
        """Put a pair that node i shares with its d-th peer into stock."""
        place = self.state.stock_count[i]
        self.state.stock_peer[i, place] = d
        self.state.stock_werner[i, place] = werner
        self.state.stock_hops[i, place] = hops
        self.state.stock_count[i] += 1
        self.state.free_memory[[i, self.world.peers[i, d]]] -= 1

    def emit(self, **pairs_of_node: int) -> None:
        """Let sources emit so many pairs this slot, the others none: emit(n1=3)."""
        emitted = np.zeros_like(self.world.emission_mean)
        for name, pairs in pairs_of_node.items():
            node = int(name[1:])
            u = self.draw("emission", randomness.EMISSION, node)
            means = np.linspace(0.0, 5.0 * pairs + 5.0, 5001)
            emitted[node] = means[np.flatnonzero(poisson.ppf(u, means) == pairs)[0]]
        self.world.emit(emitted)

    def draw(self, stream: str, purpose: int, owner: int, row: int = 0, hop: int = 0, attempt: int = 0) -> float:
        """The uniform number this slot's draw of that key will give."""
        key = getattr(self.world, f"{stream}_key")[0]
        return float(uniform(key, self.state.slot[0], purpose, owner, row, hop, attempt))

    def seek_outcomes(self, wanted: Callable[[], bool]) -> None:
        """Choose the outcome stream so that `wanted`, which asks `draw`, holds."""
        for key in range(10_000):
            self.world.outcome_key[0] = key
            if wanted():
                return
        raise AssertionError("no outcome stream among ten thousand gives the wanted draws")

    def play(self, phase: Phase | Look) -> Changes:
        """Play one phase; returns what it changed."""
        assert phase not in (Phase.DECIDE, Phase.ADMIT), "actions are played by `act`"
        return self._played((phase,), np.zeros((4, self.simulator.num_nodes), dtype=np.int64), {})

    def act(
        self,
        actions: Mapping[int, tuple[int, int] | int],
        routes: Mapping[int, int] | None = None,
        priorities: Mapping[int, int] | None = None,
        conditions: Mapping[int, int] | None = None,
        fallbacks: Mapping[int, Sequence[int]] | None = None,
        *,
        read: bool = True,
    ) -> Changes:
        """Play decisions and admission: node -> (peer place, quality) or a bare action; returns what changed.

        `read`: nodes have read the state as it is, if there are news; otherwise they know what they knew.
        """
        if read and self.simulator.rules.news:
            self.play(Look.READING)
        commands = np.zeros((4, self.simulator.num_nodes), dtype=np.int64)
        commands[1] = -1
        for i, action in actions.items():
            commands[0, i] = action if isinstance(action, int) else self.action(*action)
        for table, values in zip(commands[1:], (routes, priorities, conditions), strict=True):
            for i, value in (values or {}).items():
                table[i] = value
        return self._played((Phase.DECIDE, Phase.ADMIT), commands, fallbacks or {})

    def action(self, d: int, quality: int) -> int:
        """The integer that allocates a pair to the d-th peer."""
        return int(ActionCode.of(self.simulator.scenario).encode(d, quality))

    def wait(self, slots: int = 1) -> None:
        """Play whole slots in which nobody acts."""
        for _ in range(slots):
            self.simulator.step(np.zeros(self.simulator.num_nodes))

    def tally(self, *counts: Tally) -> tuple[int, ...]:
        """Counts of the episode so far."""
        return tuple(int(self.state.tally[count]) for count in counts)

    def _played(
        self, phases: Sequence[Phase | Look], commands: NDArray[np.int64], fallbacks: Mapping[int, Sequence[int]]
    ) -> Changes:
        before = State(*(array.copy() for array in self.state))
        fallback = np.full((self.simulator.num_nodes, self.work.tries.shape[1] - 1), -1, dtype=np.int64)
        for i, routes in fallbacks.items():
            fallback[i, : len(routes)] = routes
        actors, arrays = 0, (self.simulator.rules, self.world, self.state, self.work)
        for phase in phases:
            actors = play_phase(int(phase), *arrays, actors, *commands, fallback)
        return changes(before, self.state)


def changes(before: State, after: State) -> Changes:
    """Fields that differ, each as {index: new value}; single numbers bare, tallies by their name and increase."""
    different: Changes = {}
    for name, old, new in zip(State._fields, before, after, strict=True):
        places = np.argwhere(old != new).tolist()
        if name == "tally":
            values: Any = {Tally(t).name: int(new[t] - old[t]) for (t,) in places}
        elif name in NUMBERS:
            values = new[0].item() if places else None
        else:
            values = {(p[0] if len(p) == 1 else tuple(p)): new[tuple(p)].item() for p in places}
        if places:
            different[name] = values
    return different


def draw(
    fibres: Sequence[tuple[int, int]] = CHAIN,
    peers: Mapping[int, Sequence[int]] | None = None,
    *,
    generation_rate: ArrayLike = 4.0,
    swap_rate: ArrayLike = 4.0,
    memory: ArrayLike = 8,
    coherence_time: ArrayLike = np.inf,
    requests: Sequence[tuple[int, int, int, int, int]] = (),
    slots: int = 40,
    seed: int = 0,
    **fields: Any,
) -> HandDrawn:
    """A network of `fibres` in which node i talks to `peers[i]`, before slot 0.

    requests: (slot, source, place of the peer, class, last slot), in that order. fields: overrides of the scenario.
    """
    peers = peers or {0: (2, 1), 1: (0, 2), 2: (0, 1)}
    n = 1 + max(max(ends) for ends in fibres)
    places = max(len(of_node) for of_node in peers.values())
    table = np.full((n, places), -1, dtype=np.int32)
    for i, of_node in peers.items():
        table[i, : len(of_node)] = of_node
    perfect: dict[str, Any] = {"attenuation": 0.0, "link_fidelity": 1.0, "gate_fidelity": 1.0, "readout_fidelity": 1.0}
    perfect |= {"swap_success": 1.0, "routes_per_peer": 1, "peers": places, "swapping": "all"}
    perfect |= {"fidelity_classes": (0.7, 0.8, 0.9), "deadline": 1.0, "news_period": None}
    scenario = scenarios.get("chain3-v0", **perfect | fields)
    links, length = np.array(fibres, dtype=np.int32), np.full(len(fibres), 10.0)
    topology = assemble(
        Layout(tuple(map(str, range(n))), np.zeros((n, 2)), links, length),
        popularity=np.ones(n),
        generation_rate=_per_node(n, generation_rate),
        swap_rate=_per_node(n, swap_rate),
        memory=_per_node(n, memory).astype(np.int32),
        coherence_time=_per_node(n, coherence_time),
        node_key=np.arange(n),
        link_key=np.arange(1, len(fibres) + 1),
        hardware=scenario.hardware,
    )
    network = with_routes(scenario, topology, table, np.where(table >= 0, 1.0 / np.sum(table >= 0), 0.0), {})
    columns = np.array(sorted(requests), dtype=np.int32).reshape(-1, 5).T
    demand = Demand(tabulate(*columns), NO_PIECES, table.shape)
    return HandDrawn(scenario, network, demand, slots, seed)


def _per_node(n: int, value: ArrayLike) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)).copy()
