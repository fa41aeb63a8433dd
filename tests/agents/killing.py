"""What tests share that stop a program in the middle of its work: at any step of writing a file, or by a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dpem_env.support import files


class Killed(BaseException):
    """Stops whatever runs, and nobody catches it."""


@contextmanager
def killed_at(moment: int) -> Iterator[None]:
    """The `moment`-th step of writing files to disk does not happen, nor anything after: syncs and renames."""
    done = 0

    def stopped(usual: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            nonlocal done
            done += 1
            if done == moment:
                raise Killed
            return usual(*arguments)

        return step

    with (
        mock.patch.object(files, "_sync", stopped(files._sync)),
        mock.patch.object(Path, "replace", stopped(Path.replace)),
    ):
        yield


def killed_at_random(run: Callable[[], object], kills: int, seconds: float) -> int:
    """Run it in processes of their own until one comes to its end, the first `kills` killed within so many seconds.

    Returns how many were killed before their end.
    """
    draws, killed = np.random.default_rng(0), 0
    while True:
        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        if killed < kills:
            time.sleep(draws.uniform(0.0, seconds))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            return killed
        assert process.exitcode == -signal.SIGKILL
        killed += 1
