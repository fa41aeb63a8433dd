"""Published values of repeater chains beside those of the exact solver, as dpem reproduce truth has them."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dpem_baselines.swap_chain import SwapChain, asap, mean_delivery_time, nested, solve
from dpem_env.support.files import read_json, write_json

PUBLISHED = Path(__file__).with_name("published.json")
POLICIES = {"swap-asap": asap, "nested": nested}
DIGITS = 9  # of what is written, fewer than machines agree on


def advantage(chain: SwapChain) -> float:
    """How much longer swap-asap takes than the optimum, in per cent."""
    return 100.0 * (mean_delivery_time(chain, asap) / solve(chain).slots - 1.0)


def value(quantity: str, chain: SwapChain) -> float:
    """A mean delivery time in slots, or the advantage."""
    return advantage(chain) if quantity == "advantage" else mean_delivery_time(chain, POLICIES[quantity])


def three_nodes(p: float) -> float:
    """The published formula for three nodes, swaps that never fail and a cut-off of two slots."""
    return (2 * p**3 - 6 * p**2 + 4 * p + 1) / (2 * p**4 - 6 * p**3 + 5 * p**2)


def compared(published: dict[str, Any]) -> dict[str, Any]:
    """Every published value with what the solver finds."""
    rows = []
    for row in published["chains"]:
        chain = SwapChain(row["nodes"], row["generation"], row["swap_success"], row["cutoff"])
        found = value(row["quantity"], chain)
        difference = found - float(row["published"])
        rows.append(row | {"found": round(found, DIGITS), "difference": round(difference, DIGITS)})
    probabilities = np.arange(1, 101) / 100
    formula = [abs(mean_delivery_time(SwapChain(3, p, 1.0, 2), asap) / three_nodes(p) - 1.0) for p in probabilities]
    grid = published["advantages"]
    cells = product(grid["generation"], grid["cutoff"])
    found = np.array([advantage(SwapChain(grid["nodes"], p, grid["swap_success"], cutoff)) for p, cutoff in cells])
    off = np.abs(found - np.ravel(grid["published"]))
    return {
        "source": published["source"],
        "chains": rows,
        "three_nodes": {"probabilities": len(formula), "agrees_to": 10.0 ** np.ceil(np.log10(max(formula)))},
        "advantages": {"cells": found.size, "largest_difference": round(float(off.max()), DIGITS)},
    }


def main() -> None:
    """Compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    write_json(parser.parse_args().out, compared(read_json(PUBLISHED)))


if __name__ == "__main__":
    main()
