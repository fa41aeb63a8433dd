"""What is kept on disk: read back to the bit or not at all, and never in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from dpem_env.support import disk_cache
from dpem_env.support.disk_cache import folder, read, sole_maker, write

CONTENT = bytes(range(48))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for every test."""
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def place_of(name: str) -> Path:
    (place,) = folder().glob(f"*/{name}")
    return place


def test_what_was_kept_is_read_back() -> None:
    assert read("things/a") is None
    write("things/a", CONTENT)
    assert read("things/a") == CONTENT
    write("things/a", b"")
    assert read("things/a") == b""
    assert read("things/b") is None


def test_damage_of_any_kind_is_as_if_nothing_was_kept() -> None:
    write("a", CONTENT)
    place = place_of("a")
    whole = place.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        assert read("a") is None
    for length in range(len(whole)):
        place.write_bytes(whole[:length])
        assert read("a") is None
    place.write_bytes(whole + b"\0")
    assert read("a") is None
    place.write_bytes(whole)
    assert read("a") == CONTENT


def test_what_is_too_big_is_neither_kept_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a", CONTENT)
    monkeypatch.setattr(disk_cache, "LARGEST", len(CONTENT))
    assert read("a") is None
    write("b", CONTENT)
    assert not list(folder().glob("*/b"))


def a_file(cache: Path) -> None:
    cache.write_text("not a folder")


def a_file_below(cache: Path) -> None:
    cache.mkdir()
    disk_cache._state().write_text("not a folder")


def a_folder_in_place(cache: Path) -> None:
    (disk_cache._state() / "a").mkdir(parents=True)


def a_pipe_in_place(cache: Path) -> None:
    disk_cache._state().mkdir(parents=True)
    os.mkfifo(disk_cache._state() / "a")


def a_dangling_link(cache: Path) -> None:
    cache.symlink_to(cache.parent / "gone" / "away")


def a_link_in_a_circle(cache: Path) -> None:
    cache.symlink_to(cache)


@pytest.mark.parametrize("obstacle", [a_file, a_file_below, a_folder_in_place, a_dangling_link, a_link_in_a_circle])
def test_a_cache_that_cannot_be_is_no_obstacle(cache: Path, obstacle: Callable[[Path], None]) -> None:
    obstacle(cache)
    assert read("a") is None
    write("a", CONTENT)
    with sole_maker("a"):
        pass
    assert read("a") in (None, CONTENT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(cache: Path) -> None:
    a_pipe_in_place(cache)
    assert read("a") is None
    write("a", CONTENT)
    assert read("a") == CONTENT


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_full_or_read_only_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise error

    write("a", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        write("a", CONTENT)
    assert read("a") == b"old"
    assert [path.name for path in place_of("a").parent.iterdir()] == ["a"]


def test_who_has_no_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> str:
        return path  # as for an unknown user

    for name in ("DPEM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", fail)
    with pytest.raises(RuntimeError):
        folder()
    assert read("a") is None
    write("a", CONTENT)
    with sole_maker("a") as writable:
        assert not writable


@pytest.mark.parametrize(
    ("chosen", "common", "expected"),
    [("here", "there", "here"), ("", "there", "there/dpem_env"), (None, None, "~/.cache/dpem_env"), ("~/c", "", "~/c")],
)
def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, chosen: str | None, common: str | None, expected: str) -> None:
    for name, value in (("DPEM_CACHE", chosen), ("XDG_CACHE_HOME", common)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert folder() == Path(expected).expanduser()


def test_nothing_is_kept_once_the_sources_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "world_unchanged", lambda: False)
    write("a", CONTENT)
    assert read("a") is None


def test_other_sources_see_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a", CONTENT)
    monkeypatch.setattr(disk_cache, "world_fingerprint", lambda: "0123456789abcdef")
    assert read("a") is None
    write("a", b"other")
    assert sorted(path.read_bytes()[32:] for path in folder().glob("*/a")) == sorted([CONTENT, b"other"])


def test_the_states_used_last_are_kept_and_nothing_else_is_touched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "STATES", 3)
    others = [cache / "photos" / "holiday.jpg", cache / "world-map" / "map.svg", cache / "world-0123456789abcdeF.bak"]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()

    def use(state: int) -> None:
        monkeypatch.setattr(disk_cache, "world_fingerprint", lambda: f"{state:016x}")
        write("a", CONTENT)
        for place in cache.glob("world-????????????????"):  # an hour passes
            os.utime(place, (place.stat().st_mtime - 3600,) * 2)
        assert read("a") == CONTENT

    for state in (1, 2, 3, 1, 4):
        use(state)
    kept = {int(place.name[6:], 16) for place in cache.glob("world-????????????????")}
    assert kept == {3, 1, 4}
    assert all(other.exists() for other in others)


HOLD = """
import sys
from dpem_env.support.disk_cache import sole_maker
with sole_maker("a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_maker_is_alone_until_its_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "PATIENCE", 0.2)
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with sole_maker("b") as writable:
        assert writable
    start = time.monotonic()
    with sole_maker("a") as writable:  # not for ever
        assert writable
    assert time.monotonic() - start >= 0.2
    monkeypatch.setattr(disk_cache, "PATIENCE", 100.0)
    other.kill()
    other.communicate()
    with sole_maker("a"), pytest.raises(TimeoutError):
        FileLock(place_of("a.lock"), blocking=False).acquire()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("chosen", [True, False])
def test_an_unknown_user_without_home_keeps_nothing(cache: Path, chosen: bool) -> None:
    """As in a container that is started under a number: neither HOME nor an entry in the list of users."""
    cache.mkdir(mode=0o755)  # another's: it can be read
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "DPEM_CACHE")}
    environment |= {"DPEM_CACHE": str(cache)} if chosen else {}
    code = (
        "import os; from dpem_env.support.disk_cache import read, write, sole_maker\n"
        "read('a')  # all is loaded: the interpreter's files are perhaps not for everybody\n"
        "os.setgid(54321); os.setuid(54321)\n"
        "with sole_maker('a') as writable: write('a', b'x')\n"
        "print(writable, read('a'))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False None\n", "")


def test_random_names_of_networks_and_code_do_not_clash() -> None:
    rng = np.random.default_rng(0)
    kept = {f"networks/{i}": rng.bytes(50) for i in range(20)}
    for name, content in kept.items():
        write(name, content)
    assert {name: read(name) for name in kept} == kept
    shutil.rmtree(folder())
    assert {read(name) for name in kept} == {None}
