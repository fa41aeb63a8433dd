"""Signs of life where there is no terminal."""

from __future__ import annotations

import re

import pytest

from dpem_env.report import tables


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(tables.time, "monotonic", lambda: now[0])
    with tables.progress() as bar:
        task = bar.add_task("playing", total=400)
        for _ in range(300):
            now[0] += 0.125
            bar.advance(task)
    lines = capsys.readouterr().err.splitlines()
    told = ["playing: 80 of 400 (20%)", "playing: 160 of 400 (40%)", "playing: 240 of 400 (60%)"]
    assert [line.partition(",")[0] for line in lines] == told
    assert all(re.fullmatch(r".*\), about \d:\d\d:\d\d left", line) for line in lines)


def test_a_line_says_what_is_done_and_nothing_of_what_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "SILENCE", 0.0)
    with tables.progress() as bar:
        first, second = bar.add_task("", total=None), bar.add_task("seed 1", total=2)
        bar.update(first, completed=7)
        bar.update(second, completed=2, description="seed 2")
    assert capsys.readouterr().err.splitlines() == ["at work: 7", "seed 1: 0 of 2 (0%)", "at work: 7"]


def test_nothing_is_said_where_nothing_is_to_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "SILENCE", 0.0)
    with tables.progress(False) as bar:
        bar.advance(bar.add_task("playing", total=2))
    assert capsys.readouterr().err == ""


def test_who_does_not_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SILENCE", 0.0)

    class Gone:
        encoding = "utf-8"

        def write(self, text: str) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stderr", Gone())
    with tables.progress() as bar:
        bar.advance(bar.add_task("playing", total=2))
