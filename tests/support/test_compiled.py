"""Compiled code on disk: never stale, never damaged, compiled by one process, apart from numba's own cache."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numba
import numpy as np
import pytest

from dpem_env.support import compiled, disk_cache
from dpem_env.support.compiled import Entry, cached, entry
from support.suites import few

PACKAGE = Path(compiled.__file__).parents[1]
WRITTEN = ignore_patterns("__pycache__")


@entry
def _double(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = 2.0 * values[i]


def double(dispatcher: Any) -> list[float]:
    """What 1 and 2 come to, and have the function compiled or read."""
    out = np.zeros(2)
    Entry(dispatcher)(np.array([1.0, 2.0]), out)
    numbers: list[float] = out.tolist()
    return numbers


def afresh() -> Any:
    """The function as another process has it: neither compiled nor read."""
    return entry(_double.py_func)


def compilations(dispatcher: Any) -> int:
    return sum(dispatcher.stats.cache_misses.values())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("DPEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path, name: str = "*") -> list[Path]:
    return [path for path in cache.glob(f"world-*/compiled/{name}") if path.suffix != ".lock"]


def python(folder: Path, code: str, **environment: str | None) -> list[str]:
    """What the code prints, word by word, with the modules in `folder` and the cache in `folder`/cache."""
    folders = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    changed: dict[str, str | None] = {"PYTHONPATH": folders, "DPEM_CACHE": str(folder / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(code)],
        env={name: value for name, value in (os.environ | changed).items() if value is not None},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


# ------------------------------------------------------------------------------------------------- never stale


PROBE = """
import numpy as np
from dpem_env.support.compiled import entry
from dpem_env.network.route_search import build_times
from dpem_env.simulator.randomness import slot_key, uniform
from helper import factor

@entry
def draw(out):
    out[0] = factor() * uniform(slot_key(np.uint64(1), 0), 0, 0, 0, 0, 0)

def probe():
    out = np.zeros(1)
    draw(out)
    links = np.array([0, 1], np.int32).reshape(1, 1, 1, 2)
    times = build_times(np.array([1.0, 2.0]), links, np.full((1, 1, 1), 2, np.int32))
    print(out[0], times[0, 0, 0], sum(draw.stats.cache_misses.values()), sum(build_times.stats.cache_misses.values()))
"""
HELPER = """
from dpem_env.support.compiled import inner

@inner
def factor():
    return 1.0
"""
UNIFORM = ("* (1.0 / 9007199254740992.0)", "* (0.5 / 9007199254740992.0)")
BUILD_TIME = ("    return expected\n", "    return 2.0 * expected\n")


def test_a_change_of_what_compiled_code_calls_is_a_change_of_it(tmp_path: Path) -> None:
    """In another file of this package, and of the one that holds the function."""
    package, users = tmp_path / "dpem_env", tmp_path / "users"
    copytree(PACKAGE, package, ignore=WRITTEN)
    users.mkdir()
    (users / "__init__.py").touch()
    (users / "probe.py").write_text(PROBE.replace("from helper", "from users.helper"))
    (users / "helper.py").write_text(HELPER)

    def probe() -> tuple[list[float], list[int]]:
        u, t, *compiled_now = python(tmp_path, "from users.probe import probe; probe()")
        return [float(u), float(t)], [int(number) for number in compiled_now]

    (u, t), compiled_now = probe()
    assert compiled_now == [1, 1]
    edit(package / "simulator" / "randomness.py", *UNIFORM)
    edit(package / "physics.py", *BUILD_TIME)
    assert probe() == ([0.5 * u, 2.0 * t], [1, 1])
    edit(users / "helper.py", "1.0", "4.0")
    assert probe() == ([2.0 * u, 2.0 * t], [1, 0])
    edit(package / "physics.py", *reversed(BUILD_TIME))
    edit(package / "simulator" / "randomness.py", *reversed(UNIFORM))
    edit(users / "helper.py", "4.0", "1.0")
    assert probe() == ([u, t], [0, 0])  # as before, and still there


NAMING = """
import numpy as np
import others
from others import LIMIT, TABLE, Kind, step
from dpem_env.support.compiled import entry
from scipy import constants

@entry
def f(x):
    return x + LIMIT + TABLE[1] + Kind.B + step(x) + others.deep.MORE + constants.kilo
"""
OTHERS = """
from enum import IntEnum
import numpy as np
from numba import njit
import deep
LIMIT = 1
TABLE = np.array([0, 10])
class Kind(IntEnum):
    B = 100
@njit
def further(x):
    return x * deep.FACTOR
@njit
def step(x):
    return further(x)
"""


@pytest.mark.slow
def test_a_change_of_anything_that_a_function_names_is_a_change_of_it(tmp_path: Path) -> None:
    (tmp_path / "naming.py").write_text(NAMING)
    others, deep = tmp_path / "others.py", tmp_path / "deep.py"
    others.write_text(OTHERS)
    deep.write_text("FACTOR = 1000\nMORE = 0\n")

    def result() -> list[int]:
        return [
            *map(int, python(tmp_path, "from naming import f; print(int(f(1)), sum(f.stats.cache_misses.values()))"))
        ]

    assert result() == [2112, 1]
    assert result() == [2112, 0]
    for path, old, new, expected in (
        (others, "LIMIT = 1", "LIMIT = 2", 2113),
        (others, "[0, 10]", "[0, 20]", 2123),
        (others, "B = 100", "B = 200", 2223),
        (others, "return further(x)", "return further(2 * x)", 3223),
        (deep, "FACTOR = 1000", "FACTOR = 2000", 5223),
        (deep, "MORE = 0", "MORE = 7", 5230),
    ):
        edit(path, old, new)
        assert result() == [expected, 1]
    assert result() == [5230, 0]


ROLLOUT = """
import hashlib
import numpy as np
from dpem_env import parallel_env

digest = hashlib.sha256()
for scenario, slots in (("chain3-v0", 60), ("mesh100-v0", 8)):
    env, rng = parallel_env(scenario), np.random.default_rng(0)
    observations, infos = env.reset(seed=5)
    for _ in range(slots):
        actions = {agent: int(rng.choice(np.flatnonzero(info["action_mask"]))) for agent, info in infos.items()}
        observations, rewards, *_, infos = env.step(actions)
        digest.update(repr(rewards).encode())
        for observation in observations.values():
            digest.update(observation)
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("file", "change"), [("simulator/randomness.py", UNIFORM), ("physics.py", BUILD_TIME)])
def test_rollouts_after_an_edit_are_those_of_an_empty_cache(tmp_path: Path, file: str, change: tuple[str, str]) -> None:
    copytree(PACKAGE, tmp_path / "dpem_env", ignore=WRITTEN)
    before = python(tmp_path, ROLLOUT)
    edit(tmp_path / "dpem_env" / file, *change)
    after = python(tmp_path, ROLLOUT)
    assert after != before
    assert after == python(tmp_path, ROLLOUT, DPEM_CACHE=str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("file", "change", "kept_all_the_same", "factors"),
    few(
        [
            ("users/helper.py", ("1.0", "4.0"), {"build_times"}, (4.0, 1.0)),
            ("dpem_env/physics.py", BUILD_TIME, set(), (1.0, 2.0)),
        ]
    ),
)
def test_what_was_compiled_from_files_that_have_changed_since_is_not_kept(
    tmp_path: Path, file: str, change: tuple[str, str], kept_all_the_same: set[str], factors: tuple[float, float]
) -> None:
    """As when sources are updated under a running process, whose code is still the old one."""
    copytree(PACKAGE, tmp_path / "dpem_env", ignore=WRITTEN)
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "__init__.py").touch()
    (tmp_path / "users" / "probe.py").write_text(PROBE.replace("from helper", "from users.helper"))
    (tmp_path / "users" / "helper.py").write_text(HELPER)
    late = f"""
        from pathlib import Path
        from users.probe import probe
        path = Path({file!r})
        path.write_text(path.read_text().replace(*{change!r}))
        probe()
        """
    u, t, *_ = map(float, python(tmp_path, late))
    assert {path.name.split("-")[0] for path in kept(tmp_path / "cache")} == kept_all_the_same
    after = [float(number) for number in python(tmp_path, "from users.probe import probe; probe()")[:2]]
    assert after == [factors[0] * u, factors[1] * t]


def test_what_decides_on_machine_code_has_code_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double(afresh())
    assert len(kept(cache)) == 1
    out = np.zeros(2, dtype=np.float32)
    afresh()(np.array([1.0, 2.0]), out)
    assert len(kept(cache)) == 2
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    double(afresh())
    assert len(kept(cache)) == 3


def make(factor: float, kind: Any, module: str) -> Any:
    def scale(values, out):  # type: ignore[no-untyped-def]
        for i in range(len(values)):
            out[i] = kind(factor * values[i])

    scale.__module__ = module
    return entry(scale)


@pytest.mark.parametrize("module", [__name__, "dpem_env.policies"])
def test_functions_that_differ_in_what_they_enclose_are_different(cache: Path, module: str) -> None:
    assert double(make(1.5, np.float64, module)) == [1.5, 3.0]
    assert double(make(2.5, np.float64, module)) == [2.5, 5.0]
    assert double(make(2.5, np.int64, module)) == [2.0, 5.0]
    again = make(1.5, np.float64, module)
    assert (double(again), compilations(again)) == ([1.5, 3.0], 0)


# ----------------------------------------------------------------------------------------------- never in the way


def test_code_is_compiled_once(cache: Path) -> None:
    first, second = afresh(), afresh()
    assert (double(first), compilations(first)) == ([2.0, 4.0], 1)
    assert (double(second), compilations(second)) == ([2.0, 4.0], 0)


def test_a_damaged_file_is_compiled_again_and_replaced(cache: Path) -> None:
    double(afresh())
    (path,) = kept(cache)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    flips = [(whole[:i], whole[i] ^ 1 << int(rng.integers(8)), whole[i + 1 :]) for i in rng.choice(len(whole), 8)]
    damages = [b"", b"\x80", whole[:33], whole[: len(whole) // 2], *(a + bytes([b]) + c for a, b, c in flips)]
    for damage in damages:
        path.write_bytes(damage)
        again = afresh()
        assert (double(again), compilations(again)) == ([2.0, 4.0], 1)
        assert disk_cache.read(f"compiled/{path.name}") is not None


@pytest.mark.parametrize("content", [pickle.dumps(None), pickle.dumps((1, 2)), b"no pickle", b"cno_module\nname\n."])
def test_what_is_whole_but_no_code_is_compiled_again(cache: Path, content: bytes) -> None:
    double(afresh())
    (path,) = kept(cache)
    disk_cache.write(f"compiled/{path.name}", content)
    again = afresh()
    assert (double(again), compilations(again)) == ([2.0, 4.0], 1)


def test_a_cache_that_cannot_be_written_is_no_obstacle(cache: Path) -> None:
    cache.write_text("not a folder")
    for _ in range(2):
        again = afresh()
        assert (double(again), compilations(again)) == ([2.0, 4.0], 1)


def test_who_has_no_home_compiles_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DPEM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user
    assert double(afresh()) == [2.0, 4.0]


def test_functions_of_scripts_are_compiled_at_every_start(tmp_path: Path) -> None:
    """They may follow from any file."""
    code = """
        from dpem_env.support.compiled import entry
        exec('''@entry
        def successor(x):
            return x + 1
        '''.replace("        ", "", 1).replace("\\n        ", "\\n"))
        print(successor(1))
        """
    assert python(tmp_path, code) == ["2"]
    assert kept(tmp_path / "cache") == []


def test_a_function_of_nobody_is_compiled_at_every_start(cache: Path) -> None:
    text: dict[str, Any] = {}
    exec("def successor(x):\n    return x + 1", text)
    text["successor"].__module__ = None
    assert cached()(text["successor"])(1) == 2
    assert kept(cache) == []


def test_an_error_of_compilation_is_that_of_numba(cache: Path) -> None:
    @cached(_nrt=False)
    def wrong(x):  # type: ignore[no-untyped-def]
        return x.nothing_of_the_kind

    for _ in range(2):
        with pytest.raises(numba.TypingError, match="nothing_of_the_kind"):
            wrong(1)
    assert kept(cache) == []
    assert double(afresh()) == [2.0, 4.0]


def test_without_compiler_functions_are_plain_python(tmp_path: Path) -> None:
    code = """
        import types
        from dpem_env import simulator
        from dpem_env.network import route_search
        from dpem_env.simulator import kernel
        print(all(isinstance(f, types.FunctionType) for f in (route_search.judge_all, kernel.step_batch, kernel.age)))
        from dpem_env import parallel_env
        env = parallel_env("chain3-v0")
        env.reset(seed=0)
        print(len(env.step({agent: 0 for agent in env.agents})[0]))
        """
    assert python(tmp_path, code, NUMBA_DISABLE_JIT="1") == ["True", "3"]
    assert not (tmp_path / "cache").exists()


# ------------------------------------------------------------------------------------------- apart from numba's own


@pytest.mark.parametrize("folder", few(["set after numba was imported", "none", "set before", "set at last"]))
def test_functions_of_others_are_kept_where_they_would_be(tmp_path: Path, folder: str) -> None:
    (tmp_path / "ours.py").write_text(
        "from dpem_env.support.compiled import entry\n@entry\ndef g(x):\n    return x + 1\n"
    )
    (tmp_path / "theirs.py").write_text("import numba\n@numba.njit(cache=True)\ndef f(x):\n    return x + 2\n")
    set_it = 'os.environ["NUMBA_CACHE_DIR"] = "numba"; numba.core.config.reload_config()'
    code = f"""
        import os
        import numba
        {set_it if folder == "set after numba was imported" else ""}
        import ours
        before = numba.config.CACHE_DIR
        ours.g(1)
        assert numba.config.CACHE_DIR == before
        {set_it if folder == "set at last" else ""}
        import theirs
        print(theirs.f(1), ours.g(1), ours.g(1.5))
        """
    chosen = str(tmp_path / "numba") if folder == "set before" else None
    assert python(tmp_path, code, NUMBA_CACHE_DIR=chosen) == ["3", "2", "2.5"]
    theirs = tmp_path / "__pycache__" if folder == "none" else tmp_path / "numba"
    assert {path.name.split("-")[0] for path in theirs.rglob("*.nb*")} == {"theirs.f"}
    assert {path.name.split("-")[0] for path in kept(tmp_path / "cache")} == {"g"}


# ----------------------------------------------------------------------------------------------- one process compiles


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    loops = "\n".join(f"    for i in range(x):\n        total += np.sin(i + {n})" for n in range(12))
    (tmp_path / "long.py").write_text(
        "import numpy as np\nfrom dpem_env.support.compiled import cached\n\n@cached()\n"
        f"def f(x):\n    total = 0.0\n{loops}\n    return total\n"
    )
    code = "from long import f; f(3); print(sum(f.stats.cache_misses.values()))"
    environment = os.environ | {"DPEM_CACHE": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sorted(process.communicate()[0] for process in processes) == ["0\n", "0\n", "1\n"]


# --------------------------------------------------------------------------------------------------- who waits is told


def test_who_waits_for_a_compilation_is_told_what_and_for_how_long(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "PATIENCE", 0.001)
    monkeypatch.setattr(compiled, "INTERVAL", 0.02)
    double(afresh())
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting" not in line]
    assert len(said) > 1
    assert set(said) == {"dpem_env: compiling double, once per machine and version; 0 s so far ..."}


def test_who_finds_everything_compiled_is_told_nothing(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    double(afresh())
    capsys.readouterr()
    monkeypatch.setattr(compiled, "PATIENCE", 0.0)
    for _ in range(5):
        double(afresh())
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_who_can_keep_nothing_is_told_so(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("not a folder")
    monkeypatch.setattr(compiled, "PATIENCE", 0.001)
    double(afresh())
    assert "set DPEM_CACHE to a folder that can be written" in capsys.readouterr().err


def test_what_is_quick_is_not_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with compiled.telling("blinking"):
        pass
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stderr", [None, open(os.devnull)])  # noqa: SIM115 - none, and one that cannot be written
def test_where_nobody_listens_nothing_is_said(monkeypatch: pytest.MonkeyPatch, stderr: Any) -> None:
    monkeypatch.setattr(compiled, "PATIENCE", 0.0)
    monkeypatch.setattr(compiled, "INTERVAL", 0.01)
    with monkeypatch.context() as patch, compiled.telling("talking"):
        patch.setattr(sys, "stderr", stderr)
        time.sleep(0.05)
