"""Compiling: without a cache folder, and with a word to who waits."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from dpem_env import compiled

WITHOUT_CACHE = """
from dpem_env.compiled import cached

@cached(_nrt=False)
def successor(x):
    return x + 1

assert successor(1) == 2
"""


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "script.py")
    with open(script, "w", encoding="utf-8") as stream:
        stream.write(WITHOUT_CACHE)
    nowhere = os.environ | {"NUMBA_CACHE_DIR": f"{os.devnull}/nowhere"}
    done = subprocess.run([sys.executable, script], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_who_waits_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "PATIENCE", 0.01)
    compiled._say_once.cache_clear()
    for _ in range(2):
        with compiled.patient():
            time.sleep(0.2)
    assert capsys.readouterr().err.count("compiling") == 1


def test_who_does_not_wait_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    compiled._say_once.cache_clear()
    with compiled.patient():
        pass
    time.sleep(0.05)
    assert capsys.readouterr().err == ""
