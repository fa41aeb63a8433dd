"""Observations as a declared list of named features, and action masks from the kernel's own legality rule.

`NODE_FEATURES` and `PEER_FEATURES` are the contract: order, size, unit, scale and age of everything an agent sees. The
compiled writer fills one row per node in that order; every value is clip(x / scale, 0, 1) in float32, unknown is 0.
"""

# mypy: allow-untyped-defs
# (numba infers the types of compiled code)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dpem_env.scenarios import Scenario
from dpem_env.simulator.compiled import Entry, inlined, inner
from dpem_env.simulator.kernel import can_name, free_row
from dpem_env.simulator.simulator import Simulator
from dpem_env.simulator.state import State, Workspace, World, view_of_one
from dpem_env.simulator.telemetry import UNSEEN, count_claims, survey

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]


class Feature(NamedTuple):
    """One named entry of the observation."""

    name: str
    size: str  # "1", "C" (one per fidelity class) or "H" (one per forecast slot)
    unit: str
    scale: str  # how its divisor is called in the documentation
    age: str
    meaning: str


NOW, OWN, FIXED, TELEMETRY = "now", "last slot", "fixed", "telemetry"

NODE_FEATURES = (
    Feature("free_memory", "1", "qubits", "largest memory", NOW, "own memory not in use"),
    Feature("generation_rate", "1", "pairs/s", "largest g", FIXED, "own source, g"),
    Feature("swap_rate", "1", "swaps/s", "largest c", FIXED, "own repeater, c"),
    Feature("coherence_time", "1", "s", "60 s", FIXED, "own memory, T"),
    Feature("swap_tokens", "1", "swaps", "token cap", NOW, "swaps the own repeater could do at once"),
    Feature("open_rows", "1", "rows", "rows K", NOW, "own open allocations"),
    Feature("source_backlog", "1", "links", "8", NOW, "incomplete links waiting for the own source, anyone's"),
    Feature("telemetry_age", "1", "slots", "period + delay", NOW, "slots since the readable snapshot was taken"),
)
PEER_FEATURES = (
    Feature("pending", "C", "requests", "8", NOW, "requests waiting, per fidelity class"),
    Feature("slack", "1", "slots", "deadline", NOW, "slots left for the most urgent one, this one included"),
    Feature("open_allocations", "1", "allocations", "8", OWN, "own open allocations to this peer"),
    Feature("links_complete", "1", "links", "hop limit", OWN, "complete links of the one furthest on"),
    Feature("stored_pairs", "1", "pairs", "8", NOW, "own stored pairs with this peer"),
    Feature("best_werner", "1", "w", "1", NOW, "Werner parameter of the best of them"),
    Feature("hops", "1", "links", "hop limit", TELEMETRY, "length of the current route"),
    Feature("build_time", "1", "s", "time-to-live", TELEMETRY, "expected build time of the current route, unloaded"),
    Feature("route_up", "1", "0 or 1", "1", TELEMETRY, "whether all its links are up"),
    Feature("route_load", "1", "share", "1", TELEMETRY, "load of its worst resource"),
    Feature("min_quality", "C", "quality", "qualities Q", TELEMETRY, "smallest meeting each class, fresh, 0: none"),
    Feature("forecast", "H", "requests", "4", NOW, "expected new requests in each of the next H slots"),
)

COUNT_SCALE = 8.0
COHERENCE_SCALE = 60.0
FORECAST_SCALE = 4.0
WHOLE_UNITS = {"qubits", "rows", "requests", "slots", "allocations", "links", "pairs", "quality"}


@dataclass(frozen=True)
class FeatureTable:
    """Where every feature of a scenario's observation lies, and its scale. Row: node block, then D peer blocks."""

    scenario: Scenario

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Length of each kind of feature."""
        scenario = self.scenario
        return {"1": 1, "C": len(scenario.demand.fidelity_classes), "H": scenario.observation.forecast_horizon}

    @cached_property
    def peer_width(self) -> int:
        """Features per peer block."""
        return sum(self.sizes[feature.size] for feature in PEER_FEATURES)

    @property
    def width(self) -> int:
        """Features per agent, F."""
        return len(NODE_FEATURES) + self.scenario.demand.peers * self.peer_width

    @cached_property
    def offset(self) -> dict[str, int]:
        """First column of a node feature in the row, of a peer feature in its block."""
        offset = {feature.name: column for column, feature in enumerate(NODE_FEATURES)}
        column = 0
        for feature in PEER_FEATURES:
            offset[feature.name] = column
            column += self.sizes[feature.size]
        return offset

    @cached_property
    def scale(self) -> dict[str, float]:
        """Divisor of every feature: a published constant of the scenario, never fitted."""
        hardware, control, network = self.scenario.hardware, self.scenario.control, self.scenario.network
        relay_g = getattr(network, "relay_generation_rate", None) or 0.0
        relay_c = getattr(network, "relay_swap_rate", None) or 0.0
        max_hops = float(self.scenario.routing.max_hops)
        scale = {
            "free_memory": float(hardware.memory[1]),
            "generation_rate": max(hardware.generation_rate[1], relay_g) or 1.0,
            "swap_rate": max(hardware.swap_rate[1], relay_c) or 1.0,
            "coherence_time": COHERENCE_SCALE,
            "swap_tokens": hardware.token_cap,
            "open_rows": float(control.rows),
            "telemetry_age": float(self.scenario.in_slots(control.telemetry_period) + control.telemetry_delay),
            "slack": float(self.scenario.in_slots(self.scenario.demand.deadline)),
            "links_complete": max_hops,
            "hops": max_hops,
            "build_time": control.time_to_live,
            "min_quality": float(control.qualities),
            "forecast": FORECAST_SCALE,
        }
        for name in ("source_backlog", "pending", "open_allocations", "stored_pairs"):
            scale[name] = COUNT_SCALE
        for name in ("best_werner", "route_up", "route_load"):
            scale[name] = 1.0
        return scale

    @cached_property
    def divisors(self) -> tuple[F32, F32]:
        """1 / scale by column: of the node block and of one peer block."""
        node = [1.0 / self.scale[feature.name] for feature in NODE_FEATURES]
        peer = [1.0 / self.scale[f.name] for f in PEER_FEATURES for _ in range(self.sizes[f.size])]
        return np.array(node, dtype=np.float32), np.array(peer, dtype=np.float32)

    def read(self, observations: F32) -> Observations:
        """Named access, in natural units, to an observation matrix (..., N, F)."""
        return Observations(self, observations)

    def describe(self) -> str:
        """The observation table of the documentation, in reStructuredText."""
        rows: list[tuple[str, ...]] = [("columns", "feature", "unit", "scale", "age", "meaning")]
        for feature in NODE_FEATURES:
            rows.append((str(self.offset[feature.name]), *_cells(feature)))
        for feature in PEER_FEATURES:
            start, size = self.offset[feature.name], self.sizes[feature.size]
            columns = f"p+{start}" if size == 1 else f"p+{start}..{start + size - 1}"
            rows.append((columns, *_cells(feature)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        rule = " ".join("=" * width for width in widths)
        lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _cells(feature: Feature) -> tuple[str, ...]:
    return (feature.name, feature.unit, feature.scale, feature.age, feature.meaning)


class Observations:
    """An observation matrix read by feature name, in natural units: what a hand-written local rule works on.

    Attributes are float arrays: (..., N) for node features, (..., N, D) or (..., N, D, size) for peer features. Counts
    beyond their scale are clipped, as for any learner.
    """

    def __init__(self, table: FeatureTable, matrix: F32) -> None:
        self.table = table
        self.matrix = matrix

    def __getattr__(self, name: str) -> NDArray[np.float64]:
        if name.startswith("_") or name not in self.table.offset:
            raise AttributeError(f"no feature {name!r}")
        start = self.table.offset[name]
        scale = self.table.scale[name]
        feature = next(f for f in (*NODE_FEATURES, *PEER_FEATURES) if f.name == name)
        if feature in NODE_FEATURES:
            column = self.matrix[..., start]
        else:
            shape = (*self.matrix.shape[:-1], self.table.scenario.demand.peers, self.table.peer_width)
            blocks = self.matrix[..., len(NODE_FEATURES) :].reshape(shape)
            size = self.table.sizes[feature.size]
            column = blocks[..., start] if feature.size == "1" else blocks[..., start : start + size]
        values = column.astype(np.float64) * scale
        return np.rint(values) if feature.unit in WHOLE_UNITS and name != "forecast" else values


class Observer:
    """Writes observations and masks of a simulator's environments."""

    def __init__(self, simulator: Simulator, routes: bool = False) -> None:
        self.simulator = simulator
        self.table = FeatureTable(simulator.scenario)
        self.routes = routes
        control = simulator.scenario.control
        per_peer = control.qualities * (simulator.scenario.routing.routes_per_peer if routes else 1)
        self.num_actions = 1 + simulator.scenario.demand.peers * per_peer
        self._no_forecast = np.zeros((1, 1, 1, 0), dtype=np.float32)

    def observe(self, forecast: F32 | None = None, fresh: bool = False) -> F32:
        """A fresh (B, N, F) float32 matrix; `forecast` is (B, N, D, H) expected requests.

        With `fresh`, remote features are as of now instead of as of the readable snapshot: the global view.
        """
        sim = self.simulator
        out = np.empty((sim.num_envs, sim.num_nodes, self.table.width), dtype=np.float32)
        _run_observe(
            sim.rules,
            sim.world,
            sim.state,
            sim.work,
            self._no_forecast if forecast is None else forecast,
            fresh,
            *self.table.divisors,
            self.table.sizes["H"],
            out,
        )
        return out

    def masks(self) -> I8:
        """A fresh (B, N, actions) int8 matrix: 1 where the simulator would accept the action for admission."""
        sim = self.simulator
        out = np.zeros((sim.num_envs, sim.num_nodes, self.num_actions), dtype=np.int8)
        _run_mask(sim.rules, sim.world, sim.state, self.routes, out)
        return out

    def decode(self, action: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split façade actions (B, N) into the simulator's (action, route); without routes every route is auto."""
        action = np.asarray(action, dtype=np.int64)
        if not self.routes:
            return action, np.full_like(action, -1)
        k = self.simulator.scenario.routing.routes_per_peer
        legal = (action > 0) & (action < self.num_actions)
        return np.where(legal, (action - 1) // k + 1, action), np.where(legal, (action - 1) % k, -1)


_one_world, _one_state, _one_work = view_of_one(World), view_of_one(State), view_of_one(Workspace)
NODE_WIDTH = len(NODE_FEATURES)


@njit(cache=True, _nrt=False)
def _observe_batch(rules, world, state, work, forecast, fresh, node_divisor, peer_divisor, horizon, out):
    for b in range(out.shape[0]):
        _observe(
            rules,
            _one_world(world, b),
            _one_state(state, b),
            _one_work(work, b),
            forecast[b % forecast.shape[0]],
            fresh,
            node_divisor,
            peer_divisor,
            horizon,
            out[b],
        )


@inner
def _observe(rules, world, state, work, forecast, fresh, node_divisor, peer_divisor, horizon, out):
    """One environment's rows, in the declared order of features; what is not written is 0: nothing or unknown."""
    if fresh:
        survey(rules, world, state, work)
        route, up, load = work.survey_route, work.survey_up, work.survey_load
    else:
        count_claims(world, state, work)
        route, up, load = state.seen_route, state.seen_up, state.seen_load
    known = fresh or state.seen_slot[0] > UNSEEN
    out[:] = 0.0
    nodes, places = world.peers.shape
    width = len(peer_divisor)
    for i in range(nodes):
        row = out[i]
        row[0] = _scaled(state.free_memory[i], node_divisor[0])
        row[1] = _scaled(world.generation_rate[i], node_divisor[1])
        row[2] = _scaled(world.swap_rate[i], node_divisor[2])
        row[3] = _scaled(world.coherence_time[i], node_divisor[3])
        row[4] = _scaled(state.tokens[i], node_divisor[4])
        row[6] = _scaled(work.source_claims[i], node_divisor[6])
        if known and not fresh:
            row[7] = _scaled(state.slot[0] - state.seen_slot[0] - 1, node_divisor[7])
        for d in range(places):
            if world.peers[i, d] >= 0:
                block = row[NODE_WIDTH + d * width : NODE_WIDTH + (d + 1) * width]
                _describe_demand(world, state, i, d, peer_divisor, block)
                if known:
                    _describe_route(world, i, d, route[i, d], up[i, d], load[i, d], peer_divisor, block)
                if forecast.shape[2] > 0:
                    for h in range(horizon):
                        block[width - horizon + h] = _scaled(forecast[i, d, h], peer_divisor[width - 1])
        _describe_own(state, i, row, node_divisor, peer_divisor)


@inlined
def _scaled(x, divisor):
    return min(max(np.float32(x) * divisor, np.float32(0.0)), np.float32(1.0))


@inlined
def _describe_demand(world, state, i, d, divisor, block):
    """Requests pending for a peer."""
    classes = state.pending.shape[2]
    head = state.queue_head[i, d]
    if head >= 0:
        for c in range(classes):
            block[c] = _scaled(state.pending[i, d, c], divisor[c])
        block[classes] = _scaled(world.request_last_slot[head] - state.slot[0] + 1, divisor[classes])


@inlined
def _describe_route(world, i, d, route, up, load, divisor, block):
    """The current route to a peer."""
    classes = world.route_quality.shape[3]
    block[classes + 5] = _scaled(world.route_hops[i, d, route], divisor[classes + 5])
    block[classes + 6] = _scaled(world.route_build_time[i, d, route], divisor[classes + 6])
    block[classes + 7] = up
    block[classes + 8] = load
    for c in range(classes):
        block[classes + 9 + c] = _scaled(world.route_quality[i, d, route, c], divisor[classes + 9])


@inlined
def _describe_own(state, i, row, node_divisor, peer_divisor):
    """Progress of the node's own allocations, and its stock."""
    classes, width = state.pending.shape[2], len(peer_divisor)
    for k in range(state.alloc_peer.shape[1]):
        d = state.alloc_peer[i, k]
        if d >= 0:
            start = NODE_WIDTH + d * width + classes
            row[5] = min(row[5] + node_divisor[5], np.float32(1.0))
            row[start + 1] = min(row[start + 1] + peer_divisor[classes + 1], np.float32(1.0))
            complete = _scaled(state.alloc_complete[i, k], peer_divisor[classes + 2])
            row[start + 2] = max(row[start + 2], complete)
    for s in range(state.stock_count[i]):
        start = NODE_WIDTH + state.stock_peer[i, s] * width + classes
        row[start + 3] = min(row[start + 3] + peer_divisor[classes + 3], np.float32(1.0))
        row[start + 4] = max(row[start + 4], np.float32(state.stock_werner[i, s]))


@njit(cache=True, _nrt=False)
def _mask_batch(rules, world, state, routes, out):
    for b in range(out.shape[0]):
        _mask(rules, _one_world(world, b), _one_state(state, b), routes, out[b])


@inner
def _mask(rules, world, state, routes, out):
    """1 for waiting, and for every allocation the simulator would take up while a row is free."""
    choices = world.route_hops.shape[2] if routes else 1
    for i in range(world.peers.shape[0]):
        out[i, 0] = 1
        if free_row(state, i) < 0:
            continue
        for d in range(world.peers.shape[1]):
            for r in range(choices):
                if can_name(world, i, d, r if routes else -1):
                    for q in range(rules.qualities):
                        out[i, 1 + (d * rules.qualities + q) * choices + r] = 1


_run_observe, _run_mask = Entry(_observe_batch), Entry(_mask_batch)
