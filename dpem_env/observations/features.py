"""Observations as a declared list of named features, and action masks from the kernel's own legality rule.

`BLOCKS` is the contract: order, size, unit, scale and age of everything an agent sees. The compiled `feature_writer`
fills one row per node; every value is clip(x / scale, 0, 1) in float32, unknown is 0.
"""

from __future__ import annotations

from collections import Counter, namedtuple
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.observations.cells import ABSENT
from dpem_env.observations.feature_writer import write_allowed, write_fixed, write_masks, write_observations
from dpem_env.observations.reader import read_peers
from dpem_env.observations.relay_writer import write_choices, write_relays
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import code_for
from dpem_env.simulator.simulator import Call, Simulator
from dpem_env.support.errors import ScenarioError, nearest

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]


class Feature(NamedTuple):
    """One named entry of the observation."""

    name: str
    size: str  # "1", "C" (one per fidelity class), "H" (per forecast slot), "k" (per candidate route), "n" (per node)
    unit: str
    scale: str  # one of `SCALES`, or a number
    age: str
    meaning: str


NOW, OWN, FIXED, ROUTE = "now", "last slot", "fixed", "route"

# All features, in the order of their columns, by what they tell: an experiment can hide a block from a learner.
BLOCKS = {
    "resources": (
        Feature("free_memory", "1", "qubits", "largest memory", NOW, "own memory not in use"),
        Feature("generation_rate", "1", "pairs/s", "largest g", FIXED, "own source, g"),
        Feature("swap_rate", "1", "swaps/s", "largest c", FIXED, "own repeater, c"),
        Feature("coherence_time", "1", "s", "60 s", FIXED, "own memory, T"),
        Feature("swap_tokens", "1", "swaps", "token cap", NOW, "swaps the own repeater could do at once"),
        Feature("open_rows", "1", "rows", "rows K", NOW, "own open allocations"),
        Feature("source_backlog", "1", "links", "8", NOW, "incomplete links waiting for the own source, anyone's"),
        Feature("telemetry_age", "1", "slots", "period + delay", NOW, "slots since what is known of routes was so"),
    ),
    "demand": (
        Feature("pending", "C", "requests", "8", NOW, "requests waiting, per fidelity class"),
        Feature("slack", "1", "slots", "deadline", NOW, "slots left for the most urgent one, this one included"),
    ),
    "progress": (
        Feature("open_allocations", "1", "allocations", "8", OWN, "own open allocations to this peer"),
        Feature("links_complete", "1", "links", "hop limit", OWN, "complete links of the one furthest on"),
    ),
    "stock": (
        Feature("stored_pairs", "1", "pairs", "8", NOW, "own stored pairs with this peer"),
        Feature("best_werner", "1", "w", "1", NOW, "Werner parameter of the best of them"),
    ),
    "topology": (
        Feature("hops", "1", "links", "hop limit", ROUTE, "length of the current route"),
        Feature("build_time", "1", "s", "time-to-live", ROUTE, "expected build time of the current route, unloaded"),
        Feature("route_up", "1", "0 or 1", "1", ROUTE, "whether all its links are up"),
        Feature("route_load", "1", "share", "1", ROUTE, "load of its worst resource"),
        Feature("min_quality", "C", "quality", "qualities Q", ROUTE, "smallest meeting each class, fresh, 0: none"),
    ),
    "forecast": (Feature("forecast", "H", "requests", "4", NOW, "expected new requests in each of the next H slots"),),
    "news": (
        Feature(
            "source_claims_worst", "k", "claims", "16", ROUTE, "by others, at the most claimed source of the route"
        ),
        Feature("source_claims_sum", "k", "claims", "32", ROUTE, "by others, at the sources of all its links"),
        Feature("swap_claims_worst", "k", "claims", "8", ROUTE, "by others, at its most claimed swap engine"),
        Feature("swap_claims_sum", "k", "claims", "32", ROUTE, "by others, at all its swap engines"),
        Feature("slowest_link", "k", "s", "4 times-to-live", ROUTE, "mean wait for its slowest link, shared as it is"),
        Feature("useful_in_time", "k", "probability", "1", ROUTE, "that an allocation opened now would finish"),
        Feature("room", "k", "allocations", "largest memory", ROUTE, "for which all its nodes have memory"),
        Feature("candidate_up", "k", "0 or 1", "1", ROUTE, "whether all its links are up"),
        Feature("candidate_hops", "k", "links", "hop limit", FIXED, "its length; 0: there is no such route"),
        Feature("candidate_build_time", "k", "s", "time-to-live", FIXED, "its expected build time, unloaded"),
    ),
}
NODE_FEATURES = BLOCKS["resources"]
PEER_FEATURES = tuple(feature for block in list(BLOCKS)[1:] for feature in BLOCKS[block])
NEWS = tuple(feature.name for feature in BLOCKS["news"])

# Where relays decide on swaps, all features are these, of one node.
RELAY_FEATURES = (
    Feature("position", "1", "links", "hop limit", FIXED, "between the first node of the chain and this one"),
    Feature("left_reach", "1", "links", "hop limit", NOW, "length of the segment to the left, 0: there is none"),
    Feature("left_age", "1", "slots", "cutoff", NOW, "since its oldest pair was made"),
    Feature("right_reach", "1", "links", "hop limit", NOW, "length of the segment to the right, 0: there is none"),
    Feature("right_age", "1", "slots", "cutoff", NOW, "since its oldest pair was made"),
    next(feature for feature in NODE_FEATURES if feature.name == "telemetry_age"),
    Feature("chain_reach", "n", "links", "hop limit", ROUTE, "length of the segment to the right of each node"),
    Feature("chain_age", "n", "slots", "cutoff", ROUTE, "age that it has by now, if it is still there"),
)

# Divisors by their names: constants of the scenario, never fitted. Others are the number they are called.
SCALES: dict[str, Callable[[Scenario], float]] = {
    "largest memory": lambda scenario: scenario.hardware.memory[1],
    "largest g": lambda scenario: scenario.largest_generation_rate or 1.0,
    "largest c": lambda scenario: scenario.largest_swap_rate or 1.0,
    "token cap": lambda scenario: scenario.hardware.token_cap,
    "rows K": lambda scenario: scenario.control.rows,
    "period + delay": lambda scenario: sum(scenario.route_clock),
    "deadline": lambda scenario: scenario.in_slots(max(scenario.demand.deadlines)),
    "hop limit": lambda scenario: scenario.routing.max_hops,
    "time-to-live": lambda scenario: scenario.control.time_to_live,
    "4 times-to-live": lambda scenario: 4 * scenario.control.time_to_live,
    "qualities Q": lambda scenario: scenario.control.qualities,
    "cutoff": lambda scenario: (
        scenario.in_slots(scenario.control.time_to_live)
        if scenario.control.cutoff is None
        else max(scenario.control.cutoff, 1)
    ),
}
WHOLE_UNITS = {"qubits", "rows", "requests", "slots", "allocations", "links", "pairs", "quality", "claims"}

# First column of every feature, by name, and whether any of the news is wanted: what compiled code is given.
FIELDS = ("any_news", *(feature.name for feature in (*NODE_FEATURES, *PEER_FEATURES)))
Columns: Any = namedtuple("Columns", FIELDS)  # type: ignore[misc]
RelayColumns: Any = namedtuple("RelayColumns", [feature.name for feature in RELAY_FEATURES])  # type: ignore[misc]


class Place(NamedTuple):
    """Where a feature is read, and how."""

    of_peer: bool
    columns: int | slice  # of the node block, or of every peer block
    scale: float
    whole: bool  # a count


@dataclass(frozen=True)
class FeatureTable:
    """Where every feature of a scenario's observation lies, and its scale. Row: node block, then D peer blocks.

    Where relays decide on swaps there are no peer blocks. `news`: those of the features of block "news" that are
    wanted, all of them unless some are named.
    """

    scenario: Scenario
    news: tuple[str, ...] = NEWS

    @cached_property
    def of_relays(self) -> bool:
        """Whether relays decide on swaps: they have features of their own."""
        return self.scenario.control.relays_decide

    @cached_property
    def node_features(self) -> tuple[Feature, ...]:
        """The features of the node block, in the order of their columns."""
        return RELAY_FEATURES if self.of_relays else NODE_FEATURES

    @cached_property
    def peer_features(self) -> tuple[Feature, ...]:
        """The features of a peer block, in the order of their columns."""
        if self.of_relays:
            return ()
        return tuple(f for f in PEER_FEATURES if f.name not in NEWS or f.name in self.news)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Length of each kind of feature."""
        scenario = self.scenario
        return {
            "1": 1,
            "C": len(scenario.demand.fidelity_classes),
            "H": scenario.observation.forecast_horizon,
            "k": scenario.routing.routes_per_peer,
            "n": getattr(scenario.network, "nodes", 0),  # of a chain, for relays that decide on swaps
        }

    @cached_property
    def node_width(self) -> int:
        """Features of the node block."""
        return sum(self.sizes[feature.size] for feature in self.node_features)

    @cached_property
    def peer_width(self) -> int:
        """Features per peer block."""
        return sum(self.sizes[feature.size] for feature in self.peer_features)

    @cached_property
    def width(self) -> int:
        """Features per agent, F."""
        return self.node_width + self.scenario.demand.peers * self.peer_width

    @cached_property
    def offset(self) -> dict[str, int]:
        """First column of a node feature in the row, of a peer feature in its block."""
        offset = {}
        for features in (self.node_features, self.peer_features):
            column = 0
            for feature in features:
                offset[feature.name] = column
                column += self.sizes[feature.size]
        return offset

    @cached_property
    def columns(self) -> Any:
        """The offsets as compiled code takes them."""
        if self.of_relays:
            return RelayColumns(**{name: np.uint32(column) for name, column in self.offset.items()})
        return Columns._make((bool(self.news), *(np.uint32(self.offset.get(name, ABSENT)) for name in FIELDS[1:])))

    @cached_property
    def scale(self) -> dict[str, float]:
        """Divisor of every feature."""
        return {
            feature.name: float(
                SCALES[feature.scale](self.scenario) if feature.scale in SCALES else feature.scale.removesuffix(" s")
            )
            for feature in (*self.node_features, *self.peer_features)
        }

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where `Observations` reads every feature."""

        def place(feature: Feature, of_peer: bool) -> Place:
            start, several = self.offset[feature.name], feature.size != "1"
            columns = slice(start, start + self.sizes[feature.size]) if several else start
            whole = feature.unit in WHOLE_UNITS and feature.name != "forecast"
            return Place(of_peer, columns, self.scale[feature.name], whole)

        node = {feature.name: place(feature, of_peer=False) for feature in self.node_features}
        return node | {feature.name: place(feature, of_peer=True) for feature in self.peer_features}

    @cached_property
    def peer_scales(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(P,) by column of a peer block: the scale, and whether it is a count."""
        places = [self.places[f.name] for f in self.peer_features for _ in range(self.sizes[f.size])]
        return np.array([place.scale for place in places]), np.array([place.whole for place in places], dtype=np.bool_)

    @cached_property
    def divisors(self) -> tuple[F32, F32]:
        """1 / scale by column: of the node block and of one peer block."""
        node = [1.0 / self.scale[f.name] for f in self.node_features for _ in range(self.sizes[f.size])]
        peer = [1.0 / self.scale[f.name] for f in self.peer_features for _ in range(self.sizes[f.size])]
        return np.array(node, dtype=np.float32), np.array(peer, dtype=np.float32)

    def hiding(self, blocks: Collection[str]) -> F32:
        """(F,) 0 for the columns of these of the `BLOCKS`, 1 for others: to multiply observations by."""
        hidden = {feature.name for block in blocks for feature in BLOCKS[block]}
        node = [float(f.name not in hidden) for f in self.node_features for _ in range(self.sizes[f.size])]
        peer = [float(f.name not in hidden) for f in self.peer_features for _ in range(self.sizes[f.size])]
        return np.array(node + peer * self.scenario.demand.peers, dtype=np.float32)

    def read(self, observations: F32) -> Observations:
        """Named access, in natural units, to an observation matrix (..., N, F)."""
        return Observations(self, observations)

    def describe(self) -> str:
        """The observation in words and as a table, in reStructuredText: part of the documentation."""
        rows: list[tuple[str, ...]] = [("columns", "feature", "unit", "scale", "age", "meaning")]
        for block, features in (("", self.node_features), ("p+", self.peer_features)):
            for feature in features:
                start, size = self.offset[feature.name], self.sizes[feature.size]
                columns = f"{block}{start}" if size == 1 else f"{block}{start}..{start + size - 1}"
                rows.append((columns, *_cells(feature)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        rule = " ".join("=" * width for width in widths)
        lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        words = [] if self.of_relays else [fill(self._in_words(), 116), ""]
        return "\n".join([*words, rule, lines[0], rule, *lines[1:], rule])

    def _in_words(self) -> str:
        count, sizes = Counter(feature.size for feature in self.peer_features), self.sizes
        terms = [f"{count[size]}·{size}".removesuffix("·1").removeprefix("1·") for size in "C1Hk" if count[size]]
        return (
            f"Of the F features {len(NODE_FEATURES)} are of the node, and P = {' + '.join(terms)} of each peer, with C "
            f"fidelity classes, a forecast of H slots and k candidate routes. In the table C = {sizes['C']}, "
            f"H = {sizes['H']} and k = {sizes['k']}, as in {self.scenario.name}, and "
            f"``p = {len(NODE_FEATURES)} + d·P`` for the peer at place d."
        )


def _cells(feature: Feature) -> tuple[str, ...]:
    return (feature.name, feature.unit, feature.scale, feature.age, feature.meaning)


class Observations:
    """An observation matrix read by feature name, in natural units: what a hand-written local rule works on.

    Attributes are float arrays, not to be written to: (..., N) for node features, (..., N, D) or (..., N, D, size) for
    peer features. Counts beyond their scale are clipped, as for any learner. A feature is read from the matrix once.
    """

    def __init__(self, table: FeatureTable, matrix: F32) -> None:
        self.table = table
        self.matrix = matrix

    def __getattr__(self, name: str) -> NDArray[np.float64]:
        place = None if name.startswith("_") else self.table.places.get(name)
        if place is None:
            why = f"is not in {self.table.news!r}, the news asked for" if name in NEWS else "does not exist"
            raise AttributeError(f"no feature {name!r}: it {why}")
        values = self._of_peers(place) if place.of_peer else self._of_node(place)
        setattr(self, name, values)  # found without coming here from now on
        return values

    def _of_node(self, place: Place) -> NDArray[np.float64]:
        values = np.multiply(self.matrix[..., place.columns], place.scale, dtype=np.float64)
        if place.whole:
            np.rint(values, out=values)
        values.flags.writeable = False
        return values

    def _of_peers(self, place: Place) -> NDArray[np.float64]:
        values = self._peers[place.columns]
        return values if isinstance(place.columns, int) else values.transpose(*range(1, values.ndim), 0)

    @cached_property
    def _peers(self) -> NDArray[np.float64]:
        """(P, ..., N, D) all columns of the peers' blocks."""
        table, shape = self.table, (*self.matrix.shape[:-1], self.table.scenario.demand.peers)
        rows = np.ascontiguousarray(self.matrix, dtype=np.float32).reshape(-1, table.width)
        values = np.empty((table.peer_width, len(rows), shape[-1]))
        read_peers(rows, table.node_width, *table.peer_scales, values)
        values.flags.writeable = False
        return values.reshape(table.peer_width, *shape)


def chosen_news(news: Collection[str] | None) -> tuple[str, ...]:
    """Names of features of block "news", all of them for None, in the order of their columns; ScenarioError if not."""
    if news is None:
        return NEWS
    if isinstance(news, str) or not isinstance(news, Collection):
        raise ScenarioError(f"news is {news!r}; expected names of features as a list, or None for all of them")
    for name in news:
        if name not in NEWS:
            raise ScenarioError(f"news names {name!r}; {nearest(str(name), NEWS)}")
    return tuple(name for name in NEWS if name in news)


class Observer:
    """Writes observations and masks of a simulator's environments."""

    def __init__(
        self, simulator: Simulator, routes: bool = False, condition: int = 0, news: Collection[str] | None = None
    ) -> None:
        self.simulator = simulator
        self.table = FeatureTable(simulator.scenario, chosen_news(news))
        self.routes = routes
        self.code = code_for(simulator.scenario, routes, condition)
        self._features = (*self.table.divisors, self.table.columns)
        self._no_forecast = np.zeros((1, 1, 1, 0), dtype=np.float32)
        # The columns that never change and (B, N, columns) what is in them; (B, N, actions) what a free row allows.
        self._fixed: tuple[tuple[NDArray[np.uint32], F32], I8]
        self._described = 0  # networks loaded when these were written

    def observe(self, forecast: F32 | None = None, fresh: bool = False) -> F32:
        """A fresh (B, N, F) float32 matrix; `forecast` is (B, N, D, H) expected requests.

        With `fresh`, remote features are as of now instead of as of the readable snapshot: the global view.
        """
        call, out = self.observing(forecast, fresh)
        self.simulator.run(call)
        return out

    def observing(self, forecast: F32 | None = None, fresh: bool = False) -> tuple[Call, F32]:
        """The call that `observe` runs, to be run together with others, and the matrix it fills."""
        sim = self.simulator
        out = np.empty((sim.num_envs, sim.num_nodes, self.table.width), dtype=np.float32)
        if self.table.of_relays:
            return (write_relays, fresh, self.table.divisors[0], self.table.columns, out), out
        forecast = self._no_forecast if forecast is None else forecast
        return (write_observations, forecast, fresh, *self._features, *self._of_networks()[0], out), out

    def masks(self) -> I8:
        """A fresh (B, N, actions) int8 matrix: 1 where the simulator would accept the action for admission."""
        call, out = self.masking()
        self.simulator.run(call)
        return out

    def masking(self) -> tuple[Call, I8]:
        """The call that `masks` runs, to be run together with others, and the matrix it fills."""
        sim = self.simulator
        out = np.empty((sim.num_envs, sim.num_nodes, self.code.num_actions), dtype=np.int8)
        if self.table.of_relays:
            return (write_choices, out), out
        return (write_masks, self._of_networks()[1], out), out

    def both_masks(self, network: int = 0) -> tuple[I8, I8]:
        """(N, actions) the masks of nodes with a free row, (actions,) that of any without one: fresh and read-only.

        Where relays decide on swaps, what they may do changes from slot to slot: the masks are those of now.
        """
        allowed = self.masks()[network] if self.table.of_relays else self._of_networks()[1][network].copy()
        waiting = np.zeros(self.code.num_actions, dtype=np.int8)
        waiting[0] = 1
        allowed.flags.writeable = waiting.flags.writeable = False
        return allowed, waiting

    def _of_networks(self) -> tuple[tuple[NDArray[np.uint32], F32], I8]:
        """What never changes in the networks that are played."""
        sim = self.simulator
        if self._described < sim.networks_loaded:
            shape = (sim.num_envs, sim.num_nodes)
            rows = np.empty((*shape, self.table.width), dtype=np.float32)
            allowed = np.empty((*shape, self.code.num_actions), dtype=np.int8)
            describing = (write_fixed, *self._features, rows)
            sim.run(describing, (write_allowed, self.routes, bool(self.code.condition), allowed))
            columns = np.flatnonzero(rows.any(axis=(0, 1))).astype(np.uint32)
            fixed = columns, np.ascontiguousarray(rows[..., columns])
            self._fixed, self._described = (fixed, allowed), sim.networks_loaded
        return self._fixed
