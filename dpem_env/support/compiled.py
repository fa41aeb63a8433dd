"""How compiled code is compiled: the simulator's phases, what writes observations, the route searches.

Without numba's runtime (`_nrt=False`) compiled code cannot allocate: a slip is a compile error. It also spares
reference counts on every array at every call, which otherwise cost several times the work itself.

Machine code is kept in our own cache on disk (`disk_cache`), not in numba's. numba notices a change of the file that
holds a function, not of the files with what that calls; and it lets a damaged file through, or raises.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections import namedtuple
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import EnumType, IntEnum
from threading import Event, Thread
from time import monotonic
from types import CodeType, FunctionType, ModuleType
from typing import Any

from numba import njit, typeof
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from dpem_env.support import disk_cache
from dpem_env.support.files import file_name
from dpem_env.support.provenance import LIBRARIES, PACKAGE, package_fingerprint, package_unchanged

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

    The code follows from the sources of this package and of the one that holds the function, and from all it names.
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
        self.package = _package_of(function)
        self.others = "" if self.package == PACKAGE.name else package_fingerprint(self.package)  # as it is loaded
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
        if self.others and not package_unchanged(self.package):
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
            meaning_of(function, set()),
            self.others,
            str(signature),
            target.codegen().magic_tuple(),  # the kind of processor
            [str(getattr(config, name, None)) for name in SETTINGS],
        )
        return f"compiled/{file_name(function.__name__)}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"


def meaning_of(value: Any, seen: set[Any], names: Iterable[str] = ()) -> Any:
    """What a value means to compiled code: of a function its text and all it names, however far that leads.

    Left out is what the state of this package's sources says anyway, and Python and libraries. `names` are what may be
    asked of a module.
    """
    if isinstance(value, CPUDispatcher):
        value = value.py_func
    if isinstance(value, FunctionType):
        if value in seen:
            return value.__qualname__
        seen.add(value)
        code, named = value.__code__, [cell.cell_contents for cell in value.__closure__ or ()]
        if _package_of(value) != PACKAGE.name:
            named += [value.__globals__[name] for name in code.co_names if name in value.__globals__]
        return (value.__qualname__, *_text(code), *(meaning_of(other, seen, code.co_names) for other in named))
    if isinstance(value, ModuleType):
        package = value.__name__.partition(".")[0]
        if value in seen or package in (PACKAGE.name, *LIBRARIES) or package in sys.stdlib_module_names:
            return value.__name__
        return [meaning_of(getattr(value, name), seen | {value}, names) for name in names if hasattr(value, name)]
    if hasattr(value, "__qualname__") and _package_of(value) == PACKAGE.name:
        return value.__qualname__
    if isinstance(value, EnumType):
        return repr([*value])
    try:
        return dumps(value)
    except Exception:  # whatever a pickle raises
        return os.urandom(16)  # as nothing else


def _package_of(value: Any) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]


def _text(code: CodeType) -> tuple[Any, ...]:
    inside = (_text(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts)
    return code.co_code, code.co_names, *inside


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


def numbers_of(members: type[IntEnum]) -> Any:
    """The members of an enumeration by name as plain integers: numba's compiler for GPUs takes no others."""
    numbers = {name: int(member) for name, member in members.__members__.items()}
    return namedtuple(f"{members.__name__}Numbers", numbers)(**numbers)
