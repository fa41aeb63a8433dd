"""Write the figures of committed result files into the pages, between their markers; `--check` only compares.

python docs/update.py            # as dpem reproduce pages does
python docs/update.py --check    # exit code 1 if a page and the results disagree
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import adapter_table
import benchmark_tables
import federated_tables
import forecast_tables
import learning_tables

from dpem_env.report.tables import TABLE, interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "baselines" / "results"

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

SHOWN = ("delivery_rate", "contention", "collisions", "denied", "fidelity", "latency", "fairness", "waste")


def reactive_table() -> str:
    """Local against central reactive control on mesh100-v0."""
    results = json.loads((RESULTS / "mesh100-reactive" / "results.json").read_text(encoding="utf-8"))
    arms = results["arms"]
    lines = ["| | " + " | ".join(arm["label"] for arm in arms) + " |", "|---|" + "---:|" * len(arms)]
    for metric, name, decimals in (row for row in TABLE if row[0] in SHOWN):
        summaries = (arm["summary"][metric] for arm in arms)
        cells = (interval(_number(s["mean"]), _number(s["ci95"]), decimals) for s in summaries)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    version = ", ".join(f"{name} {number}" for name, number in results["version"].items())
    lines += ["", f"mesh100-v0, {len(results['seeds'])} paired evaluation seeds, mean ± 95 % CI ({version})."]
    return "\n".join(lines)


def speed_table() -> str:
    """Speed beside an empty ParallelEnv, measured in one run."""
    speed = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
    lines = ["| path | actions | env-steps/s | agent-steps/s | of an empty ParallelEnv |", "|---|---|---:|---:|---:|"]
    for row in speed["rows"]:
        lines.append(
            f"| {row['path']} | {row['actions']} | {row['env_steps_per_s']:,.0f} | "
            f"{row['agent_steps_per_s']:,.0f} | {row['ratio_to_empty']:.2f} |"
        )
    lines += [
        "",
        f"{speed['scenario']}, {speed['agents']} agents, one core, medians of {speed['repeats']} interleaved runs. "
        f"{speed['machine']}, {speed['date']}.",
    ]
    return "\n".join(lines)


def scale_table() -> str:
    """Batches, bigger networks and what starting costs."""
    scale = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    batch, start = scale["batch"], scale["start"]
    lines = [
        "| many networks at once | one core | two cores | speedup |",
        "|---|---:|---:|---:|",
        f"| {batch['networks']} × mesh100-v0, env-steps/s | {batch['env_steps_per_s_1_thread']:,.0f} | "
        f"{batch['env_steps_per_s_2_threads']:,.0f} | {batch['speedup']:.2f} |",
        "",
        "| nodes | network drawn | read from disk | one slot | per agent and slot |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {size['nodes']:,} | {size['network_drawn_s']:.2f} s | {1e3 * size['network_read_s']:.0f} ms | "
        f"{size['ms_per_slot']:.2f} ms | {size['us_per_agent_slot']:.2f} µs |"
        for size in scale["sizes"]
    ]
    lines += [
        "",
        f"Starting (mesh100-v0): import and first step {start['import_and_first_step_s']:.2f} s, the first ever, which "
        f"compiles, {start['first_ever_s']:.0f} s; reset on the same topology "
        f"{start['reset_same_topology_ms']:.2f} ms; peak memory {start['peak_rss_mib']:.0f} MiB. "
        f"{scale['machine']}, {scale['date']}.",
    ]
    return "\n".join(lines)


def parts_table() -> str:
    """Where a slot's time goes."""
    parts = json.loads((RESULTS / "parts.json").read_text(encoding="utf-8"))
    lines = ["| part of a step | µs | compiled code alone | µs |", "|---|---:|---|---:|"]
    for step, phase in zip_longest(parts["parts"].items(), parts["phases"].items(), fillvalue=("", math.nan)):
        cells = (f"{name} | {value:.1f}" if name else " | " for name, value in (step, phase))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{parts['scenario']}, in the middle of an episode. {parts['machine']}, {parts['date']}."]
    return "\n".join(lines)


def peers_table() -> str:
    """Rates beside other environments and simulators."""
    peers = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))
    lines = ["| | agents | env-steps/s | agent-steps/s | simulated s/s |", "|---|---:|---:|---:|---:|"]
    for row in peers["rows"]:
        if "failed" in row:
            lines.append(f"| {row['shown']} | {row['failed']} | | | |")
            continue
        rates = (row.get(rate) for rate in ("env_steps_per_s", "agent_steps_per_s", "simulated_s_per_s"))
        cells = ("" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}" for rate in rates)
        lines.append(f"| {row['shown']} {_versions(row)} | {row['agents']} | " + " | ".join(cells) + " |")
    measured = f"medians of {peers['repeats']} runs. {peers['machine']}, {peers['date']}."
    lines += ["", f"Per CPU-second of one thread, {measured}"]
    return "\n".join(lines)


def torchrl_line() -> str:
    """The TorchRL example beside the plain loop."""
    peers = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))
    rates = {row["name"]: row.get("agent_steps_per_s", math.nan) for row in peers["rows"]}
    return (
        f"Measured on {peers['networks_at_once']} networks of mesh100-v0: {rates['torchrl']:,.0f} frames (agent-steps) "
        f"per CPU-second in TorchRL, {rates['vector']:,.0f} in a plain loop ({peers['machine']}, {peers['date']})."
    )


def _versions(row: dict[str, Any]) -> str:
    return " ".join(row["versions"].get(name, "") for name in ("mpe2", "rware", "sequence", "torchrl")).strip()


TABLES = {
    "reactive": reactive_table,
    "speed": speed_table,
    "scale": scale_table,
    "parts": parts_table,
    "peers": peers_table,
    "torchrl": torchrl_line,
    **adapter_table.TABLES,
    **benchmark_tables.TABLES,
    **federated_tables.TABLES,
    **forecast_tables.TABLES,
    **learning_tables.TABLES,
}


def updated(text: str) -> str:
    """`text` with every marked block made anew."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = block.sub(lambda found, table=table: found[1] + table() + "\n" + found[2], text)
    return text


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = updated(before)
        if before != after:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"{', '.join(stale)}: not what baselines/results say; run python docs/update.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
