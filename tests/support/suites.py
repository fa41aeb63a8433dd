"""What the fast suite tries of cases that are many and dear; `make test-all` tries the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def few(cases: Sequence[Any], quick: int = 1) -> list[Any]:
    """The cases as parameters, slow but for the first ones; ordered so that those tell most."""
    return [*cases[:quick], *(slow(case) for case in cases[quick:])]


def slow(*case: Any) -> Any:
    """A parameter for the slow suite only."""
    if isinstance(case[0], tuple):
        [case] = case
    return pytest.param(*case, marks=pytest.mark.slow)
