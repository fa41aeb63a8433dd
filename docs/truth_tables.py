"""Tables of published results beside ours, and of how much idealisations matter."""

from __future__ import annotations

from compared import load, markdown, told

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


def werner() -> str:
    """End-to-end fidelity of the model, and what a calculation without its twirls would add."""
    found = load("truth/werner.json")
    of = {(row["quality"], row["hops"]): row for row in found["rows"]}
    qualities = range(1, 1 + max(quality for quality, _ in of))
    rows = []
    for hops in range(1, 1 + max(hops for _, hops in of)):
        more = {q: {kind: of[q, hops][kind] - of[q, hops]["model"] for kind in ("exact", "dejmps")} for q in qualities}
        rows.append(
            {"hops": str(hops)}
            | {f"Werner, q = {q}": f"{of[q, hops]['model']:.4f}" for q in qualities}
            | {"swaps without twirl": f"{max(each['exact'] for each in more.values()):+.4f}"}
            | {f"and DEJMPS, q = {q}": f"{more[q]['dejmps']:+.4f}" for q in qualities[1:]}
        )
    note = (
        "Fidelity, and what is added to it at most; links of fidelity {link_fidelity:g}, gates {gate_fidelity:g}, "
        "readouts {readout_fidelity:g} ({scenario}). "
    ).format(**found["hardware"], **found)
    note += (
        "A fresh link that is stored for {seconds:g} s has {model:.4f} left with depolarising memories, and "
        "{dephasing:.4f} with dephasing ones of the same rate."
    ).format(**found["store"])
    return markdown(rows, note)


def spaced(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """With a space before every per cent sign."""
    return [{title: cell.replace("%", " %") for title, cell in row.items()} for row in rows]


def networks() -> str:
    """How far messages travel, and whose demand goes both ways."""
    found = load("truth/networks.json")
    columns = {
        "scenario": "{scenario}",
        "longest link, km": "{longest_link_km:.0f}",
        "longest route, km": "{longest_route_km:.0f}",
        "message, ms": "{message_ms:.2f}",
        "of a slot": "{of_a_slot:.2%}",
        "heralding": "{heralding:.2%}",
        "reciprocal pairs": "{reciprocal_pairs:.0%}",
        "of demand": "{reciprocal_demand:.0%}",
    }
    note = "Largest values of {topologies} evaluation networks, and mean shares of pairs and demand."
    return markdown(spaced(told(found["rows"], columns)), note.format(**found))


def episodes() -> str:
    """Memory, stock of others, and worlds that differ in one thing."""
    rows = []
    columns = {
        "policy": "{policy}",
        "stored": "{stored:.1%}",
        "with a pair": "{paired:.1%}",
        "reserved, empty": "{empty:.1%}",
        "purifying (most)": "{purifying:.2%} ({most_purifying})",
        "elsewhere": "{elsewhere:.2%}",
        "delivered": "{delivered[0]:.3f}",
        "ample memory": "{with_ample_memory[0]:+.3f} [{with_ample_memory[1]:+.3f}, {with_ample_memory[2]:+.3f}]",
        "slots halved": "{with_slots_halved[0]:+.3f} [{with_slots_halved[1]:+.3f}, {with_slots_halved[2]:+.3f}]",
    }
    for name in ("mesh100-v0", "abilene-trace-v0"):
        found = load(f"truth/episodes-{name}.json")
        rows += [{"scenario": found["scenario"]} | row for row in spaced(told(found["rows"], columns))]
    note = "{seeds} evaluation episodes; differences of delivery rates with paired 95 % intervals.".format(**found)
    return markdown(rows, note, left=2)


TABLES = {
    "published-chains": published,
    "limits-werner": werner,
    "limits-networks": networks,
    "limits-episodes": episodes,
}
