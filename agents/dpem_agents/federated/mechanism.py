"""Clipping and noise: the Gaussian mechanism on updates, and the clip that follows their norms.

Noise is drawn from the operating system's cryptographic generator, which nobody can predict from what was released. A
Gaussian in floating point still has low bits that tell of the number it was added to (Mironov, CCS 2012): each draw is
therefore the sum of several (Holohan & Braghin, ESORICS 2021), so that finding them out takes more work than anybody
can do. Exact are only integer mechanisms, such as the discrete Gaussian (Canonne, Kamath & Steinke, NeurIPS 2020).
"""

from __future__ import annotations

import math
import secrets
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainccinv, ndtri

from dpem_agents.federated.privacy import DPConfig
from dpem_agents.federated.spec import Vector
from dpem_env.support.errors import DpemError
from dpem_env.support.seeding import generator

SUMMED = 4  # Gaussians in one that is drawn from the system's entropy
FALSE_ALARM = 1e-9  # probability that the noised update of an honest node is taken for too long


@dataclass(frozen=True)
class NoisedUpdate:
    """An update that was clipped and noised at its node, so that an aggregator of mode "local" takes it."""

    vector: Vector


def node_update(
    dp: DPConfig, local: ArrayLike, start: ArrayLike, finished: int = 0, node: Hashable = 0
) -> Vector | NoisedUpdate:
    """What a node sends of its shared weights after learning from `start`: the difference, in mode "local" noised.

    An update with NaN or infinite entries counts as zeros there, and is noised like any other. `finished` rounds and
    the node tell draws apart where there is a noise seed.
    """
    weights, origin = numbers(local, "local weights are"), numbers(start, "global weights are")
    if weights.shape != origin.shape:
        raise DpemError(f"local weights have shape {weights.shape}; expected {origin.shape} as the global ones")
    update = weights - origin
    if dp.mode != "local":
        return update
    if not math.isfinite(length(update)):
        update = np.zeros_like(update)
    random = randomness(dp, "federated update", finished, zlib.crc32(repr(node).encode()))
    deviation = dp.noise_multiplier * dp.clip_norm
    noise = random.normal(0.0, deviation, update.size).reshape(update.shape)
    return NoisedUpdate(clipped(update, dp.clip_norm) + noise)


class Randomness(Protocol):
    """What noise and cohorts need of a generator of numpy."""

    def random(self, size: int) -> Vector:
        """Uniform between 0 and 1."""

    def normal(self, loc: float, scale: float, size: int) -> Vector:
        """Gaussian, of mean and standard deviation."""


class SystemRandomness:
    """Draws from the operating system's cryptographic generator alone."""

    def random(self, size: int) -> Vector:
        """Uniform between 0 and 1: the middles of 2⁵² intervals, so that neither end is among them."""
        bits = np.frombuffer(secrets.token_bytes(8 * size), dtype=np.uint64) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, loc: float, scale: float, size: int) -> Vector:
        """Gaussian: sums of `SUMMED`, each by the inverse of its distribution."""
        drawn = ndtri(self.random(SUMMED * size)).reshape(SUMMED, size)
        return np.asarray(loc + scale * (drawn.sum(axis=0) / math.sqrt(SUMMED)))


def randomness(dp: DPConfig, purpose: str, *which: int) -> Randomness:
    """From the operating system's entropy, whatever seeds the experiment has set; or from the noise seed."""
    if dp.noise_seed is None:
        return SystemRandomness()
    return generator(purpose, int(dp.noise_seed), *which)


def numbers(values: ArrayLike, what: str) -> Vector:
    """An array of floats; DpemError, beginning with `what`, if these are no numbers or beyond floats."""
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biuf":
            raise TypeError
        return np.asarray(given, dtype=np.float64)
    except Exception:  # whatever an object of somebody else's raises when asked for numbers
        raise DpemError(f"{what} no vector of numbers") from None


def clipped(update: Vector, clip_norm: float) -> Vector:
    """The update, shortened to L2 norm `clip_norm` if it is longer (McMahan et al. 2018, "flat" clipping)."""
    norm = length(update)
    return update if norm <= clip_norm else update * (clip_norm / norm)


def length(update: Vector) -> float:
    """The L2 norm; infinite or NaN for entries that are or that overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(update))


def longest_noised(dp: DPConfig, size: int) -> float:
    """A length that a noised update of `size` weights does not exceed, but with probability `FALSE_ALARM` at most.

    It is the clip plus a quantile of the noise's length, which over its deviation has a χ distribution with as many
    degrees of freedom as weights.
    """
    quantile = math.sqrt(2.0 * gammainccinv(size / 2.0, FALSE_ALARM))
    return float(dp.clip_norm * (1.0 + dp.noise_multiplier * quantile))


def noised_share(dp: DPConfig, below: int, above: int, random: Randomness) -> float:
    """The share of updates no longer than the clip, with the noise of adaptive clipping (Andrew et al. 2021, Alg. 1).

    Each update counts ±1/2, an absent one 0: so one node changes the sum by 1/2 at most.
    """
    [noise] = random.normal(0.0, dp.count_noise, 1)
    return 0.5 + (0.5 * (below - above) + float(noise)) / dp.expected_cohort
