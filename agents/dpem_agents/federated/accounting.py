"""What private releases cost together: ε at a given δ, and the noise that keeps it below a target.

dp-accounting computes it and is loaded only when an ε is asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from dpem_env.support.errors import DpemError

Accountant = Literal["pld", "rdp"]
# Of privacy losses. They are rounded up, so ε is an upper bound: within 0.1 % of that at 0.0001 for up to a thousand
# rounds, within 1 % for ten thousand that cost next to nothing each.
INTERVAL = 1e-3
PRECISION = 1.001  # of a noise multiplier found, as a ratio
MOST_ROUNDS = 10**6  # that are counted
# Beyond these nothing changes for anybody, but distributions would not fit into memory, or numbers into floats.
LARGEST_EPSILON = 1e3  # that is worth the tighter accounting; ten times what noise is chosen for
LARGEST_MULTIPLIER = 1e6


@dataclass(frozen=True)
class Charge:
    """Rounds that cost the same each.

    Gaussian noise of `noise_multiplier` sensitivities on a sum over nodes that joined with probability `sample_rate`
    each. The multiplier is 0 for a release without noise; not `private` is also one whose noise can be known.
    """

    sample_rate: float
    noise_multiplier: float
    private: bool = True
    rounds: int = 1


@lru_cache(maxsize=4096)
def epsilon(charges: tuple[Charge, ...], delta: float, accountant: Accountant = "pld") -> float:
    """ε of all these rounds together at δ, when one node's contributions are added or removed.

    "rdp" composes Rényi divergences of the sampled Gaussian mechanism (Mironov, Talwar & Zhang 2019); "pld" composes
    privacy loss distributions (Koskela, Jälkö & Honkela 2020; Doroshenko et al. 2022), which is tighter, unless the
    former come to more than `LARGEST_EPSILON`: then that is returned.
    """
    if not charges:
        return 0.0
    if not all(charge.noise_multiplier for charge in charges):
        return math.inf
    library = _library()
    relation = library.NeighboringRelation.ADD_OR_REMOVE_ONE
    loose = _composed(library.rdp.RdpAccountant(neighboring_relation=relation), charges, delta)
    if accountant == "rdp" or loose > LARGEST_EPSILON:
        return loose
    return _composed(library.pld.PLDAccountant(relation, value_discretization_interval=INTERVAL), charges, delta)


def noise_multiplier_for(
    target: float, rounds: int, sample_rate: float, delta: float, accountant: Accountant = "pld"
) -> float:
    """About the smallest noise multiplier with which that many rounds cost no more than ε = `target`."""

    def enough(multiplier: float) -> bool:
        return epsilon((Charge(sample_rate, multiplier, rounds=rounds),), delta, accountant) <= target

    # All rounds together are then at most one Gaussian of multiplier 1: a start where ε is quick to compute.
    high = math.sqrt(rounds)
    while not enough(high):
        high *= 2.0
    while enough(high / 2.0):
        high /= 2.0
    low = high / 2.0
    while high > low * PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _composed(total: Any, charges: tuple[Charge, ...], delta: float) -> float:
    library = _library()
    with _quiet():
        for charge in charges:
            event = library.GaussianDpEvent(min(charge.noise_multiplier, LARGEST_MULTIPLIER))
            if charge.sample_rate < 1.0:
                event = library.PoissonSampledDpEvent(charge.sample_rate, event)
            total.compose(event, charge.rounds)
        return float(total.get_epsilon(delta))


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError as error:
        raise DpemError(f"ε needs more than is installed ({error}): pip install 'dpem-env[federated]'") from None
    return dp_accounting


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of Rényi orders that diverge: leaving one out keeps ε an upper bound."""
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        with np.errstate(divide="ignore", over="ignore"):
            yield
    finally:
        log.disabled = before
