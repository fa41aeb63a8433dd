"""What learning needs beyond dpem_env: loaded only when something is trained."""

from __future__ import annotations

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
