"""Local reactive control: every node serves its own pending requests, and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_env.observations.features import Observations
from dpem_env.policies import Decision, LocalPolicy
from dpem_env.simulator.actions import ActionCode


class LocalReactive(LocalPolicy):
    """Allocate for the most urgent peer whose pending requests outnumber its open allocations.

    The quality is the smallest that meets the hardest class waiting there; the route is left to the network (auto).
    Earliest deadline first among peers (Liu & Layland, J. ACM 20, 46, 1973); ties go to the lower place. Where all
    requests have the same deadline this is first come, first served, too; where a replayed file gives them their own,
    times of arrival are not observed, so there is no such rule beside it.
    """

    news = ()

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        pending = observations.pending
        uncovered = pending.sum(axis=2) - observations.open_allocations
        place = most_urgent(observations.slack, uncovered > 0)
        code = ActionCode.of(observations.table.scenario)
        quality = needed_quality(pending, observations.min_quality, code.qualities)
        return Decision(as_action(place, quality, masks, code))


def most_urgent(slack: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) place of the wanted peer with the least slack, overdue ones (slack 0) last; -1 where none is wanted."""
    place = np.where(wanted, urgency(slack), np.inf).argmin(axis=1)
    return np.where(wanted.any(axis=1), place, -1)


def urgency(slack: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Slack to sort by: what is overdue comes after all that can still be served."""
    return np.where(slack > 0, slack, np.finfo(np.float64).max)


def needed_quality(pending: NDArray[np.float64], min_quality: NDArray[np.float64], best: int) -> NDArray[np.int64]:
    """(N, D) smallest quality that meets the hardest pending class; the best one where no quality does."""
    per_class = np.where(min_quality > 0, min_quality, best)
    needed: NDArray[np.float64] = (per_class * (pending > 0)).max(axis=2)
    return needed.clip(1.0).astype(np.int64)


def as_action(
    place: NDArray[np.int64], quality: NDArray[np.int64], masks: NDArray[np.int8], code: ActionCode
) -> NDArray[np.int64]:
    """(N,) actions allocating to each node's place at the given (N, D) quality; waits where illegal or none."""
    nodes = np.arange(len(place))
    chosen = np.maximum(place, 0)
    action = code.encode(chosen, quality[nodes, chosen])
    legal = (place >= 0) & (masks[nodes, np.where(place >= 0, action, 0)] == 1)
    return np.where(legal, action, 0)


def spare_pairs(seen: Observations) -> NDArray[np.float64]:
    """(N, D) pairs stored or being made that no pending request is waiting for."""
    waiting: NDArray[np.float64] = seen.pending.sum(axis=2)
    spare: NDArray[np.float64] = (seen.open_allocations - waiting).clip(0.0)
    return seen.stored_pairs + spare


def stock_quality(min_quality: NDArray[np.float64], hardest_class: int) -> NDArray[np.int64]:
    """(N, D) smallest quality that meets, fresh, every class up to `hardest_class` that the route can meet."""
    enough: NDArray[np.float64] = min_quality[:, :, : hardest_class + 1].max(axis=2)
    return enough.clip(1.0).astype(np.int64)
