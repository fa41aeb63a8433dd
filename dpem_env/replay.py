"""Verified replay: run an episode again from its log alone and compare every outcome bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpem_env.policies import Decision
from dpem_env.records import EpisodeLog, EpisodeRecorder, decision_check, read_log, simulator_version
from dpem_env.session import Session

OUTCOMES = ("requests", "verdict", "deliveries", "expired", "delivered", "contended", "reward", "state")


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found."""

    slots: int
    recorded_version: dict[str, str]
    this_version: dict[str, str]
    changed_decisions: tuple[int, ...]  # slots whose decision vector is not the one recorded
    first_difference: str | None  # the first outcome that came out otherwise

    @property
    def verified(self) -> bool:
        """Whether nothing was changed and every outcome came out again."""
        return not self.changed_decisions and self.first_difference is None

    def lines(self) -> list[str]:
        """The report in plain words."""
        said = []
        if self.recorded_version != self.this_version:
            said.append(
                f"recorded with another simulator version: {_version(self.recorded_version)}; "
                f"this is {_version(self.this_version)}"
            )
        if self.changed_decisions:
            slots = ", ".join(map(str, self.changed_decisions[:5]))
            said.append(f"decisions were changed after recording in {len(self.changed_decisions)} slot(s): {slots}")
        if self.first_difference:
            said.append(f"outcomes differ from the log: {self.first_difference}")
        if self.verified:
            said.append(f"verified: all outcomes of {self.slots} slots came out again, bit for bit")
        return said


def replay(path: str | os.PathLike[str], on_slot: Callable[[Session], None] = lambda session: None) -> ReplayReport:
    """Replay the log at `path`; raises LogError if it cannot be read."""
    return replay_log(read_log(path), on_slot)


def replay_log(log: EpisodeLog, on_slot: Callable[[Session], None] = lambda session: None) -> ReplayReport:
    """Replay a log that was read."""
    network = log.network()
    session = Session(log.scenario)
    session.begin_with(network, log.demand(network), log.seeds, log.header["slots"])
    recorder = EpisodeRecorder()
    recorder.begin(session, log.header["policy"])
    difference = None
    if log.scenario.hash != log.header["scenario_hash"]:
        difference = f"scenario: logged hash {log.header['scenario_hash']}, the logged fields have {log.scenario.hash}"
    elif recorder.header["start"] != log.header["start"]:
        difference = "before slot 0: the state at the start (topology or routes) is another"
    changed = []
    for row in log.rows:
        decision = Decision(*(np.array(row[name], dtype=np.int64) for name in ("action", "route", "priority")))
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
        recorded_version=log.header["version"],
        this_version=simulator_version(),
        changed_decisions=tuple(changed),
        first_difference=difference,
    )


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


def _version(version: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(version.items()))
