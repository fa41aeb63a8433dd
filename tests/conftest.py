"""Shared fixtures. Tests leave the user's cache alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("DPEM_CACHE", str(ROOT / ".cache"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that is not shipped; tests that need it are skipped where it is absent."""
    folder = os.environ.get("DPEM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: set DPEM_DATA to a folder with abilene/ and coronet/")
    return Path(folder)
