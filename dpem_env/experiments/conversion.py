"""Results in the formats of before, `dpem-benchmark-3` and `dpem-results-1`, brought into that of `results`.

python -m dpem_env.experiments.conversion FOLDER [FOLDER …]    # what was converted is removed

Every value is kept; of metrics of which a benchmark kept mean and interval alone, those.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments import results
from dpem_env.experiments.comparison import compare
from dpem_env.experiments.contestants import Contestant, PolicySpec
from dpem_env.experiments.results import FORMAT, FRAME, PICTURE, SUMMARY, Key, Results, Rows
from dpem_env.experiments.statistics import mean_interval
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError
from dpem_env.support.files import read_json, reading
from dpem_env.support.seeding import generator

Old = dict[str, Any]
OF_RUN, OF_BENCHMARK = "results.json", "benchmark.png"


def convert(folder: Path) -> None:
    """Replace the results in a folder; DpemError if there are none of before."""
    path = folder / (OF_RUN if (folder / OF_RUN).exists() else SUMMARY)
    with reading("results to convert", path):
        old = read_json(path)
        converters = {"dpem-benchmark-3": of_benchmark, "dpem-results-1": of_run}
        if old.get("format") not in converters:
            raise DpemError(f"its format is {old.get('format')!r}; expected {' or '.join(converters)}")
        found = converters[old["format"]](old)
    results.write(folder, found)
    (folder / OF_RUN).unlink(missing_ok=True)
    if (folder / OF_BENCHMARK).exists():
        (folder / OF_BENCHMARK).rename(folder / PICTURE)


def of_benchmark(old: Old) -> Results:
    """Of a benchmark, `dpem-benchmark-3`."""
    rows, scenarios = Rows(), []
    for scenario in old["scenarios"]:
        name, content, seeds = scenario["name"], scenario["hash"], scenario["episodes"]
        contestants = []
        for method in scenario["methods"]:
            contestants.append({field: value for field, value in method.items() if field != "episodes"})
            _add(rows, name, content, Key.of(method), seeds, method["episodes"])
        bound = scenario["bound"]
        if bound is not None:
            rates = [bound["delivery_rate"]]
            _add(rows, name, content, Key(f"bound:{bound['name']}", None, None), seeds, {"delivery_rate": rates})
            mean = mean_interval(rates, generator("benchmark bound"))
            bound = {"name": bound["name"], "delivery_rate": mean._asdict()}
        replaced = {"methods": {"contestants": contestants}, "bound": {"bound": bound}}
        parts = (replaced.get(field, {field: value}) for field, value in scenario.items())
        scenarios.append({field: value for part in parts for field, value in part.items()})
    return Results(old | {"format": FORMAT, "scenarios": scenarios}, rows.frame())


def of_run(old: Old) -> Results:
    """Of a run, `dpem-results-1`."""
    scenario = Scenario.model_validate(old["scenario"])
    rows, contestants = Rows(), []
    for arm in old["arms"]:
        policy = PolicySpec(arm["policy"], arm["delay"], arm["forecaster"])
        contestants.append(Contestant(policy.name, (policy,)))
        for seed, metrics in enumerate(arm["episodes"]):
            rows.add(scenario.name, old["scenario_hash"], Key.of(contestants[-1]), 0, seed, metrics)
    frame = rows.frame()
    values = results.arrays(frame, scenario.name)
    known = set(frame["metric"])  # some metrics came later
    table = {m: [values[Key.of(each)][m] for each in contestants] for m in METRICS if m in known}
    told = {
        "name": scenario.name,
        "hash": old["scenario_hash"],
        "scenario": old["scenario"],
        "episodes": list(range(len(old["seeds"]))),
        "seeds": old["seeds"],
        "bound": None,
    }
    compared = compare(contestants, contestants[0], table)
    summary = {"format": FORMAT, "version": old["version"], "suite": scenario.name, "split": old["split"]}
    summary |= {"tuned": False, "complete": old["complete"], "reference": contestants[0].label}
    return Results(summary | {"scenarios": [told | compared], "network_size": None}, frame)


def _add(rows: Rows, scenario: str, content: str, key: Key, seeds: Sequence[int], values: dict[str, Any]) -> None:
    """Values by metric, training seed and episode."""
    for training_seed in range(len(next(iter(values.values())))):
        for place, seed in enumerate(seeds):
            metrics = {metric: table[training_seed][place] for metric, table in values.items()}
            rows.add(scenario, content, key, training_seed, seed, metrics)


def main(folders: Sequence[str]) -> int:
    """Command line."""
    for folder in folders:
        convert(Path(folder))
        print(f"wrote {Path(folder) / FRAME} and {SUMMARY}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
