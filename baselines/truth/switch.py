"""Capacity and occupancy of entanglement switches: as published, in slots, and of the simulator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.switch import Switch, published, slotted, unlimited
from dpem_env.envs.session import Session
from dpem_env.report.tables import progress
from dpem_env.scenarios import Scenario, get
from dpem_env.support.files import write_json

SWITCHES = (
    Switch(2, 0.05, 1.0, 4),
    Switch(3, 0.05, 0.9, 1),
    Switch(3, 0.05, 0.9, 4),
    Switch(5, 0.05, 0.5, 4),
    Switch(8, 0.1, 0.9, 4),
    Switch(8, 0.05, 0.9, 1),
    Switch(8, 0.05, 0.9, 4),
    Switch(8, 0.025, 0.9, 4),
)
LIMITS = (0.1, 0.03, 0.01, 0.003, 0.001)  # p, as slots become short
NETWORKS, SLOTS, BEGINNING = 100, 2000, 500  # side by side, so long each time, of which the first do not count
DIGITS = 7


def scenario_of(switch: Switch) -> Scenario:
    """The scenario in which users keep that many links."""
    users = switch.users
    return get(
        "switch8-v0",
        nodes=users + 1,
        peers=users,
        generation_rate=(switch.generation, switch.generation),
        swap_success=switch.swap_success,
        slots=SLOTS,
    )


def played(switch: Switch, rounds: int) -> NDArray[np.float64]:
    """(episodes, 2) pairs per slot and mean links stored, of independent episodes, by what `KeepLinks` decides."""
    session = Session(scenario_of(switch), NETWORKS, split="evaluation")
    found = []
    for k in range(rounds):
        session.reset(k * NETWORKS)
        state, sums = session.simulator.state, np.zeros((NETWORKS, 2))
        for slot in range(SLOTS):
            asks = (state.alloc_peer[:, :, 0] < 0) & (state.stock_count < switch.buffer)
            session.step(np.where(np.arange(switch.users + 1) > 0, asks, 0))  # the hub asks for nothing
            if slot >= BEGINNING:
                sums += np.stack([state.delivered.sum(axis=1), state.stock_count.sum(axis=1)], axis=1)
        found.append(sums / (SLOTS - BEGINNING))
    return np.concatenate(found)


def compared(switch: Switch, rounds: int) -> list[dict[str, Any]]:
    """Both quantities of a switch: published, in slots, and as simulated."""
    episodes = played(switch, rounds)
    mean, error = episodes.mean(axis=0), episodes.std(axis=0, ddof=1) / np.sqrt(len(episodes))
    rows = []
    for quantity, theirs, ours, simulated, its_error in zip(
        ("capacity", "occupancy"), published(switch), slotted(switch), mean, error, strict=True
    ):
        row = {"quantity": quantity} | switch._asdict()
        row |= {"published": round(theirs, DIGITS), "slotted": round(ours, DIGITS)}
        row |= {"simulated": round(float(simulated), DIGITS), "error": round(float(its_error), DIGITS)}
        rows.append(row | {"off": round(float((simulated - ours) / its_error), 2)})
    return rows


def limits() -> list[dict[str, Any]]:
    """How much the chain in slots differs from the published one as slots become short, in per cent."""
    rows = []
    for p in LIMITS:
        switch = Switch(8, p, 0.9, 4)
        theirs, ours = published(switch), slotted(switch)
        more = [100.0 * (one / other - 1.0) for one, other in zip(ours, theirs, strict=True)]
        rows.append(switch._asdict() | {"capacity": round(more[0], 4), "occupancy": round(more[1], 4)})
    return rows


def main() -> None:
    """Calculate, simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True, help=f"times {NETWORKS} episodes of each switch")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    with progress() as bar:
        rows = [row for each in bar.track(SWITCHES, description="switches") for row in compared(each, options.rounds)]
    endless = unlimited(Switch(8, 0.05, 0.9, 0))._asdict()
    about = {"episodes": options.rounds * NETWORKS, "slots": SLOTS - BEGINNING, "endless": endless}
    write_json(options.out, about | {"rows": rows, "limits": limits()})


if __name__ == "__main__":
    main()
