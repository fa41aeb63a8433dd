"""Fingerprints and stamps follow from all sources that decide, and from what was loaded rather than what lies there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import grimp
import pytest

from dpem_env.support import provenance
from dpem_env.support.errors import DpemError, DpemWarning

SOURCES = Path(provenance.__file__).parents[1]
UNCHANGED = "from dpem_env.support import provenance; print(provenance.world_fingerprint(), provenance.stamp())"


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
    needed = needed_by(*rules, "observations.features", "envs.reward_writer", "network.network")
    assert needed | {"dpem_env.support.provenance"} == files_of(*provenance.WORLD)


def test_an_episode_follows_from_the_world_and_all_that_plays_it() -> None:
    needed = needed_by("experiments.evaluation", "network.cache")
    assert needed | {"dpem_env.support.provenance"} == files_of(*provenance.WORLD, *provenance.PLAY)


def fingerprints(folder: Path) -> list[str]:
    """Fingerprint of the world, and stamp, of the package in this folder."""
    # Under a bare parent, for the speed of it.
    code = (
        "import sys, types; package = types.ModuleType('dpem_env'); "
        f"package.__path__ = [{str(folder / 'dpem_env')!r}]; sys.modules['dpem_env'] = package; {UNCHANGED}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


REMARK, RULE = "# another remark", "LIMIT_OF_A_TEST = 1"


@pytest.mark.parametrize(
    ("file", "line", "world_changes", "stamp_changes"),
    [
        ("physics.py", RULE, True, True),
        ("physics.py", REMARK, True, False),
        ("physics.py", '"""A text."""', True, False),
        ("simulator/randomness.py", RULE, True, True),
        ("support/provenance.py", RULE, True, False),
        ("policies.py", RULE, False, True),
        ("policies.py", REMARK, False, False),
        ("report/tables.py", RULE, False, False),
    ],
)
def test_what_changes_with_each_source(
    tmp_path: Path, file: str, line: str, world_changes: bool, stamp_changes: bool
) -> None:
    shutil.copytree(SOURCES, tmp_path / "dpem_env", ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprints(tmp_path)
    assert before == [provenance.world_fingerprint(), provenance.stamp()]
    with open(tmp_path / "dpem_env" / file, "a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    after = fingerprints(tmp_path)
    assert [a != b for a, b in zip(after, before, strict=True)] == [world_changes, stamp_changes]


def test_a_definition_that_moves_to_another_file_leaves_the_stamp(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "dpem_env", ignore=shutil.ignore_patterns("__pycache__"))
    rewards, metrics = (tmp_path / "dpem_env" / "envs" / name for name in ("rewards.py", "metrics.py"))
    moved = rewards.read_text()[rewards.read_text().index("class ") :]
    rewards.write_text("from dpem_env.envs.metrics import Outcome, Rewarder\n")
    metrics.write_text(metrics.read_text() + moved)
    assert fingerprints(tmp_path)[1] == provenance.stamp()


def test_a_stamp_is_twelve_digits_of_what_this_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch("[0-9a-f]{12}", provenance.stamp())
    shutil.copytree(SOURCES, tmp_path / "dpem_env")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "dpem_env")
    (tmp_path / "dpem_env" / "physics.py").write_text("PI = 3\n")
    with pytest.raises(DpemError, match="has changed since this process loaded it: start it again"):
        provenance.stamp.__wrapped__()
    monkeypatch.setitem(provenance._loaded, "physics", ())
    assert provenance.stamp.__wrapped__() == provenance.UNKNOWN


def test_what_follows_from_several_has_all_their_stamps() -> None:
    assert provenance.joined(["a", "b+a", "a", "c"]) == "a+b+c"
    assert provenance.joined(["a", "a"]) == "a"


def test_other_code_is_warned_of() -> None:
    with pytest.warns(DpemWarning, match=r"^w.json: is of other code \(stamp 0; now \w{12}\): beware$"):
        provenance.warn_of_other_code("w.json", "0", "beware")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        provenance.warn_of_other_code("w.json", provenance.stamp(), "beware")


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


def test_it_does_not_matter_in_which_file_a_definition_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one_room", tmp_path / "two_rooms"
    for folder in (one, two):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (one / "all.py").write_text("A = 1\nB = 2\n")
    (two / "a.py").write_text("A = 1\n")
    (two / "b.py").write_text("from two_rooms.a import A\n\nB = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.package_stamp("one_room") == provenance.package_stamp("two_rooms")
    (two / "b.py").write_text("B = 3\n")
    provenance.package_stamp.cache_clear()
    assert provenance.package_stamp("one_room") != provenance.package_stamp("two_rooms")


def test_files_that_do_not_parse_count_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_templates").mkdir()
    template = tmp_path / "of_templates" / "template.py"
    stamps = []
    for text in ("{{ name }} = 1 +", "{{ name }} = 2 +"):
        template.write_text(text)
        provenance.package_stamp.cache_clear()
        stamps.append(provenance.package_stamp("of_templates"))
    assert len({*stamps, provenance.UNKNOWN}) == 3


@pytest.mark.parametrize("package", ["sys", "dpem_nowhere", "_struct"])
def test_what_has_no_sources_has_no_stamp(package: str) -> None:
    assert provenance.package_stamp(package) == provenance.UNKNOWN
