"""Versions with hashes, as users install them, are those that everything was measured with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"requirements.txt": (), "requirements-agents.txt": ("agents", "federated", "statistics")}


def locked(name: str) -> dict[str, Requirement]:
    """What a file has, by package, each of which has hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    found = [Requirement(entry.split(" --hash")[0]) for entry in entries]
    assert len({each.name for each in found}) == len(found)
    return {canonicalize_name(each.name): each for each in found}


def pins() -> dict[str, str]:
    """The specifier of every package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(each.name): str(each.specifier) for each in found}


@pytest.mark.parametrize("name", LOCKS)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    pinned = pins()
    differ = [str(each) for package, each in locked(name).items() if str(each.specifier) != pinned.get(package)]
    assert not differ, "run make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_all_that_is_asked_for_is_locked(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for of in LOCKS[name] for line in project["optional-dependencies"][of])]
    there = locked(name)
    for each in map(Requirement, asked):
        [version] = there[canonicalize_name(each.name)].specifier
        assert version.operator == "=="
        assert each.specifier.contains(version.version), f"{each}: run make lock"


def test_nothing_brings_cuda() -> None:
    there = locked("requirements-agents.txt")
    assert not [name for name in there if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert str(there["torch"].marker) == 'sys_platform != "linux"'
