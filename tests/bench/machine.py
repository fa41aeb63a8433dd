"""What every benchmark writes beside its figures: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpem_env.files import whole_file


def save(path: Path, result: Mapping[str, Any], *packages: str) -> None:
    """Write a result with where and when it was measured, whole or not at all."""
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("dpem-env", "numpy", "numba", *packages)},
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps({**result, **about}, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
