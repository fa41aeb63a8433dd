"""REPS: linear program with progressive rounding, and redundant pairs against failures."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dpem_baselines.limits import TOLERANCE, Floats, Ints, Limits
from dpem_baselines.linear_program import CentralLP, solve
from dpem_baselines.planning import PathPlanner
from dpem_baselines.route_model import Candidates, Load
from dpem_env.experiments.search import SearchSpace


class Reps(CentralLP):
    """Solve the LP relaxation, make what it makes in full, or else its largest share, and solve again for the rest.

    After Zhao & Qiao (Redundant entanglement provisioning and selection for throughput maximization in quantum
    networks, IEEE INFOCOM 2021). Kept: LP relaxation with progressive rounding, and redundancy against failures.
    Adapted: their links succeed or fail within a slot, and redundant ones are provided before paths are selected among
    those that succeeded; here an allocation keeps its links and tries again by itself, so redundancy is a second pair
    for the same request (`redundancy`), and selection, which request a finished pair serves, is the network's. At most
    `solves` programs are solved per plan; the last one is rounded as in `CentralLP`.
    """

    search_space: ClassVar[SearchSpace] = {**PathPlanner.search_space, "solves": (2, 5, 10)}

    def __init__(self, solves: int = 5, **options: Any) -> None:
        super().__init__(**options)
        self.solves = solves

    def choose(self, candidates: Candidates, worth: Floats, limits: Limits, load: Load) -> Ints:
        """Progressive rounding: each solution's whole shares, or else its largest, are made for good."""
        chosen, rest = np.zeros(0, dtype=np.int64), np.arange(len(worth))
        for solves_left in reversed(range(self.solves)):
            share = solve(worth[rest], limits)
            order = np.lexsort((-worth[rest], -share))
            order = order[share[order] > TOLERANCE]
            whole = share[order] > 1.0 - TOLERANCE
            if solves_left and not whole.all():
                order = order[: max(whole.sum(), 1)]
            made = limits.first_that_fit(order)
            chosen = np.concatenate((chosen, rest[made]))
            if whole.all() and len(made) == len(order):  # with more, this optimum would be none
                break
            others = np.delete(np.arange(len(rest)), order)
            rest, limits = rest[others], limits.after(made).take(others)
        return chosen
