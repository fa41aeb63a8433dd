"""Writing single values of an observation, compiled: clip(x / scale, 0, 1) at the column that `features` declares."""

from __future__ import annotations

import numpy as np

from dpem_env.support.compiled import inlined

ABSENT = np.uint32(2**32 - 1)  # in place of the column of a feature that is not asked for


@inlined
def scaled(x, divisor):
    """A value as it is written; divisors are 1 / scale."""
    return min(max(np.float32(x) * divisor, np.float32(0.0)), np.float32(1.0))


@inlined
def write(row, divisor, column, x):
    """A feature of one column."""
    row[column] = scaled(x, divisor[column])


@inlined
def write_each(row, divisor, column, values):
    """A feature of several columns, of one scale."""
    scale = divisor[column]
    for k in range(len(values)):
        row[column + k] = scaled(values[k], scale)
