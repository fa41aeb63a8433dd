"""How the nodes of a training federate: the settings, checked. Light to import: the command line tells them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from dpem_env.support.errors import DpemError, nearest, require_one_of

if TYPE_CHECKING:
    from dpem_agents.federated.privacy import DPConfig

Share = Literal["head", "body", "whole"]
Mode = Literal["central", "local", "off"]
Aggregator = Literal["mean", "trimmed_mean", "median"]


@dataclass(frozen=True)
class Federation:
    """What the nodes of a training average, how often, and how that is protected.

    `epsilon` is of the whole training; noise is chosen to spend it, and no round is released beyond it. The noise of a
    round grows with the square root of their number and of that of the shared weights: unless told otherwise rounds are
    few, and the head is shared. A good `clip_norm` is about the median length of updates, longer for a whole policy and
    for a longer period.

    ε is of the shared weights that rounds release, and of nothing else that a training writes: checkpoints and policies
    hold every node's own weights without noise, and learning curves and event files what those came to.
    """

    period: Annotated[int, "of local learning in a round: rollouts of a policy, batches of a forecaster"] = 32
    share: Annotated[Share, "what is averaged: the last layer, all but that, or all of them"] = "head"
    privacy: Annotated[Mode, "who adds noise: the aggregator, every node, or nobody"] = "central"
    epsilon: Annotated[float | None, "ε of the whole training, which its noise is chosen to spend"] = 8.0
    delta: Annotated[float, "δ of ε"] = 1e-5
    clip_norm: Annotated[float | None, "longest update that is let through; with privacy off, no clip"] = 0.1
    sample_rate: Annotated[float, "share of nodes joining a round"] = 1.0
    aggregator: Annotated[Aggregator, "how updates are put together"] = "mean"
    server_lr: Annotated[float, "step size along the average"] = 1.0
    noise_seed: Annotated[int | None, "makes noise repeatable, hence not private"] = None

    def __post_init__(self) -> None:
        require_one_of("share", self.share, get_args(Share))
        require_one_of("privacy", self.privacy, get_args(Mode))
        if not isinstance(self.period, int) or self.period < 1:
            raise DpemError(f"federation's period is {self.period!r}; expected a whole number >= 1")
        if (self.privacy == "off") != (self.epsilon is None):
            raise DpemError(
                f"federation's privacy is {self.privacy!r} and epsilon {self.epsilon!r}: "
                "expected an epsilon with privacy 'central' or 'local', and none with 'off'"
            )
        if self.clip_norm is None and self.privacy != "off":
            raise DpemError(f"federation's clip_norm is None; privacy {self.privacy!r} needs a clip")

    def rounds(self, parts: int, of: str, longer: str) -> int:
        """Of a training of so many rollouts or batches; DpemError, saying how to train longer, if there were none."""
        if parts < self.period:
            raise DpemError(
                f"federation's period is {self.period} {of}, and the training has {parts}: no round would be played; "
                f"{longer}, or choose a period of {parts} at most"
            )
        return parts // self.period

    def rounds_of_policies(self, timesteps: int, rollout: int) -> int:
        """`rounds` of so many timesteps, in rollouts of so many."""
        longer = f"train for more than {(self.period - 1) * rollout:,} timesteps"
        return self.rounds(math.ceil(timesteps / rollout), "rollouts", longer)

    def protection(self, nodes: int, rounds: int) -> DPConfig:
        """Clip, noise and budget of `rounds` rounds of that many nodes."""
        from dpem_agents.federated.privacy import DPConfig

        settings: dict[str, Any] = {
            "mode": self.privacy,
            "population": nodes,
            "clip_norm": math.inf if self.clip_norm is None else self.clip_norm,
            "sample_rate": self.sample_rate,
            "delta": self.delta,
            "noise_seed": self.noise_seed,
        }
        if self.epsilon is None:
            return DPConfig(**settings)
        return DPConfig.calibrate(self.epsilon, max(rounds, 1), **settings)


def federation(**values: Any) -> Federation:
    """A federation with these values, others by default; DpemError for an unknown name.

    With privacy "off" there is by default no ε and no clip.
    """
    known = [field.name for field in fields(Federation)]
    for name in values:
        if name not in known:
            raise DpemError(f"unknown field of a federation {name!r}; {nearest(name, known)}")
    if values.get("privacy") == "off":
        values = {"epsilon": None, "clip_norm": None} | values
    return replace(Federation(), **values)
