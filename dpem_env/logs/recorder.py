"""The episode log: one Parquet file that holds all it takes to replay and to analyse an episode.

One row per slot; the file's metadata holds scenario, topology parameters, seeds and versions. What the paper retains:
topology parameters, every request, forecast, decision vector and outcome. Columns (N nodes):

- ``slot``: 0, 1, …; ``requests``: arrivals of the slot (source, destination, fidelity, last_slot);
- ``action``, ``route``, ``priority``: the decision vector, N each (see `dpem_env.policies.Decision`); ``condition``, N,
  and ``fallback``, N·(k - 1) for k routes per peer, are parts of it, too, null if there are none in the slot; silent
  agents have waits;
- ``forecast``: N·D·H expected requests the decision was based on, null without a forecaster;
- ``verdict``: N outcomes of the decisions (0 wait, 1 admitted, 2 denied, 3 illegal, 4 withheld);
- ``deliveries``: requests served since the last row (source, destination, arrival, fidelity, from_stock);
- ``expired``: requests lost so far; ``delivered``, ``contended``, ``reward``: N each;
- ``state``: fingerprint of the simulator's state after the slot; ``check``: fingerprint of the decision vector.

Beside the header stands a digest of the whole content, header and columns. It tells damage and careless changes. It is
no seal: whoever changes a log on purpose can compute it anew. What can be made again is proven by
`dpem_env.logs.replay`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand.requests import NO_PIECES, Demand, tabulate
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.logs.format import (
    DIGEST,
    FORMAT,
    HEADER,
    NETWORK_ARRAYS,
    TOPOLOGY_ARRAYS,
    Rows,
    digest_of,
    has_room,
    leaves_of,
    places_of,
    requests_of,
    table_of,
    unpacked,
)
from dpem_env.logs.pages import held
from dpem_env.network.network import Network, with_routes
from dpem_env.network.topology import Topology
from dpem_env.physics import fidelity_from_werner
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario, from_toml
from dpem_env.simulator import RULES_VERSION, Status, Tally
from dpem_env.simulator.simulator import fingerprint
from dpem_env.support.errors import LogError
from dpem_env.support.files import reading, require_regular, whole_file
from dpem_env.support.provenance import stamp


def simulator_version() -> dict[str, str]:
    """Of package and rules, for people; code is told apart by its stamp."""
    from dpem_env import __version__

    return {"dpem_env": __version__, "rules": RULES_VERSION}


class EpisodeRecorder:
    """Collects an episode slot by slot (a `dpem_env.experiments.evaluation.Recorder`); `save` writes it."""

    def begin(self, session: Session, label: str) -> None:
        """Take down what is fixed."""
        self.header = {
            "format": FORMAT,
            "version": simulator_version(),
            "stamp": stamp(),
            "policy": label,
            "scenario": session.scenario.to_toml(),
            "scenario_hash": session.scenario.hash,
            "seeds": session.seeds._asdict(),
            "slots": session.slots,
            "network": _network_to_json(session.network),
            "excluded_requests": session.demand.excluded_requests,
            "start": session.simulator.digest(),
        }
        self.rows: list[dict[str, Any]] = []
        self._fate = session.simulator.state_of(0)["request_status"]

    def record(self, session: Session, decision: Decision, forecast: NDArray[np.float32] | None) -> None:
        """Take down one slot."""
        state = session.simulator.state_of(0)
        complete = decision.completed(session.network.num_nodes)
        self.rows.append(
            {
                "slot": len(self.rows),
                "requests": _arrivals(session, len(self.rows)),
                **_columns_of(complete, session.scenario.routing.routes_per_peer),
                "forecast": None if forecast is None else forecast.ravel(),
                "verdict": state["verdict"].tolist(),
                "deliveries": _deliveries(session, self._fate, state),
                "expired": int((state["request_status"] == Status.EXPIRED).sum()),
                "delivered": state["delivered"].tolist(),
                "contended": state["contended"].tolist(),
                "reward": session.rewards().tolist(),
                "state": fingerprint(state.values()),
                "check": decision_check(complete),
            }
        )
        self._fate = state["request_status"]
        if session.done:
            self.header["totals"] = {t.name.lower(): int(session.simulator.tally(t)[0]) for t in Tally}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log, whole or not at all."""
        with whole_file(path) as partial:
            write_table(partial, self.header, table_of(self.rows))


def write_table(path: Path, header: dict[str, Any], table: Any) -> None:
    """Write a log with its digest."""
    import pyarrow.parquet as pq

    text = json.dumps(header).encode()
    sealed = table.replace_schema_metadata({HEADER: text, DIGEST: digest_of(text, table)})
    # Where years of nothing shrink so much that readers would take it for a trap, it is written as it is.
    for compression in ("zstd", "none"):
        pq.write_table(sealed, path, compression=compression, use_dictionary=compression != "none")
        with open(path, "rb") as stream:
            if has_room(held(stream), leaves_of(table.schema)):
                break


@dataclass(frozen=True)
class EpisodeLog:
    """A log as read back and checked."""

    header: dict[str, Any]
    rows: Rows = field(repr=False)
    digest: str  # of what was read
    recorded_digest: str

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario the episode was played in."""
        return from_toml(self.header["scenario"], "scenario in the log")

    @property
    def seeds(self) -> EpisodeSeeds:
        """The episode's seeds."""
        seeds = self.header["seeds"]
        return EpisodeSeeds(seeds["topology"], seeds["demand"])

    def network(self) -> Network:
        """The network, rebuilt from the logged topology parameters."""
        return _network_from_json(self.scenario, self.header["network"])

    def demand(self, network: Network) -> Demand:
        """The demand, rebuilt from the logged requests."""
        slot, request = requests_of(self.rows.table["requests"].combine_chunks())
        classes = np.array(self.scenario.demand.fidelity_classes)
        table = tabulate(
            slot.astype(np.int32),
            request["source"],
            places_of(network.peers, request["source"], request["destination"]).astype(np.int32),
            np.searchsorted(classes, request["fidelity"]).astype(np.int32),
            request["last_slot"],
        )
        return Demand(table, NO_PIECES, network.peers.shape, self.header["excluded_requests"])


def read_log(path: str | os.PathLike[str]) -> EpisodeLog:
    """Read and check an episode log; raises LogError with one clear line if it is none."""
    with reading("log", path, LogError):
        require_regular(path)
        with open(path, "rb") as stream:
            content = unpacked(stream)
    return EpisodeLog(content.header, Rows(content.table), content.digest, content.recorded_digest)


def recorded_digest(path: str | os.PathLike[str]) -> str:
    """The digest that stands in a log, which is not read; LogError if there is none."""
    import pyarrow.parquet as pq

    with reading("log", path, LogError):
        return str(pq.read_schema(path).metadata[DIGEST].decode("ascii"))


def decision_of(row: dict[str, Any]) -> Decision:
    """The complete decision of a row; of earlier formats, too."""
    nodes = len(row["action"])
    given = {name: np.array(row[name], dtype=np.int64) for name in Decision._fields if row.get(name) is not None}
    if "fallback" in given:
        given["fallback"] = given["fallback"].reshape(nodes, -1)
    return Decision(**given).completed(nodes)


def _columns_of(decision: Decision, routes: int) -> dict[str, list[int] | None]:
    """A complete decision as columns of lists."""
    arrays = {name: np.asarray(array) for name, array in decision._asdict().items()}
    columns: dict[str, list[int] | None] = {name: array.tolist() for name, array in arrays.items()}
    if not arrays["condition"].any():
        columns["condition"] = None
    places = arrays["fallback"].shape[1]
    padded = np.pad(arrays["fallback"], ((0, 0), (0, routes - 1 - places)), constant_values=-1)
    columns["fallback"] = padded.ravel().tolist() if places else None
    return columns


def decision_check(decision: Decision) -> str:
    """Fingerprint of a complete decision: tells a changed decision from a changed simulator."""
    return fingerprint(np.asarray(array, dtype=np.int64) for array in decision)


def _arrivals(session: Session, slot: int) -> list[dict[str, Any]]:
    table = session.demand.requests
    low, high = np.searchsorted(table.slot, (slot, slot + 1))
    new = session.new_requests(slot)
    return [
        {"source": source, "destination": destination, "fidelity": fidelity, "last_slot": last_slot}
        for source, destination, fidelity, last_slot in zip(
            new.source.tolist(),
            new.destination.tolist(),
            new.fidelity.tolist(),
            table.last_slot[low:high].tolist(),
            strict=True,
        )
    ]


def _deliveries(session: Session, before: NDArray[np.int32], state: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    requests, peers = session.demand.requests, session.network.peers
    served = np.flatnonzero((state["request_status"] >= 0) & (before < 0))
    return [
        {
            "source": int(requests.source[r]),
            "destination": int(peers[requests.source[r], requests.peer[r]]),
            "arrival": int(requests.slot[r]),
            "fidelity": float(fidelity_from_werner(float(state["request_werner"][r]))),
            "from_stock": bool(state["request_from_stock"][r]),
        }
        for r in served
    ]


def _network_to_json(network: Network) -> dict[str, Any]:
    topology = {name: _pack(getattr(network.topology, name)) for name in TOPOLOGY_ARRAYS}
    return {
        "names": list(network.topology.names),
        **topology,
        "peers": _pack(network.peers),
        "weights": _pack(network.weights),
        "excluded": network.excluded,
    }


def _network_from_json(scenario: Scenario, data: dict[str, Any]) -> Network:
    arrays: dict[str, Any] = {name: _unpack(data, name) for name in TOPOLOGY_ARRAYS}
    topology = Topology(names=tuple(data["names"]), **arrays)
    return with_routes(scenario, topology, _unpack(data, "peers"), _unpack(data, "weights"), data["excluded"])


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Plain JSON: Python writes floats with all their digits, so they come back bit for bit."""
    return {"dtype": array.dtype.str, "values": array.tolist()}


def _unpack(data: dict[str, Any], name: str) -> NDArray[Any]:
    return np.array(data[name]["values"], dtype=NETWORK_ARRAYS[name][0])
