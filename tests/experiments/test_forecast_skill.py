"""Skill of forecasters: the scores of forecasts made by hand, paired episodes, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.forecast_skill import SUMS, ForecastItem, measure_skill, score_episode, summarise
from dpem_env.network.network import build_network
from dpem_env.support.errors import DpemError, PolicyError
from support.command_line import complaint, dpem

SMALL = scenarios.get("mesh20-v0", slots=60, forecast_horizon=3)


def test_the_sums_of_an_episode_are_those_of_its_requests() -> None:
    seeds = EpisodeSeeds(3, 5)
    found = score_episode(ForecastItem(SMALL, seeds, "moving-average:2"))
    network = build_network(SMALL, seeds.topology)
    requests = draw_demand(SMALL, network, seeds.demand, 60).requests
    counts = np.zeros((60, *network.peers.shape))
    np.add.at(counts, (requests.slot, requests.source, requests.peer), 1.0)
    mean = network.weights * SMALL.requests_per_slot
    expected: dict[str, list[float]] = {name: [0.0] * 3 for name in SUMS}
    for slot in range(57):
        forecast = counts[max(slot - 1, 0) : slot + 1].mean(axis=0)
        for h in range(3):
            for i, d in np.argwhere(network.peers >= 0):
                came, told = counts[slot + 1 + h, i, d], max(forecast[i, d], 0.01 * mean[i, d])
                logarithm = came * np.log(came / told) if came else 0.0
                expected["deviance"][h] += 2 * (logarithm - came + told)
                expected["absolute_error"][h] += abs(came - told)
                expected["naive_error"][h] += abs(came - counts[slot, i, d])
                expected["expected"][h] += told
                expected["came"][h] += came
                expected["forecasts"][h] += 1
    assert expected["came"][0] > 50
    for name, sums in expected.items():
        assert found[name] == pytest.approx(sums)


def row(deviance: float, error: float = 1.0) -> dict[str, Any]:
    return dict(zip(SUMS, ([deviance], [error], [2.0], [3.0], [4.0], [10.0]), strict=True)) | {"us_per_slot": 7.0}


def test_skill_is_the_share_of_the_reference_deviance_that_is_saved() -> None:
    scores = summarise([row(3.0), row(1.0)], [row(4.0), row(4.0)])
    assert scores["skill"] == [0.5]
    assert 0.25 <= scores["skill_low"][0] < 0.5 < scores["skill_high"][0] <= 0.75
    assert (scores["mase"], scores["bias"], scores["us_per_slot"]) == ([0.5], [0.75], 7.0)


def test_where_no_request_comes_there_is_no_score() -> None:
    nothing = {name: [0.0] for name in SUMS} | {"us_per_slot": 1.0}
    scores = summarise([nothing], [nothing])
    assert scores["skill"] == scores["mase"] == scores["bias"] == [None]


def test_forecasters_rank_as_what_they_know() -> None:
    names = ["persistence", "moving-average:20", "oracle", "permuted-oracle"]
    summary = measure_skill(scenarios.get("mesh20-v0"), names, 6, split="validation")
    skill = {found["name"]: np.array(found["skill"]) for found in summary["forecasters"]}
    assert np.all(skill["mean-rates"] == 0.0)
    assert np.all(skill["oracle"] > skill["moving-average:20"])
    assert np.all(skill["moving-average:20"] > 0.1)
    assert np.all(skill["persistence"] < 0.0)
    assert np.all(skill["permuted-oracle"] < 0.0)
    clairvoyant = [found["name"] for found in summary["forecasters"] if found["clairvoyant"]]
    assert clairvoyant == ["oracle", "permuted-oracle"]


@pytest.mark.slow
def test_without_sessions_nobody_beats_the_mean_rates() -> None:
    unpredictable = scenarios.get("mesh20-v0", predictability=0.0)
    summary = measure_skill(unpredictable, ["persistence", "moving-average:80", "bayes-filter"], 6, split="validation")
    for found in summary["forecasters"]:
        assert np.all(np.array(found["skill_low"]) <= 1e-9)


def test_networks_may_be_named_and_the_demand_stays_that_of_the_split() -> None:
    summary = measure_skill(SMALL, ["persistence"], 3, topologies=[7, 8])
    assert summary["seeds"] == [{"topology": topology, "demand": 2_000_000 + k} for k, topology in enumerate((7, 8, 7))]


def test_what_makes_no_forecasts_or_leaves_nothing_to_score_is_refused() -> None:
    with pytest.raises(PolicyError, match="'none' makes no forecasts"):
        measure_skill(SMALL, ["none"], 1)
    with pytest.raises(DpemError, match="longer than the forecast horizon"):
        measure_skill(SMALL.override(slots=3), ["persistence"], 1)


def test_the_command_writes_scores_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "forecasts"
    command = ("forecast", "--scenario", "mesh20-v0", "--set", "slots=40", "--seeds", "2", "--horizon", "5")
    assert dpem(*command, "--forecaster", "oracle", "--out", str(out)) == 0
    summary = json.loads((out / "forecast.json").read_text())
    assert [len(found["skill"]) for found in summary["forecasters"]] == [5, 5]
    assert (out / "forecast.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "oracle" in said
    assert "mean-rates" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--forecaster", "orcale"), "unknown forecaster 'orcale'"),
        (("--forecaster", "moving-average:soon"), "expected a whole number"),
        (("--forecaster", "oracle", "--seeds", "0"), "--seeds is '0'"),
        (("--forecaster", "oracle", "--topology", "-1"), "--topology"),
    ],
)
def test_bad_input_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert message in complaint(capsys, "forecast", "--scenario", "mesh20-v0", *options, "--out", str(tmp_path))


def test_a_request_file_has_no_mean_rates_to_score_against(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text("time,source,destination,fidelity\n0.0,0,2,0.7\n")
    replayed = scenarios.get("chain3-v0", kind="replay", requests_file=str(tmp_path / "requests.csv"))
    with pytest.raises(DpemError, match="a request file has no mean rates"):
        measure_skill(replayed, ["persistence"], 1)
