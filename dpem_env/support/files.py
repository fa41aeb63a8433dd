"""Files: written whole or not at all, by one process at a time, named by anything, read without trust."""

from __future__ import annotations

import codecs
import glob
import hashlib
import json
import math
import os
import re
import secrets
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from dpem_env.support.errors import DpemError, first_mistake

LONGEST_NAME = 120  # bytes of a file name made from a text; file systems take 255, of which others need some
LARGEST_TEXT = 64 * 2**20  # bytes of text that are read
# Parsed, a text of brackets takes twenty times its size.
LARGEST_JSON = 16 * 2**20
# What the arrays of a file may hold: so many times its size. Zeros shrink a thousandfold, what is learned or measured
# a few times. Below the least nobody is harmed.
LARGEST_EXPANSION, LEAST_ROOM = 64, 16 * 2**20
MARKED = {  # encodings by the byte order mark that a text begins with; a longer mark before one that it begins with
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path to write to; it becomes `path`, safe from a power cut, when the block succeeds.

    A link stays, and what it leads to is written.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], data: dict[str, Any]) -> None:
    """Write plain data, without NaN, as JSON; a list of numbers takes one line."""
    text = json.dumps(data, indent=1, allow_nan=False)
    # Of numbers over several lines, as no text is: there a line break is written \\n.
    text = re.sub(r"\[\n[-+.\deE,\snul]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def make_writable(folder: Path, option: str = "--out") -> None:
    """Make the folder for results if it is missing; DpemError, naming the option, if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="." + LONGEST_NAME * "-"):  # of the length that names have
            pass
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise _unwritable(folder, error, option) from None


def make_file_writable(path: Path, option: str = "--out") -> None:
    """Make the folder for a result file if it is missing; DpemError if no file of that name can be written there."""
    make_writable(path.parent, option)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name that is too long, or with a null character
        raise _unwritable(path, error, option) from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise DpemError(f"{option} {os.fspath(path)!r} is {what}; expected the path of a file to write")


def _unwritable(path: Path, error: OSError | ValueError, option: str = "--out") -> DpemError:
    return DpemError(f"{option} {os.fspath(path)!r} cannot be written: {getattr(error, 'strerror', error)}")


@contextmanager
def sole_writer(path: str | os.PathLike[str], patience: float = 0.0) -> Iterator[None]:
    """Nobody else writes this file, or this folder, meanwhile; DpemError if another process does for `patience` s.

    The lock is a hidden file in the folder, or beside the file. It ends with the process, however that ends.
    """
    target = Path(path)
    lock = target / ".lock" if target.is_dir() else target.with_name(f".{file_name(target.name)}.lock")
    try:
        held = FileLock(lock, timeout=patience).acquire()
    except Timeout:
        raise DpemError(
            f"another process is writing {os.fspath(target)!r}: wait for it to end, or choose another --out"
        ) from None
    except (OSError, ValueError, NotImplementedError) as error:  # no such folder, or no locks in this file system
        reason = getattr(error, "strerror", None) or error
        raise DpemError(f"{os.fspath(target)!r} cannot be locked for writing: {reason}") from None
    with held:
        yield


@contextmanager
def result_folder(folder: Path) -> Iterator[None]:
    """Make the folder for results; nobody else writes to it meanwhile, or removes it without a DpemError."""
    make_writable(folder)
    with sole_writer(folder), staying(folder):
        yield


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Where a file cannot be written because the folder, or one in it, is gone: a DpemError that says so."""
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(os.fsdecode(error.filename or folder))  # not every library says which
        if not folder.is_dir() or folder in missing.parents:
            raise _removed(folder, f"{os.fspath(missing.parent)!r} is gone") from None
        raise


def require_folder(folder: Path, within: str) -> None:
    """DpemError unless this one is still there in a folder of results."""
    if not (folder / within).is_dir():
        raise _removed(folder, f"{os.fspath(folder / within)!r} is gone")


def require_files(folder: Path, files: Iterable[Path]) -> None:
    """DpemError unless all are there that were written to a folder of results."""
    lost = sum(not file.is_file() for file in files)
    if lost:
        raise _removed(folder, f"{lost} of its files {'is' if lost == 1 else 'are'} gone")


def _removed(folder: Path, what: str) -> DpemError:
    return DpemError(f"--out {os.fspath(folder)!r} was removed while results were written to it: {what}; run it again")


def file_name(*parts: str) -> str:
    """A file name for any texts: another for all others, the text itself where that is possible.

    Never hidden, without separators, patterns and other signs that systems or shells give a meaning; what is too long
    ends in a hash.
    """
    # surrogates: bytes of a command line that are no UTF-8
    name = ",".join(quote(part, safe="+=@() ", errors="surrogatepass") for part in parts)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > LONGEST_NAME:  # no quoted text holds the mark before the hash
        name = f"{name[: LONGEST_NAME - 17]}#{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name


def matching(pattern: str) -> list[str]:
    """Paths that match a pattern. As much of it as exists is taken as it is written: any sign may be in a name."""
    there = pattern
    while there and not os.path.exists(there):
        there = os.path.dirname(there) if os.path.dirname(there) != there else ""
    rest = pattern[len(there) :]
    return sorted(glob.glob(glob.escape(there) + rest)) if rest else [pattern] * bool(pattern)


@contextmanager
def reading(
    what: str, path: str | os.PathLike[str], kind: type[DpemError] = DpemError, remedy: str = ""
) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line, "`what` `path` cannot be used: why", and what to do.

    Decoders raise nearly anything on damaged files. Errors that say so themselves (DpemError) keep their reason.
    """
    try:
        yield
    except MemoryError:
        reason = "it does not fit into memory"
    except KeyError as error:
        reason = f"{error} is missing"
    except RecursionError:
        reason = "it is nested too deeply"
    except OSError as error:
        reason = error.strerror or f"{error}"
    except Exception as error:
        reason = f"{error}" or type(error).__name__
    else:
        return
    raise kind(f"{what} {os.fspath(path)!r} cannot be used: {reason}{remedy and f'; {remedy}'}") from None


def require_regular(path: str | os.PathLike[str]) -> None:
    """ValueError for what is there but no file with an end: a folder, a pipe that is waited for, a device."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is no regular file")


def read_text(path: str | os.PathLike[str], largest: int = LARGEST_TEXT) -> str:
    """A text that somebody wrote, in UTF-8 or what its byte order mark says; to be called inside `reading`."""
    file = Path(path)
    require_regular(file)
    with file.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is longer than {largest:,} bytes, the most that is read")
    encoding = next((name for mark, name in MARKED.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8, nor in UTF-16 with a byte order mark; save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("it is no text: it holds null characters; save it as UTF-8")
    return text


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a file; to be called inside `reading`."""
    return json_object(read_text(path, LARGEST_JSON))


def json_object(text: str) -> dict[str, Any]:
    """A JSON object from a text; ValueError if it is something else, or holds NaN or numbers beyond floats."""
    data = json.loads(text, parse_int=_finite_int, parse_float=_finite, parse_constant=_finite)
    if not isinstance(data, dict):
        raise ValueError(f"it holds a {type(data).__name__}; expected a JSON object")
    return data


Kind = TypeVar("Kind", bound=BaseModel)


class Part(BaseModel):
    """Base of what a JSON object of a file must hold; it may hold more."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def checked(kind: type[Kind], data: object, name: str = "") -> Kind:
    """`data`, called `name`, as a `kind`; ValueError tells the first place where it is none."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ValueError(first_mistake(error, name=name)) from None


class ArrayFile:
    """Arrays in an .npz file, of which nothing is unpacked before its size is known to be right.

    To be used inside `reading`: what is wrong is a ValueError or KeyError, or whatever a decoder raises.
    """

    def __init__(self, path: str | os.PathLike[str] | IO[bytes]) -> None:
        if isinstance(path, str | os.PathLike):
            require_regular(path)
        size = os.path.getsize(path) if isinstance(path, str | os.PathLike) else path.seek(0, os.SEEK_END)
        self._room = max(LARGEST_EXPANSION * size, LEAST_ROOM)  # bytes that it may unpack to
        self._archive = zipfile.ZipFile(path)
        try:
            entries = self._archive.infolist()
            self._entries = {entry.filename.removesuffix(".npy"): entry for entry in entries}
            if len(self._entries) != len(entries):
                raise ValueError("it holds two arrays of one name")
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    @property
    def names(self) -> list[str]:
        """Of the arrays, in the order of the file."""
        return list(self._entries)

    def declared(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type that an array says it has; only its first bytes are read."""
        with self._open(name) as stream:
            return self._header(name, stream)

    def read(self, name: str, shape: Sequence[int], dtypes: str | DTypeLike) -> NDArray[Any]:
        """An array that must have this shape and type, or one of these kinds of type ("fi")."""
        with self._open(name) as stream:
            found, dtype = self._header(name, stream)
            right = dtype.kind in dtypes if isinstance(dtypes, str) else dtype == np.dtype(dtypes)
            if found != tuple(shape) or not right:
                wanted = dtypes if isinstance(dtypes, str) else np.dtype(dtypes)
                raise ValueError(f"{name} has shape {found} and type {dtype} instead of {tuple(shape)} {wanted}")
            size = math.prod(found) * dtype.itemsize
            self._room -= size
            content = stream.read(size + 1)  # to the end, where the checksum is compared
            if len(content) != size:
                raise ValueError(f"{name} has not the {size} bytes it declares")
        return np.frombuffer(bytearray(content), dtype).reshape(found)

    def read_about(self, largest: int = LARGEST_JSON) -> dict[str, Any]:
        """The JSON object in the array "about"."""
        _, dtype = self.declared("about")
        if dtype.itemsize > largest:
            raise ValueError(f"about has {dtype.itemsize:,} bytes; expected at most {largest:,}")
        return json_object(str(self.read("about", (), "U")))

    def require_names(self, expected: Sequence[str]) -> None:
        """ValueError if there are others; a missing one is a KeyError when it is read."""
        for name in self._entries:
            if name not in expected:
                raise ValueError(f"it holds an array {name!r}, which does not belong there")

    def _open(self, name: str) -> IO[bytes]:
        entry = self._entries[name]
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # only these unpack bit by bit
            raise ValueError(f"{name} is packed by method {entry.compress_type}, which .npz files do not use")
        return self._archive.open(entry)

    def _header(self, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        version = npy.read_magic(stream)
        if version != (1, 0):  # later ones are for tables, and their headers may be of any length
            raise ValueError(f"{name} has version {version} of the .npy format; expected (1, 0)")
        with warnings.catch_warnings(action="ignore"):  # numpy's advice to write files of Python 2 anew
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        if dtype.hasobject or (fortran and len(shape) > 1):
            raise ValueError(f"{name} holds objects, or runs column by column")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > self._room:
            raise ValueError(f"{name} has shape {shape} and type {dtype}, too much for a file of this size")
        return shape, dtype


def _finite_int(text: str) -> int:
    _finite(text)
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text[:20]}, which is no finite number")
    return number


def _sync(path: Path) -> None:
    """Have the system write to disk what it still holds in memory, where a file opened for reading allows that."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
