"""Fingerprints follow from all sources that decide, and from what was loaded rather than what lies there now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from dpem_env.support import provenance

SOURCES = Path(provenance.__file__).parents[1]
UNCHANGED = (
    "from dpem_env.support import provenance; print(provenance.world_fingerprint(), provenance.code_fingerprint())"
)


def needed_by(*roots: str) -> set[str]:
    """The modules of dpem_env that these modules import, and what those import, functions included."""
    graph = grimp.build_graph("dpem_env", exclude_type_checking_imports=True, cache_dir=None)
    found = {f"dpem_env.{root}" for root in roots}
    found |= {needed for root in found for needed in graph.find_upstream_modules(root)}
    rooms = {"dpem_env", *(module for module in found if graph.find_children(module))}
    return {module for module in found - rooms if not module.startswith("dpem_env.report.")}  # pictures decide nothing


def files_of(*names: str) -> set[str]:
    """The modules that these files and folders hold."""
    places = [SOURCES / name for name in names]
    files = [
        file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")])
    ]
    modules = {".".join(file.relative_to(SOURCES.parent).with_suffix("").parts) for file in files}
    return {module for module in modules if not module.endswith("__init__")}


def test_the_world_is_all_that_compiled_rules_and_networks_import() -> None:
    rules = [f"simulator.{file.stem}" for file in (SOURCES / "simulator").glob("[!_]*.py")]
    needed = needed_by(*rules, "observations.features", "network.network")
    assert needed | {"dpem_env.support.provenance"} == files_of(*provenance.WORLD)


def test_an_episode_follows_from_the_world_and_all_that_plays_it() -> None:
    needed = needed_by("experiments.evaluation", "network.cache")
    assert needed | {"dpem_env.support.provenance"} == files_of(*provenance.WORLD, *provenance.PLAY)


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
        ("support/provenance.py", True, True),
        ("policies.py", False, True),
        ("report/tables.py", False, False),
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
