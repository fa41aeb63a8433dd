"""Declared suites of work: which scenarios, varied how, at which control delays, a benchmark plays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from dpem_env import scenarios
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ScenarioError, nearest


@dataclass(frozen=True)
class Suite:
    """Every scenario in every variation, with central policies at every delay."""

    name: str
    summary: str
    scenarios: tuple[str, ...]
    variations: tuple[dict[str, Any], ...] = ({},)  # overrides
    delays: tuple[float, ...] = (0.0, 0.5)  # s

    def settings(
        self,
        instead: Sequence[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> list[Scenario]:
        """The scenarios to play, varied; `instead` names others to vary the same way, `changes` are made to all.

        Of a section that only some variations have, such as ``"silence.share"``, they are made to these.
        """
        changes = changes or {}
        varied = {field for each in self.variations for field in each}
        within = {name: value for name, value in changes.items() if _section(name) in varied}
        general = {name: value for name, value in changes.items() if name not in within}
        chosen = [scenarios.get(name, data_dir=data_dir, **general) for name in instead or self.scenarios]
        return [
            scenario.override(**each, **{name: value for name, value in within.items() if _section(name) in each})
            for scenario in dict.fromkeys(chosen)
            for each in self.variations
        ]


def _section(field: str) -> str:
    """The section that the name of a field begins with, as in ``"silence.share"``; mostly there is none."""
    return field.rpartition(".")[0]


def mesh_of(nodes: int) -> dict[str, Any]:
    """Overrides of mesh100-v0 for another size of the same density and load per node."""
    return {"nodes": nodes, "side": round(10.0 * nodes**0.5, 1), "request_rate": round(0.173 * nodes, 2)}


def _each(field: str, *values: float) -> tuple[dict[str, Any], ...]:
    return tuple({field: value} for value in values)


def _grid(**fields: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Every combination, the first field slowest."""
    return tuple(dict(zip(fields, values, strict=True)) for values in product(*fields.values()))


MESH = ("mesh100-v0",)
DEADLINES = ((0.5, 1.0, 1.0), (1.0, 2.0, 2.0), (2.0, 4.0, 4.0))  # s: half, once and twice those of mesh100-v0
NETWORKS = ("surfnet-v0", "coronet100-v0", "abilene-trace-v0", "mesh100-outages-v0")

_ALL = (
    Suite("quick", "mesh20, 24 slots: does all work?", ("mesh20-v0",), ({"slots": 24, "request_rate": 8.0},)),
    Suite("delay-curve", "the paper's network against control delay", MESH, delays=(0.0, 0.25, 0.5, 1.0, 2.0)),
    Suite("networks", "real and failing networks", NETWORKS),
    Suite(
        "failures",
        "silent agents or controllers, failing links, and both",
        MESH,
        ({}, {"silence": {}}, {"outages": {}}, {"silence": {}, "outages": {}}),
    ),
    Suite("small", "checkable by hand, and quick to train on", ("chain3-v0", "star8-v0", "mesh20-v0")),
    Suite("loads", "offered load 0.3, 0.6 and 0.9", MESH, _each("request_rate", 8.65, 17.3, 25.95)),
    Suite("fronts", "delivery against contention", MESH, _each("contention_penalty", 0.05, 0.15, 0.5, 1.5)),
    Suite("reads-off", "telemetry instead of news for nodes", MESH, ({"news_period": None},)),
    Suite("deadlines", "urgency of requests", MESH, _each("deadline", 0.5, 1.0, 2.0, 4.0)),
    Suite(
        "regimes",
        "control delay against predictability and deadlines: where local control pays",
        MESH,
        _grid(predictability=(0.0, 0.5, 1.0), deadline=DEADLINES),
        delays=(0.0, 0.25, 0.5, 1.0, 2.0),
    ),
    Suite("coherence", "quality of memories", MESH, _each("coherence_time", 1.0, 10.0, 60.0)),
    Suite("sizes", "meshes of equal density and load", MESH, tuple(map(mesh_of, (25, 50, 100, 200, 400)))),
)
SUITES = {suite.name: suite for suite in _ALL}


def get_suite(name: str) -> Suite:
    """A suite by name; ScenarioError names the nearest."""
    if name not in SUITES:
        raise ScenarioError(f"unknown suite {name!r}; {nearest(name, SUITES)}")
    return SUITES[name]
