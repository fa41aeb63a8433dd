"""Observers that show something else than there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def changed(writing: tuple[Any, Any], change: Callable[[Any], None]) -> tuple[Any, Any]:
    """What `Observer.observing` or `masking` gives, but the written array is changed in place before anyone sees it."""
    (write, *arguments), out = writing

    def write_otherwise(*given: Any) -> None:
        write(*given)
        change(out)

    return (write_otherwise, *arguments), out
