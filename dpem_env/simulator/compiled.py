"""How the phases are compiled.

Without numba's runtime (`_nrt=False`) a phase cannot allocate: a slip is a compile error. It also spares reference
counts on every array at every call, which otherwise cost several times the work itself.
"""

from __future__ import annotations

import numpy as np
from numba import njit

inner = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # called by the kernel only


@inner
def copy(source, target):
    """Copy an array onto another of the same shape."""
    for index in np.ndindex(source.shape):
        target[index] = source[index]
