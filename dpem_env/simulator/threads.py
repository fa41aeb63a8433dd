"""Shares of a batch of environments, stepped side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any


class Threads:
    """Calls a function that releases the interpreter lock on shares of a batch, one per thread.

    Threads start at the first call and belong to one process: a copy, an unpickled one or a forked process starts its
    own.
    """

    def __init__(self, threads: int, batch: int) -> None:
        self.threads = min(threads, batch)
        self.batch = batch
        self._shares = list(pairwise(batch * share // self.threads for share in range(self.threads + 1)))
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def __call__(self, function: Callable[[int, int], Any]) -> None:
        """Call function(first, last) on every share; the last one in the calling thread."""
        if self.threads == 1:
            function(0, self.batch)
            return
        *others, own = self._shares
        futures = [self._started().submit(function, *share) for share in others]
        function(*own)
        for future in futures:
            future.result()

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self.threads - 1, "dpem_env"), os.getpid()
        return self._pool

    def __reduce__(self) -> tuple[Any, ...]:
        return Threads, (self.threads, self.batch)
