"""The page of licences has every package that is installed, in the versions that are, and knows the licence of each."""

from __future__ import annotations

import importlib.util
import tomllib
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_locks import LOCKS, locked, pins

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = {"(base)": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
TEXT = "MIT License\n\nPermission is hereby granted …"


def rows() -> list[list[str]]:
    """Package, version, licence and extras, of every row."""
    lines = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


@pytest.mark.parametrize("extra", ASKED)
def test_all_that_is_asked_for_has_a_row(extra: str) -> None:
    there = {name for name, _, _, extras in rows() if {extra, "(base)"} & set(extras.split(", "))}
    names = {canonicalize_name(Requirement(line).name) for line in ASKED[extra]} - {"dpem-env"}
    assert names <= there, "run make licences"


@pytest.mark.parametrize("lock", LOCKS)
def test_all_that_is_locked_for_linux_has_a_row(lock: str) -> None:
    there = {name for name, *_ in rows()}
    here = {name for name, each in locked(lock).items() if each.marker is None or each.marker.evaluate()}
    assert here <= there, "run make licences"


def test_versions_are_those_of_the_constraints() -> None:
    own = {name: version.partition("+")[0] for name, version, _, extras in rows() if extras != "flower"}
    pinned = pins()
    differ = [name for name, version in own.items() if name in pinned and pinned[name] != f"=={version}"]
    assert not differ, "run make licences"


def test_no_licence_is_unknown() -> None:
    found = rows()
    assert len(found) > 150
    assert not [name for name, _, licence, _ in found if licence in ("", "unknown")]


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "something else")], "MIT"),
        ([("License", TEXT), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        ([("License", "Apache 2.0"), ("Classifier", "License :: OSI Approved")], "Apache 2.0"),
        ([("License", TEXT)], "unknown"),
        ([("License", "UNKNOWN")], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_licence_is_what_the_package_states(metadata: list[tuple[str, str]], licence: str) -> None:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    licences = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(licences)
    said = Message()
    for field, value in metadata:
        said[field] = value
    assert licences.licence(SimpleNamespace(name="some", metadata=said)) == licence
