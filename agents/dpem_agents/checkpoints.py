"""Checkpoint files: a description, and arrays, in one .npz file without pickle.

What a file is about is JSON in its array "about", which decides names, shapes and types of all others: nothing is
unpacked before these are known to be right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.simulator import RULES_VERSION, require_rules
from dpem_env.support.errors import DpemError
from dpem_env.support.files import ArrayFile, Part, checked, whole_file
from dpem_env.support.provenance import UNKNOWN, stamp

LARGEST = 1e12  # of what is learned: products of such numbers stay finite
Arrays = dict[str, NDArray[Any]]
Kinds = dict[str, tuple[tuple[int, ...], Any]]  # shape and type, or kinds of type ("fi"), by name


def write(path: str | os.PathLike[str], about: Mapping[str, Any], arrays: Arrays, compressed: bool = False) -> None:
    """Write a checkpoint, whole or not at all; DpemError if that fails. Stamp and rules are today's if not given."""
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, open(partial, "wb") as stream:
            save(stream, about=np.array(json.dumps({"stamp": stamp(), "rules": RULES_VERSION} | dict(about))), **arrays)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        before = "; the one before is intact" if os.path.exists(path) else ""
        raise DpemError(f"checkpoint {os.fspath(path)!r} cannot be written: {error}{before}") from None


def read(
    path: str | os.PathLike[str],
    format: str,
    about: type[Part],
    arrays: Callable[[dict[str, Any], ArrayFile], tuple[Kinds, Kinds]],
    all_of_them: bool = False,
) -> tuple[dict[str, Any], Arrays]:
    """Description and arrays of a checkpoint; to be called inside `reading`.

    `about` is what the description must hold. `arrays`, given it and the file, tells what the file must hold and what
    it may hold besides, which is read with `all_of_them` only.
    """
    with ArrayFile(path) as stored:
        described = stored.read_about()
        if described["format"] != format:
            raise ValueError(f"format {described['format']!r} instead of {format!r}")
        require_rules(described.setdefault("rules", "v0"), "train it again")  # v0 did not say so
        described.setdefault("stamp", UNKNOWN)
        checked(about, described, "about")
        wanted, others = arrays(described, stored)
        stored.require_names(["about", *wanted, *others])
        if all_of_them:
            wanted = wanted | {name: kind for name, kind in others.items() if name in stored.names}
        found = {name: stored.read(name, *kind) for name, kind in wanted.items()}
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has entries that are no numbers (NaN or infinite); train it anew")
        if array.size and float(np.abs(array).max()) > LARGEST:
            raise ValueError(f"{name} has entries beyond {LARGEST:g}, which no training ends with; train it anew")
    return described, found
