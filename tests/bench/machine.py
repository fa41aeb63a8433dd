"""What every benchmark writes beside its figures: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpem_env.support.files import write_json


def about(*packages: str) -> dict[str, Any]:
    """Where and when a result is measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("dpem-env", "numpy", "numba", *packages)},
    }


def save(path: Path, result: Mapping[str, Any], *packages: str) -> None:
    """Write a result with where and when it was measured, whole or not at all."""
    write_json(path, {**result, **about(*packages)})


def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
