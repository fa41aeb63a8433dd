"""Path-based linear program, solved every planning period and rounded to whole allocations."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

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
    """(M,) shares x in [0, 1] of greatest worth · x within the limits (HiGHS); 0 for what does not fit whole."""
    if len(worth) == 0:
        return np.zeros(0)
    tight = limits.total() > limits.capacity + TOLERANCE  # others hold whatever the shares are
    bounds = np.stack((np.zeros(len(worth)), limits.fits()), axis=1)
    entries = tight[limits.thing]
    columns = np.concatenate(([0], entries.sum(axis=1).cumsum()))
    rows = (tight.cumsum() - 1)[limits.thing[entries]]
    needs = sparse.csc_array((limits.need[entries], rows, columns), shape=(tight.sum(), len(worth)))
    solution = linprog(-worth, A_ub=needs, b_ub=limits.capacity[tight], bounds=bounds, method="highs")
    assert solution.success, solution.message  # 0 is feasible, and everything is bounded
    return np.asarray(solution.x)
