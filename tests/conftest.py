"""Shared fixtures. Compiled code is cached per state of the sources, so a test never runs a stale kernel."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _fingerprint() -> str:
    sources = hashlib.sha256()
    for path in sorted((ROOT / "dpem_env").rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()[:12]


# Before numba is imported: numba notices changes of the calling file only, not of what it calls.
os.environ["NUMBA_CACHE_DIR"] = os.environ["DPEM_CACHE"] = str(ROOT / ".numba_cache" / _fingerprint())


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that is not shipped; tests that need it are skipped where it is absent."""
    folder = os.environ.get("DPEM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: set DPEM_DATA to a folder with abilene/ and coronet/")
    return Path(folder)
