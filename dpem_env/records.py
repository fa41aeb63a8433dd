"""The episode log: one Parquet file that holds all it takes to replay and to analyse an episode.

One row per slot; the file's metadata holds scenario, topology parameters, seeds and versions. What the paper retains:
topology parameters, every request, forecast, decision vector and outcome. Columns (N nodes):

- ``slot``: 0, 1, …; ``requests``: arrivals of the slot (source, destination, fidelity, last_slot);
- ``action``, ``route``, ``priority``: the decision vector, N each (see `dpem_env.policies.Decision`);
- ``forecast``: N·D·H expected requests the decision was based on, null without a forecaster;
- ``verdict``: N outcomes of the decisions (0 wait, 1 admitted, 2 denied, 3 illegal);
- ``deliveries``: requests served since the last row (source, destination, arrival, fidelity, from_stock);
- ``expired``: requests lost so far; ``delivered``, ``contended``, ``reward``: N each;
- ``state``: fingerprint of the simulator's state after the slot; ``check``: fingerprint of the decision vector.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.demand import NO_PIECES, Demand, tabulate
from dpem_env.errors import DpemError, LogError
from dpem_env.files import whole_file
from dpem_env.log_format import FORMAT, NETWORK_ARRAYS, TOPOLOGY_ARRAYS, checked, schema
from dpem_env.network import Network, with_routes
from dpem_env.physics import fidelity_from_werner
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario, from_toml
from dpem_env.session import EpisodeSeeds, Session
from dpem_env.simulator import RULES_VERSION, Status, Tally
from dpem_env.simulator.simulator import fingerprint
from dpem_env.topology import Topology


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
                **{name: np.asarray(array).tolist() for name, array in complete._asdict().items()},
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
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self.rows, schema=schema()).replace_schema_metadata(
            {"dpem": json.dumps(self.header)}
        )
        with whole_file(path) as partial:
            pq.write_table(table, partial, compression="zstd")


@dataclass(frozen=True)
class EpisodeLog:
    """A log as read back and checked."""

    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)

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
        return Demand(table, NO_PIECES, network.peers.shape, self.header["excluded_requests"])


def read_log(path: str | os.PathLike[str]) -> EpisodeLog:
    """Read and check an episode log; raises LogError with one clear line if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"log {os.fspath(path)!r}"
    try:
        with open(path, "rb") as stream:
            table = pq.ParquetFile(stream).read()
    except OSError as error:
        raise LogError(f"{name} cannot be read: {error.strerror or error}") from None
    except (pa.ArrowException, ValueError) as error:  # ValueError: names that are no text, a path that cannot be one
        raise LogError(f"{name} is no episode log of dpem run: {error}") from None
    try:
        return EpisodeLog(*checked(table))
    except (DpemError, pa.ArrowException, UnicodeDecodeError) as error:
        raise LogError(f"{name}: {error}") from None


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
    topology = Topology(names=tuple(data["names"]), **{name: _unpack(data, name) for name in TOPOLOGY_ARRAYS})
    return with_routes(scenario, topology, _unpack(data, "peers"), _unpack(data, "weights"), data["excluded"])


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Plain JSON: Python writes floats with all their digits, so they come back bit for bit."""
    return {"dtype": array.dtype.str, "values": array.tolist()}


def _unpack(data: dict[str, Any], name: str) -> NDArray[Any]:
    return np.array(data[name]["values"], dtype=NETWORK_ARRAYS[name][0])
