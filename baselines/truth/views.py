"""What relays that see their own segments alone can reach, beside rules and the optimum, for dpem reproduce truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpem_baselines.swap_chain import SwapChain, asap, mean_delivery_time, nested, solve
from dpem_baselines.swap_views import search
from dpem_env.support.files import write_json

CHAINS = {"four": SwapChain(4, 0.3, 0.5, 2), "five": SwapChain(5, 0.9, 0.5, 2)}


def compared(name: str, chain: SwapChain, starts: int) -> list[dict[str, Any]]:
    """Mean slots of every way to decide, and per cent of the optimum."""
    best = solve(chain).slots
    times = {"swap-asap": mean_delivery_time(chain, asap)}
    if chain.nodes == 5:
        times["nested"] = mean_delivery_time(chain, nested)
    times |= {"own segments, searched": search(chain, starts).slots, "optimum": best}
    about = {"chain": name, **vars(chain)}
    return [
        about | {"rule": rule, "slots": round(slots, 6), "per_cent": round(100.0 * best / slots, 4)}
        for rule, slots in times.items()
    ]


def main() -> None:
    """Compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, required=True, help="searches of each chain, from other policies on")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    rows = [row for name, chain in CHAINS.items() for row in compared(name, chain, options.starts)]
    write_json(options.out, {"starts": options.starts, "rows": rows})


if __name__ == "__main__":
    main()
