"""Results in the formats of before, brought into today's: every value is kept."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env.envs.metric_labels import METRICS
from dpem_env.experiments.conversion import convert
from dpem_env.experiments.results import Key, Results, arrays, flat, read
from dpem_env.support.errors import DpemError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "baselines" / "results"
BEFORE = "e54f87ebe0c9"  # the last commit with results in the formats of before
FOLDERS = sorted(  # of results that were not made anew since
    path.parent.relative_to(ROOT).as_posix()
    for path in RESULTS.glob("**/summary.json")
    if json.loads(path.read_text())["version"]["rules"] == "v0"
)


def of_before(path: str) -> dict[str, Any]:
    """A result file as it was, from the project's history; skips where there is none."""
    shown = subprocess.run(["git", "show", f"{BEFORE}:{path}"], cwd=ROOT, capture_output=True, check=False)
    if shown.returncode:
        pytest.skip("no history here that has the results of before")
    return json.loads(shown.stdout)  # type: ignore[no-any-return]


def require_all_of_benchmark(old: dict[str, Any], new: Results) -> None:
    assert [each["name"] for each in new.summary["scenarios"]] == [each["name"] for each in old["scenarios"]]
    rows = 0
    for before, scenario in zip(old["scenarios"], new.summary["scenarios"], strict=True):
        values = arrays(new.frame, before["name"])
        assert set(new.frame[new.frame["scenario"] == before["name"]]["scenario_hash"]) == {before["hash"]}
        for method, contestant in zip(before["methods"], scenario["contestants"], strict=True):
            assert {name: value for name, value in method.items() if name != "episodes"} == contestant
            for metric, episodes in method["episodes"].items():
                np.testing.assert_equal(values[Key.of(method)][metric], np.array(episodes, dtype=np.float64))
                rows += np.size(episodes)
        if before["bound"]:
            bound = values[Key("bound:" + before["bound"]["name"], None, None)]["delivery_rate"]
            assert bound.tolist() == [before["bound"]["delivery_rate"]]
            rows += bound.size
        for part in ("differences", "analysis", "episodes"):
            assert scenario[part] == before[part]
    assert rows == len(new.frame)
    for part in ("version", "suite", "split", "tuned", "complete", "reference", "network_size"):
        assert new.summary[part] == old[part]


def require_all_of_run(old: dict[str, Any], new: Results) -> None:
    [scenario] = new.summary["scenarios"]
    assert scenario["scenario"] == old["scenario"]
    assert scenario["seeds"] == old["seeds"]
    values, rows = arrays(new.frame, scenario["name"]), 0
    for arm, contestant in zip(old["arms"], scenario["contestants"], strict=True):
        assert (contestant["label"], contestant["delay"]) == (arm["label"], arm["delay"])
        for seed, episode in enumerate(arm["episodes"]):
            kept = {metric: table[0, seed] for metric, table in values[Key.of(arm)].items()}
            np.testing.assert_equal(kept, dict(flat(episode)))
            rows += len(kept)
        for metric in METRICS.keys() & arm["summary"].keys():
            mean, told = arm["summary"][metric], contestant["metrics"][metric]["mean"]
            assert told["value"] == pytest.approx(mean["mean"], rel=1e-6)
            assert (told["high"] - told["low"]) / 2 == pytest.approx(mean["ci95"], rel=1e-4, abs=1e-7)
    assert rows == len(new.frame)


@pytest.mark.parametrize("folder", FOLDERS)
def test_committed_results_have_every_value_of_before(folder: str) -> None:
    if folder.endswith("mesh100-reactive"):
        require_all_of_run(of_before(f"{folder}/results.json"), read(ROOT / folder))
    else:
        require_all_of_benchmark(of_before(f"{folder}/summary.json"), read(ROOT / folder))


def test_a_benchmark_is_converted_in_its_place(tmp_path: Path) -> None:
    interval = {"value": 0.5, "low": None, "high": None}
    metrics = {metric: {"mean": interval, "iqm": interval, "episodes": 1} for metric in ("reward", "waste")}
    seeds = {"label": "ppo:s*, 2 training seeds", "policy": "ppo:s*", "delay": None, "forecaster": None}
    learner = seeds | {"training_seeds": 2, "metrics": metrics, "episodes": {"reward": [[1.0, None], [2.0, 3.0]]}}
    rest = {"bound": {"name": "clairvoyant", "delivery_rate": [0.5, 0.7]}, "differences": [], "analysis": {}}
    scenario = {"name": "a", "hash": "0", "nodes": 3, "episodes": [0, 2], "methods": [learner]} | rest
    old = {"format": "dpem-benchmark-3", "version": {}, "suite": "quick", "split": "evaluation", "tuned": False}
    old |= {"complete": True, "reference": "ppo:s*", "scenarios": [scenario], "network_size": None}
    (tmp_path / "summary.json").write_text(json.dumps(old))
    (tmp_path / "benchmark.png").touch()
    convert(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.parquet", "results.png", "summary.json"]
    new = read(tmp_path)
    require_all_of_benchmark(old, new)
    assert set(new.frame["metric"]) == {"reward", "delivery_rate"}
    assert new.frame[new.frame["value"].isna()][["training_seed", "seed"]].to_numpy().tolist() == [[0, 2]]
    with pytest.raises(DpemError, match="its format is 'dpem-results-2'; expected dpem-benchmark-3 or dpem-results-1"):
        convert(tmp_path)
