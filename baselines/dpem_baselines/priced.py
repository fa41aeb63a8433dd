"""A price for everything that a node knows of an allocation: MaxWeight with more prices, for an evolution strategy.

The worth of an allocation is its chance to finish in time times the backlog it serves, as in `maxweight`; urgent
requests, further ones for the same peer and expected ones count by weights of their own. From it goes a price that is
linear in what the news tell of the route and in what the node has. The allocation of the largest difference is made if
that is positive. Weights are found by a search on the reward of the whole network (``dpem tune --method cma-es``):
where they are few an evolution strategy does as well as gradients (Salimans et al., arXiv:1703.03864, 2017).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_baselines.local import LocalRule, needed_quality, spare_pairs, stock_quality
from dpem_baselines.maxweight import heaviest
from dpem_baselines.route_choice import Floats, Ints, Offers, at
from dpem_env.experiments.search import SearchSpace
from dpem_env.observations.features import Observations
from dpem_env.policies import Decision

READ = (
    "source_claims_worst",
    "source_claims_sum",
    "swap_claims_worst",
    "swap_claims_sum",
    "slowest_link",
    "useful_in_time",
    "room",
    "candidate_hops",
    "candidate_build_time",
)

# Defaults, which lie in the middle of what is searched, in logarithms, up to `REACH` times as much and as little.
WORTHS = {"urgency": 0.3, "further": 0.5, "soon": 0.3, "later": 0.1}
PRICES = {
    "base": 0.02,
    "quality": 0.02,
    "links": 0.1,
    "build_time": 0.02,
    "slowest_link": 0.02,
    "sources": 0.3,
    "worst_source": 0.1,
    "swaps": 0.3,
    "worst_swap": 0.1,
    "crowding": 0.02,
    "rows": 0.02,
    "backlog": 0.02,
}
REACH = 30.0


class Priced(LocalRule):
    """Every node allocates for the peer, and over the route, whose worth exceeds its price by most.

    Worth of a request that waits is 1, or up to 1 + `urgency` as its slack runs out; of each further one for the peer
    `further`; of one expected within 4 slots that no pair is kept for `soon`, after these `later`; all times the
    chance that the allocation finishes. Prices: `base` of any; `quality` of every quality above the first; `links` of
    a pair of every link; `build_time` of a second that it takes, unloaded; `slowest_link` of a second's wait for
    that; `sources` and `swaps` of a claim by others along the route, `worst_source` and `worst_swap` of one at the
    most claimed; `crowding` where there is memory for one more only, less where there is for more; `rows` of an own
    open allocation; `backlog` of a link that waits for the own source. All are in requests served.
    """

    forecaster = "moving-average"
    search_space: ClassVar[SearchSpace] = {
        name: (value / REACH, value * REACH, "log") for name, value in (WORTHS | PRICES).items()
    }

    def __init__(
        self,
        urgency: float = WORTHS["urgency"],
        further: float = WORTHS["further"],
        soon: float = WORTHS["soon"],
        later: float = WORTHS["later"],
        base: float = PRICES["base"],
        quality: float = PRICES["quality"],
        links: float = PRICES["links"],
        build_time: float = PRICES["build_time"],
        slowest_link: float = PRICES["slowest_link"],
        sources: float = PRICES["sources"],
        worst_source: float = PRICES["worst_source"],
        swaps: float = PRICES["swaps"],
        worst_swap: float = PRICES["worst_swap"],
        crowding: float = PRICES["crowding"],
        rows: float = PRICES["rows"],
        backlog: float = PRICES["backlog"],
    ) -> None:
        super().__init__(routes="ranked", claims_limit=None, only_if_free=False)
        self.news = READ
        self.worths = (urgency, further, soon, later)
        self.of_route = (links, build_time, slowest_link, sources, worst_source, swaps, worst_swap, crowding)
        self.base, self.quality, self.rows, self.backlog = base, quality, rows, backlog

    def act(self, observations: Observations, masks: NDArray[np.int8]) -> Decision:
        """One allocation per node at most, from its own row alone."""
        seen, offers = observations, self.choice.offers(observations)
        waiting = np.maximum(seen.pending.sum(axis=2) - seen.open_allocations, 0)
        needed = needed_quality(seen.pending, offers.min_quality, seen.table.scenario.control.qualities)
        quality = np.where(waiting[..., None] > 0, needed, stock_quality(offers.min_quality, hardest_class=0))
        net = self._worth(seen, waiting)[..., None] * offers.chance - self._price(seen, offers, quality)
        weight = np.where(offers.taken, net, -np.inf)
        place = heaviest(weight)
        here = at(place)
        return self.choice.decide(seen, masks, offers, place, quality[here], weight[here])

    def _worth(self, seen: Observations, waiting: Floats) -> Floats:
        """(N, D) requests that a pair for each peer would serve, if it were finished at once."""
        urgency, further, soon, later = self.worths
        near, far = seen.forecast[:, :, :4].sum(axis=2), seen.forecast[:, :, 4:].sum(axis=2)
        kept = spare_pairs(seen)
        urgent = 1.0 - seen.slack / seen.table.scale["slack"]
        first: Floats = np.minimum(waiting, 1) * (1.0 + urgency * urgent) + further * np.maximum(waiting - 1, 0)
        expected: Floats = soon * np.maximum(near - kept, 0) + later * np.maximum(far - np.maximum(kept - near, 0), 0)
        return first + expected

    def _price(self, seen: Observations, offers: Offers, quality: Ints) -> Floats:
        """(N, D, R) of what an allocation takes."""
        of_route = (
            offers.hops * quality,
            seen.candidate_build_time,
            seen.slowest_link,
            seen.source_claims_sum,
            seen.source_claims_worst,
            seen.swap_claims_sum,
            seen.swap_claims_worst,
            1.0 / np.maximum(seen.room, 1.0),
        )
        price = self.base + self.rows * seen.open_rows + self.backlog * seen.source_backlog
        total: Floats = price[:, None, None] + self.quality * (quality - 1)
        for each, amount in zip(self.of_route, of_route, strict=True):
            total = total + each * amount
        return total
