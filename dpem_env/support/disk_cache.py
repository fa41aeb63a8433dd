"""What is kept on disk because it takes long to make: compiled code, and networks.

It lies below ``DPEM_CACHE``, else ``XDG_CACHE_HOME/dpem_env``, else ``~/.cache/dpem_env``, in one folder for each state
of the sources that it follows from. The `STATES` used last are kept; all may be deleted at any time.

The cache is never in the way. What is not there, cannot be read or is not, bit for bit, what was written is made again;
what cannot be written is not kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dpem_env.support.files import whole_file
from dpem_env.support.provenance import world_fingerprint, world_unchanged

STATES = 16  # of the sources; compiled code of one takes a few megabytes
PATIENCE = 300.0  # s to wait for another process that is making the same
LARGEST = 2**28  # bytes
CHECKSUM = hashlib.sha256
FAILURES = (OSError, RuntimeError, ValueError)  # RuntimeError: the user has no home; ValueError: a path that cannot be


def folder() -> Path:
    """Where everything is kept; RuntimeError if the user has no home folder and nothing else is set."""
    chosen = os.environ.get("DPEM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dpem_env"
    return Path(chosen).expanduser()


def read(name: str) -> bytes | None:
    """What was kept under this name; None if there is nothing, or it is damaged."""
    with suppress(*FAILURES):
        path = _state() / name
        if path.is_file() and path.stat().st_size <= LARGEST:
            whole = path.read_bytes()
            checksum, content = whole[: CHECKSUM().digest_size], whole[CHECKSUM().digest_size :]
            if CHECKSUM(content).digest() == checksum:
                with suppress(OSError):
                    os.utime(_state())
                return content
    return None


def write(name: str, content: bytes) -> None:
    """Keep this if possible; if the sources are no longer those that were loaded, it is not."""
    if len(content) + CHECKSUM().digest_size > LARGEST or not world_unchanged():
        return
    with suppress(*FAILURES):
        path = _made(_state() / name)
        with whole_file(path) as partial:
            partial.write_bytes(CHECKSUM(content).digest() + content)


@contextmanager
def sole_maker(name: str) -> Iterator[bool]:
    """Let other processes that want to make the same wait; yields whether the cache can be written at all.

    The lock ends with its process. Who has waited for `PATIENCE`, or cannot lock, goes ahead.
    """
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(_made(_state() / f"{name}.lock"), timeout=PATIENCE))
        except Timeout:
            writable = True
        except FAILURES:
            writable = False
        else:
            writable = True
        yield writable


def _state() -> Path:
    return folder() / f"world-{world_fingerprint()}"


def _made(path: Path) -> Path:
    """The path, after its folder was made."""
    if not path.parent.is_dir():
        first = not _state().exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        if first:
            _forget_oldest()
    return path


def _forget_oldest() -> None:
    states = [place for place in folder().iterdir() if re.fullmatch("world-[0-9a-f]{16}", place.name)]
    for place in sorted(states, key=lambda place: place.stat().st_mtime, reverse=True)[STATES:]:
        shutil.rmtree(place, ignore_errors=True)
