"""What code says: what changes it, and what does not."""

from __future__ import annotations

import sys

import pytest

from dpem_env.support import syntax

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


def test_the_texts_of_versions_of_python_agree() -> None:
    [text] = syntax.statements("def f[T](x): return x" if sys.version_info >= (3, 12) else "def f(x): return x")
    assert text == ("FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value=Name(id='x'))])")
