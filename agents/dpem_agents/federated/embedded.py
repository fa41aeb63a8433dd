"""Federated averaging inside one training: now and then shared weights are averaged and sent back to all nodes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from dpem_agents.federated.averaging import Aggregator, FederatedAverager
from dpem_agents.federated.ledger import Ledger
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.privacy import DPConfig, Mode
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import FORECASTER_HEAD, POLICY_HEAD, WHOLE_FORECASTER, WHOLE_POLICY, SharedSpec, Vector
from dpem_env.support.errors import DpemError, nearest, require_one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEDGER = "ledger.json"  # of privacy, in the folder of a training
Share = Literal["head", "whole"]
SHARES: dict[Share, tuple[str, ...]] = {
    "head": (*POLICY_HEAD, *FORECASTER_HEAD),
    "whole": (*WHOLE_POLICY, *WHOLE_FORECASTER),
}


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

    period: int = 32  # of local learning in a round: rollouts of a policy, batches of a forecaster
    share: Share = "head"
    privacy: Mode = "central"
    epsilon: float | None = 8.0  # None with privacy "off"
    delta: float = 1e-5
    clip_norm: float | None = 0.1  # None with privacy "off": no clip
    sample_rate: float = 1.0  # of nodes joining a round
    aggregator: Aggregator = "mean"
    server_lr: float = 1.0
    noise_seed: int | None = None  # makes noise repeatable, hence not private

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


def training_name(settings: dict[str, Any]) -> str:
    """Names a training in a privacy ledger: changes with anything among its settings, which are plain data."""
    alike = json.loads(json.dumps(settings), parse_float=_number)  # 8 and 8.0 are one
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:16]


class Averaging:
    """The rounds of one training of stacked policies or forecasters, whose nodes begin with the same weights.

    With a `ledger` file and a name of the `training`, rounds that the ledger holds of it are not played again, but
    taken over: so an interrupted training goes on from wherever it was saved, and spends what it would have.

    Nodes that did not join a round learn on from its outcome as well: what was released costs no privacy to hand out.
    Value networks, the optimiser's state and whatever is not shared stay with the node.
    """

    def __init__(
        self, chosen: Federation, model: Any, rounds: int, ledger: Path | None = None, training: str | None = None
    ) -> None:
        self.federation, self.model, self._training = chosen, model, training
        self.spec = SharedSpec.from_stack(model, SHARES[chosen.share])
        self.rounds = 0  # done
        self.report: RoundReport | None = None  # of the latest round since this object was made
        whole = SharedSpec.from_stack(model, SHARES["whole"])
        whole.set_all(model, whole.get_all(model)[0])
        self._protection = chosen.protection(self.spec.nodes or 1, rounds)
        self._ledger = Ledger(ledger)
        self.averager = self._averager(self.spec.get_all(model)[0])

    def average(self) -> None:
        """A round: a cohort's updates become new global weights, which every node takes over."""
        self.report = self.averager.repeat() or self._played()
        self.spec.set_all(self.model, self.averager.weights)
        self.rounds += 1

    def sent(self, node: Hashable, local: Vector) -> Vector | NoisedUpdate:
        """What a node sends, given its shared weights after local learning."""
        return self.averager.update_of(node, local)

    def restore(self, rounds: int, weights: NDArray[Any]) -> None:
        """Go on after so many rounds, from global weights; what has been spent is in the ledger."""
        self.rounds = rounds
        self.averager = self._averager(weights)

    def told(self) -> str:
        """Of the latest round, for people who watch."""
        if self.report is None or self.report.mode == "off":
            return f"round {self.rounds}"
        return f"round {self.rounds}, ε {self.report.epsilon:.2f}"

    def require_booked(self) -> None:
        """DpemError unless the ledger holds the rounds that were done, with their outcome."""
        self.averager.require_booked()

    def told_of_ledger(self) -> str | None:
        """What the ledger has booked before a training that begins, if anything."""
        if self._ledger.rounds == 0:
            return None
        known = f"{str(self._ledger.path)!r} has booked {self._ledger.rounds} rounds of these nodes"
        if self.averager.released:
            return f"{known}: those of this training are taken over from it, and not charged again"
        return f"{known}: those of this training are charged on top"

    def _played(self) -> RoundReport:
        local = self.spec.get_all(self.model)
        cohort: list[Any] = self.averager.sample(range(len(local)))
        return self.averager.aggregate({node: self.sent(node, local[node]) for node in cohort})[1]

    def _averager(self, start: NDArray[Any]) -> FederatedAverager:
        chosen = self.federation
        return FederatedAverager(
            self.spec,
            self._protection,
            start=start,
            aggregator=chosen.aggregator,
            server_lr=chosen.server_lr,
            ledger=self._ledger,
            training=self._training,
            rounds=self.rounds,
        )


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
