"""What the Werner form hides: fidelities by density matrices, with and without the twirl after every operation.

Hardware is that of a scenario. A pair is a 4 × 4 matrix of Alice's and Bob's qubit, Φ⁺ if perfect. A two-qubit gate
acts ideally with the probability g and otherwise leaves its qubits in I/4; a readout reports the true bit with the
probability m (Briegel, Dür, Cirac & Zoller, PRL 81, 5932, 1998). One-qubit gates are ideal.
"""

from __future__ import annotations

import argparse
from functools import cache, reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.scenarios.schema import Hardware
from dpem_env.support.files import write_json

Matrix = NDArray[np.complex128]

ONE, X, Y, Z = PAULIS = (
    np.eye(2, dtype=complex),
    np.array([[0, 1], [1, 0]], dtype=complex),
    np.array([[0, -1j], [1j, 0]]),
    np.diag([1, -1]).astype(complex),
)
HADAMARD = (X + Z) / np.sqrt(2)
QUARTER_TURN = (ONE - 1j * X) / np.sqrt(2)  # about X
BITS = (np.diag([1, 0]).astype(complex), np.diag([0, 1]).astype(complex))
PHI_PLUS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=complex) / 2
DIGITS = 8


def on(operators: dict[int, Matrix]) -> Matrix:
    """Four qubits: the given operators on theirs, nothing on the others."""
    return reduce(np.kron, [operators.get(qubit, ONE) for qubit in range(4)])


@cache
def gate(control: int, target: int) -> tuple[Matrix, list[Matrix]]:
    """A CNOT, and the Paulis on its qubits, whose average leaves them in I/4."""
    cnot = on({control: BITS[0]}) + on({control: BITS[1], target: X})
    return cnot, [on({control: first, target: second}) for first, second in product(PAULIS, repeat=2)]


def after_gate(state: Matrix, control: int, target: int, hardware: Hardware) -> Matrix:
    """The state after a noisy CNOT."""
    cnot, paulis = gate(control, target)
    lost = sum(pauli @ state @ pauli for pauli in paulis) / len(paulis)
    return hardware.gate_fidelity * cnot @ state @ cnot.T + (1 - hardware.gate_fidelity) * lost


def reported(bit: int, hardware: Hardware) -> Matrix:
    """POVM element of a readout that reports `bit`."""
    return hardware.readout_fidelity * BITS[bit] + (1 - hardware.readout_fidelity) * BITS[1 - bit]


def rest(state: Matrix, kept: tuple[int, int]) -> Matrix:
    """The two qubits that are kept of four."""
    gone = [qubit for qubit in range(4) if qubit not in kept]
    order = [*kept, *gone]
    tensor = state.reshape([2] * 8).transpose([*order, *(4 + qubit for qubit in order)])
    return np.einsum("abcdefcd->abef", tensor).reshape(4, 4)


def swapped(left: Matrix, right: Matrix, hardware: Hardware) -> Matrix:
    """Alice's and Carol's pair after Bob has measured his halves of theirs, and Carol corrected what he reports."""
    state = after_gate(np.kron(left, right), 1, 2, hardware)
    state = on({1: HADAMARD}) @ state @ on({1: HADAMARD})
    ends = np.zeros((4, 4), dtype=complex)
    for phase, parity in product((0, 1), repeat=2):
        seen = rest(on({1: reported(phase, hardware), 2: reported(parity, hardware)}) @ state, (0, 3))
        correction = np.kron(ONE, np.linalg.matrix_power(Z, phase) @ np.linalg.matrix_power(X, parity))
        ends += correction @ seen @ correction.conj().T
    return ends


def purified(kept: Matrix, measured: Matrix, hardware: Hardware) -> Matrix:
    """The kept pair if both ends report the same bit after a CNOT at either end."""
    state = after_gate(np.kron(kept, measured), 0, 2, hardware)
    state = after_gate(state, 1, 3, hardware)
    agreeing = sum(on({2: reported(bit, hardware), 3: reported(bit, hardware)}) for bit in (0, 1))
    left = rest(agreeing @ state, (0, 1))
    return left / np.trace(left)


def turned(pair: Matrix) -> Matrix:
    """Alice's and Bob's quarter turns before a DEJMPS round (Deutsch et al., PRL 77, 2818, 1996)."""
    both = np.kron(QUARTER_TURN, QUARTER_TURN.conj())
    return both @ pair @ both.conj().T


def stored(pair: Matrix, kept: float, paulis: tuple[Matrix, ...]) -> Matrix:
    """The pair after a random one of these Paulis has hit each end, with the probability 1 - kept."""
    for end in (0, 1):
        hit = [np.kron(pauli, ONE) if end == 0 else np.kron(ONE, pauli) for pauli in paulis]
        pair = kept * pair + (1 - kept) * sum(one @ pair @ one.conj().T for one in hit) / len(hit)
    return pair


def fidelity(pair: Matrix) -> float:
    """The overlap with Φ⁺."""
    return float(np.trace(PHI_PLUS @ pair).real)


def twirled(pair: Matrix) -> Matrix:
    """The Werner state of the same fidelity."""
    werner = (4 * fidelity(pair) - 1) / 3
    return werner * PHI_PLUS + (1 - werner) * np.eye(4) / 4


def link(quality: int, hardware: Hardware, dejmps: bool = False) -> Matrix:
    """A pair pumped with quality - 1 fresh ones: twirled after every round (BBPSSW), or turned before it (DEJMPS)."""
    werner = (4 * hardware.link_fidelity - 1) / 3
    fresh = held = werner * PHI_PLUS + (1 - werner) * np.eye(4) / 4
    for _ in range(quality - 1):
        held = purified(turned(held), turned(fresh), hardware) if dejmps else twirled(purified(held, fresh, hardware))
    return held


def measured(name: str) -> dict[str, Any]:
    """End-to-end fidelities by hops and quality, and of a stored pair by the kind of noise."""
    scenario = scenarios.get(name)
    hardware, rows = scenario.hardware, []
    for quality in range(1, scenario.control.qualities + 1):
        part, better = link(quality, hardware), link(quality, hardware, dejmps=True)
        model, exact, dejmps = part, part, better
        for hops in range(1, scenario.routing.max_hops + 1):
            if hops > 1:
                model = twirled(swapped(model, part, hardware))
                exact, dejmps = swapped(exact, part, hardware), swapped(dejmps, better, hardware)
            shown = {"model": model, "exact": exact, "dejmps": dejmps}
            found = {kind: round(fidelity(pair), DIGITS) for kind, pair in shown.items()}
            rows.append({"quality": quality, "hops": hops} | found)
    kept = float(np.exp(-scenario.control.time_to_live / hardware.coherence_time))
    fresh = link(1, hardware)
    store = {
        "seconds": scenario.control.time_to_live,
        "model": round(fidelity(stored(fresh, kept, PAULIS)), DIGITS),
        "dephasing": round(fidelity(stored(fresh, kept, (ONE, Z))), DIGITS),
    }
    used = ("link_fidelity", "gate_fidelity", "readout_fidelity", "coherence_time")
    return {
        "scenario": name,
        "hash": scenario.hash,
        "hardware": hardware.model_dump(include=set(used)),
        "rows": rows,
        "store": store,
    }


def main() -> None:
    """Calculate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    write_json(arguments.out, measured(arguments.scenario))


if __name__ == "__main__":
    main()
