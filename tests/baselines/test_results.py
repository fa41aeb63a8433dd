"""Committed results: complete, of scenarios as they are now, and below their bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_env import scenarios
from dpem_env.experiments.results import Key, arrays, read
from dpem_env.simulator import RULES_VERSION

RESULTS = Path(__file__).resolve().parents[2] / "baselines" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/summary.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_result_is_complete_and_of_scenarios_as_its_rules_have_them(folder: Path) -> None:
    summary, _ = read(folder)
    assert summary["complete"]
    for scenario in summary["scenarios"]:
        if summary["version"]["rules"] == RULES_VERSION and scenario["name"] in scenarios.SCENARIOS:
            assert scenario["hash"] == scenarios.get(scenario["name"]).hash


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_policy_delivers_more_than_the_bound_in_the_mean(folder: Path) -> None:
    summary, frame = read(folder)
    for scenario in summary["scenarios"]:
        if scenario["bound"] is None:
            continue
        values = arrays(frame, scenario["name"])
        bound = values[Key(f"bound:{scenario['bound']['name']}", None, None)]["delivery_rate"]
        for each in scenario["contestants"]:
            assert values[Key.of(each)]["delivery_rate"].mean() < bound.mean(), each["label"]


def test_there_are_results_to_look_at() -> None:
    assert {"delay-curve", "loads", "networks", "small"} <= {folder.name for folder in FOLDERS}
