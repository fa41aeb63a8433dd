"""Provenance: what results follow from, by content. It keys caches, and tells results of other code or files apart."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("numba", "llvmlite", "numpy")  # whose versions decide with ours what code and random draws come to
# What caches hold follows from these: compiled rules, and networks. A test compares them with what those import.
WORLD = (
    "demand/requests",
    "network",
    "observations",
    "physics",
    "scenarios",
    "simulator",
    "support/compiled",
    "support/disk_cache",
    "support/errors",
    "support/files",
    "support/provenance",
    "support/seeding",
)
# With these, an episode.
PLAY = (
    "demand/forecast",
    "envs/control",
    "envs/forecasts",
    "envs/metrics",
    "envs/rewards",
    "envs/session",
    "experiments/evaluation",
    "policies",
    "policy_names",
    "support/plugins",
)

Content = tuple[str, ...]  # of source files: name and hash of each; empty if a source is missing


@cache
def world_fingerprint() -> str:
    """Changes with every source file that decides networks and compiled rules, and with Python, numba and numpy."""
    return _of_modules(WORLD)


@cache
def code_fingerprint() -> str:
    """Changes with every source file of this package that decides an episode, and with Python, numba and numpy."""
    return _of_modules(WORLD + PLAY)


def world_unchanged() -> bool:
    """Whether the world that this process loaded is still what the source files say."""
    return all(_loaded[name] and _loaded[name] == _content(PACKAGE / name) for name in WORLD)


@cache
def package_fingerprint(package: str) -> str:
    """Changes with every source file of an importable package or module, by the name of its top level."""
    return _digest(_content_of_package(package))


def package_unchanged(package: str) -> bool:
    """Whether a package has sources, and they are still those of its fingerprint."""
    content = _content_of_package(package)
    return content != () and _digest(content) == package_fingerprint(package)


def path_fingerprint(path: str | os.PathLike[str]) -> str | None:
    """Changes with the content of a file, or of any file in a folder; None if there is neither."""
    place = Path(path)
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [(str(file.relative_to(place)), _hash(file)) for file in files if file.is_file()]
    return _digest(part for pair in found for part in pair) if found else None


def _of_modules(names: Iterable[str]) -> str:
    return _digest((platform.python_version(), *map(version, LIBRARIES), *(part for n in names for part in _loaded[n])))


def _content_of_package(package: str) -> Content:
    loaded = sys.modules.get(package.partition(".")[0])
    try:
        spec = loaded or find_spec(package.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    file = getattr(spec, "__file__", getattr(spec, "origin", None))
    folders = getattr(spec, "__path__", getattr(spec, "submodule_search_locations", None)) or ()
    return tuple(part for place in (folders or [file]) if place for part in _content(Path(place)))


def _content(place: Path) -> Content:
    """Of a module, given without or with ".py", or of all modules in a folder."""
    if place.is_dir():
        files = sorted(place.rglob("*.py"))
    else:
        files = [place if place.suffix == ".py" else place.with_name(f"{place.name}.py")]
    try:
        return tuple(part for file in files for part in (file.relative_to(place.parent).as_posix(), _hash(file)))
    except OSError:
        return ()


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# As this process loads them: a file that changes later, as by `git pull`, does not change what it runs.
_loaded = {name: _content(PACKAGE / name) for name in WORLD + PLAY}
