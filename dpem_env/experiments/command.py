"""``dpem reproduce``: run a declared experiment, say what of it would be run, or check and adopt what is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime

from dpem_env.experiments import declared
from dpem_env.experiments.declared import Experiment
from dpem_env.experiments.reproduce import Due, Lock, check_step, put_stamp, run_steps, with_data_at_hand
from dpem_env.support.errors import DpemError
from dpem_env.support.files import sole_writer
from dpem_env.support.provenance import stamp


def reproduce(
    name_or_path: str,
    only: Sequence[str],
    evaluate_only: bool,
    check: bool,
    adopted: str | None,
    dry_run: bool,
    workers: int,
    data_dir: str | None,
) -> int:
    """Run the steps that are due, on several processes; or check what is there, or adopt it for a reason."""
    experiment = with_data_at_hand(declared.load(name_or_path).with_steps(only), data_dir)
    if evaluate_only:
        experiment = experiment.model_copy(update={"steps": tuple(step for step in experiment.steps if step.evaluates)})
    declaration = declared.file_of(name_or_path)
    writes = adopted is not None or not (check or dry_run)
    with sole_writer(Lock.beside(declaration)) if writes else nullcontext():
        lock = Lock(Lock.beside(declaration))  # as nobody else changes it meanwhile
        if check or adopted is not None:
            return _look(experiment, lock, check, adopted, data_dir)
        due = lock.due(experiment, data_dir)
        if evaluate_only:
            why = {each.step.name: each.why for each in due}
            due = [Due(step, why.get(step.name, "plays again")) for step in experiment.steps]
        _tell(experiment.name, due, lock, len(experiment.steps))
        return 0 if dry_run or not due else run_steps(experiment, lock, due, workers, data_dir)


def _look(experiment: Experiment, lock: Lock, check: bool, reason: str | None, data_dir: str | None) -> int:
    """Check and adopt what is there; returns an exit code, 1 if any value came out otherwise."""
    code = 0
    if check:
        print(f"{experiment.name}, {datetime.now(UTC).date()}, code of stamp {stamp()}:", flush=True)
    for step in experiment.steps:
        found = check_step(step, data_dir) if check else None
        told = found.told() if found else "nothing of it can be made again in little time"
        said = [told] if check else []
        if found and found.differences:
            code = 1
        elif reason is not None:
            if found and not found.prevented:
                put_stamp(step.outputs)
            try:
                lock.adopt(experiment, step, reason, data_dir, **({"checked": told} if check else {}))
                said.append("adopted")
            except DpemError as error:
                said.append(f"not adopted: {error}")
        print(f"{step.name}: {'; '.join(said)}", flush=True)
    return code


def _tell(name: str, due: list[Due], lock: Lock, total: int) -> None:
    for each in due:
        minutes = lock.core_minutes(each.step)
        print(f"{each.step.name} ({minutes:.1f} core minutes): {each.why}")
    expected = sum(lock.core_minutes(each.step) for each in due)
    print(f"{name}: {len(due)} of {total} steps to run, about {expected:.0f} core minutes")
