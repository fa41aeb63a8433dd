"""Federated averaging inside one training: after so many rollouts, shared weights are averaged and sent back."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from dpem_agents.federated.averaging import Aggregator, FederatedAverager
from dpem_agents.federated.ledger import Ledger
from dpem_agents.federated.privacy import DPConfig, Mode
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import POLICY_HEAD, WHOLE_POLICY, SharedSpec
from dpem_env.errors import DpemError, nearest, require_one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Share = Literal["head", "policy"]
SHARES = {"head": POLICY_HEAD, "policy": WHOLE_POLICY}


@dataclass(frozen=True)
class Federation:
    """What the nodes of a training average, how often, and how that is protected.

    `epsilon` is of the whole training; noise is chosen to spend it, and no round is released beyond it.
    """

    rollouts: int = 8  # of local learning in a round
    share: Share = "head"
    privacy: Mode = "central"
    epsilon: float | None = 8.0  # None with privacy "off"
    delta: float = 1e-5
    clip_norm: float = 0.5
    sample_rate: float = 1.0  # of nodes joining a round
    aggregator: Aggregator = "mean"
    server_lr: float = 1.0
    noise_seed: int | None = None  # makes noise repeatable, hence not private

    def __post_init__(self) -> None:
        require_one_of("share", self.share, get_args(Share))
        require_one_of("privacy", self.privacy, get_args(Mode))
        if not isinstance(self.rollouts, int) or self.rollouts < 1:
            raise DpemError(f"federation's rollouts is {self.rollouts!r}; expected a whole number >= 1")
        if (self.privacy == "off") != (self.epsilon is None):
            raise DpemError(
                f"federation's privacy is {self.privacy!r} and epsilon {self.epsilon!r}: "
                "expected an epsilon with privacy 'central' or 'local', and none with 'off'"
            )

    def protection(self, nodes: int, rounds: int) -> DPConfig:
        """Clip, noise and budget of `rounds` rounds of that many nodes."""
        settings: dict[str, Any] = {
            "mode": self.privacy,
            "population": nodes,
            "clip_norm": self.clip_norm,
            "sample_rate": self.sample_rate,
            "delta": self.delta,
            "noise_seed": self.noise_seed,
        }
        if self.epsilon is None:
            return DPConfig(**settings | {"clip_norm": math.inf})
        return DPConfig.calibrate(self.epsilon, max(rounds, 1), **settings)


def federation(**values: Any) -> Federation:
    """A federation with these values, others by default; DpemError for an unknown name. No ε with privacy "off"."""
    known = [field.name for field in fields(Federation)]
    for name in values:
        if name not in known:
            raise DpemError(f"unknown field of a federation {name!r}; {nearest(name, known)}")
    if values.get("privacy") == "off":
        values = {"epsilon": None} | values
    return replace(Federation(), **values)


class Averaging:
    """The rounds of one training of stacked policies, whose nodes begin with the same weights.

    Nodes that did not join a round learn on from its outcome as well: what was released costs no privacy to hand out.
    Value networks, the optimiser's state and whatever is not shared stay with the node.
    """

    def __init__(self, chosen: Federation, model: Any, rounds: int, ledger: Path | None = None) -> None:
        self.federation, self.model = chosen, model
        self.spec = SharedSpec.from_stack(model, SHARES[chosen.share])
        self.rounds = 0  # done
        self.report: RoundReport | None = None  # of the latest round since this object was made
        actors = SharedSpec.from_stack(model, WHOLE_POLICY)
        actors.set_all(model, actors.get_all(model)[0])
        self._protection = chosen.protection(self.spec.nodes or 1, rounds)
        self._ledger = Ledger(ledger)
        self.averager = self._averager(self.spec.get_all(model)[0])

    def average(self) -> None:
        """A round: a cohort's updates become new global weights, which every node takes over."""
        local, averager = self.spec.get_all(self.model), self.averager
        cohort = averager.sample(range(len(local)))
        updates = {node: averager.update_of(node, local[node]) for node in cohort}
        weights, self.report = averager.aggregate(updates)
        self.spec.set_all(self.model, weights)
        self.rounds += 1

    def restore(self, rounds: int, weights: NDArray[Any]) -> None:
        """Go on after so many rounds, from global weights; what has been spent is in the ledger."""
        self.rounds, self.averager = rounds, self._averager(weights)

    def _averager(self, start: NDArray[Any]) -> FederatedAverager:
        chosen = self.federation
        return FederatedAverager(
            self.spec,
            self._protection,
            start=start,
            aggregator=chosen.aggregator,
            server_lr=chosen.server_lr,
            ledger=self._ledger,
        )
