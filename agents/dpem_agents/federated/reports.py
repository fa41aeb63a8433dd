"""What a round of federated averaging tells: a report to publish, and diagnostics for the operator alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dpem_agents.federated.accounting import Accountant, Charge, epsilon

OPERATOR_ONLY = "operator only: not covered by ε, never to be sent to nodes or published"


@dataclass(frozen=True)
class OperatorDiagnostics:
    """Exact, un-noised numbers, which ε does not cover: for the aggregator's operator alone.

    The size of the cohort is among them: sampling protects only while it stays unknown who joined. They are not kept:
    a round that was released before a restart has none.
    """

    sampled: int  # nodes that joined the round
    received: int  # updates that came, usable or not
    rejected: Mapping[Hashable, str]  # nodes that contributed zero instead, with the reason
    clipped_share: float | None  # of the usable updates; None where nodes clip themselves or none came
    notice: str = OPERATOR_ONLY


@dataclass(frozen=True)
class RoundReport:
    """What a round released, and what all rounds have cost; `public()` leaves out the operator's diagnostics.

    ε is of the global weights that rounds released, and of these reports: `covers` says so, and what it leaves out.

    `noise_std` is of one coordinate of the average; `noise_to_clip` compares the expected length of its noise, over all
    d coordinates, to the clip.
    """

    round: int  # from 1
    mode: str
    private: bool  # False without noise, or when a noise seed makes it known, in this round or an earlier one
    neighbours: str
    delta: float
    accountant: Accountant
    charges: tuple[Charge, ...]  # of all rounds so far
    expected_cohort: float
    clip_norm: float
    noise_std: float
    noise_to_clip: float
    covers: str
    operator: OperatorDiagnostics | None = field(repr=False)

    @property
    def epsilon(self) -> float:
        """ε of all rounds so far; where not `private`, what they would cost had their noise been secret."""
        return epsilon(self.charges, self.delta, self.accountant)

    @property
    def warning(self) -> str | None:
        """Says so when the noise is longer than any update may be."""
        if self.noise_to_clip <= 1.0:
            return None
        return (
            f"noise is {self.noise_to_clip:.2g} times as long as the longest update: share fewer parameters, or have "
            "more nodes join"
        )

    def public(self) -> dict[str, Any]:
        """Plain data without the operator's diagnostics; infinite numbers are None."""
        known = {name: value for name, value in vars(self).items() if name not in ("operator", "charges")}
        known |= {"epsilon": self.epsilon, "warning": self.warning, "charges": [asdict(c) for c in self.charges]}
        return {name: None if value == math.inf else value for name, value in known.items()}
