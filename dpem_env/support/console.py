"""The terminal: output that is never refused, whatever its encoding, and Ctrl-C while a command works."""

from __future__ import annotations

import _thread
import codecs
import io
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from dpem_env.support.errors import one_line
from dpem_env.support.interrupts import end

PLAIN = "dpem-plain"  # name of the error handler that writes what an encoding lacks in ASCII
SIGNS = {
    "±": "+/-", "…": "...", "·": "*", "×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "←": "<-",
    "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt", "∝": "~", "‘": "'", "’": "'", "“": '"', "”": '"',
    "µ": "u", "λ": "lambda", "Λ": "Lambda",
}  # fmt: skip


@contextmanager
def interruptible() -> Iterator[None]:
    """While a command works, Ctrl-C is a KeyboardInterrupt, and one that is swallowed comes again.

    Numba compiles through callbacks that swallow it, others meet it in destructors; some compilations then fail, others
    just go on. Pydantic makes an error of its own of it. So whatever fails after Ctrl-C has been interrupted.
    """
    repeats: list[threading.Timer] = []
    pressed: list[int] = []
    usual, ours = sys.unraisablehook, signal.getsignal(signal.SIGINT) is end

    def press(signum: int, frame: Any) -> None:
        pressed.append(signum)
        signal.default_int_handler(signum, frame)

    def repeat_interrupt(problem: Any) -> None:
        if issubclass(problem.exc_type, KeyboardInterrupt):
            repeats.append(threading.Timer(0.1, _thread.interrupt_main))
            repeats[-1].start()
        else:
            usual(problem)

    sys.unraisablehook = repeat_interrupt
    try:
        if ours:
            signal.signal(signal.SIGINT, press)
        yield
    except Exception:
        if repeats or pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        for repeat in repeats:
            repeat.cancel()
        if ours:
            signal.signal(signal.SIGINT, end)
        sys.unraisablehook = usual


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and processes started in it never get one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Sink(io.RawIOBase):
    """Bytes to a file as long as it takes them, then to nowhere: what a command does must not hang on who reads."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return not self.raw.closed and self.raw.isatty()  # libraries ask as Python ends, when files are closed

    def write(self, data: Any) -> int | None:
        if self.failure is None:
            try:
                return self.raw.write(data)
            except OSError as error:
                self.failure = error
        return len(data)


@contextmanager
def lasting_output() -> Iterator[Callable[[], str | None]]:
    """Output can be written inside: closed, broken or full, and in an encoding that lacks our symbols.

    Yields what to call at the end: why standard output was lost, if it was and its reader did not just stop reading.
    """
    before = sys.stdout, sys.stderr
    sinks: dict[str, _Sink] = {}
    for name in ("stdout", "stderr"):
        setattr(sys, name, _lasting(name, sinks))

    def loss() -> str | None:
        sys.stdout.flush()
        failure = sinks["stdout"].failure if "stdout" in sinks else None
        return None if failure is None or isinstance(failure, BrokenPipeError) else failure.strerror

    try:
        yield loss
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _lasting(name: str, sinks: dict[str, _Sink]) -> TextIO:
    stream = getattr(sys, name)
    if stream is None:  # closed when Python was started
        return open(os.devnull, "w", encoding="utf-8")
    binary = getattr(stream, "buffer", None)
    raw = getattr(binary, "raw", binary)
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):  # somebody's own, in memory
        return cast(TextIO, stream)
    stream.flush()
    sinks[name] = _Sink(raw)
    return io.TextIOWrapper(
        io.BufferedWriter(sinks[name]),
        encoding=stream.encoding,
        errors=PLAIN,
        line_buffering=stream.line_buffering or stream.write_through,  # PYTHONUNBUFFERED, as in many containers
        write_through=stream.write_through,
    )


def complain(message: str) -> None:
    """One line on standard error, whatever names and foreign messages it quotes."""
    print(one_line(message), file=sys.stderr)


def printable(text: str) -> str:
    """The text as standard output shows it: of the width it will have there."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, PLAIN).decode(encoding, "surrogateescape")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks, in ASCII; bytes of a file's name that are no text, as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _in_ascii(character), error.start + 1


def _in_ascii(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        letter = name.split()[-1]
        return letter.capitalize() if "CAPITAL" in name else letter.lower()
    decomposed = unicodedata.normalize("NFKD", character)
    return "".join(part for part in decomposed if part.isascii()) or "?"


codecs.register_error(PLAIN, _plain)
