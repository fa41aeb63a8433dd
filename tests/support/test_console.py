"""Terminals: streams that are closed, full or of another encoding, narrow ones, and Ctrl-C at any moment."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.scenarios import from_toml
from dpem_env.support import interrupts
from dpem_env.support.console import interruptible, lasting_output, printable
from dpem_env.support.interrupts import EXIT_INTERRUPTED, end
from support.command_line import complaint, dpem
from support.suites import few
from support.terminals import in_shell, interrupted_after, told

QUICK = "--scenario chain3-v0 --policy central-reactive --delay 0.25 --seeds 2 --set slots=8"
COMMANDS = [
    [], ["list"], ["show"], ["run"], ["benchmark"], ["tune"], ["forecast"], ["replay"], ["train"], ["tune-ppo"],
    ["train-forecaster"], ["curve"], ["federate"],
    *(["federate", kind] for kind in ("certificates", "server", "node", "noise", "attacks")),
]  # fmt: skip
ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252", "cp437", "koi8-r", "utf-16")


class Terminal(io.TextIOWrapper):
    """Standard output of an encoding, as Python opens it."""

    def __init__(self, encoding: str) -> None:
        self.received = io.BytesIO()
        super().__init__(_Raw(self.received), encoding=encoding, write_through=True)  # type: ignore[type-var]

    def text(self) -> str:
        return self.received.getvalue().decode(self.encoding)


class _Raw(io.RawIOBase):
    def __init__(self, received: io.BytesIO) -> None:
        self.received = received

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self.received.write(data)


def without_the_question_of_a_suite(text: str) -> str:
    return text.replace("all work?", "")


@pytest.mark.parametrize("encoding", few(ENCODINGS, 2))
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_on_every_terminal(
    command: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in ("1", "10", "37", "80", "200") if encoding == "utf-8" else ("80",):
        monkeypatch.setenv("COLUMNS", width)
        terminal = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert dpem(*command, "--help") == 0
        assert terminal.text().startswith("Usage: dpem")
        assert "?" not in terminal.text()


@pytest.mark.parametrize("encoding", few(ENCODINGS, 3))
def test_tables_keep_their_columns_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert dpem("list") == 0
    assert dpem("federate", "noise", "--weights", "10", "--nodes", "9", "--rounds", "2", "--epsilon", "8") == 0
    said = terminal.text()
    rows = [line.strip() for line in said.splitlines() if line.strip().startswith(("|", "│"))]
    assert len(rows) > 9
    assert len({len(row) for row in rows}) == 2  # two tables
    if encoding in ("ascii", "utf-8"):
        assert all(name in said for name in (("ρ", "ε") if encoding == "utf-8" else ("load rho", "| epsilon")))
    assert "?" not in without_the_question_of_a_suite(said)


@pytest.mark.parametrize(
    "environment",
    few(
        [
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"PYTHONIOENCODING": "ascii"},
            {"PYTHONIOENCODING": "ascii:strict"},
            {"PYTHONIOENCODING": "cp1252"},
            {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONUNBUFFERED": "1"},
        ]
    ),
    ids=str,
)
def test_a_command_runs_on_a_terminal_without_our_symbols(tmp_path: Path, environment: dict[str, str]) -> None:
    run = in_shell(f"dpem run {QUICK} --out results", tmp_path, **environment)
    assert (run.returncode, told(run)) == (0, [])
    said = " ".join(run.stdout.decode("cp1252").split())
    assert "mean +/- 95 % CI" in said or "mean ± 95 % CI" in said
    assert (tmp_path / "results" / "summary.json").is_file()


@pytest.mark.parametrize("word", few(["$'mesh\\xff'", "量子", "mësh", "🙂"], 2))
@pytest.mark.parametrize("encoding", few(["ascii", "utf-8", "ascii:strict"]))
def test_bad_input_in_any_letters_is_told_on_any_terminal(word: str, encoding: str) -> None:
    run = in_shell(f"dpem show {word}", PYTHONIOENCODING=encoding)
    assert run.returncode == 2
    assert run.stderr.startswith(b"dpem: error: unknown scenario")
    assert run.stderr.count(b"\n") == 1


def test_what_an_encoding_lacks_is_written_readably(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ε ± δ → Δ … é µs ρ ≥ Λ 量"
    expected = {
        "ascii": "epsilon +/- delta -> Delta ... e us rho >= Lambda ?",
        "latin-1": "epsilon ± delta -> Delta ... é µs rho >= Lambda ?",
        "cp1252": "epsilon ± delta -> Delta … é µs rho >= Lambda ?",
        "utf-8": text,
    }
    for encoding, plain in expected.items():
        monkeypatch.setattr(sys, "stdout", Terminal(encoding))
        assert printable(text) == plain
    assert printable("caf\udce9") == "caf\udce9"  # a byte of a file's name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_scenario_that_is_shown_reads_back_whatever_the_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = scenarios.get("chain3-v0", name="Zürich–量子", summary='δ = 0.5 s, "ε" 🙂')
    mine.save(tmp_path / "mine.toml")
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert dpem("show", str(tmp_path / "mine.toml")) == 0
    assert from_toml(terminal.text()) == mine


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_complaint_is_there_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    script = """
from dpem_env.support.console import complain, lasting_output
with lasting_output():
    complain("half of it")
    print(open("said").read())
"""
    (tmp_path / "script.py").write_text(script)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with (tmp_path / "said").open("w") as said:
        run = [sys.executable, "script.py"]
        seen = subprocess.run(
            run, cwd=tmp_path, env=plain | environment, stdout=subprocess.PIPE, stderr=said, check=True
        )
    assert seen.stdout == b"half of it\n\n"


def test_output_to_a_file_that_was_closed_since_is_to_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with lasting_output():
            kept = sys.stdout  # as colorama does, which asks it as Python ends
    assert not kept.isatty()


CLOSED = ("<&- >&- 2>&-", ">&-", "<&-", "2>&-", ">&- 2>&-")


@pytest.mark.parametrize("streams", few(["| head -c 1", *CLOSED, "2>/dev/full", "2>&1 | head -c 1", "| true"]))
def test_a_run_does_its_work_whoever_reads(tmp_path: Path, streams: str) -> None:
    line = f"dpem run {QUICK} --out results {streams}; exit ${{PIPESTATUS[0]}}"
    run = in_shell(line, tmp_path, PYTHONUNBUFFERED="1")
    assert (run.returncode, told(run)) == (0, [])
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["complete"] is True
    assert {path.suffix for path in (tmp_path / "results").iterdir()} >= {".json", ".parquet", ".png"}


@pytest.mark.parametrize("streams", few(CLOSED, 2))
@pytest.mark.parametrize(
    ("command", "code"),
    few([("show chain4-v0", 2), ("list", 0), ("--help", 0), ("show chain3-v0", 0), ("fly", 2)], 2),
)
def test_the_exit_code_of_a_command_without_streams_is_its_own(command: str, code: int, streams: str) -> None:
    run = in_shell(f"dpem {command} {streams}")
    assert run.returncode == code
    assert run.stderr.count(b"\n") == (1 if code and "2>" not in streams else 0)


@pytest.mark.parametrize("command", few(["list", "--help", "list --help", "show mesh100-v0"]))
def test_output_that_is_lost_is_told(command: str) -> None:
    lost = in_shell(f"dpem {command} > /dev/full")
    assert lost.returncode == 2
    assert lost.stderr == b"dpem: error: standard output cannot be written: No space left on device\n"
    assert in_shell(f"dpem {command} > /dev/full 2> /dev/full").returncode == 2


@pytest.mark.slow
def test_results_are_written_though_their_table_is_lost(tmp_path: Path) -> None:
    assert in_shell(f"dpem run {QUICK} --out results > /dev/full", tmp_path).returncode == 2
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["complete"] is True


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT), sys.unraisablehook
    assert dpem("list") == 0
    assert dpem("show", "nowhere") == 2
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_whatever_fails_after_ctrl_c_was_interrupted() -> None:
    def work(press: bool) -> None:
        with interruptible():
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT) if press else None
            raise ValueError("what a library makes of it")

    before = signal.signal(signal.SIGINT, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            work(press=True)
        with pytest.raises(ValueError, match="of it"):
            work(press=False)
        assert signal.getsignal(signal.SIGINT) is end
    finally:
        signal.signal(signal.SIGINT, before)


INTERRUPTED = {
    "list": "list",
    "run": f"run {QUICK} --out results",
    "benchmark": "benchmark quick --scenario chain3-v0 --policy idle --policy acp --seeds 500 --workers 2 --out r",
    "tune": "tune --scenario chain3-v0 --policy local-predictive --workers 2 --out tuned",
    "train": "train --scenario chain3-v0 --timesteps 3000000 --out trained",
    "train-forecaster": "train-forecaster --scenario chain3-v0 --topology 0 --out gru.npz",
}


def press_at(fractions: np.ndarray, command: str, folder: Path) -> None:
    """Press Ctrl-C after these parts of the time that the command takes to load."""
    began = time.monotonic()
    assert in_shell("dpem --version").returncode == 0
    startup = time.monotonic() - began
    for seconds in fractions * startup:
        code, said = interrupted_after(float(seconds), *command.split(), cwd=folder)
        lines = [line for line in said.splitlines() if "compiling" not in line]
        assert code == EXIT_INTERRUPTED or (code, lines) == (0, []), (seconds, code, said)  # or it had ended
        assert len(lines) <= 1, (seconds, said)


# Before a fifth of that time Python itself is loading, and answers as it does.
@pytest.mark.parametrize("command", few(["run", "list", "train"]))
def test_an_interruption_is_one_line_at_a_few_moments(command: str, tmp_path: Path) -> None:
    press_at(np.linspace(0.4, 1.0 if command == "list" else 2.5, 3), INTERRUPTED[command], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", INTERRUPTED)
def test_an_interruption_is_one_line_at_many_moments(command: str, tmp_path: Path) -> None:
    press_at(np.linspace(0.3, 1.0 if command == "list" else 8.0, 50), INTERRUPTED[command], tmp_path)


def test_a_process_in_the_background_that_is_to_ignore_interruptions_goes_on(tmp_path: Path) -> None:
    run = in_shell("trap '' INT; dpem list & sleep 0.5; kill -INT $!; wait $!", tmp_path)
    assert (run.returncode, told(run)) == (0, [])


@pytest.mark.parametrize(
    ("argv", "original", "command"),
    [
        (["/usr/bin/dpem"], ["python", "/usr/bin/dpem"], True),
        (["-m"], ["python", "-X", "utf8", "-m", "dpem_env", "list"], True),
        (["-m"], ["python", "-mdpem_env.cli", "list"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["mine.py"], ["python", "mine.py"], False),
        (["/usr/bin/dpem_report"], ["python", "/usr/bin/dpem_report"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_the_command_is_told_from_programs_that_import_the_package(
    argv: list[str], original: list[str], command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert interrupts._is_command() is command


def test_importing_the_package_leaves_interruptions_alone() -> None:
    program = "import signal, dpem_env; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    run = in_shell(f"{sys.executable} -c '{program}'")
    assert run.stdout in (b"True\n", b"False\n")
    before = in_shell(f"{sys.executable} -c '{program.replace(', dpem_env', '')}'")
    assert run.stdout == before.stdout


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (("run", "--seeds", "9" * 30), "--seeds is '999"),
        (("run", "--seeds", "9" * 5000), "--seeds is '999"),
        (("run", "--seeds", "5", "--out", ""), "--out is ''; expected a path"),
        (("fly" * 2000,), 'Unknown command "fly'),
    ],
)
def test_a_message_is_a_line_that_can_be_read(
    argv: tuple[str, ...], fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = argv
    out = () if "--out" in argv else ("--out", "never")
    said = complaint(capsys, command, "--scenario", "chain3-v0", "--policy", "idle", *options, *out)
    assert fragment in said
    assert len(said) < 700
    assert not Path("never").exists()
