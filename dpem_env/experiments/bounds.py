"""Bounds on what any policy delivers; installed packages announce them in the entry point group ``dpem_env.bounds``."""

from __future__ import annotations

from typing import Protocol, cast

from dpem_env.envs.session import EpisodeSeeds
from dpem_env.scenarios import Scenario
from dpem_env.support.plugins import BOUNDS, announced, loaded, unknown


class DeliveryBound(Protocol):
    """What a bound is called with."""

    def __call__(self, scenario: Scenario, seeds: EpisodeSeeds) -> float:
        """The largest delivery rate in the episode of any policy, in the mean over the outcomes of tries."""


def get_bound(name: str) -> DeliveryBound:
    """An installed bound by name; raises PolicyError for an unknown one (with the nearest)."""
    known = announced(BOUNDS)
    if name not in known:
        raise unknown("bound", name, known)
    return cast(DeliveryBound, loaded("bound", name, known[name].load))
