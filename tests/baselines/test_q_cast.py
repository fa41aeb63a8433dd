"""Q-CAST: greedy admission by expected throughput at the load of the moment."""

from __future__ import annotations

import numpy as np
import pytest
from planners import planned, star

from dpem_baselines.linear_program import CentralLP
from dpem_baselines.planning import PathPlanner
from dpem_baselines.q_cast import QCast


def admitted(planner: PathPlanner, **fields: float) -> int:
    return int((planned(planner, star(**fields)).action > 0).sum())


def test_each_route_is_valued_at_the_load_of_those_before_it() -> None:
    # The hub can swap once within the deadline: after the first pair, the others would come too late for their request.
    options = {"late_worth": 0.0, "redundancy": 0.0, "utilisation": 10.0}
    assert admitted(QCast(**options), relay_swap_rate=1.0) == 1
    assert admitted(CentralLP(**options), relay_swap_rate=1.0) == 3
    assert admitted(QCast(**options), relay_swap_rate=3.0) == 3


def test_the_greatest_expected_throughput_goes_first() -> None:
    # Room for one at the hub; the request with most time left is most likely to be served.
    session = star([(0, 1, 0, 0, 1), (0, 2, 0, 0, 3), (0, 3, 0, 0, 2)], memory=(2, 2))
    for seed in range(5):
        assert np.flatnonzero(planned(QCast(), session, seed).action).tolist() == [2]


def test_a_plan_ends_where_expected_throughput_falls_below_the_least_worth() -> None:
    # Two claims on the hub's source more with every allocation, so the chances fall.
    counts = [admitted(QCast(least_worth=least, late_worth=0.0, utilisation=10.0)) for least in (0.1, 0.65, 0.85, 0.95)]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (3, 0)
    assert len(set(counts)) >= 3


def test_the_load_grows_by_the_links_and_relays_of_the_chosen_route() -> None:
    seen = []

    class Watched(QCast):
        def reset(self, *episode: object) -> None:
            super().reset(*episode)  # type: ignore[arg-type]
            worth = self.model.worth
            self.model.worth = lambda c, load: seen.append(load) or worth(c, load)  # type: ignore[method-assign]

    planned(Watched(), star())
    claims = [load.source_claims[0] for load in seen]
    assert claims == pytest.approx([0, 0, 2, 4, 6])  # for all candidates, then before each admission and at the end
    assert [load.swap_claims[0] for load in seen] == pytest.approx([0, 0, 1, 2, 3])
