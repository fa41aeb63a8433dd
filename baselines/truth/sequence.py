"""Repeater chains of SeQUeNCe, measured by tests/physics/sequence_reference.py, played in the simulator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dpem_baselines.swap_chain import State, Swaps
from dpem_baselines.swapping import JointSwaps
from dpem_env import physics
from dpem_env.experiments.delivery_time import Deliveries, first_deliveries
from dpem_env.report.tables import progress
from dpem_env.scenarios import get
from dpem_env.support.files import read_json, write_json

HERALDED = 0.5  # of linear-optics Bell measurements
ATTEMPT = 4  # lengths of a link that messages travel from one attempt to the next
COHERENCE = 0.75  # ours in units of SeQUeNCe's, whose X, Y and Z errors have a rate of 1/(3T) each
LONGEST_WAIT = 1000  # slots that a link takes at most, for all that matters
LONGEST = 3  # times the mean that an episode lasts for each delivery, more than any needs
DIGITS = 7


class Halving(JointSwaps):
    """The order of SeQUeNCe's swaps: every other relay, then every other one of those left, and so on."""

    def swaps(self, state: State) -> Swaps:
        """Relays that hold two segments of the length of their turn, or will when earlier ones have swapped."""
        spans = {(segment.left, segment.right) for segment in state}
        swapping = []
        for relay in sorted({right for _, right in spans}, key=turn):
            left, right = relay - turn(relay), relay + turn(relay)
            if {(left, relay), (relay, right)} <= spans:
                swapping.append(relay)
                spans.add((left, right))
        return tuple(sorted(swapping))


def turn(relay: int) -> int:
    """Links of the segments that the relay of this number joins: the largest power of 2 that divides it."""
    return relay & -relay


def messages(nodes: int) -> tuple[int, int]:
    """What takes no time here, in times that light takes along a link: delay of a delivery, and storage of memories.

    A relay's partners, d = 1, 2, … links away in turn, are asked and answer, then hear of the outcome; a link is stored
    while it is heralded, too. Storage is summed over all memories that hold a pair.
    """
    delay, storage, held, distance = 0, 0, 2 * (nodes - 1), 1
    while distance < nodes - 1:
        waiting = 2 * distance + (distance == 1)
        storage += waiting * held + distance * held // 2
        delay, held, distance = delay + 3 * distance, held // 2, 2 * distance
    return delay, storage


def success(chains: dict[str, Any]) -> float:
    """Of an attempt."""
    return float(HERALDED * physics.transmission(chains["length"], chains["attenuation"]))


def head_start(nodes: int, p: float) -> float:
    """Slots by which deliveries over five nodes come sooner: the middle links' head start over those of the ends.

    They begin again when the middle has swapped, half a slot before the ends, two links away, have heard of it. That
    tells where the slower of them ends after the slower of the others: of either the slots are the larger of two
    geometric numbers.
    """
    if nodes != 5:
        return 0.0
    in_time = (1.0 - (1.0 - p) ** np.arange(LONGEST_WAIT)) ** 2
    both_at_once = float((np.diff(in_time) ** 2).sum())
    return (1.0 - both_at_once) / 2 * 2.0 / ATTEMPT


def played(nodes: int, swap_success: float, slot: float, chains: dict[str, Any], deliveries: int) -> Deliveries:
    """The chain in slots of that many s, in which every link is tried once."""
    hardware = chains["hardware"]
    p = success(chains)
    expected = 2 * np.log2(nodes) / p / swap_success
    asked = get(
        "swap-chain5-v0",
        nodes=nodes,
        generation_rate=(p, p),
        swap_success=swap_success,
        link_fidelity=hardware["fidelity"],
        gate_fidelity=hardware["gate"],
        readout_fidelity=hardware["readout"],
        coherence_time=COHERENCE * hardware["coherence"] / slot,
        cutoff=None,
        swapping="agents",
        news_period=1.0,
        slots=int(LONGEST * expected * deliveries / 100) + 100,
    )
    return first_deliveries(asked, deliveries, decide=Halving().side_by_side(asked))


def compared(theirs: dict[str, Any], chains: dict[str, Any], deliveries: int) -> dict[str, Any]:
    """Mean times in ms and fidelities, with their standard errors, and how many errors apart they are."""
    nodes, swap_success = theirs["routers"], theirs["swap_success"]
    light = chains["length"] / physics.LIGHT_SPEED
    slot, (delay, storage) = ATTEMPT * light, messages(nodes)
    found = played(nodes, swap_success, slot, chains, deliveries)
    times = 1e3 * ((found.slots - head_start(nodes, success(chains))) * slot + delay * light / swap_success)
    kept = np.exp(-storage * light / (COHERENCE * chains["hardware"]["coherence"]))
    fidelities = physics.fidelity_from_werner(found.werner * kept)
    row: dict[str, Any] = {"nodes": nodes, "swap_success": swap_success, "slots": round(float(found.slots.mean()), 4)}
    row |= {"bare_time": round(1e3 * float(found.slots.mean()) * slot, DIGITS)}
    row |= {"bare_fidelity": round(float(physics.fidelity_from_werner(found.werner).mean()), DIGITS)}
    for name, ours, unit in (("time", times, 1e3), ("fidelity", fidelities, 1.0)):
        mean, error = float(ours.mean()), float(ours.std(ddof=1)) / np.sqrt(ours.size)
        measured, its_error = unit * theirs[name], unit * theirs[f"{name}_error"]
        row |= {f"{name}_sequence": round(measured, DIGITS), f"{name}_sequence_error": round(its_error, DIGITS)}
        row |= {name: round(mean, DIGITS), f"{name}_error": round(error, DIGITS)}
        row |= {f"{name}_off": round((mean - measured) / max(float(np.hypot(error, its_error)), 1e-9), 2)}
    return row


def main() -> None:
    """Simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="what SeQUeNCe was measured to do")
    parser.add_argument("--deliveries", type=int, required=True, help="independent deliveries of each chain")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    chains = read_json(options.reference)["chains"]
    with progress() as bar:
        rows = [compared(each, chains, options.deliveries) for each in bar.track(chains["rows"], description="chains")]
    about = {"deliveries": options.deliveries, "length": chains["length"], "duration": chains["duration"]}
    write_json(options.out, about | {"rows": rows})


if __name__ == "__main__":
    main()
