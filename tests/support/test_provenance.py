"""Fingerprints follow from all sources that decide, and from what was loaded rather than what lies there now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from dpem_env.support import provenance
from test_architecture import imports_of, modules, own_module

SOURCES = Path(provenance.__file__).parent
UNCHANGED = "from dpem_env import provenance; print(provenance.world_fingerprint(), provenance.code_fingerprint())"


def needed_by(roots: Iterable[str]) -> set[str]:
    """The top-level modules of dpem_env that these modules import, and what those import, functions included."""
    known = modules()
    found: set[str] = set()
    waiting = set(roots)
    while waiting:
        module = waiting.pop()
        found.add(module)
        names = {own_module(name, known) for name in imports_of(known[module], everywhere=True)}
        waiting |= {name for name in names if name} - found
    return {name.partition(".")[0] for name in found}


def test_the_world_is_all_that_compiled_rules_and_networks_import() -> None:
    rules = [name for name in modules() if name.partition(".")[0] == "simulator"]
    assert needed_by([*rules, "feature_writer", "route_search", "network"]) | {"provenance"} == {*provenance.WORLD}


def test_an_episode_follows_from_the_world_and_all_that_plays_it() -> None:
    assert needed_by(["evaluation", "network_cache"]) | {"provenance"} == {*provenance.WORLD, *provenance.PLAY}


def fingerprints(folder: Path) -> list[str]:
    """Of the world and of all code, for the package in this folder."""
    # Under a bare parent, for the speed of it.
    code = (
        "import sys, types; package = types.ModuleType('dpem_env'); "
        f"package.__path__ = [{str(folder / 'dpem_env')!r}]; sys.modules['dpem_env'] = package; {UNCHANGED}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("file", "world_changes", "code_changes"),
    [
        ("physics.py", True, True),
        ("simulator/randomness.py", True, True),
        ("provenance.py", True, True),
        ("policies.py", False, True),
        ("reports.py", False, False),
    ],
)
def test_a_fingerprint_changes_with_each_of_its_sources(
    tmp_path: Path, file: str, world_changes: bool, code_changes: bool
) -> None:
    shutil.copytree(SOURCES, tmp_path / "dpem_env", ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprints(tmp_path)
    assert before == [provenance.world_fingerprint(), provenance.code_fingerprint()]
    with open(tmp_path / "dpem_env" / file, "a", encoding="utf-8") as stream:
        stream.write("# another remark\n")
    after = fingerprints(tmp_path)
    assert [a != b for a, b in zip(after, before, strict=True)] == [world_changes, code_changes]


def test_a_file_that_changes_later_does_not_change_what_this_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SOURCES, tmp_path / "dpem_env")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "dpem_env")
    provenance.world_fingerprint.cache_clear()
    loaded = provenance.world_fingerprint()
    assert provenance.world_unchanged()
    (tmp_path / "dpem_env" / "physics.py").write_text("PI = 3\n")
    provenance.world_fingerprint.cache_clear()
    assert provenance.world_fingerprint() == loaded
    assert not provenance.world_unchanged()
    shutil.copy(SOURCES / "physics.py", tmp_path / "dpem_env")
    assert provenance.world_unchanged()
    (tmp_path / "dpem_env" / "physics.py").unlink()
    assert not provenance.world_unchanged()


def test_a_package_changes_with_any_of_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_many" / "inside").mkdir(parents=True)
    (tmp_path / "of_many" / "__init__.py").touch()
    (tmp_path / "of_many" / "inside" / "rules.py").write_text("LIMIT = 1\n")
    (tmp_path / "of_one.py").write_text("LIMIT = 1\n")
    (tmp_path / "nobodys.py").write_text("LIMIT = 1\n")
    for package, file in (("of_many.inside", "of_many/inside/rules.py"), ("of_one", "of_one.py")):
        before = provenance.package_fingerprint(package)
        assert provenance.package_unchanged(package)
        (tmp_path / "nobodys.py").write_text("LIMIT = 2\n")
        assert provenance.package_unchanged(package)
        (tmp_path / file).write_text("LIMIT = 2\n")
        assert not provenance.package_unchanged(package)
        provenance.package_fingerprint.cache_clear()
        assert provenance.package_fingerprint(package) != before


@pytest.mark.parametrize("package", ["sys", "not_there_at_all", "", "_struct"])
def test_what_has_no_sources_is_never_unchanged(package: str) -> None:
    assert not provenance.package_unchanged(package)
    assert provenance.package_fingerprint(package)


@pytest.mark.parametrize("how", [["script.py"], ["-m", "script"]])
def test_a_script_is_known_by_its_file(tmp_path: Path, how: list[str]) -> None:
    script = tmp_path / "script.py"
    prints = []
    for number in (1, 2):
        script.write_text(
            f"from dpem_env.support.provenance import package_fingerprint as p; print(p('__main__')) # {number}\n"
        )
        done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True)
        prints.append(done.stdout)
    assert prints[0] != prints[1]
