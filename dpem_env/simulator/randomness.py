"""Counter-based randomness: every draw is a function of its key, so no policy can shift another draw.

SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): the output function applied to key + counter·golden ratio. The counter
packs (purpose, owner, row, hop, attempt); the key mixes the stream's key with the slot.
"""

from __future__ import annotations

import numpy as np

from dpem_env.support.compiled import inner

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

TRANSMISSION, PURIFICATION, SWAP, EMISSION, ORDER, OUTAGE = range(6)


@inner
def mix(x):
    """SplitMix64's output function: a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inner
def slot_key(stream_key, slot):
    """Key of a stream in a slot (slot >= -1)."""
    return mix(stream_key + np.uint64(slot + 1) * GOLDEN)


@inner
def bits(key, purpose, owner, row, hop, attempt):
    """64 random bits for (purpose < 8, owner < 2^20, row < 2^8, hop < 2^6, attempt < 2^27)."""
    counter = (
        (np.uint64(purpose) << np.uint64(61))
        | (np.uint64(owner) << np.uint64(41))
        | (np.uint64(row) << np.uint64(33))
        | (np.uint64(hop) << np.uint64(27))
        | np.uint64(attempt)
    )
    return mix(key + counter * GOLDEN)


@inner
def uniform(key, purpose, owner, row, hop, attempt):
    """A uniform number in [0, 1) with 53 random bits."""
    return float(bits(key, purpose, owner, row, hop, attempt) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inner
def poisson(mean, none, u):
    """The Poisson count of the given mean (below 700) at quantile u, by sequential inversion; `none` is exp(-mean)."""
    term = total = none
    count = 0
    while u >= total and term > 0.0:
        count += 1
        term *= mean / count
        total += term
    return count
