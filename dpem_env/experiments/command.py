"""``dpem reproduce``: run a declared experiment, or say what of it would be run."""

from __future__ import annotations

from collections.abc import Sequence

from dpem_env.experiments import declared
from dpem_env.experiments.reproduce import Due, Lock, run_steps, with_data_at_hand


def reproduce(
    name_or_path: str, only: Sequence[str], adopted: str | None, dry_run: bool, workers: int, data_dir: str | None
) -> int:
    """Run the steps that are due, on several processes; with a reason to adopt, note that they are up to date."""
    experiment = with_data_at_hand(declared.load(name_or_path).with_steps(only), data_dir)
    lock = Lock.of(declared.file_of(name_or_path))
    if adopted is not None:
        for step in experiment.steps:
            lock.adopt(experiment, step, adopted, data_dir)
            print(f"{step.name}: adopted")
        return 0
    due = lock.due(experiment, data_dir)
    _tell(experiment.name, due, lock, len(experiment.steps))
    if dry_run or not due:
        return 0
    return run_steps(experiment, lock, due, workers, data_dir)


def _tell(name: str, due: list[Due], lock: Lock, total: int) -> None:
    for each in due:
        minutes = lock.core_minutes(each.step)
        print(f"{each.step.name} ({minutes:.1f} core minutes): {each.why}")
    expected = sum(lock.core_minutes(each.step) for each in due)
    print(f"{name}: {len(due)} of {total} steps to run, about {expected:.0f} core minutes")
