"""The batched simulator: B environments of one scenario, each with its own network and episode.

It knows nothing of agents' names, dictionaries, observations or rewards: integer commands in, state out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env import physics
from dpem_env.demand.requests import Demand
from dpem_env.network.network import Network
from dpem_env.network.routes import RouteTable, light_of_quality, link_werner, swap_factor
from dpem_env.network.topology import Topology
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS
from dpem_env.simulator import kernel
from dpem_env.simulator.addresses import table_of
from dpem_env.simulator.state import (
    VERDICT,
    Rules,
    State,
    Tally,
    Workspace,
    World,
    allocate,
    probability_of_none,
    shapes,
)
from dpem_env.simulator.threads import Threads
from dpem_env.support.compiled import Entry
from dpem_env.support.errors import ActionError
from dpem_env.support.seeding import stream_key

RULES_VERSION = "v1"
STRUCTS: tuple[Any, ...] = (World, State, Workspace)

_step, _begin = Entry(kernel.step_batch), Entry(kernel.begin_batch)


Call = tuple[Any, ...]  # an Entry and its arguments, behind those that `Simulator.run` gives to all


class Episode(NamedTuple):
    """What one environment plays next."""

    network: Network
    demand: Demand
    seed: int  # of emissions, outages, admission order and outcomes
    slots: int


class Simulator:
    """B environments stepped together by one compiled kernel.

    `state` and `world` are structs of arrays with a leading axis B (see `dpem_env.simulator.state`). `begin` starts
    episodes, `step` plays one slot in every environment. Environments share nothing but the scenario's rules, so
    `threads` may step shares of a big batch side by side; results do not depend on it.
    """

    def __init__(self, scenario: Scenario, num_envs: int = 1, threads: int = 1) -> None:
        self.scenario = scenario
        self.num_envs = num_envs
        self.threads = Threads(threads, num_envs)
        self.rules = rules_of(scenario)
        self.episodes: list[Episode | None] = [None] * num_envs
        self.networks_loaded = 0  # so often has an environment been given another one
        self._sizes: dict[str, int] = {}
        self.world: World
        self.state: State
        self.work: Workspace

    def begin(self, episodes: Sequence[Episode | None]) -> None:
        """Start an episode in every environment that is given one; phase 0 of slot 0 has run afterwards."""
        self._make_room([episode for episode in episodes if episode is not None])
        chosen = np.zeros(self.num_envs, dtype=np.bool_)
        for b, episode in enumerate(episodes):
            if episode is not None:
                self._load(b, episode)
                chosen[b] = True
        self.run((_begin, chosen))

    def follow(self, other: Simulator) -> None:
        """Play what the other one plays, from whatever is copied from its `memory` to this one's."""
        if self._sizes != other._sizes:
            world, state, work = (allocate(struct, self.num_envs, other._sizes) for struct in STRUCTS)
            self._hold(other._sizes, world, state, work)
        _copy(other.world, self.world)
        self.episodes, self.networks_loaded = other.episodes.copy(), other.networks_loaded

    def step(
        self,
        action: ArrayLike,
        route: ArrayLike | None = None,
        priority: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        fallback: ArrayLike | None = None,
    ) -> None:
        """Play phases 1-6 of the current slot and phase 0 of the next one.

        action: (B, N) 0 waits, 1 + d·Q + (q - 1) allocates one pair to peer place d at quality q.
        route: (B, N) number of the route, -1 for auto (default).
        priority: (B, N) admission goes by it, lowest first; equal ones in the slot's random order (default).
        condition: (B, N) sums of `Condition`, 0 for none (default).
        fallback: (B, N, up to k - 1) routes to try after the named one, in order, -1 where there is no other (default).
        """
        self.run(self.playing(action, route, priority, condition, fallback))

    def playing(
        self,
        action: ArrayLike,
        route: ArrayLike | None = None,
        priority: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        fallback: ArrayLike | None = None,
    ) -> Call:
        """The call that `step` runs, to be run together with others."""
        return (
            _step,
            self._per_node(action),
            self._auto if route is None else self._per_node(route),
            self._none if priority is None else self._per_node(priority),
            self._none if condition is None else self._per_node(condition),
            self._no_fallback if fallback is None else self._in_order(fallback),
        )

    def _per_node(self, given: ArrayLike) -> NDArray[np.int64]:
        return np.ascontiguousarray(given, dtype=np.int64).reshape(self.num_envs, self.num_nodes)

    def _in_order(self, fallback: ArrayLike) -> NDArray[np.int64]:
        """As many places as there may be, empty ones at the end; ActionError for more."""
        given, routes = np.asarray(fallback, dtype=np.int64), self._no_fallback.copy()
        places, most = given.shape[-1], routes.shape[-1]
        if places > most:
            raise ActionError(f"fallback has {places} routes for each node; expected at most {most}, besides the first")
        routes[..., :places] = given.reshape(self.num_envs, self.num_nodes, places)
        return routes

    def run(self, *calls: Call) -> None:
        """Make calls of compiled code in turn on all environments, shares of them side by side if there are threads."""

        def run_share(first: int, last: int) -> None:
            for compiled, *arguments in calls:
                compiled(self.rules, *self._tables, first, last, *arguments)

        self.threads(run_share)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return self._sizes["N"]

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All of the state as bytes; what is written to it is the state."""
        memory = self.state.slot.base
        assert memory is not None
        return memory

    @property
    def refused(self) -> NDArray[np.bool_]:
        """(B, N) whose decision in the last slot was illegal."""
        illegal: NDArray[np.bool_] = self.state.verdict == VERDICT.ILLEGAL  # NumPy compares with plain numbers faster
        return illegal

    def tally(self, which: Tally) -> NDArray[np.int64]:
        """(B,) a count of the running episodes."""
        return self.state.tally[:, which]

    def state_of(self, b: int) -> dict[str, NDArray[Any]]:
        """Copies of the state arrays of environment b, cut to the sizes of its own episode."""
        episode = self.episodes[b]
        assert episode is not None
        own = shapes(State, self._sizes | _sizes_of(self.scenario, episode))
        arrays = self.state._asdict().items()
        return {name: array[b][tuple(slice(n) for n in own[name])].copy() for name, array in arrays}

    def digest(self, b: int = 0) -> str:
        """Fingerprint of environment b's whole state: equal digests mean equal futures under equal actions."""
        return fingerprint(self.state_of(b).values())

    def _make_room(self, episodes: Sequence[Episode]) -> None:
        """Allocate the arrays, or enlarge them to hold longer request tables and bigger networks."""
        if not episodes:
            return
        needed = [_sizes_of(self.scenario, episode) for episode in episodes]
        nodes = {sizes["N"] for sizes in needed} | ({self._sizes["N"]} if self._sizes else set())
        if len(nodes) > 1:
            raise ValueError(f"all environments of a batch need the same number of nodes, given {sorted(nodes)}")
        sizes = {axis: max(self._sizes.get(axis, 0), *(own[axis] for own in needed)) for axis in needed[0]}
        if self._sizes and sizes["R"] > self._sizes["R"]:
            sizes["R"] = 1 << (sizes["R"] - 1).bit_length()  # with room for episodes of a few requests more
        if sizes == self._sizes:
            return
        world, state, work = (allocate(struct, self.num_envs, sizes) for struct in STRUCTS)
        if self._sizes:
            for struct, bigger in ((self.world, world), (self.state, state)):
                _copy(struct, bigger)
        self._hold(sizes, world, state, work)

    def _hold(self, sizes: dict[str, int], world: World, state: State, work: Workspace) -> None:
        """Work on these arrays."""
        self._sizes, self.world, self.state, self.work = sizes, world, state, work
        self._tabulate()
        self._auto = np.full((self.num_envs, sizes["N"]), -1, dtype=np.int64)
        self._none = np.zeros((self.num_envs, sizes["N"]), dtype=np.int64)
        self._no_fallback = np.full((self.num_envs, sizes["N"], sizes["k"] - 1), -1, dtype=np.int64)

    def _tabulate(self) -> None:
        """Tell compiled code where the arrays are."""
        self._tables = [table_of(struct) for struct in (self.world, self.state, self.work)]

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__ |= attributes
        if self._sizes:  # a copy's arrays lie elsewhere, each by itself
            copied, self.state = self.state, allocate(State, self.num_envs, self._sizes)
            _copy(copied, self.state)
            self._tabulate()

    def _load(self, b: int, episode: Episode) -> None:
        previous = self.episodes[b]
        if previous is None or previous.network is not episode.network:
            _fill(self.world, b, _network_arrays(self.scenario, episode.network))
            self.networks_loaded += 1
        requests = episode.demand.requests
        _fill(self.world, b, {f"request_{name}": getattr(requests, field) for name, field in _REQUEST_FIELDS.items()})
        self.world.num_requests[b] = len(requests.slot)
        self.world.horizon[b] = episode.slots
        for stream in ("outcome", "emission", "outage", "order"):
            getattr(self.world, f"{stream}_key")[b] = stream_key(stream, episode.seed)
        self.episodes[b] = episode


_REQUEST_FIELDS = {
    "slot": "slot",
    "source": "source",
    "peer": "peer",
    "class": "wanted",
    "last_slot": "last_slot",
    "by_expiry": "by_expiry",
}


def fingerprint(arrays: Iterable[NDArray[Any]]) -> str:
    """Sixteen hexadecimal digits that change with any bit of the arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def require_rules(found: str, remedy: str) -> None:
    """ValueError, saying what to do, for what was made under other rules than these."""
    if found != RULES_VERSION:
        raise ValueError(f"it was made under rules {found}, and rules are {RULES_VERSION} now; {remedy}")


def rules_of(scenario: Scenario) -> Rules:
    """The scenario's constants in the kernel's units: slots and Werner parameters."""
    hardware, control, slot = scenario.hardware, scenario.control, scenario.control.slot_duration
    outages = scenario.outages
    purification_gate, purification_readout = hardware.purification_fidelities
    route_period, route_delay = scenario.route_clock
    return Rules(
        qualities=control.qualities,
        time_to_live=scenario.in_slots(control.time_to_live),
        news=control.news_period is not None and not control.relays_decide,
        route_period=route_period,
        route_delay=route_delay,
        token_cap=hardware.token_cap,
        singly=control.swapping != "all",
        nested=control.swapping == "nested",
        agents=control.relays_decide,
        discard=control.discard,
        regenerate=control.regenerate,
        switch=control.switch,
        cutoff=MAX_SLOTS if control.cutoff is None else control.cutoff,
        pumped=not hardware.light_is_chosen,
        bernoulli=hardware.emission == "bernoulli",
        swap_success=float(hardware.swap_success),
        swap_factor=swap_factor(scenario),
        purification_gate=purification_gate,
        purification_readout=purification_readout,
        link_failure=slot / outages.mean_up if outages else 0.0,
        link_repair=slot / outages.mean_down if outages else 0.0,
        lifetime=control.time_to_live,
        class_werner=physics.werner_from_fidelity(np.array(scenario.demand.fidelity_classes)),
    )


def _sizes_of(scenario: Scenario, episode: Episode) -> dict[str, int]:
    topology = episode.network.topology
    period, delay = scenario.route_clock
    sizes = {
        "1": 1,
        "2": 2,
        "5": 5,
        "G": -(-delay // period) + 1 if scenario.control.news_period and not scenario.control.relays_decide else 0,
        "g": -(-(delay - 1) // period) + 1 if scenario.control.news_period and scenario.control.relays_decide else 0,
        "N": topology.num_nodes,
        "D": scenario.demand.peers,
        "K": scenario.control.rows,
        "k": scenario.routing.routes_per_peer,
        "H": scenario.routing.max_hops,
        "L": topology.num_links,
        "Q": scenario.control.qualities,
        "C": len(scenario.demand.fidelity_classes),
        "S": int(topology.memory.max()),
        "R": max(len(episode.demand.requests.slot), 1),
        "T": len(Tally),
    }
    sizes["H1"] = sizes["H"] + 1
    sizes["NK"] = sizes["N"] * sizes["K"]
    sizes["NKH"] = sizes["NK"] * sizes["H"]
    return sizes


def _network_arrays(scenario: Scenario, network: Network) -> dict[str, NDArray[Any]]:
    topology, routes, slot = network.topology, network.routes, scenario.control.slot_duration
    u, v = topology.links.T
    still = np.full(topology.num_nodes, np.inf)
    return {
        "emission_mean": topology.generation_rate * slot,
        "no_emission": probability_of_none(topology.generation_rate * slot),
        "token_gain": topology.swap_rate * slot,
        "memory": topology.memory,
        "node_decay": physics.decay_factor(slot, topology.coherence_time, still),
        "generation_rate": topology.generation_rate,
        "swap_rate": topology.swap_rate,
        "coherence_time": topology.coherence_time,
        "link_emitter": topology.emitter,
        "link_transmission": _arrival(scenario, topology),
        "fresh_werner": link_werner(topology, scenario),
        "link_decay": physics.decay_factor(slot, topology.coherence_time[u], topology.coherence_time[v]),
        "peers": network.peers,
        "route_hops": routes.hops,
        "route_links": routes.links,
        "route_nodes": routes.nodes,
        "route_shared": _shared_sources(routes, topology),
        "route_build_time": routes.build_time,
        "route_quality": routes.quality,
    }


def _shared_sources(routes: RouteTable, topology: Topology) -> NDArray[np.int32]:
    """(N, D, k) bit h is set if the link of hop h draws on the source that an adjacent one of the route draws on."""
    source = np.where(routes.links >= 0, topology.emitter[routes.links], -1)
    same = (source[..., :-1] == source[..., 1:]) & (source[..., 1:] >= 0)
    first = (same << np.arange(same.shape[-1])).sum(axis=-1)
    shared: NDArray[np.int32] = (first | first << 1).astype(np.int32)
    return shared


def _arrival(scenario: Scenario, topology: Topology) -> NDArray[np.float64]:
    """(Q, L) probability that an offered pair arrives; that an attempt of a Bernoulli source brings one at all."""
    success, _ = light_of_quality(scenario)
    arrival: NDArray[np.float64] = topology.transmission * success[:, None]
    if scenario.hardware.emission == "poisson":
        return arrival
    return arrival * topology.generation_rate[topology.emitter] * scenario.control.slot_duration


def _copy(struct: Any, bigger: Any) -> None:
    """Copy arrays into others that have room for them."""
    for array, room in zip(struct, bigger, strict=True):
        room[tuple(slice(n) for n in array.shape)] = array


def _fill(struct: World, b: int, values: dict[str, NDArray[Any]]) -> None:
    for name, value in values.items():
        getattr(struct, name)[b][tuple(slice(n) for n in value.shape)] = value
