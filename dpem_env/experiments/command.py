"""``dpem reproduce``: run a declared experiment, or say what of it would be run."""

from __future__ import annotations

import argparse
from typing import Any

from dpem_env.experiments import declared, reproduce
from dpem_env.experiments.reproduce import Due, Lock
from dpem_env.support.errors import DpemError


def add_reproduce(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "reproduce",
        help="run a declared experiment: what of it is no longer up to date",
        description="Run the steps of an experiment that were never run, or whose declaration, inputs, code or outputs "
        "have changed since, and say why. What a step was last run with is kept beside the declaration, in "
        "NAME.lock.json. Interrupted, the same command again runs the rest; steps that can go on do.",
        epilog="example: dpem reproduce results --dry-run",
    )
    parser.add_argument("experiment", help="path of a .toml file, or name of one in baselines/ or agents/experiments")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, why, and how long it takes")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="this step; may be repeated")
    parser.add_argument(
        "--adopt", metavar="REASON", help="run nothing: note that what is there is what the steps would give, and why"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="steps at a time (default: 1)")
    parser.add_argument("--data", metavar="DIR", help="folder of data that is not shipped (default: $DPEM_DATA)")
    parser.set_defaults(run=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise DpemError(f"--workers is {arguments.workers}; expected at least 1")
    experiment = declared.load(arguments.experiment).with_steps(arguments.only)
    experiment = reproduce.with_data_at_hand(experiment, arguments.data)
    lock = Lock.of(declared.file_of(arguments.experiment))
    if arguments.adopt is not None:
        for step in experiment.steps:
            lock.adopt(experiment, step, arguments.adopt, arguments.data)
            print(f"{step.name}: adopted")
        return 0
    due = lock.due(experiment, arguments.data)
    _tell(experiment.name, due, lock, len(experiment.steps))
    if arguments.dry_run or not due:
        return 0
    return reproduce.run_steps(experiment, lock, due, arguments.workers, arguments.data)


def _tell(name: str, due: list[Due], lock: Lock, total: int) -> None:
    for each in due:
        minutes = lock.core_minutes(each.step)
        print(f"{each.step.name} ({minutes:.1f} core minutes): {each.why}")
    expected = sum(lock.core_minutes(each.step) for each in due)
    print(f"{name}: {len(due)} of {total} steps to run, about {expected:.0f} core minutes")
