"""Every formula of Werner pairs against a calculation with density matrices in QuTiP.

The qubits of a pair are those of Alice and Bob; a Werner state of parameter w is w|Φ⁺⟩⟨Φ⁺| + (1 - w)I/4. States are
compared element by element, so a formula of w also has to say that the result is a Werner state.
"""

from __future__ import annotations

import math
from functools import cache, reduce
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qutip import (
    Qobj,
    basis,
    bell_state,
    concurrence,
    destroy,
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

from dpem_env import physics

PRECISION = 1e-9
IDENTITY = qeye(2)
PAULIS = (sigmax(), sigmay(), sigmaz())
HADAMARD = (sigmax() + sigmaz()) / math.sqrt(2.0)
ZERO, ONE = fock_dm(2, 0), fock_dm(2, 1)
PHI_PLUS = ket2dm(bell_state("00"))

quick = settings(max_examples=40, deadline=None)
werners = st.floats(0.0, 1.0)
useful_werners = st.floats(0.05, 1.0)
probabilities = st.floats(0.0, 1.0)
readout_fidelities = st.floats(0.5, 1.0)
coherence_times = st.floats(0.01, 100.0)


def werner_state(werner: float) -> Qobj:
    return werner * PHI_PLUS + (1.0 - werner) * tensor(IDENTITY, IDENTITY) / 4.0


def assert_equal(state: Qobj, expected: Qobj) -> None:
    assert state.dims == expected.dims
    assert np.abs((state - expected).full()).max() <= PRECISION


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


@given(werners)
@quick
def test_fidelity_is_the_overlap_with_the_bell_state(werner: float) -> None:
    overlap = expect(PHI_PLUS, werner_state(werner))
    assert physics.fidelity_from_werner(werner) == pytest.approx(overlap, abs=PRECISION)
    assert physics.werner_from_fidelity(overlap) == pytest.approx(werner, abs=PRECISION)


@given(st.floats(0.0, 200.0), st.floats(0.0, 1.0))
@quick
def test_transmission_is_what_is_left_of_a_photon_in_an_absorbing_fibre(length: float, attenuation: float) -> None:
    per_km = attenuation * math.log(10.0) / 10.0  # 10 dB are a factor of 10 in intensity
    photon = evolved(fock_dm(2, 1), [math.sqrt(per_km) * destroy(2)], length)
    assert physics.transmission(length, attenuation) == pytest.approx(expect(ONE, photon), abs=PRECISION)


@given(werners)
@quick
def test_a_twirl_leaves_a_werner_state_as_it_is(werner: float) -> None:
    assert_equal(twirled(werner_state(werner)), werner_state(werner))


@given(st.integers(0, 2**32 - 1))
@quick
def test_a_twirl_makes_any_state_a_werner_state_of_equal_fidelity(seed: int) -> None:
    entries = np.random.default_rng(seed).normal(size=(2, 4, 4))
    root = Qobj(entries[0] + 1j * entries[1], dims=PHI_PLUS.dims)
    state = (root * root.dag()).unit()
    assert_equal(twirled(state), werner_state(physics.werner_from_fidelity(float(expect(PHI_PLUS, state)))))


@given(werners, werners)
@quick
def test_an_ideal_swap_multiplies_the_werner_parameters(first: float, second: float) -> None:
    assert_equal(swapped(werner_state(first), werner_state(second), 1.0, 1.0), werner_state(first * second))


@given(werners, werners, probabilities, readout_fidelities)
@example(1.0, 1.0, 0.99, 0.99)
@quick
def test_a_noisy_swap_twirled_multiplies_them_by_the_swap_factor(w1: float, w2: float, gate: float, m: float) -> None:
    ends = twirled(swapped(werner_state(w1), werner_state(w2), gate, m))
    assert_equal(ends, werner_state(w1 * w2 * physics.swap_factor(gate, m)))


def test_readout_errors_leave_a_bell_diagonal_state_that_only_the_twirl_makes_werner() -> None:
    ends = swapped(PHI_PLUS, PHI_PLUS, 1.0, 0.9)
    weights = {name: float(expect(ket2dm(bell_state(name)), ends)) for name in ("00", "01", "10", "11")}
    assert weights == pytest.approx({"00": 0.81, "01": 0.09, "10": 0.09, "11": 0.01}, abs=PRECISION)


@given(werners, st.floats(0.0, 50.0), coherence_times, coherence_times)
@quick
def test_storage_multiplies_the_werner_parameter_by_the_decay_factor(w: float, t: float, u: float, v: float) -> None:
    assert_equal(stored(werner_state(w), t, u, v), werner_state(w * physics.decay_factor(t, u, v)))


@given(useful_werners, probabilities, coherence_times, coherence_times)
@quick
def test_a_pair_kept_for_its_cutoff_age_is_at_the_threshold(w: float, share: float, u: float, v: float) -> None:
    threshold = 0.01 + share * (w - 0.01)
    age = float(physics.cutoff_age(w, threshold, u, v))
    assert_equal(stored(werner_state(w), age, u, v), werner_state(threshold))


@given(werners, werners, probabilities, readout_fidelities)
@example(0.9, 0.6, 1.0, 1.0)
@quick
def test_a_bbpssw_round_succeeds_and_purifies_as_stated(kept: float, measured: float, gate: float, m: float) -> None:
    success, state = purified(werner_state(kept), werner_state(measured), gate, m)
    assert physics.purification_success(kept, measured, gate, m) == pytest.approx(success, abs=1e-12)
    expected = werner_state(physics.purified_werner(kept, measured, gate, m))
    assert np.abs((state - expected).full()).max() <= 1e-12


@given(werners, st.integers(1, 5), probabilities, readout_fidelities)
@quick
def test_pumping_is_a_chain_of_rounds_with_fresh_pairs(werner: float, quality: int, gate: float, m: float) -> None:
    link = werner_state(werner)
    pumped = reduce(lambda kept, fresh: purified(kept, fresh, gate, m)[1], [link] * quality)
    assert_equal(pumped, werner_state(physics.pumped_werner(werner, quality, gate, m)))


@given(werners)
@quick
def test_bit_error_rate_is_the_disagreement_in_z_and_in_x(werner: float) -> None:
    in_z, in_x = error_rates(werner_state(werner))
    assert physics.bit_error_rate(werner) == pytest.approx(in_z, abs=PRECISION)
    assert physics.bit_error_rate(werner) == pytest.approx(in_x, abs=PRECISION)


@given(st.one_of(werners, st.floats(0.75, 1.0)))
@example(1.0)
@quick
def test_key_fraction_deducts_the_entropies_of_the_errors_in_z_and_x(werner: float) -> None:
    left = 1.0 - sum(entropy_of_bit(rate) for rate in error_rates(werner_state(werner)))
    assert physics.key_fraction(werner) == pytest.approx(max(0.0, left), abs=PRECISION)


@given(st.one_of(werners, st.floats(0.7, 1.0)))
@example(1.0)
@quick
def test_hashing_bound_is_the_coherent_information(werner: float) -> None:
    state = werner_state(werner)
    coherent = entropy_vn(state.ptrace(1), 2) - entropy_vn(state, 2)
    assert physics.hashing_bound(werner) == pytest.approx(max(0.0, coherent), abs=PRECISION)


def test_hashing_bound_stays_below_the_entanglement_of_formation() -> None:
    for werner in np.linspace(0.0, 1.0, 21):
        unentangled = max(0.0, 1.0 - concurrence(werner_state(werner)) ** 2)
        formation = entropy_of_bit((1.0 + math.sqrt(unentangled)) / 2.0)  # Wootters, PRL 80, 2245, 1998
        assert physics.hashing_bound(werner) <= formation + PRECISION
