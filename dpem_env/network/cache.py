"""Networks kept on disk: drawing a big one and searching its routes takes seconds, reading it milliseconds.

Kept are networks that follow from scenario and topology seed alone, under a name made from both (see `disk_cache`).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from dpem_env.network.routes import RouteTable
from dpem_env.network.topology import Topology
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MeshNetwork, SessionDemand
from dpem_env.support import disk_cache
from dpem_env.support.files import ArrayFile

WORTH_KEEPING = 50  # nodes; smaller networks are drawn as fast as read
RELEVANT = ("network", "hardware", "routing", "demand", "control")  # sections of a scenario a network depends on
Kept = TypeVar("Kept")
Arrays = dict[str, tuple[str, type[np.generic]]]  # axes and type by name
TOPOLOGY: Arrays = {
    "position": ("N2", np.float64),
    "popularity": ("N", np.float64),
    "generation_rate": ("N", np.float64),
    "swap_rate": ("N", np.float64),
    "memory": ("N", np.int32),
    "coherence_time": ("N", np.float64),
    "links": ("L2", np.int32),
    "length": ("L", np.float64),
    "emitter": ("L", np.int32),
    "transmission": ("L", np.float64),
    "link_fidelity": ("L", np.float64),
    "link_key": ("L", np.int64),
}
ROUTES: Arrays = {
    "hops": ("NDk", np.int32),
    "links": ("NDkH", np.int32),
    "nodes": ("NDkJ", np.int32),
    "build_time": ("NDk", np.float64),
    "quality": ("NDkC", np.int32),
}
NETWORK: Arrays = {"peers": ("ND", np.int32), "weights": ("ND", np.float64)}


def kept(scenario: Scenario, topology_seed: int, kind: Callable[..., Kept], draw: Callable[[], Kept]) -> Kept:
    """The network from disk, of its `kind`, or drawn and then kept."""
    name = _name(scenario, topology_seed)
    if name is None:
        return draw()
    content = disk_cache.read(name)
    if content is not None:
        with suppress(Exception):  # whatever a decoder raises
            return kind(**_unpacked(content, scenario))
    network = draw()
    disk_cache.write(name, _packed(network))
    return network


def _name(scenario: Scenario, topology_seed: int) -> str | None:
    """What the network is kept as; None if it is not."""
    mesh = scenario.network
    if (
        not isinstance(mesh, MeshNetwork)
        or mesh.nodes < WORTH_KEEPING
        or not isinstance(scenario.demand, SessionDemand)
        or scenario.demand.demand_matrix is not None
    ):
        return None
    sections = {name: getattr(scenario, name).model_dump(mode="json") for name in RELEVANT}
    decides = json.dumps([sections, topology_seed], sort_keys=True)
    return f"networks/{hashlib.sha256(decides.encode()).hexdigest()[:24]}"


def _packed(network: Any) -> bytes:
    arrays: dict[str, Any] = {}
    for prefix, part, names in (
        ("topology.", network.topology, TOPOLOGY),
        ("routes.", network.routes, ROUTES),
        ("", network, NETWORK),
    ):
        arrays |= {prefix + name: np.ascontiguousarray(getattr(part, name)) for name in names}
    about = {"names": network.topology.names, "excluded": network.excluded}
    stream = io.BytesIO()
    np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)
    return stream.getvalue()


def _unpacked(content: bytes, scenario: Scenario) -> dict[str, Any]:
    with ArrayFile(io.BytesIO(content)) as file:
        about = file.read_about()
        sizes = {
            "N": len(about["names"]),
            "L": file.declared("topology.links")[0][0],
            "D": scenario.demand.peers,
            "k": scenario.routing.routes_per_peer,
            "H": scenario.routing.max_hops,
            "J": scenario.routing.max_hops + 1,
            "C": len(scenario.demand.fidelity_classes),
            "2": 2,
        }

        def read(prefix: str, names: Arrays) -> dict[str, Any]:
            arrays = {name: file.read(prefix + name, [sizes[a] for a in axes], t) for name, (axes, t) in names.items()}
            for array in arrays.values():
                array.setflags(write=False)
            return arrays

        return read("", NETWORK) | {
            "topology": Topology(names=tuple(about["names"]), **read("topology.", TOPOLOGY)),
            "routes": RouteTable(**read("routes.", ROUTES)),
            "excluded": about["excluded"],
        }
