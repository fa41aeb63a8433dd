"""The episode log: one Parquet file that holds all it takes to replay and to analyse an episode.

One row per slot; the file's metadata holds scenario, topology parameters, seeds and versions. What the paper retains:
topology parameters, every request, forecast, decision vector and outcome. Columns (N nodes):

- ``requests``: arrivals of the slot (source, destination, fidelity, last_slot);
- ``action``, ``route``, ``priority``: the decision vector, N each (see `dpem_env.policies.Decision`);
- ``forecast``: N·D·H expected requests the decision was based on, null without a forecaster;
- ``verdict``: N outcomes of the decisions (0 wait, 1 admitted, 2 denied, 3 illegal);
- ``deliveries``: requests served since the last row (source, destination, arrival, fidelity, from_stock);
- ``expired``: requests lost; ``delivered``, ``contended``, ``reward``: N each;
- ``state``: fingerprint of the simulator's state after the slot; ``check``: fingerprint of the decision vector.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand import Demand, Pieces, RequestTable, tabulate
from dpem_env.errors import LogError
from dpem_env.network import Network, with_routes
from dpem_env.physics import fidelity_from_werner
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario, from_toml
from dpem_env.session import EpisodeSeeds, Session
from dpem_env.simulator import RULES_VERSION, Status, Tally
from dpem_env.topology import Topology

FORMAT = "dpem-episode-1"


def simulator_version() -> dict[str, str]:
    """Versions a replay must agree with."""
    from dpem_env import __version__

    return {"dpem_env": __version__, "rules": RULES_VERSION}


class EpisodeRecorder:
    """Collects an episode slot by slot (a `dpem_env.evaluation.Recorder`); `save` writes it."""

    def begin(self, session: Session, label: str) -> None:
        """Take down what is fixed."""
        self.header = {
            "format": FORMAT,
            "version": simulator_version(),
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
                "action": complete.action.tolist(),
                "route": complete.route.tolist() if complete.route is not None else [],
                "priority": complete.priority.tolist() if complete.priority is not None else [],
                "forecast": None if forecast is None else forecast.ravel(),
                "verdict": state["verdict"].tolist(),
                "deliveries": _deliveries(session, self._fate, state),
                "expired": int((state["request_status"] == Status.EXPIRED).sum()),
                "delivered": state["delivered"].tolist(),
                "contended": state["contended"].tolist(),
                "reward": session.rewards().tolist(),
                "state": session.simulator.digest(),
                "check": decision_check(complete),
            }
        )
        self._fate = state["request_status"]
        if session.done:
            self.header["totals"] = {t.name.lower(): int(session.simulator.tally(t)[0]) for t in Tally}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self.rows, schema=_schema()).replace_schema_metadata(
            {"dpem": json.dumps(self.header)}
        )
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        pq.write_table(table, partial, compression="zstd")
        partial.replace(target)


@dataclass(frozen=True)
class EpisodeLog:
    """A log as read back."""

    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)

    @property
    def scenario(self) -> Scenario:
        """The scenario the episode was played in."""
        return from_toml(self.header["scenario"], "scenario in the log")

    @property
    def seeds(self) -> EpisodeSeeds:
        """The episode's seeds."""
        return EpisodeSeeds(**self.header["seeds"])

    def network(self) -> Network:
        """The network, rebuilt from the logged topology parameters."""
        return _network_from_json(self.scenario, self.header["network"])

    def demand(self, network: Network) -> Demand:
        """The demand, rebuilt from the logged requests."""
        requests = [(row["slot"], r) for row in self.rows for r in row["requests"]]
        classes = np.array(self.scenario.demand.fidelity_classes)
        source = np.array([r["source"] for _, r in requests], dtype=np.int32)
        destination = np.array([r["destination"] for _, r in requests], dtype=np.int32)
        table = tabulate(
            np.array([slot for slot, _ in requests], dtype=np.int32),
            source,
            (network.peers[source] == destination[:, None]).argmax(axis=1).astype(np.int32),
            np.searchsorted(classes, [r["fidelity"] for _, r in requests]).astype(np.int32),
            np.array([r["last_slot"] for _, r in requests], dtype=np.int32),
        )
        nothing = np.zeros(0, dtype=np.int32)
        pieces = Pieces(nothing, nothing, nothing, nothing, np.zeros(0))
        return Demand(table, pieces, network.peers.shape, self.header["excluded_requests"])  # type: ignore[arg-type]


def read_log(path: str | os.PathLike[str]) -> EpisodeLog:
    """Read an episode log; raises LogError with one clear line if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {})[b"dpem"])
        log = EpisodeLog(header, table.select([name for name in _schema().names]).to_pylist())
        known = header["format"] == FORMAT
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise LogError(f"log {os.fspath(path)!r} is no episode log of dpem run: {error}") from None
    if not known:
        raise LogError(f"log {os.fspath(path)!r} has format {header['format']!r}; expected {FORMAT!r}")
    if len(log.rows) != header["slots"] or [row["slot"] for row in log.rows] != list(range(header["slots"])):
        raise LogError(f"log {os.fspath(path)!r} is incomplete: {len(log.rows)} of {header['slots']} slots")
    return log


def decision_check(decision: Decision) -> str:
    """Fingerprint of a complete decision: tells a changed decision from a changed simulator."""
    fingerprint = hashlib.blake2b(digest_size=8)
    for array in decision:
        fingerprint.update(np.ascontiguousarray(array, dtype=np.int64))
    return fingerprint.hexdigest()


def _schema() -> Any:
    import pyarrow as pa

    request = pa.struct(
        [("source", pa.int32()), ("destination", pa.int32()), ("fidelity", pa.float64()), ("last_slot", pa.int32())]
    )
    delivery = pa.struct(
        [
            ("source", pa.int32()),
            ("destination", pa.int32()),
            ("arrival", pa.int32()),
            ("fidelity", pa.float64()),
            ("from_stock", pa.bool_()),
        ]
    )
    return pa.schema(
        [
            ("slot", pa.int32()),
            ("requests", pa.list_(request)),
            ("action", pa.list_(pa.int64())),
            ("route", pa.list_(pa.int64())),
            ("priority", pa.list_(pa.int64())),
            ("forecast", pa.list_(pa.float32())),
            ("verdict", pa.list_(pa.int8())),
            ("deliveries", pa.list_(delivery)),
            ("expired", pa.int32()),
            ("delivered", pa.list_(pa.int32())),
            ("contended", pa.list_(pa.int32())),
            ("reward", pa.list_(pa.float64())),
            ("state", pa.string()),
            ("check", pa.string()),
        ]
    )


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


_TOPOLOGY_ARRAYS = [name for name in Topology.__dataclass_fields__ if name != "names"]


def _network_to_json(network: Network) -> dict[str, Any]:
    topology = {name: _pack(getattr(network.topology, name)) for name in _TOPOLOGY_ARRAYS}
    return {
        "names": list(network.topology.names),
        **topology,
        "peers": _pack(network.peers),
        "weights": _pack(network.weights),
        "excluded": network.excluded,
    }


def _network_from_json(scenario: Scenario, data: dict[str, Any]) -> Network:
    topology = Topology(names=tuple(data["names"]), **{name: _unpack(data[name]) for name in _TOPOLOGY_ARRAYS})
    return with_routes(scenario, topology, _unpack(data["peers"]), _unpack(data["weights"]), data["excluded"])


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Plain JSON: Python writes floats with all their digits, so they come back bit for bit."""
    return {"dtype": array.dtype.str, "values": array.tolist()}


def _unpack(packed: dict[str, Any]) -> NDArray[Any]:
    return np.array(packed["values"], dtype=np.dtype(packed["dtype"]))
