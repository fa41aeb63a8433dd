"""Table of the libraries that train here, made of trial results (`dpem_agents.adapters.trial`), for `update.py`."""

from __future__ import annotations

import json

from benchmark_tables import RESULTS, head, row, with_note


def adapters_table() -> str:
    """One line per adapter: what it takes, how fast it trains, and whether it has learned anything."""
    columns = ["library", "lines", "illegal actions kept out by", "trained for", "agent-steps/s", "return"]
    lines = head([*columns, "minus random-legal", "date"])
    trials = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((RESULTS / "adapters").glob("*.json"))}
    for name, trial in trials.items():
        link = f"[{name}](../agents/dpem_agents/adapters/{name}.py)"
        version = trial["version"].partition("+")[0]  # without the build
        gain = f"{trial['difference']:+.2f} ± {1.96 * trial['standard_error']:.2f}"
        cells = [f"{link}: {trial['library']} {version}", str(trial["lines"]), trial["masks"]]
        cells += [f"{trial['timesteps']:,}", f"{trial['agent_steps_per_second']:,.0f}", f"{trial['return']:.2f}"]
        lines.append(row([*cells, gain, trial["date"]]))
    first = next(iter(trials.values()))
    note = (
        f"{first['scenario']}. Training is counted in agent-steps (agents × slots); its speed is per CPU-second of one "
        f"thread, learning and starting included. Return of an agent, mean of {first['episodes']} validation episodes, "
        "and paired difference with 95 % interval. One training each with much the same settings: no ranking of "
        f"libraries. Python {first['python']}."
    )
    return with_note(lines, note)


TABLES = {"adapters": adapters_table}
