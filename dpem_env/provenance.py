"""Provenance: what results follow from, by content. It keys caches, and tells results of other code or files apart."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parent
LIBRARIES = ("numba", "numpy")  # whose versions decide with ours what compiled code and random draws come to
# What caches hold follows from these: compiled rules, and networks. A test compares them with what those import.
WORLD = (
    "compiled",
    "demand",
    "errors",
    "feature_writer",
    "files",
    "network",
    "network_cache",
    "physics",
    "provenance",
    "route_search",
    "routes",
    "scenarios",
    "seeding",
    "simulator",
    "topology",
    "traces",
)
# With these, an episode.
PLAY = ("control", "evaluation", "features", "forecast", "metrics", "policies", "rewards", "session")


@cache
def world_fingerprint() -> str:
    """Changes with every source file that decides networks and compiled rules, and with Python, numba and numpy."""
    return _of_modules(WORLD)


@cache
def code_fingerprint() -> str:
    """Changes with every source file of this package that decides an episode, and with Python, numba and numpy."""
    return _of_modules(WORLD + PLAY)


@cache
def package_fingerprint(package: str) -> str:
    """Changes with every source file of an importable package or module, by the name of its top level."""
    spec = find_spec(package.partition(".")[0])
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return _digest(_content(path) for place in places if place for path in _sources(Path(place)))


def path_fingerprint(path: str | os.PathLike[str]) -> str | None:
    """Changes with the content of a file, or of any file in a folder; None if there is neither."""
    place = Path(path)
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [(str(file.relative_to(place)), _content(file)) for file in files if file.is_file()]
    return _digest(part for pair in found for part in pair) if found else None


def _of_modules(names: Iterable[str]) -> str:
    versions = [platform.python_version(), *map(version, LIBRARIES)]
    return _digest([*versions, *(_content(path) for name in names for path in _sources(PACKAGE / name))])


def _sources(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(place.rglob("*.py"))
    return [file for file in (place, place.with_suffix(".py")) if file.suffix == ".py" and file.is_file()]


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
