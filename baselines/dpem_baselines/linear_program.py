"""Path-based linear program, solved every planning period and rounded to whole allocations."""

from __future__ import annotations

import threading

import numpy as np
from highspy import Highs, HighsModelStatus, MatrixFormat, ObjSense

from dpem_baselines.limits import TOLERANCE, Floats, Ints, Limits
from dpem_baselines.planning import PathPlanner
from dpem_baselines.route_model import Candidates, Load


class CentralLP(PathPlanner):
    """Maximise the expected number of requests served over candidate routes, then round, largest share first.

    One variable in [0, 1] per candidate allocation: whether to make it. Rows: emissions of each source, swaps of each
    engine, qubits of each memory, commands of each node, and each pair's demand. A multicommodity flow over the
    k shortest paths as of Chakraborty et al. (Entanglement distribution in a quantum network: a multicommodity
    flow-based approach, IEEE TQE 1, 4101321, 2020). Adapted: their steady rates become the demand and the resources
    of one time-to-live, and their fidelity constraint the quality that each route needs.
    """

    def choose(self, candidates: Candidates, worth: Floats, limits: Limits, load: Load) -> Ints:
        """The LP's solution, rounded up one by one in order of its shares while everything still fits."""
        share = solve(worth, limits)
        by_share = np.lexsort((-worth, -share))
        return limits.first_that_fit(by_share[share[by_share] > TOLERANCE])


def solve(worth: Floats, limits: Limits) -> Floats:
    """(M,) shares x in [0, 1] of greatest worth · x within the limits; 0 for what does not fit whole."""
    if len(worth) == 0:
        return np.zeros(0)
    tight = limits.total() > limits.capacity + TOLERANCE  # others hold whatever the shares are
    entries = tight[limits.thing]
    starts = np.concatenate(([0], entries.sum(axis=1).cumsum()))
    rows = (tight.cumsum() - 1)[limits.thing[entries]]
    columns, none = len(worth), np.zeros(len(worth))
    capacity, need = limits.capacity[tight], limits.need[entries]
    highs = SOLVER.highs
    highs.passModel(
        *(columns, len(capacity), len(need), MatrixFormat.kColwise.value, ObjSense.kMaximize.value, 0.0),
        *(worth, none, limits.fits().astype(np.float64), np.full(len(capacity), -np.inf), capacity),
        *(starts.astype(np.int32), rows.astype(np.int32), need, none.astype(np.int32)),
    )
    highs.run()
    assert highs.getModelStatus() == HighsModelStatus.kOptimal  # 0 is feasible, and everything is bounded
    return np.array(highs.getSolution().col_value)


class Solver(threading.local):
    """HiGHS, for each thread its own, as making one takes as long as solving."""

    def __init__(self) -> None:
        self.highs = Highs()  # type: ignore[no-untyped-call]
        self.highs.silent()
        self.highs.setOptionValue("presolve", "off")  # takes as long as solving, too, for some dozens of candidates


SOLVER = Solver()
