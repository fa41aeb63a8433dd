"""What relays can reach that see their own segments alone, by the exact solver: the best policy a search finds.

A relay's view is its segment on either side, by length and age. A policy of views says of every view with a segment on
both sides whether the relay swaps. There are too many to try all, so one view at a time is changed for as long as the
mean delivery time gets shorter, from swap-asap and from random policies on. What is found is a local optimum, and a
lower bound of what such relays can reach.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dpem_baselines.swap_chain import State, SwapChain, Swaps, mean_delivery_time, ready, solve

NOTABLE = 1e-9  # slots that a change has to save


class View(NamedTuple):
    """What a relay sees when it can swap: links and age of its segment on either side."""

    relay: int
    left: int
    left_age: int
    right: int
    right_age: int


def views(state: State) -> list[View]:
    """Those of the relays that are ready."""
    ending = {segment.right: segment for segment in state}
    starting = {segment.left: segment for segment in state}
    return [
        View(relay, relay - ending[relay].left, ending[relay].age, starting[relay].right - relay, starting[relay].age)
        for relay in ready(state)
    ]


class OfViews(NamedTuple):
    """The policy of views that is best, as far as was searched."""

    slots: float  # mean delivery time
    swapping: frozenset[View]


def search(chain: SwapChain, starts: int = 1, seed: int = 0) -> OfViews:
    """The best of `starts` searches: the first begins with swap-asap, the others with every view by a coin."""
    known = {state: views(state) for state in solve(chain).swaps}
    everything = sorted({view for seen in known.values() for view in seen})
    rng = np.random.default_rng(seed)

    def slots(swapping: frozenset[View]) -> float:
        def policy(state: State) -> Swaps:
            return tuple(view.relay for view in known[state] if view in swapping)

        return mean_delivery_time(chain, policy)

    def improved(swapping: frozenset[View]) -> OfViews:
        best, better = slots(swapping), True
        while better:
            better = False
            for view in everything:
                changed = swapping ^ {view}
                if (found := slots(changed)) < best - NOTABLE:
                    best, swapping, better = found, changed, True
        return OfViews(best, swapping)

    first = improved(frozenset(everything))
    others = (frozenset(view for view in everything if rng.random() < 0.7) for _ in range(starts - 1))
    return min([first, *map(improved, others)])
