"""Experiments as they are declared: a TOML file of steps, each a command with its options, inputs and outputs.

.. code-block:: toml

    summary = "tuned rules on control delay"
    code = ["dpem_baselines"]                    # packages that decide results, besides the rules of dpem_env

    [lists]
    rules = ["maxweight", "central-lp"]

    [[steps]]
    name = "curve"
    run = "benchmark delay-curve"                # a dpem command, "python FILE", or a path
    options = { policy = ["@rules", "idle"], seeds = 20, tuned = "baselines/tuned" }
    inputs = ["baselines/tuned/mesh100-v0.json"] # what it reads: files, folders, patterns
    outputs = ["baselines/results/curve/summary.json"]
    core_minutes = 40                            # what it takes, about

A list in `lists` is named with an @ and written once; ``learn = { discount = 0.99 }`` is ``--learn.discount 0.99``. A
step with `each` is a step for every combination of its values, which braces name: ``each = { seed = [0, 1] }`` and
``"runs/seed{seed}"``. Paths are relative to the folder the command is called in, the root of the project.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dpem_env.support.errors import DpemError, nearest
from dpem_env.support.files import checked, read_text, reading

FOLDERS = (Path("baselines/experiments"), Path("agents/experiments"))
MAKERS = ("train", "train-forecaster", "tune", "tune-ppo")  # commands that leave behind what others play
Value = bool | int | float | str | list[int | float | str]
Options = dict[str, Value | dict[str, Value]]  # of a table, as in --learn.discount


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Declared):
    """A command, what it reads and what it leaves behind."""

    name: str = Field(min_length=1)
    run: str = Field(min_length=1)
    options: Options = {}
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = Field(min_length=1)
    scratch: tuple[str, ...] = ()  # what an interrupted run goes on from; removed before the step runs otherwise
    core_minutes: float = Field(ge=0)
    data: tuple[str, ...] = ()  # sources of data that is not shipped; left out where one is absent
    each: dict[str, list[int | float | str]] = {}

    @property
    def command(self) -> list[str]:
        """Words of the command line, without the program."""
        return [*shlex.split(self.run), *_words(self.options)]

    @property
    def evaluates(self) -> bool:
        """Whether it plays, draws or tells what is there, and trains and tunes nothing."""
        return self.run.split()[0] not in MAKERS

    def single(self) -> Iterator[Step]:
        """A step for every combination of `each`, with its values in place of their names in braces."""
        for values in product(*self.each.values()):
            chosen = dict(zip(self.each, values, strict=True))
            yield Step.model_validate(_filled(self.model_dump(exclude={"each"}), chosen))


class Experiment(_Declared):
    """Steps, in an order in which none reads what a later one leaves behind."""

    name: str
    summary: str
    code: tuple[str, ...] = ()
    steps: tuple[Step, ...] = Field(min_length=1)

    def with_steps(self, names: Sequence[str]) -> Experiment:
        """The same with these steps only, all if none is named; DpemError for one that is not there."""
        known = {step.name: step for step in self.steps}
        for name in names:
            if name not in known:
                raise DpemError(f"{self.name} has no step {name!r}; {nearest(name, known)}")
        return self.model_copy(update={"steps": tuple(known[name] for name in names or known)})


def load(name_or_path: str) -> Experiment:
    """An experiment by the path of its file, or by name in the project's folders of experiments."""
    path = file_of(name_or_path)
    with reading("experiment", path):
        data = tomllib.loads(read_text(path))
        lists = data.pop("lists", {})
        declared = checked(Experiment, {"name": path.stem} | _expanded(data, lists))
        steps = tuple(one for step in declared.steps for one in step.single())
        _require_different([step.name for step in steps])
    return declared.model_copy(update={"steps": steps})


def file_of(name_or_path: str) -> Path:
    """Where an experiment is declared; DpemError for a name that is nowhere."""
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.exists():
        return path
    known = {file.stem: file for folder in FOLDERS for file in sorted(folder.glob("*.toml"))}
    if name_or_path not in known:
        where = " and ".join(map(str, FOLDERS))
        hint = nearest(name_or_path, known) if known else f"there are none in {where}: call it from the project's root"
        raise DpemError(f"no experiment {name_or_path!r}; {hint}")
    return known[name_or_path]


def _words(options: Options, table: str = "") -> list[str]:
    """Options as a command line has them: an item of a list by itself, a field of a table after its name and a dot."""
    words: list[str] = []
    for name, value in options.items():
        option = f"--{table}{name}"
        if isinstance(value, dict):
            words += _words({**value}, f"{name}.")
        elif isinstance(value, list):
            words += [word for one in value for word in (option, str(one))]
        elif value is not False:
            words += [option] if value is True else [option, str(value)]
    return words


def _expanded(value: Any, lists: dict[str, list[Any]]) -> Any:
    """`value` with the items of a list in place of every "@NAME" in a list."""
    if isinstance(value, dict):
        return {name: _expanded(item, lists) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    for item in value:
        if isinstance(item, str) and item.startswith("@"):
            if item[1:] not in lists:
                raise DpemError(f"no list {item!r}; {nearest(item[1:], lists) if lists else 'there is no [lists]'}")
            items += _expanded(lists[item[1:]], lists)
        else:
            items.append(_expanded(item, lists))
    return items


def _filled(value: Any, chosen: dict[str, Any]) -> Any:
    """`value` with {NAME} replaced in every text."""
    if isinstance(value, str):
        for name, one in chosen.items():
            value = value.replace(f"{{{name}}}", str(one))
        return value
    if isinstance(value, dict):
        return {name: _filled(item, chosen) for name, item in value.items()}
    return [_filled(item, chosen) for item in value] if isinstance(value, list | tuple) else value


def _require_different(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DpemError(f"two steps are called {name!r}; with each, a name has its values in braces")
