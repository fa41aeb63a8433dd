"""Running a declared experiment: only steps whose declaration, inputs, code or outputs are no longer what they were.

What a step was last run with stands beside the declaration, in NAME.lock.json: committed, it tells a reader whether
the committed results are still what their declaration would give.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from dpem_env.experiments.checking import Checked, check, compared_files
from dpem_env.experiments.declared import Experiment, Step
from dpem_env.scenarios.data import SOURCES, source_file
from dpem_env.support.errors import DpemError
from dpem_env.support.files import Part, checked, file_name, read_json, reading, write_json
from dpem_env.support.provenance import UNKNOWN, package_stamp, path_fingerprint, stamp
from dpem_env.support.syntax import statements

FORMAT = "dpem-reproduced-1"
# Like the console script, it does not import what lies in the current folder.
DPEM = (sys.executable, "-P", "-c", "import sys; from dpem_env.cli import main; sys.exit(main())")
LOGS = Path("runs/reproduce")  # what the steps print
# Of a declaration, what results do not follow from, and options that say how they are made.
BESIDE, HOW = {"name", "core_minutes", "scratch"}, {"workers", "data", "ray"}
CHEAP = 1.0  # core minutes of steps that are checked by running them again
Basis = dict[str, Any]


@dataclass(frozen=True)
class Due:
    """A step that is to be run, and why."""

    step: Step
    why: str


class _Begun(Part):
    declared: str
    inputs: dict[str, str | None]
    code: dict[str, str]


class _Done(_Begun):
    outputs: dict[str, str]
    core_minutes: float = 0.0


class _Record(Part):
    format: Literal["dpem-reproduced-1"]
    steps: dict[str, _Done]
    begun: dict[str, _Begun]


class Lock:
    """What every step of an experiment was last run with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[str, Basis] = {}
        self.begun: dict[str, Basis] = {}  # steps that were not finished, and what they were begun with
        if path.exists():
            with reading("record of steps", path):
                found = read_json(path)
                checked(_Record, found, "it")
                self.steps, self.begun = found["steps"], found["begun"]

    @staticmethod
    def beside(declaration: Path) -> Path:
        """Where it is kept; who writes it reads it first, as its `sole_writer`."""
        return declaration.with_suffix(".lock.json")

    def core_minutes(self, step: Step) -> float:
        """What the step takes: measured when it was last run, else as declared."""
        return float(self.steps.get(step.name, {}).get("core_minutes", step.core_minutes))

    def due(self, experiment: Experiment, data_dir: str | None) -> list[Due]:
        """Steps that are to be run, in order: those that changed, and those that read what such a step leaves."""
        due: list[Due] = []
        for step in experiment.steps:
            before = [earlier.step for earlier in due if _reads(step, earlier.step)]
            why = f"reads what {before[0].name} makes" if before else self._why(experiment, step, data_dir)
            if why is not None:
                due.append(Due(step, why))
        return due

    def begin(self, experiment: Experiment, step: Step, data_dir: str | None) -> None:
        """Note what the step runs with; what was begun with something else is cleared away."""
        basis = _basis(experiment, step, data_dir)
        if self.begun.get(step.name) != basis:
            for place in map(Path, step.scratch):
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        self.begun[step.name] = basis
        self._write()

    def finish(self, step: Step, **more: Any) -> None:
        """Note what a step that was begun has left; DpemError if not all it was declared to leave."""
        outputs = {output: path_fingerprint(output) for output in step.outputs}
        if missing := _missing(step):
            raise DpemError(f"it has left no {missing[0]}: mend its outputs in the declaration")
        date = datetime.now(UTC).date().isoformat()
        self.steps[step.name] = self.begun.pop(step.name) | {"outputs": outputs, "date": date} | more
        self._write()

    def adopt(self, experiment: Experiment, step: Step, reason: str, data_dir: str | None, **more: Any) -> None:
        """Take what is there for what the step would leave, for a reason that is kept; DpemError if not all is.

        What it took when it was last run is still what it takes.
        """
        if missing := _missing(step):
            raise DpemError(f"there is no {missing[0]}")
        self.begun[step.name] = _basis(experiment, step, data_dir)
        measured = {name: value for name, value in self.steps.get(step.name, {}).items() if name == "core_minutes"}
        self.finish(step, adopted=reason, **measured, **more)

    def _write(self) -> None:
        write_json(self.path, {"format": FORMAT, "steps": self.steps, "begun": self.begun})

    def _why(self, experiment: Experiment, step: Step, data_dir: str | None) -> str | None:
        """Why a step is to be run; None if it is not."""
        last = self.steps.get(step.name)
        if last is None:
            return "was never run"
        now = _basis(experiment, step, data_dir)
        if now["declared"] != last["declared"]:
            return "its declaration changed"
        for part, word in (("inputs", ""), ("code", "the code of ")):
            for name in sorted({*now[part], *last[part]}):
                if now[part].get(name) != last[part].get(name):
                    return f"{word}{name} changed"
        for output in step.outputs:
            found = path_fingerprint(output)
            if last["outputs"].get(output) != found:
                return f"{output} is {'missing' if found is None else 'not what it left'}"
        return None


def with_data_at_hand(experiment: Experiment, data_dir: str | None) -> Experiment:
    """The experiment without the steps whose data is absent, with a line that names them."""
    absent = {name for name in SOURCES if source_file(name, data_dir) is None}
    kept = tuple(step for step in experiment.steps if not absent & set(step.data))
    left_out = [step.name for step in experiment.steps if step not in kept]
    if left_out:
        print(f"left out for want of data (dpem list says where to get it): {', '.join(left_out)}")
    return experiment.model_copy(update={"steps": kept})


def run_steps(experiment: Experiment, lock: Lock, due: Sequence[Due], workers: int, data_dir: str | None) -> int:
    """Run what is due, `workers` steps at a time; returns an exit code. What is finished is never run again."""
    logs = LOGS / file_name(experiment.name)
    logs.mkdir(parents=True, exist_ok=True)
    waiting, failed = list(due), False
    running: dict[Future[float], Step] = {}
    processes: set[subprocess.Popen[bytes]] = set()
    with ThreadPoolExecutor(workers) as pool, _ended_together(processes):
        try:
            while waiting or running:
                for each in [] if failed else list(waiting):
                    before = [*running.values(), *(other.step for other in waiting[: waiting.index(each)])]
                    if len(running) < workers and not any(_reads(each.step, other) for other in before):
                        waiting.remove(each)
                        print(f"{each.step.name}: {each.why}; {shlex.join(each.step.command)}", flush=True)
                        lock.begin(experiment, each.step, data_dir)
                        log = logs / f"{file_name(each.step.name)}.log"
                        running[pool.submit(_run, each.step, log, data_dir, processes)] = each.step
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    step = running.pop(future)
                    try:
                        minutes = future.result()
                        lock.finish(step, core_minutes=round(minutes, 2))
                        print(f"{step.name}: done, {minutes:.1f} core minutes", flush=True)
                    except DpemError as error:
                        failed = True
                        print(f"{step.name}: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:  # the steps were told, too: they save what they have
            wait(running)
            print("interrupted; the same command again runs the rest", file=sys.stderr)
            return 130
    return 1 if failed else 0


def check_step(step: Step, data_dir: str | None) -> Checked | None:
    """What a sample of the step comes to today, beside what it has left; None if nothing can be made again here."""
    try:
        for output in step.outputs:
            if (found := check(Path(output), data_dir)) is not None:
                return found
        return _run_again(step, data_dir) if "out" in step.options and step.core_minutes <= CHEAP else None
    except DpemError as error:
        return Checked(0, [], [str(error)])


def _run_again(step: Step, data_dir: str | None) -> Checked:
    """Run it in a place of its own, and compare what it leaves."""
    out = str(step.options["out"])
    LOGS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        again = str(Path(folder, f"again{Path(out).suffix}"))
        _run(step.model_copy(update={"options": step.options | {"out": again}}), LOGS / "check.log", data_dir, set())
        left = [(Path(output), Path(output.replace(out, again))) for output in step.outputs]
        return Checked.of(compared_files(kept, made) for kept, made in left if kept.suffix == ".json")


def _missing(step: Step) -> list[str]:
    return [output for output in step.outputs if path_fingerprint(output) is None]


def put_stamp(outputs: Sequence[str]) -> None:
    """Give the files of results among these the stamp of today's code, by which they came out the same."""
    for path in map(Path, outputs):
        if path.suffix == ".json":
            with reading("results to stamp", path):
                found = read_json(path)
            if {"format", "version"} <= found.keys():
                first = {name: found[name] for name in ("format", "version")} | {"stamp": stamp()}
                write_json(path, first | {name: value for name, value in found.items() if name not in first})


@contextmanager
def _ended_together(processes: Collection[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Who is asked to end (SIGTERM) ends these, too; it is then an interruption."""

    def end(signum: int, frame: object) -> None:
        for process in processes:
            process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(step: Step, log: Path, data_dir: str | None, processes: set[subprocess.Popen[bytes]]) -> float:
    """Run a step to its end, as one of these; returns the core minutes it took.

    DpemError if it fails, with its last line.
    """
    first, *rest = step.command
    program = [sys.executable] if first == "python" else [first] if "/" in first else [*DPEM, first]
    environment = os.environ | ({"DPEM_DATA": data_dir} if data_dir else {})
    with log.open("wb") as stream:
        process = subprocess.Popen([*program, *rest], stdout=stream, stderr=subprocess.STDOUT, env=environment)
        processes.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        processes.discard(process)
    if process.returncode:
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"])[-1]
        raise DpemError(f"failed with exit code {process.returncode}: {last} (all of it: {log})")
    return (usage.ru_utime + usage.ru_stime) / 60


def _basis(experiment: Experiment, step: Step, data_dir: str | None) -> Basis:
    """What the outputs of a step follow from, by content."""
    told = step.model_dump(exclude=BESIDE, exclude_defaults=True)
    told["options"] = {name: value for name, value in step.options.items() if name not in HOW}
    declared = json.dumps(told, sort_keys=True)
    files = sorted({file for pattern in step.inputs for file in glob(pattern, recursive=True) or [pattern]})
    lying = {name: source_file(name, data_dir) for name in step.data}
    sources = {f"data of {name}": file and path_fingerprint(file) for name, file in lying.items()}
    return {
        "declared": hashlib.sha256(declared.encode()).hexdigest()[:16],
        "inputs": {file: _content(file) for file in files} | sources,
        "code": {"dpem_env": stamp()} | {name: _stamp_of(name) for name in experiment.code},
    }


def _content(file: str) -> str | None:
    """Changes with a file or folder, and of Python code with what it says; None if there is none."""
    if not (file.endswith(".py") and Path(file).is_file()):
        return path_fingerprint(file)
    with reading("input", file):
        return hashlib.sha256("\n".join(statements(Path(file).read_bytes())).encode()).hexdigest()[:16]


def _stamp_of(package: str) -> str:
    found = package_stamp(package)
    if found == UNKNOWN:
        raise DpemError(f"code names {package!r}, which is no package or module that can be imported here")
    return found


def _reads(step: Step, earlier: Step) -> bool:
    """Whether one of the step's inputs lies in what the earlier one leaves, or the other way round."""
    paths = [Path(pattern.partition("*")[0]) for pattern in step.inputs]
    left = [Path(output) for output in earlier.outputs]
    return any(a == b or a in b.parents or b in a.parents for a in paths for b in left)
