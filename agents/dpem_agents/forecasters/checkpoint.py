"""Checkpoints: what the nodes of one or several topologies have learned, in one .npz file without pickle.

A checkpoint belongs to topologies, told apart by their table of peers. For each it holds arrays whose first axis is the
node, because nodes share nothing: the peers, the scale (mean count per slot of every pair in the node's training
history), the weights and, for cells, the size of every pair among its node's. They are read-only, so copies of a
forecaster share them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dpem_agents import checkpoints
from dpem_agents.checkpoints import Arrays, Kinds
from dpem_env.demand.forecast import ForecastSetting
from dpem_env.scenarios.schema import MAX_COUNT, Count
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import ArrayFile, Part, reading

FORMAT = "dpem-forecaster-1"
OF_TRAINING = "gru.npz"  # in the folder of a training of policies: what their nodes forecast with
ABOUT = ("format", "model", "scenario", "scenario_hash", "horizon", "hidden")
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)  # slots that a ridge forecaster sums counts over
GATES = {"gru": 3, "lstm": 4, "rnn": 1}  # cells, and how many gates each has
INPUTS = 3  # of a cell: the pair's count, its node's count over all peers, the pair's size among them


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Learned weights. N nodes, D peer places, K slots ahead that were learned."""

    model: str  # "ridge" or a cell
    scenario: str  # name of the one whose demand was learned
    scenario_hash: str
    horizon: int  # K
    hidden: int  # units of a cell; 0 for ridge
    topologies: tuple[Arrays, ...]

    def __post_init__(self) -> None:
        for arrays in self.topologies:
            for array in arrays.values():
                array.setflags(write=False)

    def __deepcopy__(self, _: dict[int, Any]) -> Checkpoint:
        return self

    def of(self, setting: ForecastSetting) -> Arrays:
        """Arrays of the topology whose nodes have these peers; raises PolicyError if it was not learned."""
        places = {arrays["peers"].shape[1] for arrays in self.topologies}
        if setting.peers.shape[1] not in places:
            raise PolicyError(
                f"the {self.model} checkpoint is for {' or '.join(map(str, sorted(places)))} peers per node; "
                f"{setting.scenario.name} has {setting.peers.shape[1]}"
            )
        for arrays in self.topologies:
            if np.array_equal(arrays["peers"], setting.peers):
                return arrays
        raise PolicyError(
            f"the {self.model} checkpoint holds {len(self.topologies)} topologies of {self.scenario}, but not this "
            f"network of {len(setting.peers)} nodes; nodes forecast with what they have learned: train on its topology"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a .npz file, whole or not at all."""
        about = {"format": FORMAT} | {name: getattr(self, name) for name in ABOUT[1:]}
        named = {f"{i}.{name}": array for i, arrays in enumerate(self.topologies) for name, array in arrays.items()}
        checkpoints.write(path, about, named, compressed=True)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint, or those of all trainings in a folder; raises PolicyError with one clear line."""
    files = files_of(path)
    return _together([_of_file(file) for file in files], files)


def _of_file(path: str | os.PathLike[str]) -> Checkpoint:
    with reading("checkpoint", path, PolicyError):
        about, named = checkpoints.read(path, FORMAT, _About, _expected)
    topologies: dict[str, Arrays] = {}
    for place, array in named.items():
        index, _, name = place.partition(".")
        topologies.setdefault(index, {})[name] = array
    return Checkpoint(**{name: about[name] for name in ABOUT[1:]}, topologies=tuple(topologies.values()))


def files_of(path: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """The file itself, or those of the trainings in a folder."""
    with reading("checkpoint", path, PolicyError):
        return [*sorted(Path(path).glob(f"*/{OF_TRAINING}"))] or [path]


def _together(found: Sequence[Checkpoint], paths: Sequence[str | os.PathLike[str]]) -> Checkpoint:
    """One with the topologies of all; PolicyError unless they are of one kind."""
    first = found[0]
    for other, path in zip(found, paths, strict=True):
        for name in ("model", "horizon", "hidden"):
            one, another = getattr(first, name), getattr(other, name)
            if one != another:
                raise PolicyError(
                    f"{os.fspath(path)} has {name} {another!r}, and {os.fspath(paths[0])} {one!r}: "
                    "forecasters that are used together have the same"
                )
    return replace(first, topologies=tuple(arrays for each in found for arrays in each.topologies))


def shapes(model: str, hidden: int, horizon: int) -> dict[str, tuple[int, ...]]:
    """Shape of a node's weights by name."""
    if model == "ridge":
        return {"weights": (len(WINDOWS) + 1, horizon)}
    gates = GATES[model] * hidden
    return {
        "input": (INPUTS, gates),
        "recurrent": (hidden, gates),
        "input_bias": (gates,),
        "recurrent_bias": (gates,),
        "output": (hidden, horizon),
        "output_bias": (horizon,),
    }


class _About(Part):
    stamp: str
    scenario: str
    scenario_hash: str
    horizon: Count
    hidden: int = Field(ge=0, le=MAX_COUNT)


def _expected(about: dict[str, Any], stored: ArrayFile) -> tuple[Kinds, Kinds]:
    """What the file holds by name, of one topology after another, and nothing besides."""
    if about["model"] not in ("ridge", *GATES) or (about["hidden"] == 0) != (about["model"] == "ridge"):
        raise ValueError(f"it is of model {about['model']!r} with {about['hidden']} hidden units")
    count = max(sum(name.endswith(".peers") for name in stored.names), 1)
    return {f"{i}.{name}": kind for i in range(count) for name, kind in _of_topology(about, stored, i).items()}, {}


def _of_topology(about: dict[str, Any], stored: ArrayFile, index: int) -> Kinds:
    """Shape and kinds of type by name, without the index of the topology."""
    shape, _ = stored.declared(f"{index}.peers")
    if len(shape) != 2 or not all(1 <= length <= MAX_COUNT for length in shape):
        raise ValueError(f"peers has shape {shape}; expected (nodes, peers per node)")
    pairs = ("scale",) if about["model"] == "ridge" else ("scale", "size")
    weights = shapes(about["model"], about["hidden"], about["horizon"])
    arrays = dict.fromkeys(pairs, shape) | {name: (shape[0], *own) for name, own in weights.items()}
    return {"peers": (shape, "i")} | {name: (shape, "fi") for name, shape in arrays.items()}


class Learned:
    """Base of forecasters with a checkpoint: their topology's arrays, and what is forecast beyond what was learned."""

    clairvoyant: ClassVar[bool] = False
    models: ClassVar[tuple[str, ...]]

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
        self.sources = [] if isinstance(checkpoint, Checkpoint) else files_of(checkpoint)
        if self.checkpoint.model not in self.models:
            raise PolicyError(
                f"the checkpoint is of a {self.checkpoint.model}, not of a {' or '.join(self.models)}: "
                f"say {self.checkpoint.model}:PATH"
            )

    def steps(self, setting: ForecastSetting, lead: int) -> NDArray[np.int64]:
        """(H,) which of the learned steps ahead answer a forecast; the last one answers all later."""
        return np.minimum(lead + np.arange(setting.horizon), self.checkpoint.horizon - 1)
