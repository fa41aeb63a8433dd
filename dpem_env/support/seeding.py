"""Randomness as an argument: every stream is derived from a purpose and a seed, nothing is global."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import Any

import numpy as np

from dpem_env.support.errors import DpemError, ScenarioError, shown

SEEDS = 2**63  # seeds are smaller
HEXADECIMAL = re.compile(r"[0-9a-f]{32,256}")  # 40 of a commit, 64 of drand, 128 of NIST


def require_seed(name: str, value: Any) -> None:
    """Raise ScenarioError unless it is an int that can be a seed."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 <= int(value) < SEEDS:
        raise ScenarioError(f"{name} is {shown(value)}; expected an int >= 0 and < 2**63")


def _sequence(purpose: str, *seeds: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([zlib.crc32(purpose.encode()), *seeds])


def generator(purpose: str, *seeds: int) -> np.random.Generator:
    """An independent NumPy generator for (purpose, seeds)."""
    return np.random.Generator(np.random.PCG64(_sequence(purpose, *seeds)))


def stream_key(purpose: str, *seeds: int) -> np.uint64:
    """A 64-bit key for counter-based draws inside the kernel."""
    return np.uint64(_sequence(purpose, *seeds).generate_state(1, np.uint64)[0])


def following(text: str) -> int:
    """The seed that follows from a text for everybody: the first 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def hexadecimal(name: str, text: str, what: str) -> str:
    """A value that seeds follow from, in lower case and without "0x"; DpemError unless it is 32 to 256 digits."""
    value = text.strip().lower().removeprefix("0x")
    if not HEXADECIMAL.fullmatch(value):
        raise DpemError(f"{name} is {text!r}; expected 32 to 256 hexadecimal digits, {what}")
    return value
