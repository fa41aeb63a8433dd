"""Reference values of the quantum-network simulator SeQUeNCe: its Bell-diagonal formalism asked piece by piece.

SeQUeNCe needs Python ≥ 3.12 and an environment of its own: `pip install sequence==1.3.1`, then run this file there. It
writes sequence_reference.json beside it within a few minutes. No test needs SeQUeNCe.

SeQUeNCe measures times in ps and lengths in m. Its memories suffer X, Y and Z errors at a rate of 1/(3T) each, so that
a Werner parameter decays with exp(-4t/3T): a coherence time T there is one of 3T/4 in a depolarising memory.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from sequence.app.request_app import RequestApp
from sequence.components.memory import Memory
from sequence.components.optical_channel import QuantumChannel
from sequence.constants import BELL_DIAGONAL_STATE_FORMALISM, SECOND, SINGLE_HERALDED
from sequence.entanglement_management.generation import EntanglementGenerationA, EntanglementGenerationB
from sequence.entanglement_management.purification.bbpssw_bds import BBPSSW_BDS
from sequence.entanglement_management.swapping import EntanglementSwappingA, EntanglementSwappingB
from sequence.entanglement_management.swapping.swapping_bds import EntanglementSwappingA_BDS
from sequence.kernel.event import Event
from sequence.kernel.process import Process
from sequence.kernel.quantum_manager import QuantumManager
from sequence.kernel.timeline import Timeline
from sequence.resource_management.memory_manager import MemoryInfo
from sequence.topology.node import Node
from sequence.topology.router_net_topo import RouterNetTopo

FILE = Path(__file__).with_suffix(".json")
DECIMALS = 10
KM = 1000.0  # m
LENGTH = 20.0  # km of a link, end to end
ATTENUATION = 0.2  # dB/km
DURATION = 20  # s
CHAIN_DURATION = 60  # s
CHAINS = ((2, 1.0), (3, 1.0), (3, 0.5), (5, 1.0))  # routers, swap success
CHAIN_HARDWARE = {"fidelity": 0.95, "gate": 0.99, "readout": 0.99, "coherence": 0.1}  # s, of SeQUeNCe

Value = dict[str, float]


class Recipient(RequestApp):
    """What an end does with pairs: it notes when each came, in s, and of which fidelity."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.pairs: list[tuple[float, float]] = []

    def get_memory(self, info: MemoryInfo) -> None:
        before = self.memory_counter
        now, fidelity = self.node.timeline.now() / SECOND, info.fidelity
        super().get_memory(info)
        if self.memory_counter > before:
            self.pairs.append((now, fidelity))


def timeline() -> Timeline:
    """An empty simulation in the Bell-diagonal formalism, which is set in Python before anything is built."""
    QuantumManager.set_global_manager_formalism(BELL_DIAGONAL_STATE_FORMALISM)
    return Timeline()


def memory(name: str, timeline: Timeline, coherence_time: float = -1.0) -> Memory:
    """A memory with equal X, Y and Z errors; coherence time in s, negative for a perfect memory."""
    return Memory(name, timeline, 1.0, 0.0, 1.0, coherence_time, 1550, decoherence_errors=[1 / 3, 1 / 3, 1 / 3])


def entangle(timeline: Timeline, first: Memory, second: Memory, fidelity: float) -> None:
    """Put two memories into a Werner state of the given fidelity."""
    error = (1.0 - fidelity) / 3.0
    timeline.quantum_manager.set([first.qstate_key, second.qstate_key], [fidelity, error, error, error])


def swap(left: float, right: float, gate: float, readout: float) -> Value:
    """Swap of two Werner pairs of fidelities `left` and `right` at a node with this gate and readout fidelity."""
    world = timeline()
    node = Node("middle", world, gate_fid=gate, meas_fid=readout)
    far_left, near_left, near_right, far_right = (memory(f"swap{i}", world) for i in range(4))
    entangle(world, far_left, near_left, left)
    entangle(world, near_right, far_right, right)
    protocol = EntanglementSwappingA_BDS(node, "swap", near_left, near_right)
    return {"left": left, "right": right, "gate": gate, "readout": readout, "fidelity": protocol.swapping_res()[0]}


def purify(kept: float, measured: float) -> Value:
    """One BBPSSW round without gate or readout errors on two Werner pairs."""
    world = timeline()
    near, far = Node("near", world), Node("far", world)
    kept_near, measured_near, kept_far, measured_far = (memory(f"purify{i}", world) for i in range(4))
    entangle(world, kept_near, kept_far, kept)
    entangle(world, measured_near, measured_far, measured)
    protocol = BBPSSW_BDS(near, "purify", kept_near, measured_near)
    protocol.set_others("purify", far.name, [kept_far.name, measured_far.name])
    success, state = protocol.purification_res()
    return {"kept": kept, "measured": measured, "success": success, "fidelity": state[0]}


def store(fidelity: float, coherence_u: float, coherence_v: float, duration: float) -> Value:
    """A Werner pair kept for `duration` s in two memories with these coherence times of SeQUeNCe in s."""
    world = timeline()
    ends = [memory("u", world, coherence_u), memory("v", world, coherence_v)]
    entangle(world, *ends, fidelity)
    start = 1  # ps; SeQUeNCe takes a pair last updated at 0 for absent
    for end in ends:
        end.last_update_time = start
        world.schedule(Event(start + round(duration * SECOND), Process(end, "bds_decohere", [])))
    world.init()
    world.run()
    stored = ends[0].get_bds_fidelity()
    return {
        "initial": fidelity,
        "sequence_coherence_u": coherence_u,
        "sequence_coherence_v": coherence_v,
        "duration": duration,
        "fidelity": stored,
    }


def fibre(length: float, attenuation: float) -> Value:
    """Fibre of `length` km and `attenuation` dB/km: probability that a photon survives, and delay in s."""
    world = timeline()
    channel = QuantumChannel("fibre", world, attenuation / KM, length * KM)
    channel.set_ends(Node("sender", world), "receiver")
    channel.init()
    return {
        "length": length,
        "attenuation": attenuation,
        "transmission": 1.0 - channel.loss,
        "delay": channel.delay / SECOND,
    }


def delivered(routers: int, swap_success: float, duration: int, **hardware: float) -> list[tuple[float, float]]:
    """Times in s and fidelities of pairs between the ends of a chain over `duration` s, a memory per router and link.

    Links of LENGTH km with a heralding station half way: both photons have to arrive, and the linear-optics Bell
    measurement succeeds half of the time. Swaps of success probability `swap_success` start as soon as both links are
    there, at the middle of five routers after those of its neighbours. Memories do not expire; they decay, and swaps
    are noisy, only where `hardware` says so.
    """
    for protocol in (EntanglementGenerationA, EntanglementGenerationB):
        protocol.set_global_type(SINGLE_HERALDED)
    for protocol in (EntanglementSwappingA, EntanglementSwappingB):
        protocol.set_formalism(BELL_DIAGONAL_STATE_FORMALISM)
    timeline()
    names = [f"r{i}" for i in range(routers)]
    start = SECOND // 10  # the reservation takes its time
    stop = start + duration * SECOND
    detector = {"efficiency": 1.0, "count_rate": 5e7}
    chain = RouterNetTopo(
        {
            "formalism": BELL_DIAGONAL_STATE_FORMALISM,
            "stop_time": stop,
            "templates": {
                "router": {
                    "MemoryArray": {"fidelity": 0.95, "efficiency": 1.0, "frequency": 1e6},
                    "EntanglementSwapping": {"swapping_success_prob": swap_success},
                },
                "station": {
                    "encoding_type": SINGLE_HERALDED,
                    "SingleHeraldedBSM": {"detectors": [detector, detector]},
                },
            },
            "nodes": [
                {
                    "name": name,
                    "type": "QuantumRouter",
                    "seed": i,
                    "memo_size": 1 if i in (0, routers - 1) else 2,
                    "template": "router",
                }
                for i, name in enumerate(names)
            ],
            "qconnections": [
                {
                    "node1": one,
                    "node2": other,
                    "attenuation": ATTENUATION / KM,
                    "distance": int(LENGTH * KM),
                    "type": "meet_in_the_middle",
                    "seed": 100 + i,
                    "template": "station",
                }
                for i, (one, other) in enumerate(pairwise(names))
            ],
            "cconnections": [
                {"node1": names[i], "node2": names[j], "distance": LENGTH * KM * (j - i)}
                for i, j in combinations(range(routers), 2)
            ],
        }
    )
    nodes = [chain.get_timeline().get_entity_by_name(name) for name in names]
    for node in nodes if hardware else ():
        node.gate_fid, node.meas_fid = hardware["gate"], hardware["readout"]
        for each in node.get_components_by_type("MemoryArray")[0].memories:
            each.coherence_time, each.decoherence_rate = hardware["coherence"], 1.0 / hardware["coherence"]
            each.decoherence_errors, each.cutoff_flag = [1 / 3, 1 / 3, 1 / 3], False
    apps = [Recipient(node) for node in nodes]
    chain.get_timeline().init()
    apps[0].start(names[-1], start, stop, memo_size=1, fidelity=0.01)  # whatever it has
    chain.get_timeline().run()
    return apps[0].pairs


def end_to_end_rate(routers: int, swap_success: float) -> float:
    """Pairs/s between the ends of a chain of perfect memories and swaps over DURATION s."""
    return len(delivered(routers, swap_success, DURATION)) / DURATION


def delivery(routers: int, swap_success: float) -> Value:
    """Mean time between deliveries in s and mean fidelity of a chain with noise, and their standard errors."""
    pairs = np.array(delivered(routers, swap_success, CHAIN_DURATION, **CHAIN_HARDWARE))
    times, fidelities = np.diff(pairs[:, 0]), pairs[1:, 1]
    found = {"time": times, "fidelity": fidelities}
    return {
        "routers": routers,
        "swap_success": swap_success,
        "deliveries": len(times),
        **{name: each.mean() for name, each in found.items()},
        **{f"{name}_error": each.std(ddof=1) / np.sqrt(len(each)) for name, each in found.items()},
    }


def end_to_end() -> dict[str, object]:
    """Rates of two and three routers; each has the relative error of a count, 1 to 2 % here."""
    two, three, failing = end_to_end_rate(2, 1.0), end_to_end_rate(3, 1.0), end_to_end_rate(3, 0.5)
    return {
        "note": (
            f"links of {LENGTH} km, {ATTENUATION} dB/km, one memory per router and link, heralded half way with success"
            f" 1/2, {DURATION} s of simulated time; each rate has a relative standard error of 1 to 2 %"
        ),
        "two_nodes_rate": two,
        "three_nodes_rate": three,
        "three_nodes_rate_with_swap_success_0.5": failing,
        "three_to_two_nodes_ratio": round(three / two, 3),
        "swap_success_0.5_to_1_ratio": round(failing / three, 3),
        "earlier_run": {
            "note": "another run, whose settings were not recorded",
            "three_nodes_rate": 314.0,
            "three_nodes_rate_with_swap_success_0.5": 155.0,
            "three_to_two_nodes_ratio": 0.654,
        },
    }


def rounded(values: list[Value]) -> list[Value]:
    return [
        {name: number if isinstance(number, int) else round(float(number), DECIMALS) for name, number in value.items()}
        for value in values
    ]


def main() -> None:
    fidelities = [0.7, 0.8, 0.9, 0.95, 1.0]
    reference: dict[str, object] = {
        "source": f"measured with SeQUeNCe {version('sequence')}, Bell-diagonal formalism, by sequence_reference.py",
        "units": "lengths in km, attenuation in dB/km, times in s, rates in pairs/s; light in fibre: 200000 km/s",
        "decimals": DECIMALS,
        "swap": rounded(
            [
                swap(0.95, 0.95, 1.0, 1.0),
                swap(0.95, 0.95, 0.99, 0.99),
                swap(0.95, 0.8, 1.0, 0.97),
                swap(0.95, 0.8, 0.97, 1.0),
                swap(0.98, 0.7, 0.93, 0.96),
            ]
        ),
        "purification": rounded(
            [purify(f, f) for f in fidelities] + [purify(*pair) for pair in pairwise(reversed(fidelities))]
        ),
        "storage": rounded([store(0.95, 1.0, 1.0, 0.1), store(0.95, 1.0, 4.0, 0.3), store(0.8, 60.0, 5.0, 2.0)]),
        "fibre": rounded([fibre(length, 0.2) for length in (1.0, 10.0, 50.0, 100.0)] + [fibre(20.0, 0.17)]),
        "end_to_end": end_to_end(),
        "chains": {
            "note": "links as above; times in s between deliveries, coherence in s of SeQUeNCe",
            "duration": CHAIN_DURATION,
            "length": LENGTH,
            "attenuation": ATTENUATION,
            "hardware": CHAIN_HARDWARE,
            "rows": rounded([delivery(*chain) for chain in CHAINS]),
        },
    }
    FILE.write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
