"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_env.files import whole_file


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
