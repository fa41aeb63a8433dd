"""Provenance: what caches and results follow from, by content. Both are told by the same sources, in two ways.

A cache is keyed by a *fingerprint* of their bytes: whatever was changed, it is made anew. A result carries a *stamp* of
what they say (see `dpem_env.support.syntax`), wherever each definition stands: moving a file or writing a comment
leaves it what it was, and changing a rule does not.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from dpem_env.support.errors import DpemError, DpemWarning
from dpem_env.support.syntax import statements

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("numba", "llvmlite", "numpy")  # whose versions decide with ours what code and random draws come to
# What caches hold follows from these: compiled rules, and networks. A test compares them with what those import.
WORLD = (
    "demand/requests",
    "envs/reward_writer",
    "network",
    "observations",
    "physics",
    "scenarios",
    "simulator",
    "support/compiled",
    "support/disk_cache",
    "support/errors",
    "support/files",
    "support/plugins",
    "support/provenance",
    "support/seeding",
    "support/syntax",
    "support/tables",
)
# With these, an episode.
PLAY = (
    "demand/forecast",
    "demand/means",
    "envs/control",
    "envs/decisions",
    "envs/forecasts",
    "envs/metrics",
    "envs/rewards",
    "envs/session",
    "envs/silence",
    "envs/sums",
    "experiments/evaluation",
    "policies",
    "policy_names",
    "support/own_code",
)
# What of it decides the outcome, given the actions: all but reading and keeping files, compiling and complaining.
DECIDING = tuple(name for name in WORLD + PLAY if not name.startswith("support/") or name == "support/seeding")
UNKNOWN = "unknown"  # the stamp of what was kept before there were stamps, and of code without sources

Content = tuple[str, ...]  # of source files: name and hash of each; empty if a source is missing


@cache
def stamp() -> str:
    """Twelve digits that change with what the code says that decides an episode's outcome, given the actions.

    DpemError if the sources are no longer those that this process has loaded.
    """
    if not all(_loaded[name] for name in DECIDING):
        return UNKNOWN
    if any(_loaded[name] != _content(PACKAGE / name) for name in DECIDING):
        raise DpemError("the code of dpem_env has changed since this process loaded it: start it again")
    return _stamp(PACKAGE / name for name in DECIDING)


@cache
def package_stamp(name: str) -> str:
    """Twelve digits that change with what the code of an importable package or module says; "unknown" without any."""
    return _stamp(_places(name))


def code_stamp(file: Path) -> str:
    """Twelve digits that change with what the code in a file says now; "unknown" if it cannot be read."""
    return _stamp([file])


def joined(stamps: Iterable[str]) -> str:
    """The stamp of what follows from several: each of them once, joined by "+"."""
    return "+".join(dict.fromkeys(one for several in stamps for one in several.split("+")))


def of_other_code(found: str) -> str | None:
    """What to say of a thing with this stamp; None if it is that of this code."""
    return None if found == stamp() else f"of other code (stamp {found}; now {stamp()})"


def warn_of_other_code(name: str, found: str, so: str) -> None:
    """Warn, saying what follows, if a thing with this stamp is of other code."""
    if other := of_other_code(found):
        warnings.warn(DpemWarning(name, f"is {other}: {so}"), stacklevel=3)


@cache
def world_fingerprint() -> str:
    """Changes with every source file that decides networks and compiled rules, and with Python, numba and numpy."""
    content = (part for name in WORLD for part in _loaded[name])
    return _digest((platform.python_version(), *map(version, LIBRARIES), *content))


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
    found = [(str(file.relative_to(place)), _hash(file.read_bytes())) for file in files if file.is_file()]
    return _digest(part for pair in found for part in pair) if found else None


def _content_of_package(package: str) -> Content:
    return tuple(part for place in _places(package.partition(".")[0]) for part in _content(place))


def _places(name: str) -> list[Path]:
    """The folders of a package, or the file of a module; none if it has no sources."""
    try:
        module = sys.modules.get(name) or find_spec(name)
    except (ImportError, ValueError):
        module = None
    file = getattr(module, "__file__", getattr(module, "origin", None))
    folders = getattr(module, "__path__", getattr(module, "submodule_search_locations", None)) or ()
    return [Path(place) for place in (folders or [file]) if place]


def _stamp(places: Iterable[Path]) -> str:
    """Of what code says, in whatever order and files; whatever cannot be parsed says its bytes."""
    sources = {file: source for place in places for file, source in _sources(place).items()}
    said: list[str] = []
    for source in sources.values():
        try:
            said += statements(source)
        except (SyntaxError, ValueError, RecursionError):
            said.append(_hash(source))
    return _digest(sorted(said))[:12] if sources else UNKNOWN


def _content(place: Path) -> Content:
    """Names, as seen from the folder that a source lies in, and hashes."""
    return tuple(
        part
        for file, source in _sources(place).items()
        for part in (file.relative_to(place.parent).as_posix(), _hash(source))
    )


def _sources(place: Path) -> dict[Path, bytes]:
    """Of a module, given without or with ".py", or of all modules in a folder; nothing if any cannot be read."""
    if place.is_dir():
        files = sorted(place.rglob("*.py"))
    else:
        files = [place if place.suffix == ".py" else place.with_name(f"{place.name}.py")]
    try:
        return {file: file.read_bytes() for file in files}
    except OSError:
        return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# As this process loads them: a file that changes later, as by `git pull`, does not change what it runs.
_loaded = {name: _content(PACKAGE / name) for name in WORLD + PLAY}
