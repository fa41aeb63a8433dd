"""Every formula of Werner pairs against a calculation with density matrices in QuTiP.

States are compared element by element, so a formula of w also has to say that the result is a Werner state.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qutip import Qobj, bell_state, concurrence, destroy, entropy_vn, expect, fock_dm, ket2dm

from dpem_env import physics

from .density_matrices import (
    ONE,
    PHI_PLUS,
    entropy_of_bit,
    error_rates,
    evolved,
    purified,
    stored,
    swapped,
    twirled,
    werner_state,
)

PRECISION = 1e-9

quick = settings(max_examples=40, deadline=None)
werners = st.floats(0.0, 1.0)
useful_werners = st.floats(0.05, 1.0)
probabilities = st.floats(0.0, 1.0)
readout_fidelities = st.floats(0.5, 1.0)
coherence_times = st.floats(0.01, 100.0)


def assert_equal(state: Qobj, expected: Qobj) -> None:
    assert state.dims == expected.dims
    assert np.abs((state - expected).full()).max() <= PRECISION


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
