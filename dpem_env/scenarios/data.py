"""Data that is not shipped: what a scenario reads of it, where it comes from and where it is looked for."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dpem_env.scenarios.schema import CoronetNetwork, Scenario, TraceDemand
from dpem_env.support.errors import DataError

CORONET = "coronet/flat_CORONET_Global_Topology.json"

ABILENE = "abilene/abilene_20040301_5min_14d.npz"


@dataclass(frozen=True)
class Source:
    """Where a file that is not shipped comes from."""

    file: str
    origin: str
    licence: str
    sha256: str


SOURCES = {
    "abilene": Source(
        file=ABILENE,
        origin="github.com/jrayzhang6/CFR-RL (data/AbileneTM, AbileneTM2), measured by Y. Zhang; float32 Mbit/s",
        licence="MIT",
        sha256="b8e9870132cdb825d03ae1928f1cbd1ea1211cbec53b558bb29e88085b61e2b0",
    ),
    "coronet": Source(
        file=CORONET,
        origin="github.com/Telecominfraproject/oopt-gnpy (gnpy/example-data), reduced to nodes and km",
        licence="BSD-3-Clause",
        sha256="88db81ba52a5d3d627d13fbfe3b8fa36db9c54773a2d82c0e7d2b7811449fd9f",
    ),
}


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of data that is not shipped: the argument, else ``DPEM_DATA``, else none."""
    folder = data_dir or os.environ.get("DPEM_DATA")
    return Path(folder) if folder else None


def data_file(scenario: Scenario, relative: str) -> Path:
    """The path of a file in the scenario's data folder; DataError says how to get it."""
    folder = data_folder(scenario.data_dir)
    if folder is None:
        raise DataError(
            f"{scenario.name} needs {relative}: pass --data DIR or set DPEM_DATA (dpem list says where to get it)"
        )
    path = folder / relative
    if not path.is_file():
        raise DataError(
            f"{scenario.name} needs {relative}, which is not in {os.fspath(folder)!r} (dpem list says where to get it)"
        )
    return path


def data_needed(scenario: Scenario) -> list[str]:
    """The sources of data that is not shipped which a scenario reads."""
    needs = ["coronet"] if isinstance(scenario.network, CoronetNetwork) else []
    return needs + (["abilene"] if isinstance(scenario.demand, TraceDemand) else [])


def data_missing(scenario: Scenario) -> list[str]:
    """Those of them whose file is not there."""
    return [name for name in data_needed(scenario) if source_file(name, scenario.data_dir) is None]


def source_file(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Where the file of one of the `SOURCES` lies in the data folder; None if it does not."""
    folder = data_folder(data_dir)
    file = None if folder is None else folder / SOURCES[name].file
    return file if file is not None and file.is_file() else None
