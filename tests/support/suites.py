"""What the fast suite tries of cases that are many and dear; `make test-all` tries the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def few(cases: Sequence[Any], quick: int = 1) -> list[Any]:
    """The cases as parameters, slow but for the first ones; ordered so that those tell most."""
    others = (case if isinstance(case, tuple) else (case,) for case in cases[quick:])
    return [*cases[:quick], *(pytest.param(*values, marks=pytest.mark.slow) for values in others)]
