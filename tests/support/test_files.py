"""Files: written whole or not at all, by one process at a time, named by any text, read without trust."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.lib import format as npy

from dpem_env.support.errors import DataError, DpemError
from dpem_env.support.files import (
    LONGEST_NAME,
    ArrayFile,
    Part,
    checked,
    file_name,
    json_object,
    read_json,
    reading,
    require_files,
    result_folder,
    sole_writer,
    whole_file,
    write_json,
)

MB = 2**20


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with whole_file(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "a.txt")
    with whole_file(tmp_path / "link.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("problem", [OSError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            raise problem

    with pytest.raises(problem):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_fails_before_anything_is_written_raises_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="its own"), whole_file(tmp_path / "a.txt"):
        raise KeyError("its own")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_on_disk_before_it_takes_its_name_and_its_name_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: happened.append(os.readlink(f"/proc/self/fd/{handle}")))
    usual = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: happened.append("replace") or usual(self, target))
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert happened == [str(partial), "replace", str(tmp_path)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": bad})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": [1.5, None, -2e-9], "y": {}})
    assert read_json(tmp_path / "a.json") == {"x": [1.5, None, -2e-9], "y": {}}


def test_texts_are_written_as_they_are(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "[1  2]", "[1,  2]": ["[\n 1\n]", 3]})
    assert read_json(tmp_path / "a.json") == {"text": "[1  2]", "[1,  2]": ["[\n 1\n]", 3]}


# Locks


HOLD = """
import sys, time
from dpem_env.support.files import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("what", ["folder", "file.json"])
@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_process_is_refused_until_the_first_has_ended_however(
    tmp_path: Path, what: str, ends: signal.Signals
) -> None:
    target = tmp_path / what
    if what == "folder":
        target.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(DpemError, match=f"another process is writing '.*{what}': wait for it"), sole_writer(target):
            raise AssertionError("both write")
        first.send_signal(ends)
        first.wait()
        with sole_writer(target):
            pass


def test_a_lock_ends_with_its_block_and_counts_within_a_process_too(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_writer(tmp_path):
            with pytest.raises(DpemError, match="another process"), sole_writer(tmp_path):
                raise AssertionError("both write")
            with sole_writer(tmp_path / "another.json"):
                pass
    with pytest.raises(KeyError), sole_writer(tmp_path):
        raise KeyError
    with sole_writer(tmp_path):
        pass


def test_where_nothing_can_be_locked_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below" / "a.json"
    with pytest.raises(DpemError, match="cannot be locked for writing") as told, sole_writer(below):
        raise AssertionError("written all the same")
    assert "\n" not in str(told.value)


# Folders


def test_a_folder_of_results_has_one_writer(tmp_path: Path) -> None:
    def write() -> None:
        with result_folder(tmp_path / "out"):
            pass

    with result_folder(tmp_path / "out"), pytest.raises(DpemError, match="another process is writing"):
        write()
    write()


def test_a_folder_of_results_that_is_removed_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        with result_folder(out):
            write_json(out / "a.json", {})
            shutil.rmtree(out)
            write_json(out / "b.json", {})

    with pytest.raises(DpemError, match="was removed while results were written to it"):
        write()
    with pytest.raises(DpemError, match="1 of its files is gone"):
        require_files(out, [out / "a.json"])


# Names

TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


@given(TEXTS, TEXTS)
@example("", ".")
@example(".", "%2E")
@example("a/b", "a%2Fb")
@example("../escaped", "escaped")
@example("x" * 300, "x" * 301)
@example("x" * 300, file_name("x" * 300))
@example("é" * 60, "é" * 61)
@example("\udcff", "\ufffd")
def test_every_text_has_a_name_of_its_own_that_every_file_system_takes(one: str, other: str) -> None:
    names = file_name(one), file_name(other)
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert len(os.fsencode(name)) <= LONGEST_NAME
        assert not name.startswith(".")
        assert not set(name) & set('/\\\0*?[]:|<>"\n')


@pytest.mark.parametrize("text", ["local-reactive", "mesh100-v0+slots=20", "a b@1(3)_~x.y"])
def test_a_plain_text_is_its_own_name(text: str) -> None:
    assert file_name(text) == text


def test_several_texts_have_a_name_of_their_own() -> None:
    assert file_name("central-reactive", "+oracle", "delay0.5") == "central-reactive,+oracle,delay0.5"
    assert len({file_name("a", "b"), file_name("a,b"), file_name("a", "b,c"), file_name("a", "b", "c")}) == 4


@given(TEXTS.filter(bool))
def test_a_name_can_be_written_and_stays_in_its_folder(text: str) -> None:
    place = Path("/folder") / file_name(text)
    assert place.parent == Path("/folder")
    assert place.name == file_name(text)


# Reading


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (KeyError("mode"), "'mode' is missing"),
        (MemoryError(), "it does not fit into memory"),
        (RecursionError("maximum recursion depth"), "it is nested too deeply"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (OSError("odd"), "odd"),
        (EOFError(), "EOFError"),
        (zipfile.BadZipFile("File is not a zip file"), "File is not a zip file"),
        (lzma.LZMAError("Corrupt input data"), "Corrupt input data"),
        (DpemError("slots is 0;\nexpected more"), "slots is 0; expected more"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_whatever_goes_wrong_while_reading_is_told_in_one_line(problem: Exception, reason: str) -> None:
    with pytest.raises(DataError) as told, reading("trace", "a\nb.npz", DataError):
        raise problem
    assert str(told.value).startswith(f"trace 'a\\nb.npz' cannot be used: {reason}")
    assert "\n" not in str(told.value)


def test_what_is_no_error_passes() -> None:
    with pytest.raises(KeyboardInterrupt), reading("trace", "a"):
        raise KeyboardInterrupt
    with reading("trace", "a"):
        pass


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1]", "it holds a list; expected a JSON object"),
        (b'{"a": NaN}', "it holds NaN, which is no finite number"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a": 1e999}', "it holds 1e999"),
        (b'{"a": ' + b"9" * 400 + b"}", "it holds 99999999999999999999, which"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it holds 99999999999999999999, which"),
        (b'{"a": ' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": "\xff"}', "it is no text in UTF-8"),
        (b" " * (16 * MB + 1), "it is longer than 16,777,216 bytes, the most that is read"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_file_that_is_no_json_object_is_told_in_one_line(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DpemError) as told, reading("ledger", path):
        read_json(path)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a file without an end")
def test_a_file_without_an_end_is_read_so_far_only() -> None:
    with pytest.raises(DpemError, match="it is no regular file"), reading("ledger", "/dev/zero"):
        read_json("/dev/zero")


class Trial(Part):
    name: str
    seeds: list[int]
    score: float | None = None


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ([], r"trial: expected a section with fields \(given \[\]\)"),
        ({"seeds": []}, "trial.name: is missing"),
        ({"name": 5, "seeds": []}, r"trial.name: expected text in quotes \(given 5\)"),
        ({"name": "a", "seeds": [1, True]}, r"trial.seeds.1: expected a whole number \(given True\)"),
        ({"name": "a", "seeds": [], "score": "0.5"}, r"trial.score: expected a number \(given '0.5'\)"),
    ],
)
def test_the_first_part_that_is_missing_or_of_another_kind_is_named(given_: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked(Trial, given_, "trial")
    checked(Trial, {"name": "a", "seeds": [1, 2], "more": {}}, "trial")
    assert json_object(json.dumps({"a": 1})) == {"a": 1}


# Arrays


def npz(path: Path, compressed: bool = True, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@contextmanager
def entry(path: Path, name: str, method: int = zipfile.ZIP_DEFLATED) -> Iterator[IO[bytes]]:
    """To write one more entry of an archive."""
    with (
        zipfile.ZipFile(path, "a", method, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as stream,
    ):
        yield stream


def of_zeros(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    kind: str = "<f4",
    method: int = zipfile.ZIP_DEFLATED,
    more: int = 0,
) -> Path:
    """A file with an array of zeros, added without holding them, and so many bytes more than it says."""
    with entry(path, name, method) as stream:
        npy.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
        left = int(np.prod(shape)) * np.dtype(kind).itemsize + more
        while left > 0:
            stream.write(bytes(min(left, 4 * MB)))
            left -= 4 * MB
    return path


def peak_of(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.zeros((0, 5), np.int32),
        np.array(2.5),
        np.array(["a", "bc"]),
        np.zeros((2, 0)),
        np.array([True, False]),
        np.arange(3, dtype=">i8"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_an_array_is_read_as_it_was_written(tmp_path: Path, array: Any, compressed: bool) -> None:
    with ArrayFile(npz(tmp_path / "a.npz", compressed, x=array, y=np.zeros(2))) as stored:
        assert stored.names == ["x", "y"]
        assert stored.declared("x") == (array.shape, array.dtype)
        for kinds in (array.dtype, array.dtype.kind, "fiuUb"):
            again = stored.read("x", array.shape, kinds)
            assert again.dtype == array.dtype
            assert again.tobytes() == array.tobytes()
            assert again.flags.writeable


@pytest.mark.parametrize(
    ("shape", "kinds", "reason"),
    [
        ((3, 4), "fi", r"x has shape \(2, 3\) and type float32 instead of \(3, 4\) fi"),
        ((2, 3), "iu", r"x has shape \(2, 3\) and type float32 instead of \(2, 3\) iu"),
        ((2, 3), np.float64, r"instead of \(2, 3\) float64"),
        ((6,), np.float32, r"instead of \(6,\) float32"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(tmp_path: Path, shape: Any, kinds: Any, reason: str) -> None:
    with ArrayFile(npz(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32))) as stored:
        with pytest.raises(ValueError, match=reason):
            stored.read("x", shape, kinds)
        with pytest.raises(KeyError, match="y"):
            stored.read("y", shape, kinds)


def test_an_array_that_does_not_belong_is_refused_by_its_name(tmp_path: Path) -> None:
    path = of_zeros(npz(tmp_path / "a.npz", x=np.ones(3)), "payload", (2**25,))
    assert path.stat().st_size < MB
    with ArrayFile(path) as stored:
        with pytest.raises(ValueError, match="holds an array 'payload', which does not belong there"):
            stored.require_names(["x"])
        assert peak_of(lambda: stored.read("x", (3,), "f")) < MB


@pytest.mark.parametrize("kind", ["<f4", "|b1", "<c16", "<f8"])
def test_more_zeros_than_a_file_can_honestly_hold_are_not_unpacked(tmp_path: Path, kind: str) -> None:
    shape = (2**26 // np.dtype(kind).itemsize,)
    path = of_zeros(tmp_path / "a.npz", "x", shape, kind)

    def read() -> None:
        with ArrayFile(path) as stored, pytest.raises(ValueError, match="too much for a file of this size"):
            stored.read("x", shape, kind)

    assert peak_of(read) < MB


def test_many_arrays_that_together_are_too_much_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for number in range(40):
        of_zeros(path, f"{number}", (2**18,))  # 1 MB each
    with ArrayFile(path) as stored:
        for number in range(16):
            stored.read(f"{number}", (2**18,), "f")
        with pytest.raises(ValueError, match="too much for a file of this size"):
            stored.read("16", (2**18,), "f")


def test_what_follows_after_an_array_is_not_unpacked(tmp_path: Path) -> None:
    path = of_zeros(tmp_path / "a.npz", "x", (3,), more=2**26)

    def read() -> None:
        with ArrayFile(path) as stored, pytest.raises(ValueError, match="x has not the 12 bytes it declares"):
            stored.read("x", (3,), "f")

    assert peak_of(read) < MB


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_packing_are_refused(tmp_path: Path, method: int) -> None:
    path, reason = (
        of_zeros(tmp_path / "a.npz", "x", (3,), method=method),
        rf"x is packed by method {method}, which \.npz",
    )
    with ArrayFile(path) as stored, pytest.raises(ValueError, match=reason):
        stored.read("x", (3,), "f")


def written(path: Path, content: bytes, name: str = "x.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, content)
    return path


def with_header(text: str, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    size = (len(text) if length is None else length).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode("latin1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)", b"\x02\x00"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", b"\x03\x00"),
        with_header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }") + bytes(24),
        with_header("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 3), }") + bytes(36),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }") + bytes(24),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 400 + ",), }"),
        with_header("{'descr': [('a', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (3,), }"),
        with_header("{'descr': '<U999999999', 'fortran_order': False, 'shape': (), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }") + bytes(12),
        with_header("(" * 9000),
        with_header("{" * 9000),
        with_header("__import__('os')"),
        with_header("{}", length=60_000),
    ],
    ids=range(16),
)  # fmt: skip
def test_an_odd_header_is_refused_in_one_line(tmp_path: Path, content: bytes, recwarn: pytest.WarningsRecorder) -> None:
    path = written(tmp_path / "a.npz", content)
    for read in (lambda stored: stored.read("x", (4,), "f"), lambda stored: stored.read_about()):
        with (
            pytest.raises(DpemError, match="cannot be used") as told,
            reading("arrays", path),
            ArrayFile(path) as stored,
        ):
            read(stored)
        assert "\n" not in str(told.value)
    assert not recwarn.list


def test_a_header_of_a_gigabyte_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with entry(path, "about") as stream:
        stream.write(with_header("", b"\x02\x00", 2**26))
        for _ in range(256):
            stream.write(b" " * (4 * MB))

    def read() -> None:
        with ArrayFile(path) as stored, pytest.raises(ValueError, match="version"):
            stored.read_about()

    assert peak_of(read) < MB


@pytest.mark.parametrize("letters", [2**22 + 1, 2**28])
def test_a_text_about_the_arrays_has_an_end(tmp_path: Path, letters: int) -> None:
    path = of_zeros(tmp_path / "a.npz", "about", (), f"<U{letters}")

    def read() -> None:
        with ArrayFile(path) as stored, pytest.raises(ValueError, match=r"too much|expected at most 16,777,216"):
            stored.read_about()

    assert peak_of(read) < MB


def test_the_dearest_text_about_the_arrays_is_bearable(tmp_path: Path) -> None:
    text = '{"a": [' + "[]," * (2**20 // 3) + "[]]}"
    path = npz(tmp_path / "a.npz", about=np.array(text))
    assert path.stat().st_size < MB // 10

    def read() -> None:
        with ArrayFile(path) as stored:
            stored.read_about()

    assert peak_of(read) < 50 * MB


@pytest.mark.parametrize("names", [("x.npy", "x.npy"), ("x.npy", "x")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(ValueError, match="two arrays of one name"):
        ArrayFile(tmp_path / "a.npz")


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_arrays_are_not_read_from_what_has_no_end(tmp_path: Path, what: str) -> None:
    path = tmp_path / "pipe" if what == "pipe" else Path("/dev/zero")
    if what == "pipe":
        os.mkfifo(path)
    with pytest.raises(DpemError, match="it is no regular file"), reading("checkpoint", path):
        ArrayFile(path)
