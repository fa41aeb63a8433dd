"""Shared fixtures. Compiled code is cached per state of the sources, so a test never runs a stale kernel."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


_provenance = runpy.run_path(str(ROOT / "dpem_env" / "provenance.py"))  # without the package, which compiles

# Before numba is imported: numba notices changes of the calling file only, not of what it calls.
os.environ["NUMBA_CACHE_DIR"] = os.environ["DPEM_CACHE"] = str(
    ROOT / ".numba_cache" / _provenance["world_fingerprint"]()
)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that is not shipped; tests that need it are skipped where it is absent."""
    folder = os.environ.get("DPEM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: set DPEM_DATA to a folder with abilene/ and coronet/")
    return Path(folder)
