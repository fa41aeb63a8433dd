"""Federated averaging inside one training: now and then shared weights are averaged and sent back to all nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpem_agents.federated.averaging import FederatedAverager
from dpem_agents.federated.ledger import Ledger
from dpem_agents.federated.mechanism import NoisedUpdate
from dpem_agents.federated.reports import RoundReport
from dpem_agents.federated.spec import (
    FORECASTER_BODY,
    FORECASTER_HEAD,
    POLICY_BODY,
    POLICY_HEAD,
    WHOLE_FORECASTER,
    WHOLE_POLICY,
    SharedSpec,
    Vector,
)
from dpem_agents.federation import Federation, Share

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEDGER = "ledger.json"  # of privacy, in the folder of a training
SHARES: dict[Share, tuple[str, ...]] = {
    "head": (*POLICY_HEAD, *FORECASTER_HEAD),
    "body": (*POLICY_BODY, *FORECASTER_BODY),
    "whole": (*WHOLE_POLICY, *WHOLE_FORECASTER),
}


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
