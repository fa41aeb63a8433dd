"""How much faster than swap-asap the optimum is, for many chains, as dpem reproduce truth has it."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from dpem_baselines.swap_chain import SwapChain, asap, mean_delivery_time, nested, solve
from dpem_env.report.tables import progress
from dpem_env.support.files import write_json

NODES = (4, 5)
GENERATION = tuple(tenths / 10 for tenths in range(3, 11))
SWAP_SUCCESS = (0.5, 0.75, 1.0)
CUTOFFS = (1, 2, 3, 4, 5, 6)


def compared(chain: SwapChain) -> dict[str, float | int | None]:
    """Mean slots at best, and how much longer swap-asap and nested take, in per cent; nested is of five nodes."""
    best = solve(chain).slots
    more = {
        name: round(100.0 * (mean_delivery_time(chain, policy) / best - 1.0), 6)
        for name, policy in (("asap", asap), ("nested", nested))
        if policy is asap or chain.nodes == 5
    }
    return {**vars(chain), "optimum": round(best, 6), **more}


def main() -> None:
    """Solve all chains, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    out = parser.parse_args().out
    chains = [SwapChain(*each) for each in product(NODES, GENERATION, SWAP_SUCCESS, CUTOFFS)]
    with progress() as bar:
        write_json(out, {"rows": [compared(chain) for chain in bar.track(chains, description="chains")]})


if __name__ == "__main__":
    main()
