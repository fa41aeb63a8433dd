"""Bounds on what any policy delivers, and how they are found.

Installed packages announce bounds through the entry point group ``dpem_env.bounds``; this package imports none of them.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Protocol, cast

from dpem_env.envs.session import EpisodeSeeds
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError, nearest

GROUP = "dpem_env.bounds"


class DeliveryBound(Protocol):
    """What a bound is called with."""

    def __call__(
        self, scenario: Scenario, seeds: EpisodeSeeds, data_dir: str | os.PathLike[str] | None = None
    ) -> float:
        """The largest delivery rate in the episode of any policy, in the mean over the outcomes of tries."""


def get_bound(name: str) -> DeliveryBound:
    """An installed bound by name; raises DpemError for an unknown one (with the nearest)."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise DpemError(f"unknown bound {name!r}; {nearest(name, known)}")
    return cast(DeliveryBound, known[name].load())
