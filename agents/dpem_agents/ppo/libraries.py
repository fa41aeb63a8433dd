"""What learning needs beyond dpem_env."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpem_env.errors import DpemError


@contextmanager
def agents_extra() -> Iterator[None]:
    """Around imports of PyTorch and Stable-Baselines3: DpemError with the command that installs them."""
    try:
        yield
    except ImportError as error:
        raise DpemError(
            f"learning by PPO needs more than is installed ({error}): pip install 'dpem-env[agents]'"
        ) from None
