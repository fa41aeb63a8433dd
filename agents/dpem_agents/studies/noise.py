"""What privacy costs before anything is trained: how much noise a round's average has, and how much nodes send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from dpem_agents.federated.privacy import DPConfig
from dpem_agents.federation import Mode
from dpem_env.report.tables import console, table
from dpem_env.support.errors import DpemError

FORMAT = "dpem-noise-1"
COLUMNS = (
    "mode",
    "nodes: {nodes:,}",
    "weights: {weights:,}",
    "ε: {epsilon:.3g}",
    "noise multiplier: {noise_multiplier:.3g}",
    "noise / clip: {noise_to_clip:.3g}",
    "bytes a round and node: {bytes_per_node:,}",
)
BYTES = np.dtype(np.float64).itemsize  # of a weight that is sent


def noise_table(
    weights: Sequence[int],
    nodes: Sequence[int],
    rounds: int,
    epsilons: Sequence[float],
    modes: Sequence[Mode],
    *,
    delta: float = 1e-5,
    sample_rate: float = 1.0,
) -> dict[str, Any]:
    """A row for every combination, as plain data; DpemError for what no configuration allows.

    `noise_to_clip` is what the reports of rounds in training say: the expected length of the noise on the average of
    all d weights, in clips. `bytes_per_node` are those of an update; the global weights that come back are as many.
    """
    rows = []
    for mode, population, epsilon in product(modes, nodes, epsilons):
        protection = DPConfig.calibrate(
            epsilon, rounds, mode=mode, population=population, clip_norm=1.0, delta=delta, sample_rate=sample_rate
        )
        known = {"mode": mode, "nodes": population, "epsilon": epsilon}
        known |= {"noise_multiplier": protection.noise_multiplier}
        deviation = protection.average_multiplier(protection.expected_cohort)
        for size in weights:
            if size < 1:
                raise DpemError(f"weights is {size}; expected at least 1")
            noise = {"weights": size, "noise_to_clip": deviation * math.sqrt(size), "bytes_per_node": size * BYTES}
            rows.append(known | noise)
    return {"format": FORMAT, "rounds": rounds, "delta": delta, "sample_rate": sample_rate, "rows": rows}


def print_noise(found: dict[str, Any]) -> None:
    """For people."""
    title = f"{found['rounds']} rounds, δ = {found['delta']:g}, q = {found['sample_rate']:g}"
    console().print(table(title, found["rows"], COLUMNS, right=slice(None), left=4))
