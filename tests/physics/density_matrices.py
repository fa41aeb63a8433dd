"""Werner pairs as density matrices in QuTiP: storage, swaps and purification, worked out without any of our formulas.

The qubits of a pair are those of Alice and Bob; a Werner state of parameter w is w|Φ⁺⟩⟨Φ⁺| + (1 - w)I/4. Tests hold the
formulas against these, and docs/physics_figures.py draws both.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
from qutip import (
    Qobj,
    basis,
    bell_state,
    entropy_vn,
    expect,
    fock_dm,
    ket2dm,
    liouvillian,
    qeye,
    sigmax,
    sigmay,
    sigmaz,
    tensor,
)
from qutip import operator_to_vector as to_vector
from qutip import vector_to_operator as to_operator

IDENTITY = qeye(2)
PAULIS = (sigmax(), sigmay(), sigmaz())
HADAMARD = (sigmax() + sigmaz()) / math.sqrt(2.0)
ZERO, ONE = fock_dm(2, 0), fock_dm(2, 1)
PHI_PLUS = ket2dm(bell_state("00"))


def werner_state(werner: float) -> Qobj:
    return werner * PHI_PLUS + (1.0 - werner) * tensor(IDENTITY, IDENTITY) / 4.0


def on(operators: dict[int, Qobj], qubits: int) -> Qobj:
    """The given operators on their qubits and the identity on the others."""
    return tensor([operators.get(qubit, IDENTITY) for qubit in range(qubits)])


@cache
def cnot(control: int, target: int, qubits: int) -> Qobj:
    return on({control: ZERO}, qubits) + on({control: ONE, target: sigmax()}, qubits)


@cache
def twirling() -> list[Qobj]:
    """U ⊗ U* for the 12 rotations U of a tetrahedron; their average leaves of a state only its overlap with Φ⁺."""
    third = (IDENTITY - 1j * sum(PAULIS)) / 2.0  # turns X into Y, Y into Z and Z into X
    rotations = [pauli * third**turns for pauli, turns in product((IDENTITY, *PAULIS), range(3))]
    return [tensor(rotation, rotation.conj()) for rotation in rotations]


def twirled(state: Qobj) -> Qobj:
    return sum(unitary * state * unitary.dag() for unitary in twirling()) / len(twirling())


def evolved(state: Qobj, jumps: list[Qobj], duration: float) -> Qobj:
    """State after `duration` of the Lindblad equation without Hamiltonian, by the exponential of its generator."""
    return to_operator((duration * liouvillian(None, jumps)).expm() * to_vector(state))


def stored(state: Qobj, duration: float, coherence_u: float, coherence_v: float) -> Qobj:
    """Pair after `duration` s in depolarising memories: each end is replaced by I/2 at the rate 1/T per second.

    Jumps by X, Y and Z at the rate 1/(4T) each do that, since ρ + XρX + YρY + ZρZ = 2 tr(ρ) I for one qubit.
    """
    times = (coherence_u, coherence_v)
    jumps = [on({end: pauli}, 2) / math.sqrt(4.0 * times[end]) for end in (0, 1) for pauli in PAULIS]
    return evolved(state, jumps, duration)


def reporting(readout_fidelity: float) -> tuple[Qobj, Qobj]:
    """POVM elements of the reports 0 and 1 of a readout that reports the true bit with the given probability."""
    m = readout_fidelity
    return m * ZERO + (1.0 - m) * ONE, m * ONE + (1.0 - m) * ZERO


def after_noisy_cnot(state: Qobj, control: int, target: int, gate_fidelity: float) -> Qobj:
    """State after a CNOT that acts ideally with the given probability, else leaves its qubits in I/4."""
    qubits = len(state.dims[0])
    gate = cnot(control, target, qubits)
    others = [qubit for qubit in range(qubits) if qubit not in (control, target)]
    lost = tensor(state.ptrace(others), tensor(IDENTITY, IDENTITY) / 4.0)
    order = [*others, control, target]
    lost = lost.permute([order.index(qubit) for qubit in range(qubits)])
    return gate_fidelity * gate * state * gate.dag() + (1.0 - gate_fidelity) * lost


def swapped(first: Qobj, second: Qobj, gate_fidelity: float, readout_fidelity: float) -> Qobj:
    """Pair of Alice and Carol after Bob's noisy Bell measurement of his halves of two pairs, before any twirl.

    The model of Briegel et al. (PRL 81, 5932, 1998): the two-qubit gate (CNOT) acts ideally with the probability g and
    otherwise replaces the state of its qubits by I/4; each of the two readouts independently reports the true bit with
    the probability m. The Hadamard gate is ideal, and so are Carol's corrections, which follow the reported bits.
    """
    alice, left, right, carol = range(4)
    after_gate = after_noisy_cnot(tensor(first, second), left, right, gate_fidelity)
    rotated = on({left: HADAMARD}, 4) * after_gate * on({left: HADAMARD}, 4)
    reports = reporting(readout_fidelity)
    ends = 0.0
    for phase, parity in product((0, 1), repeat=2):
        outcome = (on({left: reports[phase], right: reports[parity]}, 4) * rotated).ptrace([alice, carol])
        correction = on({1: sigmaz() ** phase * sigmax() ** parity}, 2)
        ends += correction * outcome * correction.dag()
    return ends


def purified(kept: Qobj, measured: Qobj, gate_fidelity: float = 1.0, m: float = 1.0) -> tuple[float, Qobj]:
    """Success probability and output of a BBPSSW round: bilateral CNOT, measure in Z, keep if the ends agree, twirl.

    The gates and readouts are those of `swapped`, one of each kind at either end; the twirl is ideal.
    """
    after = tensor(kept, measured)  # qubits: Alice's and Bob's of the kept pair, then of the measured one
    for control, target in ((0, 2), (1, 3)):
        after = after_noisy_cnot(after, control, target, gate_fidelity)
    agreeing = sum((on({2: report, 3: report}, 4) * after).ptrace([0, 1]) for report in reporting(m))
    return agreeing.tr().real, twirled(agreeing / agreeing.tr())


def entropy_of_bit(probability: float) -> float:
    return float(entropy_vn(Qobj(np.diag([probability, 1.0 - probability])), 2))


def disagreement(state: Qobj, plus: Qobj, minus: Qobj) -> float:
    """Probability that Alice and Bob find different results in the basis of these two states."""
    return float(expect(tensor(ket2dm(plus), ket2dm(minus)) + tensor(ket2dm(minus), ket2dm(plus)), state))


def error_rates(state: Qobj) -> tuple[float, float]:
    """Error rates in Z and X."""
    zero, one = basis(2, 0), basis(2, 1)
    return disagreement(state, zero, one), disagreement(state, HADAMARD * zero, HADAMARD * one)
