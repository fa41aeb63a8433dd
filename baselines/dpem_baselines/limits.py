"""What candidate allocations need of what there is, and which of them fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 1e-9  # of sums of needs, and of a share that counts as none


@dataclass(frozen=True)
class Limits:
    """What M candidates need of R things of which there is so much, W of them each at most."""

    thing: Ints  # (M, W) number of a thing, each once; R where there is no need
    need: Floats  # (M, W) of it
    capacity: Floats  # (R + 1,) what there is of each; the last is infinite

    def __len__(self) -> int:
        return len(self.thing)

    def take(self, chosen: Any) -> Limits:
        """The limits of the candidates of these numbers or this mask alone."""
        return Limits(self.thing[chosen], self.need[chosen], self.capacity)

    def after(self, made: Any) -> Limits:
        """With what the candidates of these numbers leave."""
        return Limits(self.thing, self.need, self.capacity - self.total(made))

    def total(self, made: Any = slice(None)) -> Floats:
        """(R + 1,) what the candidates of these numbers need together."""
        thing, need = self.thing[made].ravel(), self.need[made].ravel()
        total: NDArray[Any] = np.bincount(thing, need, minlength=len(self.capacity))
        return total

    def fits(self) -> NDArray[np.bool_]:
        """(M,) whether each candidate fits by itself."""
        fits: NDArray[Any] = np.all(self.need <= self.capacity[self.thing] + TOLERANCE, axis=1)
        return fits

    def first_that_fit(self, order: Ints) -> Ints:
        """Those of the candidates that fit one after the other, in this order, into what the earlier ones leave."""
        left = self.capacity.copy()
        admitted = []
        for candidate in order.tolist():
            thing, need = self.thing[candidate], self.need[candidate]
            if (need <= left[thing] + TOLERANCE).all():
                left[thing] -= need
                admitted.append(candidate)
        return np.array(admitted, dtype=np.int64)
