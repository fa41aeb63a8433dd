"""How compiled code is compiled: the simulator's phases, what writes observations, the route searches.

Without numba's runtime (`_nrt=False`) compiled code cannot allocate: a slip is a compile error. It also spares
reference counts on every array at every call, which otherwise cost several times the work itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Timer
from typing import Any

from numba import njit, typeof

# Decorators: `entry` for what Python calls (through `Entry`), `inner` for what compiled code calls, `inlined` for what
# it calls per item, where passing every array's header would cost more than the work.
inner: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, inline="always")

PATIENCE = 1.0  # s; loading from the cache is quicker, compiling is slower


def cached(**options: Any) -> Any:
    """numba's decorator with a cache on disk, or without one where no folder for it can be written."""

    def compiled(function: Any) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return compiled


entry: Any = cached(_nrt=False, nogil=True)


class Entry:
    """A compiled function that Python calls with arguments of always the same types.

    The types are looked at once, at the first call: looking at them on every call takes longer than passing them.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self._machine_code: Any = None

    def __call__(self, *arguments: Any) -> None:
        """Run on the given arguments."""
        if self._machine_code is None:
            self._machine_code = self._compile(arguments)
        self._machine_code(*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> Any:
        if not hasattr(self.dispatcher, "compile"):  # under NUMBA_DISABLE_JIT
            return self.dispatcher
        with patient():
            return self.dispatcher.compile(tuple(typeof(argument) for argument in arguments))


@cache
def _say_once() -> None:
    print("dpem_env: compiling, once per machine and version; less than a minute ...", file=sys.stderr, flush=True)


@contextmanager
def patient() -> Iterator[None]:
    """Say so on stderr if what is inside takes long: it compiles, once."""
    timer = Timer(PATIENCE, _say_once)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
