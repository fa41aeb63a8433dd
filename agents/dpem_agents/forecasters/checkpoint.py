"""Checkpoints: what the nodes of one or several topologies have learned, in one .npz file without pickle.

A checkpoint belongs to topologies, told apart by their table of peers. For each it holds arrays whose first axis is the
node, because nodes share nothing: the peers, the scale (mean count per slot of every pair in the node's training
history) and the weights. They are read-only, so copies of a forecaster share them.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_env.errors import DpemError, PolicyError
from dpem_env.files import whole_file
from dpem_env.forecast import ForecastSetting

FORMAT = "dpem-forecaster-1"
ABOUT = ("format", "model", "scenario", "scenario_hash", "horizon", "hidden")
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)  # slots that a ridge forecaster sums counts over
GATES = {"gru": 3, "lstm": 4, "rnn": 1}  # cells, and how many gates each has
INPUTS = 3  # of a cell: the pair's count, its node's count over all peers, the pair's size among them

Arrays = dict[str, NDArray[Any]]


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
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as partial, open(partial, "wb") as stream:
                np.savez_compressed(stream, about=np.array(json.dumps(about)), **named)
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            raise DpemError(f"checkpoint {os.fspath(path)!r} cannot be written: {error}") from None


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint; raises PolicyError with one clear line."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["format"] != FORMAT:
                raise PolicyError(f"format {about['format']!r} instead of {FORMAT!r}")
            sizes: dict[int, Arrays] = {}
            for key in sorted(set(file.files) - {"about"}):
                index, _, name = key.partition(".")
                sizes.setdefault(int(index), {})[name] = file[key]
        topologies = tuple(sizes[index] for index in sorted(sizes))
        _check(about, topologies)
    # What zipfile, numpy and json raise for files that are missing, cut off or something else.
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
        raise PolicyError(f"checkpoint {os.fspath(path)!r} cannot be used: {reason}") from None
    return Checkpoint(**{name: about[name] for name in ABOUT[1:]}, topologies=topologies)


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


def _check(about: dict[str, Any], topologies: tuple[Arrays, ...]) -> None:
    if about["model"] not in ("ridge", *GATES) or not topologies:
        raise ValueError(f"it holds {len(topologies)} topologies of model {about['model']!r}")
    for name in ("horizon", "hidden"):
        if not isinstance(about[name], int) or about[name] < (name == "horizon" or about["model"] != "ridge"):
            raise ValueError(f"{name} is {about[name]!r}")
    weights = shapes(about["model"], about["hidden"], about["horizon"])
    for arrays in topologies:
        nodes, places = arrays["peers"].shape
        expected = {"peers": (nodes, places), "scale": (nodes, places)}
        expected |= {name: (nodes, *shape) for name, shape in weights.items()}
        for name, shape in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype.kind not in "fi":
                raise ValueError(f"{name} has shape {arrays[name].shape} instead of {shape}")
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} has entries that are no numbers (NaN or infinite); train it anew")


class Learned:
    """Base of forecasters with a checkpoint: their topology's arrays, and what is forecast beyond what was learned."""

    clairvoyant: ClassVar[bool] = False
    models: ClassVar[tuple[str, ...]]

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
        if self.checkpoint.model not in self.models:
            raise PolicyError(
                f"the checkpoint is of a {self.checkpoint.model}, not of a {' or '.join(self.models)}: "
                f"say {self.checkpoint.model}:PATH"
            )

    def steps(self, setting: ForecastSetting, lead: int) -> NDArray[np.int64]:
        """(H,) which of the learned steps ahead answer a forecast; the last one answers all later."""
        return np.minimum(lead + np.arange(setting.horizon), self.checkpoint.horizon - 1)
