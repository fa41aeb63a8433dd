"""The command as a process of its own: with the streams, the encoding and the Ctrl-C that a terminal gives it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "dpem_env"]


def in_shell(line: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of a line in which ``dpem`` is this command."""
    script = f'dpem() {{ {shlex.join(COMMAND)} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=os.environ | environment, capture_output=True, timeout=300, check=False
    )


def told(run: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    """Lines on standard error; that of compiling comes in the first process that plays."""
    return [line for line in run.stderr.splitlines() if b"compil" not in line]


def interrupted_after(seconds: float, *argv: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and standard error of the command, Ctrl-C being pressed after so many seconds."""

    def as_a_terminal_does() -> None:
        os.setpgid(0, 0)  # a group of its own: with its workers it gets what is pressed
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [*COMMAND, *argv], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=as_a_terminal_does
    )
    time.sleep(seconds)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    return process.returncode, told.decode()
