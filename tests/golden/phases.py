"""Episodes played phase by phase, and where they differ from a record of what every phase did.

A record is a Parquet file with one row per value that a phase changed: slot, phase, field of the state, place in the
field (counted flat) and the value afterwards. Values are kept in single precision and compared to one part in a
million: other processors and libraries change less (the last bits of an exponential), rules change more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dpem_env.envs.session import Session
from dpem_env.logs.recorder import EpisodeLog, decision_of
from dpem_env.simulator import Tally
from dpem_env.simulator.simulator import fingerprint
from dpem_env.simulator.state import State, Workspace, World
from dpem_env.support.files import whole_file
from phases import Phase, play_phase

TOLERANCE = 1e-6  # relative

SCHEMA = pa.schema(
    [("slot", pa.int32()), ("phase", pa.int8()), ("field", pa.string()), ("place", pa.int32()), ("value", pa.float32())]
)


def label(phase: Phase) -> str:
    """What a phase is called."""
    return "telemetry" if phase is Phase.TELEMETRY else f"phase {phase.value} ({phase.name.lower()})"


def begun(log: EpisodeLog) -> Session:
    """The log's episode after phase 0 of slot 0."""
    session = Session(log.scenario)
    network = log.network()
    session.begin_with(network, log.demand(network), log.seeds, log.header["slots"])
    return session


def play(log: EpisodeLog) -> Iterator[tuple[int, Phase, State]]:
    """Play the log's decisions; yields slot, phase and the state after it, which the next phase overwrites.

    Phase 0 of slot 0 comes with all else that begins an episode.
    """
    simulator = begun(log).simulator
    world = World(*(array[0] for array in simulator.world))
    state = State(*(array[0] for array in simulator.state))
    work = Workspace(*(array[0] for array in simulator.work))
    yield 0, Phase.ARRIVALS, state
    for row in log.rows:
        actors = 0
        for phase in (*list(Phase)[1:], Phase.ARRIVALS):
            slot = int(state.slot[0])
            if slot < log.header["slots"]:
                actors = play_phase(int(phase), simulator.rules, world, state, work, actors, *decision_of(row))
                yield slot, phase, state


def record(log: EpisodeLog, path: Path) -> None:
    """Write down what every phase of the log's episode changes."""
    changes = []
    for slot, phase, state in play(log):
        if not changes:
            before = [np.zeros_like(array) for array in state]
        for field, old, new in zip(State._fields, before, state, strict=True):
            places = np.flatnonzero(old != new)
            changes += [(slot, int(phase), field, place, new.flat[place]) for place in places]
            old[...] = new
    columns = [pa.array(column, field.type) for column, field in zip(zip(*changes, strict=True), SCHEMA, strict=True)]
    metadata = {"shapes": json.dumps(_shapes(log)), "world": fingerprint(begun(log).simulator.world)}
    with whole_file(path) as partial:
        pq.write_table(
            pa.table(columns, SCHEMA.with_metadata(metadata)), partial, compression="zstd", compression_level=19
        )


def same_bits(log: EpisodeLog, path: Path) -> bool:
    """Whether the kernel reads the very numbers it read when the record was made.

    Decay factors are exponentials, whose last bit depends on the processor: numpy has code of its own for AVX-512.
    """
    recorded: bytes = pq.read_schema(path).metadata[b"world"]
    return recorded.decode() == fingerprint(begun(log).simulator.world)


def first_difference(log: EpisodeLog, path: Path) -> str | None:
    """The first value that a phase of the log's episode leaves otherwise than recorded at `path`.

    Fields and counts that came after the record was made are not in it, so nothing is said of them.
    """
    table = pq.read_table(path)
    shapes, present = json.loads(table.schema.metadata[b"shapes"]), _shapes(log)
    for field, shape in shapes.items():
        grown = field == "tally" and present.get(field, shape) > shape
        if present.get(field) != shape and not grown:
            return f"{field} of the state: recorded shape {shape}, now {present.get(field)}"
    recorded = _by_phase(table)
    expected = {field: np.zeros(shape, dtype=np.float32).ravel() for field, shape in shapes.items()}
    for slot, phase, state in play(log):
        for field, places, values in recorded.get((slot, phase), ()):
            expected[field][places] = values
        for field, then in expected.items():
            array = getattr(state, field)
            now = array.ravel()[: len(then)]
            wrong = np.flatnonzero(np.abs(now - then) > TOLERANCE * np.abs(then))
            if len(wrong):
                where = f"slot {slot}, {label(phase)}: {_name(field, array.shape, wrong[0])}"
                return f"{where} recorded {then[wrong[0]]:.7g}, now {now[wrong[0]]:.7g}"
    return None


def _by_phase(table: pa.Table) -> dict[tuple[int, int], list[tuple[str, NDArray[Any], NDArray[Any]]]]:
    """(slot, phase) -> fields it changed, with places and new values."""
    slot, phase, field, place, value = (column.to_numpy() for column in table.columns)
    recorded: dict[tuple[int, int], list[tuple[str, NDArray[Any], NDArray[Any]]]] = {}
    start = 0
    for (t, p, name), rows in groupby(zip(slot.tolist(), phase.tolist(), field, strict=True)):
        stop = start + sum(1 for _ in rows)
        recorded.setdefault((t, p), []).append((name, place[start:stop], value[start:stop]))
        start = stop
    return recorded


def _shapes(log: EpisodeLog) -> dict[str, list[int]]:
    return {field: list(array.shape) for field, array in begun(log).simulator.state_of(0).items()}


def _name(field: str, shape: tuple[int, ...], place: int) -> str:
    """What a value is called: tokens[3], link_werner[0, 1, 2], slot, tally[SWAPS]."""
    if field == "tally":
        return f"tally[{Tally(place).name}]"
    if shape == (1,):
        return field
    return f"{field}[{', '.join(str(index) for index in np.unravel_index(place, shape))}]"
