"""Trained policies as rules: one that every node follows by itself, one for a central controller."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpem_agents.forecasters.checkpoint import OF_TRAINING
from dpem_agents.ppo.acting import Choices, NumpyActor
from dpem_agents.ppo.checkpoint import Checkpoint, file_of, load, places, topology_hash
from dpem_agents.ppo.forward import F32
from dpem_agents.ppo.hyperparameters import STACKED, kind_of
from dpem_agents.ppo.layout import Layout, told
from dpem_env.network.network import Network
from dpem_env.observations.features import Observations
from dpem_env.policies import CentralPolicy, Decision, LocalPolicy, NetworkView
from dpem_env.scenarios import Scenario
from dpem_env.simulator.actions import ActionCode, Condition
from dpem_env.support.errors import PolicyError
from dpem_env.support.plugins import PluginName


class PpoPolicy(LocalPolicy):
    """Every node takes the legal action that a policy trained by PPO holds most likely.

    `checkpoint`: a file that `dpem_agents.ppo.training.train` has written, or the folder with it. A shared policy plays
    on any network with as many routes per peer, qualities, fidelity classes and forecast slots as it was trained with,
    and as many peers per node unless its encoder is "per-peer". Nodes' own policies, of mode independent or federated,
    play on their topology alone; a folder of such trainings, each on a network of its own, on all of these.
    Observations are filled by the forecaster of the training.
    """

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]) -> None:
        self.actors = _actors(checkpoint)
        self.actor = next(iter(self.actors.values()))
        self.forecaster = self.actor.forecaster
        self.sources = [file for actor in self.actors.values() for file in actor.sources]
        self.news = self.actor.checkpoint.news

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Check that there is a policy for this network; it plays at the contention penalty of the scenario."""
        if len(self.actors) > 1:
            there = topology_hash(network)
            if there not in self.actors:
                raise PolicyError(
                    f"none of the {len(self.actors)} trainings, on as many networks, was on this one of "
                    f"{network.num_nodes} nodes: train there, or play on a network that there is one of"
                )
            self.actor = self.actors[there]
        self.actor.begin(scenario, network)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The most likely legal action of each node."""
        return self.actor.act(observations, masks)


class CentralPpoPolicy(CentralPolicy):
    """One controller commands every node what a policy trained by PPO under central control holds most likely.

    `checkpoint` as for `PpoPolicy`, trained with mode "central". It plays at any delay, best at the one it has learned.
    """

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]) -> None:
        self.actor = Actor(checkpoint, ("central",))
        self.forecaster, self.sources = self.actor.forecaster, self.actor.sources
        self.news = self.actor.checkpoint.news

    def reset(self, scenario: Scenario, network: Network, seed: int) -> None:
        """Check that the policy is one for this network; it plays at the contention penalty of the scenario."""
        self.actor.begin(scenario, network)

    def act(self, view: NetworkView) -> Decision:
        """The most likely legal command for each node."""
        return self.actor.act(view.observations, view.masks)


def trained(path: str) -> PpoPolicy | CentralPpoPolicy:
    """What a training has left at a path, by how it was trained."""
    kind = CentralPpoPolicy if kind_of(load(places(path)[0]).about["mode"]) == "central-ppo" else PpoPolicy
    return kind(path)


def _actors(checkpoint: Checkpoint | str | os.PathLike[str]) -> dict[str | None, Actor]:
    """That of a checkpoint, or those of the trainings in a folder, each on another network, by topology."""
    if isinstance(checkpoint, Checkpoint):
        return {checkpoint.about["topology"]: Actor(checkpoint, ("shared", *STACKED))}
    found: dict[str | None, Actor] = {}
    for path in (paths := places(checkpoint)):
        actor = Actor(path, ("shared", *STACKED))
        topology, file = actor.checkpoint.about["topology"], actor.sources[0]
        if len(paths) > 1 and (topology is None or topology in found):
            both = f"that of {found[topology].sources[0]}" if topology in found else "every network"
            raise PolicyError(
                f"{os.fspath(checkpoint)!r} is a folder of trainings, and the policy of {file} plays on {both}, "
                f"too; expected one per network: name one, or all by a pattern, as training seeds"
            )
        found[topology] = actor
        first = next(iter(found.values()))
        if actor.checkpoint.news != first.checkpoint.news:
            raise PolicyError(f"{file} was trained with other news than {first.sources[0]}")
    if len(paths) > 1:
        _share_forecaster(list(found.values()), Path(checkpoint))
    return found


def _share_forecaster(actors: list[Actor], folder: Path) -> None:
    """Where every training has its own, of one kind, the one that reads them all; PolicyError if they differ."""
    named = [PluginName.parse(actor.forecaster or "") for actor in actors]
    own = all(
        str(actor.sources[0].parent / OF_TRAINING) == name.argument for actor, name in zip(actors, named, strict=True)
    )
    if own and len({name.kind for name in named}) == 1:
        for actor in actors:
            actor.forecaster = str(PluginName(named[0].kind, str(folder)))
    elif len(different := {actor.forecaster for actor in actors}) > 1:
        raise PolicyError(
            f"trainings in {folder} have forecasters {' and '.join(map(repr, sorted(map(str, different))))}"
        )


class Actor(NumpyActor):
    """The actor of a checkpoint trained in one of some modes."""

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str], modes: tuple[str, ...]) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
        about = self.checkpoint.about
        if about["mode"] not in modes:
            kind = kind_of(about["mode"])
            raise PolicyError(f"the PPO checkpoint was trained with mode {about['mode']!r}: play it as '{kind}:PATH'")
        self.forecaster: str | None = about["settings"]["forecaster"]
        self.sources: list[Path] = []
        if not isinstance(checkpoint, Checkpoint):
            self.sources = [file_of(checkpoint)]
            self.forecaster = _beside(Path(checkpoint), self.forecaster)
        chosen = self.checkpoint.hyperparameters
        super().__init__(self.checkpoint.actor, chosen, Layout.of(about["interface"], chosen))

    @property
    def code(self) -> ActionCode:
        """The code of actions."""
        code = self.layout.code
        if code.condition and self.checkpoint.about["mode"] == "central":  # nodes read it when the command arrives
            return code._replace(condition=Condition.READ_FREE)
        return code

    def begin(self, scenario: Scenario, network: Network) -> None:
        """Play on this network from now on; PolicyError unless it can."""
        self.checkpoint.require(scenario, network)
        self.layout = self.layout._replace(peers=scenario.demand.peers)

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """The most likely legal action of each row that decides; others wait."""
        return self.decided(self.asked(observations, masks), len(masks))

    def asked(self, observations: Observations, masks: NDArray[np.int8]) -> Choices:
        """What rows choose from, told the contention penalty of the scenario."""
        penalty = np.full(len(masks), observations.table.scenario.reward.contention_penalty)
        to_all = told(self.hyperparameters.penalties, penalty)
        return self.choices(observations, to_all, self.worded(observations, masks))

    def decided(self, choices: Choices, rows: int) -> Decision:
        """The most likely of the choices of so many rows."""
        return Decision(*self.code.commands(choices.best(rows)))

    def choices(self, observations: Observations, told: F32, masks: NDArray[np.int8]) -> Choices:
        """What there is to choose from."""
        if observations.table.news != self.checkpoint.news:
            raise PolicyError(
                f"the PPO checkpoint was trained with news {self.checkpoint.news!r}, and observations have "
                f"{observations.table.news!r}: make them with news=policy.news"
            )
        return super().choices(observations, told, masks)

    def worded(self, observations: Observations, masks: NDArray[np.int8]) -> NDArray[np.int8]:
        """Masks of the actions that it words, from those of a policy that names no routes and sets no conditions."""
        code = self.code
        allowed = masks[:, 1:].reshape(len(masks), 1, code.peers, code.qualities, 1)
        if code.routes is not None:
            allowed = allowed * (observations.candidate_hops > 0)[:, None, :, None].astype(np.int8)
        return code.arrange(masks[:, 0], np.repeat(allowed, self.layout.conditions, axis=1))


def _beside(checkpoint: Path, forecaster: str | None) -> str | None:
    """The forecaster, with its file in the folder of the checkpoint if one of that name lies there: both may move."""
    name = PluginName.parse(forecaster or "")
    moved = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / Path(name.argument or "").name
    return str(PluginName(name.kind, str(moved))) if os.path.isfile(moved) else forecaster
