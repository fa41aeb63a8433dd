"""Ctrl-C from the first moment on: the package loads this before anything else, so it imports next to nothing."""

from __future__ import annotations

import atexit
import os
import signal
import sys

INTERRUPTED = "dpem: interrupted"
EXIT_INTERRUPTED = 130


def attend() -> bool:
    """If this process is the command itself: Ctrl-C ends it with one line, and files opened are not its output.

    Returns whether it is.
    """
    if not _is_command():
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored, as in the background
        signal.signal(signal.SIGINT, end)
        # Last of all that is done at exit, as the first to be registered: Python's own end would die of Ctrl-C.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    for descriptor in range(3):  # what is closed would be the number of the next file opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    return True


def _is_command() -> bool:
    """Whether Python was started as ``dpem`` or ``python -m dpem_env``, not by a program that imports the package."""
    started = sys.argv[0] if getattr(sys, "argv", None) else ""
    if started == "-m":  # as long as the module is being looked for
        return any(part.removeprefix("-m") in ("dpem_env", "dpem_env.cli") for part in sys.orig_argv)
    return os.path.splitext(os.path.basename(started))[0] == "dpem"


def end(signum: int, frame: object) -> None:
    """Before and after a command works there is nothing to save, and what is half loaded cannot be cleaned up."""
    try:
        os.write(2, f"{INTERRUPTED}\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)
