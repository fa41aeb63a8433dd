"""How compiled code is compiled: the simulator's phases, what writes observations, the route searches.

Without numba's runtime (`_nrt=False`) compiled code cannot allocate: a slip is a compile error. It also spares
reference counts on every array at every call, which otherwise cost several times the work itself.

Machine code is kept in our own cache on disk (`disk_cache`), not in numba's. numba notices a change of the file that
holds a function, not of the files with what that calls; and it lets a damaged file through, or raises.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import Any

from numba import njit, typeof
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from dpem_env import disk_cache
from dpem_env.files import file_name
from dpem_env.provenance import PACKAGE, package_fingerprint, package_unchanged

PATIENCE = 1.0  # s before whoever waits is told why
INTERVAL = 10.0  # s until they are told again
# Settings of numba, and whether Intel's library of vector functions is installed, that change machine code.
SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML")
SCRIPTS = ("__main__", "__mp_main__")  # may follow from any file: their functions are not kept
ONCE = "once per machine and version"
ALWAYS = "at every start: nothing can be kept (set DPEM_CACHE to a folder that can be written)"

# Decorators: `entry` for what Python calls (through `Entry`), `inner` for what compiled code calls, `inlined` for what
# it calls per item, where passing every array's header would cost more than the work.
inner: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined: Any = njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, inline="always")


def cached(**options: Any) -> Any:
    """numba's decorator `njit`, with machine code kept on disk.

    The code belongs to the state of this package's sources and of those of the package that holds the function.
    """

    def compiled(function: Any) -> Any:
        if config.DISABLE_JIT:
            return function
        dispatcher = Dispatcher(function, targetoptions={"nopython": True, **options})
        dispatcher.enable_caching()
        return dispatcher

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
        return self.dispatcher.compile(tuple(typeof(argument) for argument in arguments))


class Dispatcher(CPUDispatcher):  # type: ignore[misc]
    """numba's, with another cache: it lasts through a compilation, whatever comes of that."""

    def enable_caching(self) -> None:
        """Keep machine code on disk."""
        self._cache = KeptCode(self.py_func)

    def compile(self, signature: Any) -> Any:
        """The machine code for arguments of these types, from disk if it is there."""
        with global_compiler_lock, ExitStack() as self._cache.compilation:
            return super().compile(signature)


class KeptCode(NullCache):  # type: ignore[misc]
    """Where numba looks for a function's machine code before it compiles it, and leaves it afterwards."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.package = function.__module__.partition(".")[0]
        self.compilation = ExitStack()  # what ends with the compilation that runs

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The code from disk; None if it must be compiled, for which other processes are then made to wait."""
        name, title = self._name(signature, target), self.function.__name__.strip("_")
        if self.package in SCRIPTS:
            self.compilation.enter_context(telling(f"compiling {title}, of a script: at every start"))
            return None
        found = self._read(name, target)
        if found is None:
            with telling(f"waiting for another process to compile {title}"):
                kept = self.compilation.enter_context(disk_cache.sole_maker(name))
            found = self._read(name, target)
        if found is None:
            self.compilation.enter_context(telling(f"compiling {title}, {ONCE if kept else ALWAYS}"))
        return found

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep the code, if other processes can use it."""
        if self.package in SCRIPTS or result.library.has_dynamic_globals:
            return
        if self.package != PACKAGE.name and not package_unchanged(self.package):
            return
        with suppress(Exception):  # of a pickle
            disk_cache.write(self._name(signature, result.target_context), dumps(result._reduce()))

    def _read(self, name: str, target: Any) -> Any:
        content = disk_cache.read(name)
        if content is not None:
            target.refresh()
            with suppress(Exception):  # of a pickle
                return CompileResult._rebuild(target, *pickle.loads(content))
        return None

    def _name(self, signature: Any, target: Any) -> str:
        """Another one for everything that decides on the code, beside the state of this package's sources."""
        function = self.function
        parts = (
            function.__module__,
            function.__qualname__,
            function.__code__.co_firstlineno,
            function.__code__.co_code,
            dumps([cell.cell_contents for cell in function.__closure__ or ()]),
            "" if self.package == PACKAGE.name else package_fingerprint(self.package),
            str(signature),
            target.codegen().magic_tuple(),  # the kind of processor
            [str(getattr(config, name, None)) for name in SETTINGS],
        )
        return f"compiled/{file_name(function.__name__)}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Say on stderr what goes on inside, and for how long, if it takes long."""
    done, start = Event(), monotonic()

    def tell() -> None:
        pause = PATIENCE
        while not done.wait(pause):
            with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or None
                sys.stderr.write(f"dpem_env: {what}; {monotonic() - start:.0f} s so far ...\n")
                sys.stderr.flush()
            pause = INTERVAL

    Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()
