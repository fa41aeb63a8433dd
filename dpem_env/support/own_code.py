"""A user's own code by its place: PATH.py:NAME, or package.module:NAME of what can be imported.

A file is run anew in a process when it, or a module beside it that it imports, has changed since. Modules that lie
beside it are found, as if it were run as a script.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import Parameter, isabstract, signature
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from dpem_env.support.errors import DpemError, PolicyError, nearest
from dpem_env.support.plugins import require_fit

PREFIX = "dpem_own_"  # of the names that modules of files have in a process
FILE = re.compile(r"(?P<module>.*\.py)(:(?P<name>[\w.]*))?", re.DOTALL)
MODULE = re.compile(r"(?P<module>\w+(\.\w+)+):(?P<name>[\w.]+)")
LIBRARIES = (os.fspath(Path(__file__).parents[1]), os.path.dirname(os.__file__), "<")  # where their paths begin


def is_own(text: str) -> bool:
    """Whether a name is that of a user's own: it has a dot or a slash before its first colon."""
    return any(sign in text.partition(":")[0] for sign in "./\\")


@dataclass(frozen=True)
class Place:
    """Where something stands that a user has written."""

    module: str  # a path that ends in .py, or the name of a module
    name: str

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """From how it is written; None if that is something else."""
        found = FILE.fullmatch(text) or MODULE.fullmatch(text)
        return found and cls(found["module"], found["name"] or "")

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    @property
    def is_file(self) -> bool:
        """Whether it stands in a file that is named by its path."""
        return self.module.endswith(".py")

    def load(self) -> Any:
        """What stands there; PolicyError in one line if it cannot be had."""
        module = _of_file(Path(self.module)) if self.is_file else _installed(self.module)
        try:
            return attrgetter(self.name)(module)
        except AttributeError:
            own = [name for name, value in vars(module).items() if _is_own(name, value, module)]
            hint = nearest(self.name, own) if own else "it defines nothing that could"
            told = f"has no {self.name!r}" if self.name else f"is named, but nothing in it: {self.module}:NAME"
            raise PolicyError(f"{self.module!r} {told}; {hint}") from None

    def sources(self) -> list[Path]:
        """The file, and those beside it that it imports, directly or not; none of an installed module."""
        return sources_of(Path(self.module)) if self.is_file else []


def instance(what: str, kind: type, options: Mapping[str, Any]) -> Any:
    """An object of a user's class; PolicyError in one line if it cannot be made."""
    if isabstract(kind):
        raise PolicyError(f"{what} has no {' and no '.join(sorted(vars(kind)['__abstractmethods__']))}()")
    with blamed(f"{what} cannot be made"):
        needed = [
            each.name
            for each in signature(kind).parameters.values()
            if each.default is Parameter.empty and each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        ]
        missing = ", ".join(name for name in needed if name not in options)
        require_fit(what, kind, [], options, f"cannot be made without {missing}: give defaults, or name an object")
        return kind(**options)


@contextmanager
def blamed(what: str, kind: type[DpemError] = PolicyError) -> Iterator[None]:
    """What a user's code raises becomes one line that says where; errors of this package stay as they are."""
    try:
        yield
    except (DpemError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{what}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An error in words, with the last place in a user's own code that it went through."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({os.path.basename(error.filename or '')}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not (frame.filename.startswith(LIBRARIES) or "site-packages" in frame.filename)]
    return f"{reason} ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else reason


def sources_of(file: Path) -> list[Path]:
    """A file, and those in its folder that it imports, directly or not; of a package all."""
    found, waiting = dict.fromkeys([file]), [file]
    while waiting:
        for module in _imports(waiting.pop()):
            beside, package = file.parent / f"{module}.py", file.parent / module
            several = sorted(package.rglob("*.py")) if package.is_dir() else []
            for each in (beside, *several):
                if each not in found and each.is_file():
                    found[each] = None
                    waiting.append(each)
    return list(found)


def _imports(file: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, wherever in it; none of one that cannot be read."""
    try:
        parsed = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _of_file(file: Path) -> ModuleType:
    """The module that a file is, run once as long as nothing of it changes."""
    if not os.path.isfile(file):
        raise PolicyError(f"there is no file {os.fspath(file)!r}")
    file = file.absolute()
    try:
        source = file.read_bytes()
        content = [path.read_bytes() for path in sources_of(file)]
    except OSError as error:
        raise PolicyError(f"{os.fspath(file)!r} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(b"\0".join([os.fsencode(file), *content])).hexdigest()[:12]
    name = f"{PREFIX}{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    folder = os.fspath(file.parent)
    _forget({path.relative_to(folder).parts[0].removesuffix(".py") for path in sources_of(file)}, folder)
    module = ModuleType(name)
    module.__file__ = os.fspath(file)
    sys.modules[name] = module  # where dataclasses look for it
    sys.path.insert(0, folder)
    try:
        with blamed(f"{file.name!r} cannot be imported"):
            exec(compile(source, os.fspath(file), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for what is imported later; the last, so that it hides nothing that is installed
    return module


def _forget(names: set[str], folder: str) -> None:
    """Have modules of these names imported again that lie beside users' files: they may be another's, or old."""
    importlib.invalidate_caches()
    files = [getattr(module, "__file__", "") for name, module in sys.modules.items() if name.startswith(PREFIX)]
    folders = tuple(f"{place}{os.sep}" for place in {folder, *map(os.path.dirname, files)})
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in names and place.startswith(folders):
            del sys.modules[name]


def _installed(name: str) -> ModuleType:
    with blamed(f"module {name!r} cannot be imported"):
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            raise PolicyError(f"there is no module {name!r} to import; a file is written ./mine.py:NAME")
        return importlib.import_module(name)


def _is_own(name: str, value: object, module: ModuleType) -> bool:
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
