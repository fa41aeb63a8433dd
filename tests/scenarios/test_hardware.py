"""Presets of published hardware: every number has a source, and those worked out are worked out right."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dpem_env import scenarios
from dpem_env.scenarios.hardware import ABSTRACT, CHOSEN, NETSQUID, PRESETS, SECOND, fields
from dpem_env.scenarios.schema import Hardware
from dpem_env.support.errors import DpemError

PLAYED = {"mesh20-ions-v0": "trapped-ions", "mesh20-nv-v0": "nv-centres"}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_number_is_of_a_field_and_has_a_source_or_says_that_it_was_chosen(preset: str) -> None:
    for field, number in PRESETS[preset].items():
        assert field in Hardware.model_fields
        assert number.read in (ABSTRACT, SECOND, NETSQUID, CHOSEN)
        assert ("doi:10." in number.source) == (number.read != CHOSEN)


@pytest.mark.parametrize(("scenario", "preset"), PLAYED.items())
def test_scenarios_have_the_hardware_of_their_preset(scenario: str, preset: str) -> None:
    hardware = scenarios.get(scenario).hardware.model_dump()
    assert {name: hardware[name] for name in fields(preset)} == fields(preset)


def test_numbers_that_had_to_be_worked_out() -> None:
    ions, nv = fields("trapped-ions"), fields("nv-centres")
    assert (1 + 3 * math.exp(-10.0 / ions["coherence_time"])) / 4 == pytest.approx(0.81, abs=0.002)
    assert nv["generation_rate"][0] == pytest.approx(3.5e-4 / 5.5e-6, abs=0.05)
    assert 2 * nv["bright_state"][0] * nv["generation_rate"][0] == pytest.approx(39.0, abs=1.0)
    blur = math.exp(-(math.radians(15) ** 2) / 2)
    assert nv["link_fidelity"] == pytest.approx(0.96 * (1 + math.sqrt(0.9) * blur) / 2, abs=0.001)
    assert 2 / nv["coherence_time"] == 5.0


def test_a_preset_may_be_given_to_another_scenario() -> None:
    scenario = scenarios.get("mesh100-v0", **fields("trapped-ions"))
    assert scenario.hardware.coherence_time == 34.0


@pytest.mark.parametrize("bad", ["NV-Centres", "foo", None])
def test_another_name_is_told_with_the_nearest(bad: Any) -> None:
    with pytest.raises(DpemError, match=r"unknown hardware preset .*(nv-centres|trapped-ions)"):
        fields(bad)
