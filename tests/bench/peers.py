"""How fast the environment is beside its peers, every one in a virtual environment of its own, since they conflict.

All figures come from one run, each the median of repeated runs taken in turn (A B C A B C …), a process for every run.
They are rates per CPU-second of one thread. The virtual environments are made once; a peer that cannot be installed or
run says so in the table. Frames per second, as TorchRL counts them, are agent-steps.

The peers do not do the same work: SeQUeNCe simulates single photons, and simple_spread compares all agents pairwise.
SeQUeNCe needs Python 3.12: where this runs under an older one and no python3.12 is found, name it with --python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contestants import NETWORKS, ROOT, Measured
from machine import about
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dpem_env.support.files import write_json

TIME_LIMIT = 1800  # s, of any one command
RATES = {"env_steps_per_s": "env-steps/s", "agent_steps_per_s": "agent-steps/s", "simulated_s_per_s": "simulated s/s"}


@dataclass(frozen=True)
class Venv:
    """What is installed, and the least version of Python that it needs."""

    requirements: tuple[str, ...]
    python: tuple[int, int] = (3, 11)


COMMON = ("numpy==2.4.6", "gymnasium==1.4.0")
VENVS = {
    "mpe": Venv(("mpe2==1.1.1", "pettingzoo==1.27.0", *COMMON)),
    "rware": Venv(("rware==2.0.0", *COMMON)),
    "jaxmarl": Venv(("jaxmarl==0.2.0",)),
    "vmas": Venv(("vmas==1.5.2", "torch==2.13.0")),
    "jumanji": Venv(("jumanji==1.1.2", "jax==0.10.2")),
    "sequence": Venv(("sequence==1.3.1",), python=(3, 12)),
    "torchrl": Venv(("torch==2.13.0", "torchrl==0.14.1", f"--editable={ROOT}", *COMMON)),
}
# What is shown, by the name that contestants.py knows, and where it runs (None: in the Python that runs this).
CONTESTANTS = {
    "parallel-100": ("dpem_env, parallel", None),
    "parallel-10": ("dpem_env, parallel", None),
    "vector": ("dpem_env, make_vec", "torchrl"),
    "torchrl": ("dpem_env, TorchRL", "torchrl"),
    "rware": ("RWARE, large", "rware"),
    "simple-spread": ("MPE simple_spread", "mpe"),
    "jax-spread": ("JaxMARL simple_spread", "jaxmarl"),
    "vmas": ("VMAS dispersion", "vmas"),
    "connector": ("Jumanji Connector", "jumanji"),
    "sequence": ("SeQUeNCe", "sequence"),
}


class Failed(Exception):
    """A peer that cannot be measured here; the message says why."""


def run(*command: str | Path) -> str:
    """Standard output of a command, kept to one thread; raises Failed with the line that says what went wrong."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    one_thread["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    try:
        done = subprocess.run(
            command, env=os.environ | one_thread, capture_output=True, text=True, timeout=TIME_LIMIT, check=True
        )
    except subprocess.CalledProcessError as error:
        complaints = [line for line in error.stderr.splitlines() if line.strip()] or ["no message"]
        raise Failed(next((line for line in complaints if line.startswith("ERROR:")), complaints[-1])) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    return done.stdout


def installed(name: str, folder: Path, pythons: Sequence[str]) -> Path:
    """The Python of a virtual environment that holds all of its requirements; made unless it is there already."""
    wanted = VENVS[name]
    python, marker = folder / name / "bin" / "python", folder / name / "installed.txt"
    requirements = "\n".join(wanted.requirements)
    if not marker.exists() or marker.read_text(encoding="utf-8") != requirements:
        run(first_new_enough(pythons, wanted.python), "-m", "venv", "--clear", folder / name)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.requirements)
        marker.write_text(requirements, encoding="utf-8")
    return python


def first_new_enough(pythons: Sequence[str], least: tuple[int, int]) -> str:
    for python in pythons:
        try:
            run(python, "-c", f"import sys; sys.exit(sys.version_info < {least})")
        except Failed:
            continue
        return python
    raise Failed(
        f"it needs Python {least[0]}.{least[1]}, which none of {', '.join(pythons)} is; name one with --python"
    )


def measure(venvs: Path, pythons: Sequence[str], repeats: int) -> list[Measured]:
    """A row for every contestant: its rates, or why there are none."""
    ready: dict[str, Path | str] = {}
    failed: dict[str, str] = {}
    for name, (_, venv) in track(CONTESTANTS.items(), "installing", transient=True):
        try:
            ready[name] = installed(venv, venvs, pythons) if venv else sys.executable
        except Failed as error:
            failed[name] = f"did not install: {error}"
    runs: dict[str, list[Measured]] = {name: [] for name in ready}
    script = Path(__file__).with_name("contestants.py")
    for name, python in track([*ready.items()] * repeats, "timing", transient=True):
        if name not in failed:
            try:
                *_, told = run(python, script, name).splitlines()  # libraries may have greeted before
                runs[name].append(json.loads(told))
            except Failed as error:
                failed[name] = f"did not run: {error}"
    return [
        {"name": name, "shown": shown} | ({"failed": failed[name]} if name in failed else summary(runs[name]))
        for name, (shown, _) in CONTESTANTS.items()
    ]


def summary(runs: list[Measured]) -> Measured:
    """Medians over the runs of one contestant."""
    first, rates = runs[0], {}
    if "steps" in first:
        rates["env_steps_per_s"] = statistics.median(found["steps"] / found["seconds"] for found in runs)
        rates["agent_steps_per_s"] = rates["env_steps_per_s"] * first["agents"]
    if "simulated_seconds" in first:
        rates["simulated_s_per_s"] = statistics.median(found["simulated_seconds"] / found["seconds"] for found in runs)
    return {"agents": first["agents"], "versions": first["versions"]} | rates


def shown(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}"


def show(result: Measured) -> None:
    """The rows as a table, then what failed."""
    table = Table("", title=f"{result['date']}, medians of {result['repeats']} runs, per CPU-second of one thread")
    for column in ("agents", *RATES.values()):
        table.add_column(column, justify="right")
    for row in result["rows"]:
        table.add_row(row["shown"], str(row.get("agents", "")), *(shown(row.get(rate)) for rate in RATES))
    failures = [f"{row['shown']} {row['failed']}" for row in result["rows"] if "failed" in row]
    Console().print(table, *failures, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    cache = Path(tempfile.gettempdir()) / "dpem-peers"
    parser.add_argument("--venvs", type=Path, default=cache, help="folder of the virtual environments (%(default)s)")
    parser.add_argument("--python", action="append", default=[], help="another Python to make them with; repeatable")
    arguments = parser.parse_args()
    pythons = [sys.executable, *arguments.python, "python3.12", "python3.13"]
    result = {
        "repeats": arguments.repeats,
        "networks_at_once": NETWORKS,
        "rows": measure(arguments.venvs, pythons, arguments.repeats),
    } | about()
    show(result)
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
