"""Scenarios as ``dpem show`` prints them: every field, its meaning, and the same scenario when read back."""

from __future__ import annotations

import re

import pytest

from dpem_env import scenarios
from dpem_env.report.documented import documented_toml
from dpem_env.scenarios import schema

SECTIONS = [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, schema.Section)]


OF_SECTIONS = {schema.Scenario, schema.Seeds, schema.SplitSeeds}  # which say themselves what they are


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_says_what_it_is(section: type[schema.Section]) -> None:
    for name in section.model_fields:
        assert bool(section.meaning(name)) == (section not in OF_SECTIONS or name in ("name", "summary"))


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_every_field_stands_in_a_line_with_its_meaning(name: str) -> None:
    scenario = scenarios.get(name)
    text = documented_toml(scenario)
    assert scenarios.from_toml(text) == scenario
    for section in ("network", "hardware", "routing", "demand", "control", "observation", "reward", "episode"):
        kind = type(getattr(scenario, section))
        for field in kind.model_fields:
            [line] = re.findall(rf"^(?:# )?{field} =.*$", text, re.MULTILINE)
            assert f"  # {kind.meaning(field)}" in line


def test_what_is_not_set_stands_there_to_be_set() -> None:
    text = documented_toml(scenarios.get("mesh20-v0"))
    assert "# cutoff =  # slots after which a link or segment is discarded" in text
    assert "\n# [outages]\n# mean_up = 200.0  # s;" in text
    uncommented = re.sub(r"^# (\[outages\]|mean_\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert scenarios.from_toml(uncommented).outages == schema.Outages()
    assert "\n# [silence]\n# share = 0.05  # share of the nodes" in text
    assert (
        '\nemission = "poisson"  # links share a source\'s pairs, or each makes its own try; poisson or bernoulli\n'
        in text
    )
