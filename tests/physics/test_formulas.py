"""Formulas of Werner pairs against textbook numbers, density matrices, integrals and sampling."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray
from scipy.integrate import quad

from dpem_env import physics

fidelities = st.floats(0.25, 1.0)
werners = st.floats(0.0, 1.0)
rate_lists = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=8)

BELL = np.array([1.0, 0.0, 0.0, 1.0]) / math.sqrt(2.0)


def werner_state(werner: float) -> NDArray[np.float64]:
    return werner * np.outer(BELL, BELL) + (1.0 - werner) * np.eye(4) / 4.0


def bell_fidelity(state: NDArray[np.float64]) -> float:
    return float(BELL @ state @ BELL)


def on_qubits(gate: NDArray[np.float64], qubits: tuple[int, ...], total: int) -> NDArray[np.float64]:
    """The gate on the given qubits and the identity on the others."""
    others = [q for q in range(total) if q not in qubits]
    full = np.kron(gate, np.eye(2 ** len(others))).reshape([2] * (2 * total))
    order = np.argsort([*qubits, *others])
    return full.transpose([*order, *(order + total)]).reshape(2**total, 2**total)


@pytest.mark.parametrize(
    ("fidelity", "werner"), [(1.0, 1.0), (0.25, 0.0), (0.98, 2.92 / 3.0), (0.7, 0.6), (0.5, 1 / 3)]
)
def test_werner_parameter_of_a_known_fidelity(fidelity: float, werner: float) -> None:
    assert physics.werner_from_fidelity(fidelity) == pytest.approx(werner, abs=1e-15)
    assert physics.fidelity_from_werner(werner) == pytest.approx(fidelity, abs=1e-15)


@given(fidelities)
@settings(max_examples=50)
def test_fidelity_survives_the_conversion_to_werner_and_back(fidelity: float) -> None:
    assert physics.fidelity_from_werner(physics.werner_from_fidelity(fidelity)) == pytest.approx(fidelity, abs=1e-15)


@given(werners)
@settings(max_examples=25)
def test_fidelity_is_the_overlap_with_the_bell_state(werner: float) -> None:
    assert physics.fidelity_from_werner(werner) == pytest.approx(bell_fidelity(werner_state(werner)), abs=1e-14)


@pytest.mark.parametrize(("length", "expected"), [(0.0, 1.0), (50.0, 0.1), (100.0, 0.01), (15.0, 0.501187)])
def test_transmission_at_a_fifth_of_a_decibel_per_km(length: float, expected: float) -> None:
    assert physics.transmission(length, 0.2) == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.0, 200.0), st.floats(0.0, 200.0), st.floats(0.0, 1.0))
@settings(max_examples=50)
def test_transmissions_of_consecutive_fibres_multiply(first: float, second: float, attenuation: float) -> None:
    product = physics.transmission(first, attenuation) * physics.transmission(second, attenuation)
    assert physics.transmission(first + second, attenuation) == pytest.approx(product, rel=1e-9)


def test_swap_factor_of_the_default_hardware_is_0_9637() -> None:
    assert physics.swap_factor(0.99, 0.99) == pytest.approx(0.963732, abs=1e-12)
    assert physics.swap_factor(1.0, 1.0) == 1.0


@pytest.mark.parametrize(("noise", "expected"), [(1.0, 0.9033333333), (0.99, 0.87963824)])
def test_swap_of_two_pairs_of_fidelity_0_95(noise: float, expected: float) -> None:
    werner = physics.werner_from_fidelity(0.95) ** 2 * physics.swap_factor(noise, noise)
    assert physics.fidelity_from_werner(werner) == pytest.approx(expected, abs=5e-9)


@given(werners, werners)
@settings(max_examples=25)
def test_ideal_swap_of_werner_states_multiplies_their_parameters(first: float, second: float) -> None:
    state = np.kron(werner_state(first), werner_state(second))  # qubits A, B1, B2, C; the Bell measurement is on B1, B2
    projected = on_qubits(np.outer(BELL, BELL), (1, 2), 4) @ state @ on_qubits(np.outer(BELL, BELL), (1, 2), 4)
    ends = np.einsum("abcdebcf->adef", projected.reshape([2] * 8)).reshape(4, 4)
    fidelity = bell_fidelity(ends) / np.trace(ends)
    assert physics.werner_from_fidelity(fidelity) == pytest.approx(first * second, abs=1e-12)


def test_storage_decays_with_the_coherence_times_of_both_ends() -> None:
    assert physics.decay_factor(1.0, 60.0, 60.0) == pytest.approx(math.exp(-1.0 / 30.0))
    assert physics.decay_factor(2.0, 10.0, 5.0) == pytest.approx(math.exp(-0.6))
    assert physics.decay_factor(0.0, 1.0, 1.0) == 1.0


@given(st.floats(0.0, 50.0), st.floats(0.0, 50.0), st.floats(1.0, 100.0), st.floats(1.0, 100.0))
@settings(max_examples=50)
def test_decay_over_two_intervals_is_the_product_of_both(first: float, second: float, u: float, v: float) -> None:
    product = physics.decay_factor(first, u, v) * physics.decay_factor(second, u, v)
    assert physics.decay_factor(first + second, u, v) == pytest.approx(product, rel=1e-9)


@pytest.mark.parametrize(("fidelity", "success", "purified"), [(0.8, 0.7689, 0.8382), (0.9, 0.8756, 0.9264)])
def test_bbpssw_round_of_two_equal_pairs(fidelity: float, success: float, purified: float) -> None:
    werner = physics.werner_from_fidelity(fidelity)
    assert physics.purification_success(werner, werner) == pytest.approx(success, abs=5e-5)
    assert physics.fidelity_from_werner(physics.purified_werner(werner, werner)) == pytest.approx(purified, abs=5e-5)


@given(werners, werners)
@settings(max_examples=25)
def test_bbpssw_round_agrees_with_bilateral_cnots_on_density_matrices(kept: float, fresh: float) -> None:
    cnot = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=np.float64)
    # Qubits: A and B of the kept pair, then A and B of the fresh one, which is measured.
    unitary = on_qubits(cnot, (1, 3), 4) @ on_qubits(cnot, (0, 2), 4)
    state = unitary @ np.kron(werner_state(kept), werner_state(fresh)) @ unitary.T
    blocks = state.reshape(4, 4, 4, 4)
    agreeing = blocks[:, 0, :, 0] + blocks[:, 3, :, 3]  # both ends measured 0, or both measured 1
    success = float(np.trace(agreeing))
    assert physics.purification_success(kept, fresh) == pytest.approx(success, abs=1e-12)
    fidelity = physics.fidelity_from_werner(physics.purified_werner(kept, fresh))
    assert fidelity == pytest.approx(bell_fidelity(agreeing) / success, abs=1e-12)


@pytest.mark.parametrize(("fidelity", "pumped"), [(0.98, 0.978254), (0.95, 0.956164), (0.90, 0.916597)])
def test_bbpssw_round_with_gates_and_readouts_of_0_99(fidelity: float, pumped: float) -> None:
    werner = physics.werner_from_fidelity(fidelity)
    found = physics.fidelity_from_werner(physics.pumped_werner(werner, 2, 0.99, 0.99))
    assert found == pytest.approx(pumped, abs=5e-7)


@given(st.floats(0.25, 1.0), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
@settings(max_examples=50)
def test_noisy_bbpssw_round_is_the_one_published_for_equal_pairs(fidelity: float, p2: float, eta: float) -> None:
    """Dür, Briegel, Cirac & Zoller, PRA 59, 169 (1999), with ideal one-qubit gates, written in F."""
    f, bad = fidelity, (1.0 - fidelity) / 3.0
    right, wrong, lost = eta**2 + (1.0 - eta) ** 2, 2.0 * eta * (1.0 - eta), (1.0 - p2**2) / (8.0 * p2**2)
    kept = (f**2 + bad**2) * right + (f * bad + bad**2) * wrong + lost
    all_kept = (f**2 + 2.0 * f * bad + 5.0 * bad**2) * right + 4.0 * (f * bad + bad**2) * wrong + 4.0 * lost
    werner = physics.werner_from_fidelity(fidelity)
    found = physics.fidelity_from_werner(physics.purified_werner(werner, werner, p2, eta))
    assert found == pytest.approx(kept / all_kept, abs=1e-12)
    assert physics.purification_success(werner, werner, p2, eta) == pytest.approx(p2**2 * all_kept, abs=1e-12)


@given(fidelities)
@settings(max_examples=50)
def test_purification_improves_pairs_of_fidelity_above_one_half_and_no_others(fidelity: float) -> None:
    werner = physics.werner_from_fidelity(fidelity)
    gain = physics.purified_werner(werner, werner) - werner
    if 0.51 < fidelity < 0.99:
        assert gain > 0.0
    elif 0.26 < fidelity < 0.49:
        assert gain < 0.0


def test_pumping_repeats_rounds_with_a_fresh_pair() -> None:
    fresh = physics.werner_from_fidelity(0.98)
    once = physics.purified_werner(fresh, fresh)
    assert physics.pumped_werner(fresh, 1) == fresh
    assert physics.pumped_werner(fresh, 2) == once
    assert physics.pumped_werner(fresh, 3) == physics.purified_werner(once, fresh)
    assert physics.fidelity_from_werner(physics.pumped_werner(fresh, 3)) == pytest.approx(0.9886072, abs=1e-7)


def test_cutoff_age_of_known_decays() -> None:
    assert physics.cutoff_age(0.9, 0.9 / math.e, 60.0, 60.0) == pytest.approx(30.0, rel=1e-12)
    assert physics.cutoff_age(1.0, 0.5, 1.0, 3.0) == pytest.approx(0.75 * math.log(2.0), rel=1e-12)


def test_cutoff_age_is_zero_for_pairs_that_do_not_exceed_the_threshold() -> None:
    ages = physics.cutoff_age(np.array([1e-9, 0.3, 0.6]), np.full(3, 0.6), np.ones(3), np.ones(3))
    assert ages.tolist() == [0.0, 0.0, 0.0]


@given(st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.floats(1.0, 100.0), st.floats(1.0, 100.0))
@settings(max_examples=50)
def test_decay_over_the_cutoff_age_leaves_the_threshold(first: float, second: float, u: float, v: float) -> None:
    werner, threshold = max(first, second), min(first, second)
    left = werner * physics.decay_factor(physics.cutoff_age(werner, threshold, u, v), u, v)
    assert left == pytest.approx(threshold, rel=1e-12)


@pytest.mark.parametrize(
    ("error", "fraction"), [(0.0, 1.0), (0.05, 0.427206), (0.1, 0.062009), (0.12, 0.0), (0.5, 0.0)]
)
def test_bb84_key_fraction_at_a_known_error_rate(error: float, fraction: float) -> None:
    werner = 1.0 - 2.0 * error
    assert physics.bit_error_rate(werner) == pytest.approx(error, abs=1e-15)
    assert physics.key_fraction(werner) == pytest.approx(fraction, abs=5e-7)


def test_bb84_tolerates_error_rates_up_to_11_percent() -> None:
    assert physics.key_fraction(1.0 - 2.0 * 0.1100) > 0.0
    assert physics.key_fraction(1.0 - 2.0 * 0.1101) == 0.0


def test_hashing_bound_is_positive_above_a_fidelity_of_0_8107() -> None:
    assert physics.hashing_bound(physics.werner_from_fidelity(0.8107)) == 0.0
    assert physics.hashing_bound(physics.werner_from_fidelity(0.8108)) > 0.0
    assert physics.hashing_bound(1.0) == 1.0


def test_key_and_hashing_yield_of_an_array_are_those_of_its_elements() -> None:
    array = np.array([0.0, 0.5, 0.8, 0.97, 1.0])
    assert physics.key_fraction(array).tolist() == [physics.key_fraction(werner) for werner in array.tolist()]
    assert physics.hashing_bound(array).tolist() == [physics.hashing_bound(werner) for werner in array.tolist()]


@given(werners)
@settings(max_examples=50)
def test_a_pair_distils_to_at_least_the_key_it_gives_by_bb84(werner: float) -> None:
    assert physics.hashing_bound(werner) >= physics.key_fraction(werner) - 1e-12


@pytest.mark.parametrize(("rates", "seconds"), [([4.0], 0.25), ([2.0, 2.0], 0.75), ([1.0, 3.0], 1 + 1 / 3 - 1 / 4)])
def test_build_time_of_one_and_two_links(rates: list[float], seconds: float) -> None:
    assert physics.expected_build_time(np.array(rates)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("links", [1, 3, 8, 16])
def test_build_time_of_equal_links_is_a_harmonic_number(links: int) -> None:
    harmonic = sum(1.0 / i for i in range(1, links + 1))
    assert physics.expected_build_time(np.full(links, 2.0)) == pytest.approx(harmonic / 2.0, rel=1e-9)


@given(rate_lists)
@settings(max_examples=30, deadline=None)
def test_build_time_is_the_integral_of_the_survival_function(rates: list[float]) -> None:
    def survival(time: float) -> float:
        return 1.0 - math.prod(-math.expm1(-rate * time) for rate in rates)

    scale = 1.0 / min(rates)
    head, _ = quad(survival, 0.0, 8.0 * scale, limit=300, points=sorted({1.0 / rate for rate in rates}))
    tail, _ = quad(survival, 8.0 * scale, 60.0 * scale, limit=300)
    assert physics.expected_build_time(np.array(rates)) == pytest.approx(head + tail, rel=1e-6)


def test_build_time_is_the_mean_of_sampled_maxima() -> None:
    rates = np.array([0.3, 1.0, 1.0, 4.0, 9.0])
    maxima = np.random.default_rng(1).exponential(1.0 / rates, size=(200_000, 5)).max(axis=1)
    error = maxima.std() / math.sqrt(len(maxima))
    assert abs(maxima.mean() - physics.expected_build_time(rates)) < 5.0 * error


@given(rate_lists, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_build_time_does_not_depend_on_the_order_of_links(rates: list[float], random: Random) -> None:
    shuffled = list(rates)
    random.shuffle(shuffled)
    expected = physics.expected_build_time(np.array(rates))
    assert physics.expected_build_time(np.array(shuffled)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rates", [[0.0], [5.0, 0.0], [0.0, 0.0, 1.0], [3.0, 5e-324]])
def test_build_time_is_infinite_where_a_link_makes_no_pairs(rates: list[float]) -> None:
    assert physics.expected_build_time(np.array(rates)) == np.inf


@given(st.permutations([10.0, 3.0, 1e-18, 7.0]), st.sampled_from([1e-12, 1e-18, 1e-90]))
@example([10.0, 1e-18, 3.0, 7.0], 1e-18)
@settings(max_examples=25)
def test_build_time_of_a_very_slow_link_is_not_lost_next_to_fast_ones(rates: list[float], slowest: float) -> None:
    with_slow = np.array([slowest if rate == 1e-18 else rate for rate in rates])
    assert physics.expected_build_time(with_slow) == pytest.approx(1.0 / slowest, rel=1e-9)


def test_compiled_formulas_equal_the_interpreted_ones() -> None:
    rates = np.array([0.5, 2.0, 3.5, 0.1])
    assert njit(physics.expected_build_time)(rates) == pytest.approx(physics.expected_build_time(rates), rel=1e-14)
    assert njit(physics.purified_werner)(0.9, 0.8) == pytest.approx(physics.purified_werner(0.9, 0.8), rel=1e-14)
    age = physics.cutoff_age(0.9, 0.8, 3.0, 5.0)
    assert njit(physics.cutoff_age)(0.9, 0.8, 3.0, 5.0) == pytest.approx(age, rel=1e-14)
