"""Clipping and noise: the Gaussian mechanism on updates, and the clip that follows their norms."""

from __future__ import annotations

import math
import secrets
import zlib
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dpem_agents.federated.privacy import DPConfig
from dpem_agents.federated.spec import Vector
from dpem_env.errors import DpemError
from dpem_env.seeding import generator


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
    weights, origin = np.asarray(local, dtype=np.float64), np.asarray(start, dtype=np.float64)
    if weights.shape != origin.shape:
        raise DpemError(f"local weights have shape {weights.shape}; expected {origin.shape} as the global ones")
    update = weights - origin
    if dp.mode != "local":
        return update
    if not math.isfinite(length(update)):
        update = np.zeros_like(update)
    random = randomness(dp, "federated update", finished, zlib.crc32(repr(node).encode()))
    deviation = dp.noise_multiplier * dp.clip_norm
    return NoisedUpdate(clipped(update, dp.clip_norm) + random.normal(0.0, deviation, update.shape))


def randomness(dp: DPConfig, purpose: str, *numbers: int) -> np.random.Generator:
    """From the operating system's entropy, whatever seeds the experiment has set; or from the noise seed."""
    if dp.noise_seed is None:
        return np.random.Generator(np.random.PCG64(secrets.randbits(128)))
    return generator(purpose, int(dp.noise_seed), *numbers)


def clipped(update: Vector, clip_norm: float) -> Vector:
    """The update, shortened to L2 norm `clip_norm` if it is longer (McMahan et al. 2018, "flat" clipping)."""
    norm = length(update)
    return update if norm <= clip_norm else update * (clip_norm / norm)


def length(update: Vector) -> float:
    """The L2 norm; infinite or NaN for entries that are or that overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(update))


def noised_share(dp: DPConfig, below: int, above: int, random: np.random.Generator) -> float:
    """The share of updates no longer than the clip, with the noise of adaptive clipping (Andrew et al. 2021, Alg. 1).

    Each update counts ±1/2, an absent one 0: so one node changes the sum by 1/2 at most.
    """
    return 0.5 + (0.5 * (below - above) + random.normal(0.0, dp.count_noise)) / dp.expected_cohort
