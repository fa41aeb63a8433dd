"""Files are written whole or not at all, by one process at a time, and named by any text."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpem_env.errors import DpemError
from dpem_env.files import file_name, require_files, result_folder, whole_file, write_json


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with whole_file(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("problem", [OSError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            raise problem

    with pytest.raises(problem):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_fails_before_anything_is_written_raises_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="its own"), whole_file(tmp_path / "a.txt"):
        raise KeyError("its own")
    assert list(tmp_path.iterdir()) == []


TEXTS = [
    "mesh100-v0", "mesh+dense", "mesh20-v0+slots=24", "lab/mesh", "../escaped", ".", "..", "...", "", "a,b", "a%2Cb",
    "q[1]", "*", "a:b", "a\\b", "new\nline", "nul\0", "ä", "a\u0308", "\udcff", "x" * 300, "x" * 301, "~", "-",
]  # fmt: skip


def test_every_text_has_a_file_name_of_its_own(tmp_path: Path) -> None:
    names = {file_name(text) for text in TEXTS} | {file_name("a", "b"), file_name("a", "b,c"), file_name("a", "b", "c")}
    assert len(names) == len(TEXTS) + 3
    for name in names - {""}:
        (tmp_path / f"{name}.json").touch()
    assert len(list(tmp_path.iterdir())) == len(names) - 1
    assert file_name("mesh20-v0+slots=24") == "mesh20-v0+slots=24"
    assert file_name("central-reactive", "+oracle", "delay0.5") == "central-reactive,+oracle,delay0.5"


def test_a_folder_of_results_has_one_writer(tmp_path: Path) -> None:
    def write() -> None:
        with result_folder(tmp_path / "out"):
            pass

    with result_folder(tmp_path / "out"), pytest.raises(DpemError, match="another process is writing"):
        write()
    write()


def test_a_folder_of_results_that_is_removed_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        with result_folder(out):
            write_json(out / "a.json", {})
            shutil.rmtree(out)
            write_json(out / "b.json", {})

    with pytest.raises(DpemError, match="was removed while results were written to it"):
        write()
    with pytest.raises(DpemError, match="1 of its files is gone"):
        require_files(out, [out / "a.json"])
