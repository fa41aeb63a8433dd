"""Verified replay: an episode is made again from its log, and whatever came of it compared.

Its network and requests are drawn again from scenario and seeds, where they come from nothing else; every slot is
played again from the logged decisions. Nobody decides again: the policy's name and its forecasts stay as recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpem_env.demand.requests import Demand, draw_demand
from dpem_env.envs.session import Session
from dpem_env.logs.format import NETWORK_ARRAYS
from dpem_env.logs.recorder import EpisodeLog, EpisodeRecorder, decision_check, decision_of, read_log
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios.schema import ReplayDemand
from dpem_env.support.errors import DpemError
from dpem_env.support.provenance import UNKNOWN, of_other_code

OUTCOMES = ("requests", "verdict", "deliveries", "expired", "delivered", "contended", "reward", "state")
SAME = 1e-9  # relative difference of what is drawn: last digits of exponentials depend on the processor
MOST_REQUESTS = 1_000_000  # that are drawn again


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found."""

    slots: int
    other_code: str | None  # what to say of code that it was recorded by, if not this
    altered: bool  # whether the content is not the one the digest was made of
    changed_decisions: tuple[int, ...]  # slots whose decision vector is not the one recorded
    first_difference: str | None  # the first thing that came out otherwise
    not_drawn: str | None  # why network and requests could not be drawn again

    @property
    def verified(self) -> bool:
        """Whether nothing was changed and everything that was made again came out as recorded."""
        return not self.altered and not self.changed_decisions and self.first_difference is None

    def lines(self) -> list[str]:
        """The report in plain words."""
        said = []
        if self.other_code is not None:
            said.append(f"the log is {self.other_code}")
        if self.altered:
            said.append("the log was changed after recording: its content is not the one its digest was made of")
        if self.changed_decisions:
            slots = ", ".join(map(str, self.changed_decisions[:5]))
            said.append(f"decisions were changed after recording in {len(self.changed_decisions)} slot(s): {slots}")
        if self.first_difference:
            said.append(f"what was made again differs from the log: {self.first_difference}")
        if self.verified:
            said.append(f"verified: all outcomes of {self.slots} slots came out again, bit for bit")
            said.append(
                "network and requests were drawn again from scenario and seeds, and are the same"
                if self.not_drawn is None
                else f"network and requests are as recorded, not drawn again: {self.not_drawn}"
            )
            said.append(
                "as recorded, not made again: the names of policy and scenario, the decisions and the forecasts; "
                "the log's digest fits, but whoever changes a log can make a new one"
            )
        return said


def replay(
    path: str | os.PathLike[str],
    on_slot: Callable[[Session], None] = lambda session: None,
    data_dir: str | os.PathLike[str] | None = None,
) -> ReplayReport:
    """Replay the log at `path`; raises LogError if it cannot be read.

    `data_dir` is where files lie that are not shipped, to draw networks and requests from again.
    """
    return replay_log(read_log(path), on_slot, data_dir)


def replay_log(
    log: EpisodeLog,
    on_slot: Callable[[Session], None] = lambda session: None,
    data_dir: str | os.PathLike[str] | None = None,
    on_start: Callable[[Session], None] = lambda session: None,
) -> ReplayReport:
    """Replay a log that was read; `on_start` is called before its first slot, `on_slot` after every one."""
    network = log.network()
    demand = log.demand(network)
    session = Session(log.scenario)
    session.begin_with(network, demand, log.seeds, log.header["slots"])
    recorder = EpisodeRecorder()
    recorder.begin(session, log.header["policy"])
    difference, not_drawn = _drawn_otherwise(log, network, demand, data_dir)
    if log.scenario.hash != log.header["scenario_hash"]:
        difference = f"scenario: logged hash {log.header['scenario_hash']}, the logged fields have {log.scenario.hash}"
    elif difference is None and recorder.header["start"] != log.header["start"]:
        difference = "before slot 0: the state at the start (topology or routes) is another"
    changed = []
    on_start(session)
    for row in log.rows:
        decision = decision_of(row)
        if decision_check(decision) != row["check"]:
            changed.append(row["slot"])
        session.step(*decision)
        recorder.record(session, decision, None)
        if difference is None:
            difference = _compare(row, recorder.rows[-1])
        on_slot(session)
    if difference is None and recorder.header["totals"] != log.header.get("totals"):
        difference = f"totals: logged {log.header.get('totals')}, replayed {recorder.header['totals']}"
    return ReplayReport(
        slots=len(log.rows),
        other_code=of_other_code(log.header.get("stamp", UNKNOWN)),
        altered=log.digest != log.recorded_digest,
        changed_decisions=tuple(changed),
        first_difference=difference,
        not_drawn=not_drawn,
    )


def _drawn_otherwise(
    log: EpisodeLog, network: Network, demand: Demand, data_dir: str | os.PathLike[str] | None
) -> tuple[str | None, str | None]:
    """What of network and requests comes out otherwise when drawn again; and why they cannot be drawn."""
    scenario, slots = log.scenario.override(data_dir=data_dir), log.header["slots"]
    if isinstance(scenario.demand, ReplayDemand):
        return None, f"they follow from the file {scenario.demand.requests_file!r}"
    nodes = getattr(scenario.network, "nodes", network.num_nodes)
    if nodes != network.num_nodes:
        return f"network: logged {network.num_nodes} nodes, the scenario has {nodes}", None
    expected = scenario.requests_per_slot * scenario.demand.pairs_per_request * slots
    if expected > MOST_REQUESTS:
        return None, f"the scenario has about {expected:,.0f} requests, too many to draw them again"
    try:
        drawn = build_network(scenario, log.seeds.topology)
        requests = draw_demand(scenario, drawn, log.seeds.demand, slots)
    except DpemError as error:
        return None, f"they cannot be drawn here: {error}"
    return _other_network(network, drawn) or _other_requests(demand, requests), None


def _other_network(logged: Network, drawn: Network) -> str | None:
    if logged.topology.names != drawn.topology.names or logged.excluded != drawn.excluded:
        return "network: the names of its nodes or the counts of excluded pairs are others"
    for name in NETWORK_ARRAYS:
        ours, theirs = (getattr(n if name in ("peers", "weights") else n.topology, name) for n in (drawn, logged))
        if ours.shape != theirs.shape:
            return f"network.{name}: logged shape {theirs.shape}, drawn {ours.shape}"
        other = np.argwhere(~np.isclose(ours, theirs, rtol=SAME, atol=SAME**2))
        if len(other):
            place = tuple(other[0].tolist())
            return f"network.{name}{list(place)}: logged {theirs[place]}, drawn {ours[place]}"
    return None


def _other_requests(logged: Demand, drawn: Demand) -> str | None:
    ours, theirs = drawn.requests, logged.requests
    if len(ours.slot) != len(theirs.slot) or drawn.excluded_requests != logged.excluded_requests:
        return (
            f"requests: logged {len(theirs.slot)} and {logged.excluded_requests} excluded ones, "
            f"drawn {len(ours.slot)} and {drawn.excluded_requests}"
        )
    for name in ours._fields:
        other = np.flatnonzero(getattr(ours, name) != getattr(theirs, name))
        if len(other):
            return f"request {other[0]} of slot {theirs.slot[other[0]]}: its {name.replace('_', ' ')} is another"
    return None


def _compare(logged: dict[str, Any], replayed: dict[str, Any]) -> str | None:
    for outcome in OUTCOMES:
        if logged[outcome] == replayed[outcome]:
            continue
        where, ours, theirs = f"slot {logged['slot']}, {outcome}", replayed[outcome], logged[outcome]
        if isinstance(theirs, list) and len(theirs) == len(ours):
            i = next(i for i in range(len(ours)) if ours[i] != theirs[i])
            where, ours, theirs = f"{where}[{i}]", ours[i], theirs[i]
        return f"{where}: logged {theirs}, replayed {ours}"
    return None
