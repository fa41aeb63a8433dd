"""Fingerprints of what code says: what changes them, and what does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dpem_env.support import syntax
from dpem_env.support.errors import DpemError

RULE = '''
"""A rule."""

from math import exp

RATE = 2.0


def decay(t: float) -> float:
    """Of a memory."""
    # by the clock
    if t < 0:
        raise ValueError("t is negative")
    return exp(-RATE * t)
'''


def said(source: str) -> list[str]:
    return sorted(syntax.statements(source))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A rule."""', '"""A law."""'),
        ('"""Of a memory."""', ""),
        ("# by the clock", ""),
        ("from math import exp", "from dpem_env.elsewhere import exp"),
        ("t is negative", "t is below zero"),
        ("RATE = 2.0", "RATE = 2.0  # per s"),
        ("exp(-RATE * t)", "exp(\n        (-RATE) * t\n    )"),
    ],
)
def test_what_does_not_count(old: str, new: str) -> None:
    assert old in RULE
    assert said(RULE.replace(old, new)) == said(RULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 2.0", "RATE = 3.0"),
        ("t < 0", "t <= 0"),
        ("-RATE * t", "-t * RATE"),
        ("exp(-", "exp("),
        ("if t", "if 0"),
    ],
)
def test_what_counts(old: str, new: str) -> None:
    assert old in RULE
    assert said(RULE.replace(old, new)) != said(RULE)


def test_it_does_not_matter_in_which_file_a_definition_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one_room", tmp_path / "two_rooms"
    for folder in (one, two):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (one / "all.py").write_text("A = 1\nB = 2\n")
    (two / "a.py").write_text("A = 1\n")
    (two / "b.py").write_text("from two_rooms.a import A\n\nB = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert syntax.syntax_fingerprint("one_room") == syntax.syntax_fingerprint("two_rooms")
    (two / "b.py").write_text("B = 3\n")
    syntax.syntax_fingerprint.cache_clear()
    assert syntax.syntax_fingerprint("one_room") != syntax.syntax_fingerprint("two_rooms")


def test_every_module_that_decides_is_there() -> None:
    for name in syntax.DECIDING:
        assert all(path.is_file() for path in syntax._files(syntax.PACKAGE / name))


def test_a_package_that_is_not_there_is_said() -> None:
    with pytest.raises(DpemError, match="no package 'dpem_nowhere'"):
        syntax.syntax_fingerprint("dpem_nowhere")


def test_the_texts_of_versions_of_python_agree() -> None:
    [text] = syntax.statements("def f[T](x): return x" if sys.version_info >= (3, 12) else "def f(x): return x")
    assert text == ("FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value=Name(id='x'))])")
