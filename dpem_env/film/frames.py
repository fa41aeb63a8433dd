"""What there is to see of an episode: its log is played again, and every slot of it taken down.

A film is a JSON object. What stays the same stands once (network, requests with their fates, candidate routes in use);
of T slots there are T + 1 frames, from the state that the first slot is decided on to that after the last. Big arrays
of small numbers are base64 of bytes. The keys of a frame are short, as there are many of them:

- ``a``: open allocations, each ``[route, quality, segment, …]``; a segment is ``64·hop + 2·span + complete``;
- ``s``: stored pairs ``[node, place of peer, number]``; ``c``: contended resources ``[node, number]``;
- ``x``: links that are down;
- ``d``: decisions of the slot before, other than waiting, ``[node, action, route, verdict]``;
- ``m``: (N,) share of memory in use, bytes of 1/255; ``l``: (N, actions) which are legal, bits;
- ``f``: (N, H) expected requests of each node by slot ahead, bytes of ``forecast_unit``, in which the slot is decided.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.rendering import so_far
from dpem_env.envs.session import Session
from dpem_env.logs.recorder import EpisodeLog
from dpem_env.logs.replay import ReplayReport, replay_log
from dpem_env.network.network import Network
from dpem_env.physics import fidelity_from_werner
from dpem_env.report.network_map import current_load
from dpem_env.simulator.actions import Choice
from dpem_env.support.errors import LogError

Json = dict[str, Any]
SAME_EPISODE = ("scenario_hash", "seeds", "slots", "network")  # what two logs side by side must agree in


def require_same_episode(logs: list[EpisodeLog], paths: list[str]) -> None:
    """LogError unless all logs are of one episode, played by different policies."""
    first = logs[0].header
    for log, path in zip(logs[1:], paths[1:], strict=True):
        for name in SAME_EPISODE:
            if log.header[name] != first[name]:
                told = "" if name == "network" else f" ({first[name]} and {log.header[name]})"
                raise LogError(f"{paths[0]} and {path} are of different episodes: their {name} differ{told}")


class Camera:
    """Films an episode as it is played again."""

    def __init__(self, log: EpisodeLog) -> None:
        self.log = log
        self.frames: list[Json] = []
        self._routes: dict[tuple[int, ...], int] = {}
        self._delivered: list[float | None] = []
        self._contention: list[float] = []

    def film(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        on_frame: Callable[[Session], None] = lambda session: None,
    ) -> Json:
        """Play the log again and return all there is to see; `on_frame` is called with the session in every frame."""

        def take(session: Session) -> None:
            self._take(session)
            on_frame(session)

        return self._developed(replay_log(self.log, take, data_dir, on_start=take))

    def _take(self, session: Session) -> None:
        """A frame of the session as it is."""
        self._session = session
        state, network, slot = session.simulator.state, session.network, session.slot
        memory_used, _ = current_load(network, state)
        now = so_far(session)
        self._delivered.append(round(now.delivered / now.due, 4) if now.due else None)
        self._contention.append(round(now.contention, 6))
        contended = np.flatnonzero(state.contended[0]) if slot else np.zeros(0, dtype=np.intp)
        self.frames.append(
            {
                "a": self._allocations(session),
                "s": _stored(state),
                "c": np.stack((contended, state.contended[0, contended]), axis=1).tolist(),
                "x": np.flatnonzero(state.link_up[0] == 0).tolist(),
                "d": self._decided(slot - 1, state) if slot else [],
                "m": _bytes(np.rint(memory_used.clip(0.0, 1.0) * 255)),
                "l": _bytes(np.packbits(session.look().masks[0] > 0, axis=1)) if not session.done else "",
            }
        )

    def _allocations(self, session: Session) -> list[list[int]]:
        state, network = session.simulator.state, session.network
        found = []
        for node, row in np.argwhere(state.alloc_peer[0] >= 0).tolist():
            quality = int(state.alloc_quality[0, node, row])
            place, route = state.alloc_peer[0, node, row], state.alloc_route[0, node, row]
            nodes = network.routes.nodes[node, place, route]
            number = self._routes.setdefault(tuple(nodes[nodes >= 0].tolist()), len(self._routes))
            spans, rounds = state.link_hops[0, node, row], state.link_rounds[0, node, row]
            segments = [
                64 * hop + 2 * int(spans[hop]) + int(rounds[hop] == quality - 1)
                for hop in np.flatnonzero(rounds >= 0).tolist()
            ]
            found.append([number, quality, *segments])
        return found

    def _decided(self, slot: int, state: Any) -> list[list[int]]:
        row = self.log.rows[slot]
        verdict = state.verdict[0].tolist()
        return [
            [node, action, route, verdict[node]]
            for node, (action, route) in enumerate(zip(row["action"], row["route"], strict=True))
            if action
        ]

    def _developed(self, report: ReplayReport) -> Json:
        """All frames, and what they have in common."""
        session, header = self._session, self.log.header
        scenario, network = session.scenario, session.network
        unit = self._add_forecasts(network.num_nodes, scenario.observation.forecast_horizon)
        return {
            "policy": header["policy"],
            "scenario": scenario.name,
            "seeds": header["seeds"],
            "slot_duration": scenario.control.slot_duration,
            "choices": [choice.name.lower() for choice in Choice] if scenario.control.relays_decide else None,
            "qualities": scenario.control.qualities,
            "classes": list(scenario.demand.fidelity_classes),
            "verified": report.verified,
            "replay": report.lines(),
            "peers": network.peers.tolist(),
            "routes": [list(route) for route in self._routes],
            "requests": _requests(session),
            "delivered": self._delivered,
            "contention": self._contention,
            "forecast_unit": unit,
            "horizon": scenario.observation.forecast_horizon,
            "frames": self.frames,
        } | _map(network)

    def _add_forecasts(self, nodes: int, horizon: int) -> float:
        """Add what each node expected to the frames, and return the unit it is told in; 0 if nothing was forecast."""
        sums = [
            None if row["forecast"] is None else np.reshape(row["forecast"], (nodes, -1, horizon)).sum(axis=1)
            for row in self.log.rows
        ]
        most = max((float(each.max()) for each in sums if each is not None), default=0.0)
        if most == 0.0:
            return 0.0
        for frame, each in zip(self.frames, sums, strict=False):
            frame["f"] = "" if each is None else _bytes(np.rint(each * (255 / most)))
        return most / 255


def _map(network: Network) -> Json:
    topology = network.topology
    nodes = zip(topology.names, topology.position.tolist(), topology.generation_rate.tolist(), strict=True)
    return {
        "nodes": [{"name": name, "x": x, "y": y, "rate": rate} for name, (x, y), rate in nodes],
        "memory": topology.memory.tolist(),
        "links": topology.links.tolist(),
    }


def _requests(session: Session) -> list[list[int]]:
    """Each as [slot, last slot, source, destination, class, slot served or -1, from stock, fidelity in 1/1000]."""
    table, state = session.demand.requests, session.simulator.state
    served = np.maximum(state.request_status[0, : len(table.slot)], -1)
    fidelity = np.rint(1000 * fidelity_from_werner(state.request_werner[0, : len(table.slot)]))
    columns: tuple[NDArray[Any], ...] = (
        table.slot,
        table.last_slot,
        table.source,
        session.network.peers[table.source, table.peer],
        table.wanted,
        served,
        state.request_from_stock[0, : len(table.slot)],
        np.where(served >= 0, fidelity, 0),
    )
    rows: list[list[int]] = np.stack([column.astype(np.int64) for column in columns], axis=1).tolist()
    return rows


def _stored(state: Any) -> list[list[int]]:
    """Stored pairs by owner and peer: [node, place, number]."""
    count, peer = state.stock_count[0], state.stock_peer[0]
    owner = np.repeat(np.arange(len(count)), count)
    place = peer[np.arange(peer.shape[1]) < count[:, None]]
    pairs, numbers = np.unique(np.stack((owner, place), axis=1), axis=0, return_counts=True)
    rows: list[list[int]] = np.column_stack((pairs, numbers)).astype(np.int64).tolist()
    return rows


def _bytes(numbers: NDArray[Any]) -> str:
    return b64encode(numbers.astype(np.uint8).tobytes()).decode("ascii")
