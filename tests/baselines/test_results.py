"""Committed results: complete, of scenarios as they are now, and below their bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dpem_env import scenarios

RESULTS = Path(__file__).resolve().parents[2] / "baselines" / "results"
SUMMARIES = sorted(RESULTS.glob("*/summary.json"))


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_a_result_is_complete_and_of_scenarios_as_they_are(path: Path) -> None:
    summary = json.loads(path.read_text(encoding="utf-8"))
    assert summary["complete"]
    for scenario in summary["scenarios"]:
        if scenario["name"] in scenarios.SCENARIOS:
            assert scenario["hash"] == scenarios.get(scenario["name"]).hash


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_no_policy_delivers_more_than_the_bound_in_the_mean(path: Path) -> None:
    for scenario in json.loads(path.read_text(encoding="utf-8"))["scenarios"]:
        if scenario["bound"] is None:
            continue
        bound = np.array(scenario["bound"]["delivery_rate"])
        for method in scenario["methods"]:
            assert np.mean(method["episodes"]["delivery_rate"]) < bound.mean(), method["label"]


def test_there_are_results_to_look_at() -> None:
    assert {"delay-curve", "loads", "networks", "small"} <= {path.parent.name for path in SUMMARIES}
