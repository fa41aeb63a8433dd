"""Q-CAST: routes admitted one by one in order of expected throughput, given what the earlier ones leave."""

from __future__ import annotations

import numpy as np

from dpem_baselines.limits import Floats, Ints, Limits
from dpem_baselines.planning import PathPlanner
from dpem_baselines.route_model import Candidates, Load


class QCast(PathPlanner):
    """Greedy by expected throughput: the best route of all pairs first, then the best of what still fits.

    After Shi & Qian (Concurrent entanglement routing for quantum networks: model and designs, ACM SIGCOMM 2020). Kept:
    the greedy order by expected throughput E_t of their G-EDA, each route valued in the network that the earlier ones
    leave. Adapted: the paths are the candidate routes. An allocation is a path of width 1, for which their recursion
    is the product of link and swap successes in one attempt; here links are tried until they succeed, so E_t is the
    chance of success within the time left, at the load of the moment, times what the pair would serve. Sources, swap
    engines and memories take the place of channels and qubits. Their recovery paths, which take over where links of
    the main path fail, become the next best route where the best does not fit, and a second pair for a request that
    still waits (`redundancy`).
    """

    def choose(self, candidates: Candidates, worth: Floats, limits: Limits, load: Load) -> Ints:
        """The candidate of most expected throughput that fits, again and again, each adding to the load."""
        chosen: list[int] = []
        rest = np.arange(len(worth))
        while True:
            fits = limits.fits()
            rest, limits = rest[fits], limits.take(fits)
            worth = self.model.worth(candidates.take(rest), load)
            if not len(rest) or worth.max() < self.least_worth:
                return np.array(chosen, dtype=np.int64)
            best = int(worth.argmax())
            chosen.append(rest[best])
            load = self.model.with_allocation(load, candidates.take([rest[best]]))
            others = np.delete(np.arange(len(rest)), best)
            rest, limits = rest[others], limits.after([best]).take(others)
