"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpem_env.errors import DpemError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path to write to; it becomes `path` when the block succeeds and is removed when it does not."""
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], data: dict[str, Any]) -> None:
    """Write plain data, without NaN, as JSON; a list of numbers takes one line."""
    text = json.dumps(data, indent=1, allow_nan=False)
    text = re.sub(r"\[[-+.\deE,\snul]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def make_writable(folder: Path) -> None:
    """Make the folder for results if it is missing; DpemError if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise DpemError(f"--out {os.fspath(folder)!r} cannot be written: {getattr(error, 'strerror', error)}") from None
