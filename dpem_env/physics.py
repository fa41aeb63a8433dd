"""Formulas for Werner pairs: loss, swapping, storage decay, purification, key and distillable entanglement.

Pure functions of numbers or, elementwise, of arrays. The simulator compiles these very functions, so each formula
exists once. A Werner state of fidelity F to a Bell pair has the Werner parameter w = (4F - 1)/3, so F = (1 + 3w)/4.
Lengths are in km, times in seconds, rates in pairs per second.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", float, NDArray[np.float64])

LIGHT_SPEED = 2.0e5  # km/s in fibre, of a refractive index of 1.5
NEGLIGIBLE_RATE = 1e-100  # pairs/s; its inverse can still be summed
TINY = 1e-300  # floor of a probability inside a logarithm, so that 0·log₂ 0 is 0


def werner_from_fidelity(fidelity: Real) -> Real:
    """Werner parameter w = (4F - 1)/3 of a Werner state of fidelity F (Werner, PRA 40, 4277, 1989)."""
    return (4.0 * fidelity - 1.0) / 3.0


def fidelity_from_werner(werner: Real) -> Real:
    """Fidelity F = (1 + 3w)/4 of a Werner state of parameter w."""
    return (1.0 + 3.0 * werner) / 4.0


def transmission(length: Real, attenuation: float | Real) -> Real:
    """Probability η = 10^(-αL/10) that a photon survives `length` km of fibre of `attenuation` dB/km."""
    return 10.0 ** (-attenuation * length / 10.0)  # type: ignore[no-any-return]


def single_click_success(bright_state: float, transmission: Real) -> Real:
    """Probability 2α√η that a single-click attempt succeeds, α the share of the bright state, η of the whole fibre.

    Each end emits with probability α; one of the two photons, which come half of the way, is heard in the middle. To
    first order in α, when fidelity is 1 - α: Cabrillo, Cirac, García-Fernández & Zoller, PRA 59, 1025 (1999); Hermans
    et al., New J. Phys. 25, 013011 (2023).
    """
    return 2.0 * bright_state * np.sqrt(transmission)  # type: ignore[no-any-return]


def heralded_attempts(length: Real, modes: int) -> Real:
    """Attempts/s that a link of `length` km allows if at most `modes` may be unanswered: modes·c/2L, c in the fibre."""
    return modes * LIGHT_SPEED / np.maximum(2.0 * length, TINY)  # type: ignore[no-any-return]


def swap_factor(gate_fidelity: float, readout_fidelity: float) -> float:
    """Factor g·(4m² - 1)/3 by which one noisy swap multiplies w₁·w₂ (Briegel et al., PRL 81, 5932, 1998, eq. 3)."""
    return gate_fidelity * (4.0 * readout_fidelity * readout_fidelity - 1.0) / 3.0


def decay_factor(duration: float, coherence_u: Real, coherence_v: Real) -> Real:
    """Factor exp(-t/T_u - t/T_v) by which `duration` seconds in two depolarising memories multiply w."""
    return np.exp(-duration / coherence_u - duration / coherence_v)  # type: ignore[no-any-return]


def cutoff_age(werner: Real, threshold: Real, coherence_u: Real, coherence_v: Real) -> Real:
    """Seconds for which a stored pair of parameter `werner` stays at or above `threshold`, both positive.

    Solves w·exp(-t/T_u - t/T_v) = threshold, the decay of `decay_factor`, for t = ln(w/threshold) / (1/T_u + 1/T_v);
    coherence times in seconds. Zero if the pair starts at or below the threshold.
    """
    return np.maximum(np.log(werner / threshold), 0.0) / (1.0 / coherence_u + 1.0 / coherence_v)  # type: ignore[no-any-return]


def purification_success(kept: Real, measured: Real, gate_fidelity: float = 1.0, readout_fidelity: float = 1.0) -> Real:
    """Probability (1 + g²r·w₁w₂)/2, r = (2m - 1)², that a BBPSSW round succeeds: that both ends report the same bit.

    A pair of Werner parameter w₁ is kept and one of w₂ measured. The CNOT at either end acts ideally with probability g
    (`gate_fidelity`) and otherwise leaves its two qubits in I/4; a readout reports the true bit with probability m: the
    noise of `swap_factor`. Bennett et al., PRL 76, 722 (1996), eq. 7, with the noise of Dür, Briegel, Cirac & Zoller,
    PRA 59, 169 (1999), for pairs that need not be equal. Ideal by default.
    """
    visibility = gate_fidelity * (2.0 * readout_fidelity - 1.0)
    return (1.0 + visibility * visibility * kept * measured) / 2.0


def purified_werner(kept: Real, measured: Real, gate_fidelity: float = 1.0, readout_fidelity: float = 1.0) -> Real:
    """Werner parameter after a successful BBPSSW round, twirled back to Werner form by ideal one-qubit gates.

    w' = g²(w₁ + r·w₂ + 2(1 + r)w₁w₂) / (3(1 + g²r·w₁w₂)): noise, letters and sources of `purification_success`. A wrong
    readout keeps a round that should have failed, whose kept pair has lost more; so the two pairs count differently.
    """
    gates = gate_fidelity * gate_fidelity
    readouts = (2.0 * readout_fidelity - 1.0) * (2.0 * readout_fidelity - 1.0)
    agreeing = gates * (kept + readouts * measured + 2.0 * (1.0 + readouts) * kept * measured)
    return agreeing / (3.0 * (1.0 + gates * readouts * kept * measured))


def pumped_werner(link_werner: Real, quality: int, gate_fidelity: float = 1.0, readout_fidelity: float = 1.0) -> Real:
    """Werner parameter of a fresh link after `quality` - 1 successful pumping rounds with fresh pairs."""
    werner = link_werner
    for _ in range(quality - 1):
        werner = purified_werner(werner, link_werner, gate_fidelity, readout_fidelity)
    return werner


def pairs_per_link(link_werner: Real, quality: int, gate_fidelity: float = 1.0, readout_fidelity: float = 1.0) -> Real:
    """Pairs E_q that must arrive on average to complete a link at `quality`, if nothing decays meanwhile.

    E_1 = 1, E_(q+1) = (E_q + 1)/s_q with s_q the success of pumping the link's pair after q - 1 rounds: a failure
    empties the link. Decay lowers s_q, so this is a lower bound (nested purification: Dür & Briegel, Rep. Prog. Phys.
    70, 1381, 2007).
    """
    pairs, held = link_werner * 0.0 + 1.0, link_werner
    for _ in range(quality - 1):
        pairs = (pairs + 1.0) / purification_success(held, link_werner, gate_fidelity, readout_fidelity)
        held = purified_werner(held, link_werner, gate_fidelity, readout_fidelity)
    return pairs


def bit_error_rate(werner: Real) -> Real:
    """Probability (1 - w)/2 that the ends of a Werner pair disagree, measured both in Z or both in X (QBER)."""
    return (1.0 - werner) / 2.0


def _plogp(probability: Real) -> Real:
    """p·log₂ p in bits, with the limit 0 at p = 0."""
    return probability * np.log2(np.maximum(probability, TINY))  # type: ignore[no-any-return]


def key_fraction(werner: Real) -> Real:
    """Asymptotic BB84 key in secret bits per pair measured in the same basis, from perfect measurements.

    max(0, 1 - 2h(Q)) with h the binary entropy and the same error rate Q = (1 - w)/2 in both bases (Shor & Preskill,
    PRL 85, 441, 2000); positive for Q below 11.0 %, so for w > 0.780. Sifting is not deducted.
    """
    error = bit_error_rate(werner)
    return np.maximum(0.0, 1.0 + 2.0 * (_plogp(error) + _plogp(1.0 - error)))  # type: ignore[no-any-return]


def hashing_bound(werner: Real) -> Real:
    """Hashing lower bound on the distillable entanglement of a Werner pair, in ebits per pair.

    max(0, 1 - S(ρ)) with S the von Neumann entropy in bits of the eigenvalues F and thrice (1 - F)/3, reached by the
    one-way hashing method (Bennett et al., PRA 54, 3824, 1996; Devetak & Winter, Proc. R. Soc. A 461, 207, 2005).
    Two-way distillation can yield more, and some from any F > 1/2; this bound is positive for F > 0.8107.
    """
    fidelity = fidelity_from_werner(werner)
    return np.maximum(0.0, 1.0 + _plogp(fidelity) + 3.0 * _plogp((1.0 - fidelity) / 3.0))  # type: ignore[no-any-return]


def within(duration: float, rate: Real) -> Real:
    """Probability 1 - exp(-rate·duration) that an exponential time of this rate is no longer than `duration`."""
    return -np.expm1(-rate * duration)  # type: ignore[no-any-return]


def expected_build_time(rates: NDArray[np.float64]) -> float:
    """Expected maximum, in seconds, of independent exponential times with the given rates per second.

    Inclusion-exclusion over the non-empty subsets of links (Feller 1971, vol. II, I.6), counted up in binary. Rates are
    only ever added, since subtracting would lose the slow links next to the fast. Infinite if a rate is negligible.
    """
    if np.any(rates < NEGLIGIBLE_RATE):
        return np.inf
    expected = 0.0
    size = 0
    rate_from = np.zeros(len(rates) + 1)  # summed rate of the subset's links b, b + 1, …
    for subset in range(1, 1 << len(rates)):
        bit = 0
        while not (subset >> bit) & 1:
            bit += 1
        rate_from[: bit + 1] = rate_from[bit + 1] + rates[bit]  # counting up cleared all links below `bit`
        size += 1 - bit
        expected += 1.0 / rate_from[0] if size & 1 else -1.0 / rate_from[0]
    return expected
