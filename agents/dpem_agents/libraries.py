"""What learning needs beyond dpem_env: loaded only when something is trained."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dpem_env.support.errors import DpemError
from dpem_env.support.seeding import stream_key


@contextmanager
def agents_extra() -> Iterator[None]:
    """Around imports of PyTorch and Stable-Baselines3: DpemError with the command that installs them."""
    try:
        yield
    except ImportError as error:
        raise DpemError(f"learning needs more than is installed ({error}): pip install 'dpem-env[agents]'") from None


def pytorch() -> Any:
    """PyTorch; DpemError tells how to install it."""
    with agents_extra():
        import torch
    return torch


def library_seed(seed: int) -> int:
    """A seed that NumPy's global generator takes, and so whoever sets all generators: `seed` itself where it is one."""
    return seed if seed < 2**32 else int(stream_key("library seed", seed)) % 2**32


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, which is fastest for networks as small as these."""
    torch = pytorch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def errors_told_once() -> Iterator[None]:
    """No tracebacks of the threads that write TensorBoard's files: their errors are raised where values are logged."""
    usual = threading.excepthook

    def writes_events(thread: threading.Thread | None) -> bool:
        return type(thread).__module__.startswith("tensorboard.")

    def told(error: threading.ExceptHookArgs) -> None:
        if not writes_events(error.thread):
            usual(error)

    threading.excepthook = told
    try:
        yield
    finally:
        for thread in filter(writes_events, threading.enumerate()):
            if getattr(thread, "exception", None) is not None:  # raised here already, and soon there
                thread.join()
        threading.excepthook = usual
