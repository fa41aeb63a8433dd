"""Tables of speed, as `make bench` measures it."""

from __future__ import annotations

from itertools import zip_longest

from compared import load, markdown, told

MEASURED = "{machine}, {date}."
SPEED = {
    "path": "{path}",
    "actions": "{actions}",
    "env-steps/s": "{env_steps_per_s:,.0f}",
    "agent-steps/s": "{agent_steps_per_s:,.0f}",
    "of an empty ParallelEnv": "{ratio_to_empty:.2f}",
}
BATCH = {
    "many networks at once": "{networks} × mesh100-v0, env-steps/s",
    "one core": "{env_steps_per_s_1_thread:,.0f}",
    "two cores": "{env_steps_per_s_2_threads:,.0f}",
    "speedup": "{speedup:.2f}",
}
SIZES = {
    "nodes": "{nodes:,}",
    "network drawn": "{network_drawn_s:.2f} s",
    "read from disk": "{network_read_ms:.0f} ms",
    "one slot": "{ms_per_slot:.2f} ms",
    "per agent and slot": "{us_per_agent_slot:.2f} µs",
}
START = (
    "Starting (mesh100-v0): import and first step {import_and_first_step_s:.2f} s, the first ever, which compiles, "
    "{first_ever_s:.0f} s; reset on the same topology {reset_same_topology_ms:.2f} ms; peak memory {peak_rss_mib:.0f} "
    "MiB. "
)


def speed() -> str:
    """Speed beside an empty ParallelEnv, measured in one run."""
    found = load("speed.json")
    note = "{scenario}, {agents} agents, one core, medians of {repeats} interleaved runs. " + MEASURED
    return markdown(told(found["rows"], SPEED), note.format(**found), left=2)


def scale() -> str:
    """Batches, bigger networks and what starting costs."""
    found = load("scale.json")
    sizes = [size | {"network_read_ms": 1e3 * size["network_read_s"]} for size in found["sizes"]]
    note = (START + MEASURED).format(**found["start"], **found)
    return markdown(told([found["batch"]], BATCH)) + "\n\n" + markdown(told(sizes, SIZES), note, left=0)


def parts() -> str:
    """Where a slot's time goes."""
    found = load("parts.json")
    sides = ([(name, f"{us:.1f}") for name, us in found[side].items()] for side in ("parts", "phases"))
    titles = ["part of a step", "µs", "compiled code alone", "µs "]
    rows = [dict(zip(titles, step + phase, strict=True)) for step, phase in zip_longest(*sides, fillvalue=("", ""))]
    return markdown(rows, ("{scenario}, in the middle of an episode. " + MEASURED).format(**found))


def peers() -> str:
    """Rates beside other environments and simulators."""
    found, rows = load("peers.json"), []
    for row in found["rows"]:
        rates = [row.get(rate) for rate in ("env_steps_per_s", "agent_steps_per_s", "simulated_s_per_s")]
        versions = (row["versions"].get(name, "") for name in ("mpe2", "rware", "sequence", "torchrl"))
        cells = ["" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}" for rate in rates]
        names = [f"{row['shown']} {' '.join(versions).strip()}", row.get("failed", row["agents"])]
        titles = [" ", "agents", "env-steps/s", "agent-steps/s", "simulated s/s"]
        rows.append(dict(zip(titles, names + cells, strict=True)))
    return markdown(rows, ("Per CPU-second of one thread, medians of {repeats} runs. " + MEASURED).format(**found))


def torchrl() -> str:
    """The TorchRL example beside the plain loop."""
    found = load("peers.json")
    rates = {row["name"]: f"{row['agent_steps_per_s']:,.0f}" for row in found["rows"] if "agent_steps_per_s" in row}
    return (
        "Measured on {networks_at_once} networks of mesh100-v0: {torchrl} frames (agent-steps) per CPU-second in "
        "TorchRL, {vector} in a plain loop ({machine}, {date})."
    ).format(**rates, **found)


TABLES = {"speed": speed, "scale": scale, "parts": parts, "peers": peers, "torchrl": torchrl}
