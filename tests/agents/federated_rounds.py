"""What the tests of federated averaging share: averagers of plain vectors, and rounds on them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpem_agents.federated import DPConfig, FederatedAverager, Ledger, RoundReport, SharedSpec
from dpem_agents.federated.spec import Vector


def config(**changed: Any) -> DPConfig:
    """Central, every node in every round, unless told otherwise; Rényi accounting, which is quick without sampling."""
    plain = {"population": 10, "clip_norm": 1.0, "noise_multiplier": 1.0, "accountant": "rdp"}
    return DPConfig(**plain | changed)


def off(population: int = 10, **changed: Any) -> DPConfig:
    return DPConfig(mode="off", population=population, **changed)


def averager(dp: DPConfig, size: int, **options: Any) -> FederatedAverager:
    spec = SharedSpec(("weights",), ((size,),))
    return FederatedAverager(spec, dp, **{"start": np.zeros(size)} | options)


def play(made: FederatedAverager, updates: Mapping[Hashable, ArrayLike]) -> tuple[Vector, RoundReport]:
    """A round in which these nodes' weights move by these updates, as far as they were sampled."""
    cohort = made.sample(range(made.dp.population))
    sent = {node: made.update_of(node, made.weights + update) for node, update in updates.items() if node in cohort}
    return made.aggregate(sent)


def after_rounds(dp: DPConfig, rounds: int, ledger: Ledger | None = None) -> FederatedAverager:
    """An averager that has played rounds of nothing."""
    made = averager(dp, 3, ledger=ledger)
    for _ in range(rounds):
        play(made, {})
    return made
