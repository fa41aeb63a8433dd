"""How the phases are compiled.

Without numba's runtime (`_nrt=False`) a phase cannot allocate: a slip is a compile error. It also spares reference
counts on every array at every call, which otherwise cost several times the work itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, typeof

# Decorators: `entry` for what Python calls (through `Entry`), `inner` for what compiled code calls, `inlined` for what
# it calls per item, where passing every array's header would cost more than the work.
entry: Any = njit(cache=True, _nrt=False)
inner: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, inline="always")


@inner
def copy(source: Any, target: Any) -> None:
    """Copy an array onto another of the same shape."""
    for index in np.ndindex(source.shape):
        target[index] = source[index]


class Entry:
    """A compiled function that Python calls with arguments of always the same types.

    The types are looked at once, at the first call: looking at a hundred arrays on every call takes ten times longer
    than passing them. The structs of `state` fix dtype and dimensions, so the types cannot change afterwards.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self._machine_code: Any = None

    def __call__(self, *arguments: Any) -> None:
        """Run on the given arguments."""
        if self._machine_code is None:
            compiled = hasattr(self.dispatcher, "compile")  # not under NUMBA_DISABLE_JIT
            types = tuple(typeof(argument) for argument in arguments) if compiled else ()
            self._machine_code = self.dispatcher.compile(types) if compiled else self.dispatcher
        self._machine_code(*arguments)
