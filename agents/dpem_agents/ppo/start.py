"""What a training starts from in place of a rule and random weights: a policy that all nodes share, trained before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from dpem_agents.ppo.checkpoint import Checkpoint, load
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters, changed
from dpem_env.observations.features import NEWS
from dpem_env.scenarios import Scenario
from dpem_env.simulator.simulator import fingerprint
from dpem_env.support.errors import DpemError, PolicyError, require_one_of

if TYPE_CHECKING:
    import torch

Penalty = Literal["range", "scenario"]
KIND = "ppo:"
MODES = ("shared", "independent", "federated")  # that can start from a shared policy
# What a policy's weights mean nothing without: a training that starts from it has the same.
SHAPE = (
    "hidden", "encoder", "hidden_blocks", "warm_start", "idle_forecast", "routes", "conditional", "penalties",
    "penalty_factor", "scaled_rewards",
)  # fmt: skip
# How else such trainings differ from the presets: what a start knows of contention is soon lost where that costs little
# at first, and what it knows at all where steps are those of nodes that know nothing.
FINE_TUNING: dict[str, Any] = {"penalty_ramp": 0.0, "learning_rate": 1e-4}
CRITIC_ALONE = 4  # rollouts; by advantages of a critic that knows nothing policies would change at random


@dataclass(frozen=True)
class StartSettings:
    """Of a start, what a training must have in common with the one it goes on from."""

    name: str  # of its folder
    weights: str  # a hash of all that the training begins with
    penalty: Penalty | None  # None for a policy that is told none
    critic_alone: int  # rollouts at the beginning, in which policies stay as they are


@dataclass(frozen=True)
class Start:
    """A shared policy that every node starts from, with its critic if the file has that.

    `penalty` is for a policy that is told its contention penalty: it goes on learning at all of its "range", or at that
    of the "scenario" alone.
    """

    name: str
    checkpoint: Checkpoint
    penalty: Penalty | None = None

    @classmethod
    def of(cls, what: str | os.PathLike[str], penalty: Penalty | None = None) -> Start:
        """What a training has left in a folder, or a shipped policy, as in ``ppo:mesh100``; PolicyError in one line."""
        path = Path(os.fspath(what).removeprefix(KIND))
        checkpoint = load(path, training=True)
        mode, name = checkpoint.about["mode"], path.parent.resolve().name if path.is_file() else path.resolve().name
        if mode != "shared":
            raise PolicyError(
                f"{name!r} was trained with mode {mode!r}; expected a policy of mode 'shared' to start from"
            )
        told = checkpoint.hyperparameters.penalties
        if penalty is not None:
            require_one_of("penalty", penalty, get_args(Penalty))
            if not told:
                raise PolicyError(
                    f"{name!r} is told no contention penalty, and learns at the scenario's: leave out penalty"
                )
        return cls(name, checkpoint, penalty or "range" if told else None)

    @property
    def settings(self) -> StartSettings:
        """What a training remembers of it."""
        weights = self.weights
        hashed = fingerprint(weights[name] for name in sorted(weights))
        return StartSettings(self.name, hashed, self.penalty, 0 if self.has_critic else CRITIC_ALONE)

    @property
    def weights(self) -> dict[str, Any]:
        """Of the actor, and of the critic if there is one, by name."""
        arrays = self.checkpoint.arrays
        return {name.removeprefix("weights."): a for name, a in arrays.items() if name.startswith("weights.")}

    @property
    def has_critic(self) -> bool:
        """Whether the training before has kept it: checkpoint.npz holds it, policy.npz does not."""
        return any(name.startswith("critic.") for name in self.weights)

    @property
    def forecaster(self) -> str | None:
        """What filled the observations that it was trained on."""
        name: str | None = self.checkpoint.about["settings"]["forecaster"]
        return name

    def hyperparameters(self, mode: str, **given: Any) -> Hyperparameters:
        """The preset of the mode with the start's shape and what is `given`; DpemError where these contradict."""
        self._require_shape(changed(self.checkpoint.hyperparameters, **given), given)
        return changed(PRESETS[mode], **FINE_TUNING | self._shape | given)

    def require(self, scenario: Scenario, mode: str, hyperparameters: Hyperparameters, forecaster: str | None) -> None:
        """DpemError unless a training like this can start from it."""
        if mode not in MODES:
            raise DpemError(f"mode is {mode!r}; a training that starts from a policy has one of {', '.join(MODES)}")
        if self.checkpoint.news != NEWS:
            raise PolicyError(f"{self.name!r} was trained on other features than observations have: train it anew")
        self.checkpoint.require_interface(scenario)
        self._require_shape(hyperparameters, SHAPE)
        if (forecaster is None) != (self.forecaster is None):
            self.require_forecaster(forecaster)

    def require_forecaster(self, given: str | None) -> None:
        """DpemError unless it is that of the start."""
        if given != self.forecaster:
            raise DpemError(
                f"forecaster is {given!r}, and {self.name!r}, which training starts from, was trained with "
                f"{self.forecaster!r}: leave forecaster out, or start from another policy"
            )

    def put_into(self, named: Mapping[str, torch.nn.Parameter]) -> None:
        """Give every node of a stack these weights."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                named[name].copy_(torch.from_numpy(weight).expand_as(named[name]))

    @property
    def _shape(self) -> dict[str, Any]:
        return {name: getattr(self.checkpoint.hyperparameters, name) for name in SHAPE}

    def _require_shape(self, chosen: Hyperparameters, names: Iterable[str]) -> None:
        for name, own in self._shape.items():
            given = getattr(chosen, name)
            if name in names and given != own:
                raise DpemError(
                    f"hyperparameter {name} is {_told(given)}, and {self.name!r}, which training starts from, has "
                    f"{_told(own)}: leave {name} out, or start from another policy"
                )


def _told(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
