"""Results as records for tables: who played what, and what contestants come to beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_env.experiments.results import Key, Results, Rows, records
from dpem_env.support.errors import DpemError


def played(scenario: str, values: dict[str, list[float]], bound: float | None = None) -> Results:
    """Rewards of contestants by label, an episode each; of their fidelity the estimate alone."""
    rows, contestants = Rows(), []
    for label, rewards in values.items():
        who: dict[str, Any] = {"label": label, "policy": label, "forecaster": None, "delay": None}
        for seed, reward in enumerate(rewards):
            rows.add(scenario, "0", Key.of(who), 0, seed, {"reward": reward})
        mean = {"mean": {"value": float(np.mean(rewards)), "low": None, "high": None}}
        contestants.append(who | {"metrics": {"reward": mean, "fidelity": mean, "latency": None}})
    told = {"name": scenario, "episodes": [0, 1, 2], "contestants": contestants}
    told["bound"] = bound and {"name": "tight", "delivery_rate": {"value": bound, "low": None, "high": None}}
    summary = {"version": {"dpem_env": "1", "rules": "v1"}, "split": "evaluation", "scenarios": [told]}
    return Results(summary, rows.frame())


def test_a_contestant_is_told_with_its_scenario_and_its_metrics() -> None:
    rule, bound = records(played("mesh+delay=0.5+nodes=25", {"rule": [1.0, 2.0, 3.0]}, bound=0.5))
    expected = {"scenario": "mesh+delay=0.5+nodes=25", "base": "mesh", "nodes": "25", "episodes": 3, "name": "rule"}
    assert {name: rule[name] for name in expected} == expected
    assert (rule["control"], rule["delay"], rule["version"]) == ("local", None, "dpem_env 1, rules v1")
    assert f"{rule['reward']} {rule['fidelity']}" == "2.00 2.000"
    assert "latency" not in rule
    assert (bound["label"], f"{bound['delivery_rate']}", "reward" in bound) == ("tight bound", "0.500", False)


def test_contestants_are_compared_on_the_same_episodes_across_results() -> None:
    first, second = played("mesh", {"a": [1.0, 2.0, 3.0]}), played("mesh", {"b": [3.0, 3.0, 6.0]})
    a, b = records(first, second)
    assert f"{b['reward']:minus a}" == "+2.00 [-0.48, +4.48]"
    assert f"{a['reward']:minus b}" == "-2.00 [-4.48, +0.48]"
    assert f"{a['reward']:to b}".startswith("+100 [")
    assert f"{a['reward']:minus a}" == ""
    with pytest.raises(DpemError, match="a table compares a with 'c'; known: a, b"):
        format(a["reward"], "minus c")
    with pytest.raises(DpemError, match="a table compares a with b, but values of fidelity are not kept"):
        format(a["fidelity"], "minus b")
