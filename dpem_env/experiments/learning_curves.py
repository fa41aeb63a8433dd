"""Learning curves as `dpem curve` keeps them: curve.json in a folder, often beside results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dpem_env.support.files import Part, checked, read_json, reading

CURVES = "curve.json"
# Mean, low and high at every validation; of one training seed the interval is unknown.
Means = list[Annotated[list[float | None], Field(min_length=3, max_length=3)]]


class _Training(Part):
    name: str
    training_seeds: list[int]
    timesteps: list[int]
    reward: Means
    delivery_rate: Means
    contention: Means
    mean_converged_at: int | None


class _Levels(Part):
    reward: float
    delivery_rate: float
    contention: float


class _Curves(Part):
    format: Literal["dpem-learning-curves-1"]
    scenario: str
    trainings: Annotated[list[_Training], Field(min_length=1)]
    rules: dict[str, _Levels] = Field(default_factory=dict)


def read_curves(folder: Path) -> dict[str, Any]:
    """The file of a folder, as plain data; DpemError for another."""
    with reading("learning curves", folder / CURVES):
        found = read_json(folder / CURVES)
        checked(_Curves, found, "it")
        return {"rules": {}} | found
