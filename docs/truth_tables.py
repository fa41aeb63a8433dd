"""Tables of published results beside ours."""

from __future__ import annotations

from compared import load, markdown

UNITS = {"advantage": "%"}


def published() -> str:
    """Repeater chains: published values beside those of the exact solver."""
    found = load("truth/exact.json")
    rows = [
        {
            "n": str(row["nodes"]),
            "p": f"{row['generation']:g}",
            "p_s": f"{row['swap_success']:g}",
            "t_cut": str(row["cutoff"]),
            "quantity": f"{row['quantity']}, {UNITS.get(row['quantity'], 'slots')}",
            "published": row["published"],
            "exact": f"{row['found']:.7f}",
            "difference": f"{row['difference']:+.0e}",
        }
        for row in found["chains"]
    ]
    note = (
        "*Three nodes*, p_s = 1, t_cut = 2: the published formula (2p³ - 6p² + 4p + 1) / (2p⁴ - 6p³ + 5p²) and the "
        "solver agree to {agrees_to:.0e} relative, for all of {probabilities} values of p from 0.01 to 1. "
    ).format(**found["three_nodes"])
    note += (
        "*Four nodes*, p_s = 1: all {cells} published advantages for p = 0.3 … 0.9 and t_cut = 2 … 6 differ by at most "
        "{largest_difference:.0e} %."
    ).format(**found["advantages"])
    return markdown(rows, note, left=5)


TABLES = {"published-chains": published}
