"""Checkpoints: a policy, and all that its training needs to go on, in one .npz file without pickle.

Arrays are ``weights.NAME`` of actor and critic, Adam's ``mean.NAME`` and ``square.NAME``, and the ``actions`` played in
the running episodes. Playing reads the actor's weights alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dpem_agents import checkpoints
from dpem_agents.checkpoints import Arrays, Kinds
from dpem_agents.ppo.forward import shapes
from dpem_agents.ppo.hyperparameters import MODES, STACKED, Hyperparameters, changed
from dpem_agents.ppo.layout import PEERS, Layout, interface
from dpem_env.network.network import Network
from dpem_env.observations.features import NEWS
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import MAX_SLOTS, Count, Natural
from dpem_env.simulator.simulator import fingerprint
from dpem_env.support.errors import PolicyError
from dpem_env.support.files import ArrayFile, Part, reading
from dpem_env.support.shipped import POLICIES

FORMAT = "dpem-ppo-3"
FILE = "checkpoint.npz"  # in the folder of a training
POLICY_FILE = "policy.npz"  # there as well: the actor alone
EVENTS = "tensorboard"  # a folder there: event files
PARTS = ("weights", "mean", "square")


@dataclass(frozen=True)
class Checkpoint:
    """`about` is plain data: what the policy is for, how it is trained and how far; `arrays` are as in the file."""

    about: dict[str, Any]
    arrays: Arrays

    @property
    def actor(self) -> Arrays:
        """The actor's weights by name."""
        return {
            name.removeprefix("weights."): a for name, a in self.arrays.items() if name.startswith("weights.actor.")
        }

    @property
    def hyperparameters(self) -> Hyperparameters:
        """How it is trained."""
        return changed(Hyperparameters(), **self.about["settings"]["hyperparameters"])

    @property
    def news(self) -> tuple[str, ...]:
        """Those features of candidate routes that it was trained with."""
        return tuple(name for name in NEWS if name in self.about["interface"]["features"])

    def for_playing(self) -> Checkpoint:
        """The same policy without what only training needs."""
        known = {name: value for name, value in self.about.items() if name != "curve"}
        return Checkpoint(known, {f"weights.{name}": array for name, array in self.actor.items()})

    def require(self, scenario: Scenario, network: Network) -> None:
        """Raise PolicyError unless the policy can play on this network of this scenario."""
        self.require_interface(scenario)
        if self.about["topology"] not in (None, topology_hash(network)):  # None: of nodes anywhere
            seed = self.about["settings"]["topology_seed"]
            raise PolicyError(
                f"the {self.about['mode']} PPO checkpoint is for one topology of {self.about['scenario']} (topology "
                f"seed {seed}, {self.about['nodes']} nodes), not for this one of {network.num_nodes}: a node plays "
                f"with what it has learned in its place; --topology {seed} plays there"
            )

    def require_interface(self, scenario: Scenario) -> None:
        """Raise PolicyError unless observations and actions of a scenario are those of the policy.

        Where every peer goes through the same network, there may be any number of peers.
        """
        for name, ours in interface(scenario, self.news).items():
            theirs = self.about["interface"][name]
            if name == PEERS and self.hyperparameters.encoder == "per-peer":
                continue
            if ours != theirs and name == "features":
                raise PolicyError("the PPO checkpoint was trained on other features than observations have: train anew")
            if ours != theirs:
                raise PolicyError(f"the PPO checkpoint is for {theirs} {name}; {scenario.name} has {ours}")

    def save(self, path: str | os.PathLike[str], compressed: bool = False) -> None:
        """Write the file, whole or not at all; DpemError if that fails."""
        checkpoints.write(path, self.about, self.arrays, compressed)


def load(path: str | os.PathLike[str], training: bool = False) -> Checkpoint:
    """Read and check a checkpoint, or what a training has left in a folder; PolicyError with one clear line.

    Without `training` arrays are the actor's weights only; with it, as many as the file has.
    """
    with reading("checkpoint", path, PolicyError):
        return Checkpoint(*checkpoints.read(file_of(path), FORMAT, _About, _expected, training))


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file that is read where a checkpoint, the folder of a training, or a shipped policy is asked for."""
    wanted = Path(path)
    places = (wanted / FILE, wanted / POLICY_FILE, wanted, POLICIES / wanted / POLICY_FILE)
    return next(filter(Path.exists, places), wanted)


def places(path: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints that play where `path` is asked for: one, or one per network, of the trainings in a folder."""
    with reading("checkpoint", path, PolicyError):
        if file_of(path).is_file() or not Path(path).is_dir():
            return [Path(path)]
        return sorted(folder for folder in Path(path).iterdir() if file_of(folder).is_file()) or [Path(path)]


def topology_hash(network: Network) -> str:
    """Changes with the nodes' hardware, but for how long their memories hold, places and peers, and with the fibres."""
    t = network.topology
    hardware = (t.position, t.generation_rate, t.swap_rate, t.memory)
    return fingerprint((*hardware, t.links, t.length, t.link_fidelity, network.peers))


class _Interface(Part):
    peers: Count = Field(alias="peers per node")
    routes: Count = Field(alias="routes per peer")
    qualities: Count
    classes: Count = Field(alias="fidelity classes")
    horizon: Count = Field(alias="forecast slots")
    width: Count = Field(alias="features per peer")
    features: list[str]


class _Start(Part):
    name: str
    weights: str
    penalty: str | None
    critic_alone: Natural


class _Settings(Part):
    forecaster: str | None
    topology_seed: Natural | None
    scenario_hash: str
    hyperparameters: dict[str, Any]
    federation: dict[str, Any] | None = None
    start: _Start | None = None


class Point(Part):
    """A validation; the last three are of trainings that start from a policy: see `MovedPolicy.movement`."""

    timesteps: Natural
    environment_steps: Natural
    seconds: float
    reward: float | None
    delivery_rate: float | None
    contention: float | None
    kl_from_start: float | None = None
    changed_decisions: float | None = None
    weight_distance: float | None = None


class _About(Part):
    stamp: str
    mode: str
    scenario: str
    interface: _Interface
    nodes: Count
    topology: str | None
    timesteps: Natural
    updates: Natural
    rounds: Natural
    settings: _Settings
    optimizer_steps: float
    seconds: float
    federated_rounds: Natural = 0
    penalty_multiplier: float = 1.0
    curve: list[Point] = Field(default_factory=list)


def _expected(about: dict[str, Any], stored: ArrayFile) -> tuple[Kinds, Kinds]:
    """What the file holds by name: the actor's weights, and what training needs besides."""
    if about["mode"] not in MODES:
        raise ValueError(f"mode is {about['mode']!r}; expected one of {', '.join(MODES)}")
    if (about["mode"] in STACKED) != isinstance(about["topology"], str):
        raise ValueError(f"topology is {about['topology']!r} in mode {about['mode']}")
    chosen, nodes = Checkpoint(about, {}).hyperparameters, about["nodes"]
    stacked = nodes if about["mode"] in STACKED else 1
    weights = shapes(chosen.encoder, Layout.of(about["interface"], chosen), chosen.hidden, stacked)
    parts: Kinds = {f"{part}.{name}": (weights[name], np.float32) for part in PARTS for name in weights}
    actor = {name: kind for name, kind in parts.items() if name.startswith("weights.actor.")}
    played = _length(stored, "actions", MAX_SLOTS)
    rest: Kinds = {"actions": ((played, chosen.networks * nodes), np.int32)}
    if about["mode"] == "federated":
        of_a_node = sum(math.prod(shape[1:]) for shape in weights.values())
        rest["federated.weights"] = ((_length(stored, "federated.weights", of_a_node),), np.float64)
    return actor, parts | rest


def _length(stored: ArrayFile, name: str, longest: int) -> int:
    """Of an array whose length only the file knows, 0 if it has none."""
    length = (*(stored.declared(name)[0] if name in stored.names else ()), 0)[0]
    if length > longest:
        raise ValueError(f"{name} is {length:,} long; expected at most {longest:,}")
    return length
