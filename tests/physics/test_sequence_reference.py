"""Formulas against reference values of the simulator SeQUeNCe 1.3.1, measured by sequence_reference.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import physics
from dpem_env.support.files import read_json

REFERENCE = json.loads(Path(__file__).with_name("sequence_reference.json").read_text(encoding="utf-8"))
PRECISION = 0.51 * 10.0 ** -REFERENCE["decimals"]  # half a unit of the last decimal, and rounding
COHERENCE = 0.75  # our coherence time in units of SeQUeNCe's, whose X, Y and Z errors have a rate of 1/(3T) each

Value = dict[str, float]


def values(kind: str) -> Any:
    return pytest.mark.parametrize("value", REFERENCE[kind], ids=lambda value: "-".join(map(str, value.values())))


def test_the_reference_was_measured_with_the_stated_version() -> None:
    assert "SeQUeNCe 1.3.1" in REFERENCE["source"]


@values("swap")
def test_swap_agrees_with_sequence(value: Value) -> None:
    left, right = (physics.werner_from_fidelity(value[side]) for side in ("left", "right"))
    werner = left * right * physics.swap_factor(value["gate"], value["readout"])
    assert physics.fidelity_from_werner(werner) == pytest.approx(value["fidelity"], rel=0.0, abs=PRECISION)


@values("purification")
def test_bbpssw_round_agrees_with_sequence(value: Value) -> None:
    kept, measured = (physics.werner_from_fidelity(value[pair]) for pair in ("kept", "measured"))
    fidelity = physics.fidelity_from_werner(physics.purified_werner(kept, measured))
    assert physics.purification_success(kept, measured) == pytest.approx(value["success"], rel=0.0, abs=PRECISION)
    assert fidelity == pytest.approx(value["fidelity"], rel=0.0, abs=PRECISION)


@values("storage")
def test_storage_agrees_with_sequence_at_three_quarters_of_its_coherence_time(value: Value) -> None:
    u, v = (COHERENCE * value[f"sequence_coherence_{end}"] for end in "uv")
    werner = physics.werner_from_fidelity(value["initial"]) * physics.decay_factor(value["duration"], u, v)
    assert physics.fidelity_from_werner(werner) == pytest.approx(value["fidelity"], rel=0.0, abs=PRECISION)


@values("fibre")
def test_loss_in_fibre_agrees_with_sequence(value: Value) -> None:
    transmission = physics.transmission(value["length"], value["attenuation"])
    assert transmission == pytest.approx(value["transmission"], rel=0.0, abs=PRECISION)


@pytest.mark.parametrize(
    "run", [REFERENCE["end_to_end"], REFERENCE["end_to_end"]["earlier_run"]], ids=["own", "earlier"]
)
def test_waiting_for_two_links_slows_a_chain_about_as_the_expected_build_times_say(run: Value) -> None:
    one, two = (physics.expected_build_time(np.ones(links)) for links in (1, 2))
    # Sampling and SeQUeNCe's attempts in rounds, with their messages, leave a few per cent.
    assert run["three_to_two_nodes_ratio"] == pytest.approx(one / two, rel=0.05)


CHAINS = REFERENCE["chains"]
MESSAGES = {2: 0, 3: 3}


@pytest.mark.parametrize("row", [row for row in CHAINS["rows"] if row["routers"] < 5], ids=str)
def test_chains_take_an_attempt_for_every_four_times_that_light_takes_along_a_link_and_three_for_a_swap(
    row: Value,
) -> None:
    p, light = physics.transmission(CHAINS["length"], CHAINS["attenuation"]) / 2, CHAINS["length"] / physics.LIGHT_SPEED
    attempts = (1.0 - (1.0 - (1.0 - p) ** np.arange(1000)) ** (row["routers"] - 1)).sum()  # until all links are there
    expected = (4 * attempts + MESSAGES[int(row["routers"])]) * light / row["swap_success"]
    assert abs(row["time"] - expected) < 3 * row["time_error"]


def test_the_simulator_delivers_what_sequence_does_in_its_time_within_three_errors() -> None:
    results = Path(__file__).resolve().parents[2] / "baselines" / "results" / "truth" / "sequence.json"
    played = read_json(results)["rows"]
    assert [(row["nodes"], row["time_sequence"]) for row in played] == [
        (row["routers"], pytest.approx(1e3 * row["time"])) for row in CHAINS["rows"]
    ]
    for row in played:
        assert abs(row["time_off"]) < 3
        assert abs(row["fidelity_off"]) < 3
        assert row["nodes"] == 2 or row["bare_fidelity"] - row["fidelity"] > 10 * row["fidelity_error"]  # it matters
