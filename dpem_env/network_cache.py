"""Networks kept on disk: drawing a big one and searching its routes takes seconds, reading it milliseconds.

Kept are networks that follow from scenario and topology seed alone, under a name made from both and from the code that
draws them, in ``DPEM_CACHE`` or the user's cache folder. The folder may be deleted at any time. Where it cannot be
written, nothing is kept; a file that cannot be read is drawn again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpem_env.files import whole_file
from dpem_env.routes import RouteTable
from dpem_env.scenarios import MeshNetwork, Scenario, SessionDemand
from dpem_env.topology import Topology

if TYPE_CHECKING:
    from dpem_env.network import Network

WORTH_KEEPING = 50  # nodes; smaller networks are drawn as fast as read
RELEVANT = ("network", "hardware", "routing", "demand", "control")  # sections of a scenario a network depends on
SOURCES = ("network", "network_cache", "physics", "route_search", "routes", "seeding", "topology")
PARTS: tuple[tuple[str, Any], ...] = (("topology", Topology), ("routes", RouteTable))


def kept(scenario: Scenario, topology_seed: int, draw: Callable[[], Network]) -> Network:
    """The network from disk, or drawn and then kept."""
    path = _path(scenario, topology_seed)
    if path is None:
        return draw()
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        network = draw()
    _write(path, network)
    return network


def _path(scenario: Scenario, topology_seed: int) -> Path | None:
    """Where the network is kept; None if it is not."""
    mesh = scenario.network
    if (
        not isinstance(mesh, MeshNetwork)
        or mesh.nodes < WORTH_KEEPING
        or not isinstance(scenario.demand, SessionDemand)
    ):
        return None
    sections = {name: getattr(scenario, name).model_dump(mode="json") for name in RELEVANT}
    name = hashlib.sha256(json.dumps([_code(), sections, topology_seed], sort_keys=True).encode()).hexdigest()[:24]
    folder = os.environ.get("DPEM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dpem_env"
    return Path(folder).expanduser() / "networks" / f"{name}.npz"


@cache
def _code() -> str:
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


def _write(path: Path, network: Network) -> None:
    arrays: dict[str, Any] = {"peers": network.peers, "weights": network.weights}
    for part, kind in PARTS:
        arrays |= {f"{part}.{f.name}": np.asarray(getattr(getattr(network, part), f.name)) for f in fields(kind)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, open(partial, "wb") as stream:
            np.savez_compressed(stream, excluded=np.array(json.dumps(network.excluded)), **arrays)
    except (OSError, RuntimeError):  # read-only, full, or no home folder
        return


def _read(path: Path) -> Network:
    from dpem_env.network import Network

    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for array in arrays.values():
        array.setflags(write=False)
    parts: dict[str, Any] = {part: {f.name: arrays[f"{part}.{f.name}"] for f in fields(kind)} for part, kind in PARTS}
    parts["topology"]["names"] = tuple(arrays["topology.names"].tolist())
    return Network(
        topology=Topology(**parts["topology"]),
        peers=arrays["peers"],
        weights=arrays["weights"],
        routes=RouteTable(**parts["routes"]),
        excluded=json.loads(str(arrays["excluded"])),
    )
