"""Windows of matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import pytest
from matplotlib import pyplot


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What figures are shown, one by one, where a backend pretends to have windows."""
    shown: list[Any] = []
    monkeypatch.setattr(pyplot, "pause", lambda seconds: shown.append(pyplot.gcf()))
    monkeypatch.setattr("dpem_env.envs.rendering.WITHOUT_WINDOWS", frozenset())
    yield shown
    pyplot.close("all")
    assert matplotlib.get_backend().lower() == "agg"
