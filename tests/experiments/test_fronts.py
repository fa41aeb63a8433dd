"""Fronts: concave envelopes, the share below them, and intervals of both."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.experiments.fronts import (
    Points,
    by_network,
    claims,
    compare_fronts,
    front_table,
    heights,
    points_of,
    shares,
)
from dpem_env.experiments.results import read, together
from dpem_env.experiments.statistics import mean_interval
from dpem_env.support.errors import DpemError
from support.command_line import complaint, dpem, given

X = np.array([[0.1, 0.2, 0.15, 0.4, 0.3]])
Y = np.array([[0.3, 0.4, 0.2, 0.5, 0.45]])  # the third is below the line from the first to the second
LEVELS = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.9])


def test_a_front_is_the_concave_envelope_of_its_points_and_of_doing_nothing() -> None:
    assert heights(X, Y, LEVELS)[0] == pytest.approx([0.0, 0.15, 0.3, 0.4, 0.45, 0.5, 0.5])


def test_the_share_is_the_area_below_it() -> None:
    by_hand = (0.1 * 0.15 + 0.1 * 0.35 + 0.2 * 0.45) / 0.4
    assert shares(X, Y, 0.4) == pytest.approx([by_hand])
    assert shares(X, Y, 0.8) == pytest.approx([(0.4 * by_hand + 0.4 * 0.5) / 0.8])
    assert shares(X, Y, 0.05) == pytest.approx([0.075])


def test_it_is_the_best_that_mixtures_of_its_points_can_do() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        x, y = rng.random((2, 1, 6)).round(1)
        found = heights(x, y, LEVELS)[0]
        points = [(0.0, 0.0), *zip(x[0], y[0], strict=True)]
        for level, height in zip(LEVELS, found, strict=True):
            mixed = [b for a, b in points if a <= level]
            for (a, b), (c, d) in combinations(points, 2):
                if min(a, c) <= level < max(a, c):
                    mixed.append(b + (d - b) * (level - a) / (c - a))
            assert height == pytest.approx(max(mixed))


def test_several_episodes_on_each_of_many_networks_are_an_observation_per_network() -> None:
    values = np.array([[1.0, 10.0, 3.0, 30.0], [2.0, 20.0, 4.0, 40.0]])
    assert by_network(values, [7, 5, 7, 5]) == pytest.approx(np.array([[20.0, 2.0], [30.0, 3.0]]))
    for alike in ([7, 7, 7, 7], [7, 7, 7, 5]):
        assert by_network(values, alike) is values


def test_points_without_contention_lift_the_whole_front() -> None:
    assert heights(np.array([[0.0, 0.2]]), np.array([[0.3, 0.4]]), np.array([0.0, 0.1]))[0] == pytest.approx(
        [0.3, 0.35]
    )


def test_intervals_hold_the_difference_that_was_drawn() -> None:
    rng = np.random.default_rng(0)
    episodes = rng.normal(0.0, 0.1, size=40)  # what policies have in common
    contention = np.stack([np.full((1, 40), 0.1), np.full((1, 40), 0.3)])
    delivery = np.stack([0.3 + episodes[None], 0.5 + episodes[None]])
    better = Points(contention, delivery + 0.05 + rng.normal(0.0, 0.01, size=(2, 1, 40)))
    compared = compare_fronts({"a": Points(contention, delivery), "b": better}, "a", 0.3, [0.1, 0.2], rng)
    more = compared["b"].more
    assert more.low < more.value < more.high
    assert more.high - more.low < 0.02 < compared["b"].share.high - compared["b"].share.low  # paired
    for higher in compared["b"].higher:
        assert higher.low <= 0.05 <= higher.high
    own = compared["a"].delivery[0]
    assert own == pytest.approx(mean_interval(0.3 + episodes[None], rng), rel=0.02)  # Student's, as in all tables
    assert own.high - own.low > 0.05


def test_a_claim_holds_against_every_rival_point_and_its_bounds_cover() -> None:
    rng = np.random.default_rng(1)
    contention = np.stack([np.full((1, 30), level) for level in (0.1, 0.2, 0.01)])
    theirs = Points(contention, np.stack([np.full((1, 30), height) for height in (0.38, 0.4, 0.2)]))  # the last is low
    noise = np.stack([rng.normal(0.0, 0.02, (1, 30)), np.zeros((1, 30))])
    ours = Points(np.array([[[0.05]], [[0.4]]]) * np.ones(30), np.array([[[0.5]], [[0.2]]]) + noise)
    held, lost = claims({"ours": ours, "theirs": theirs}, "ours", "theirs", rng)
    assert held.delivery == pytest.approx(ours.delivery[0].mean() / 0.4)
    assert held.contention == pytest.approx(held.contention_below) == pytest.approx(0.05 / 0.1)
    error = ours.delivery[0].std(ddof=1) / math.sqrt(30) / 0.4
    assert held.delivery_above == pytest.approx(held.delivery - 2.462 * error, rel=0.01)  # t of 29 at 0.99
    assert (lost.delivery, lost.contention) == pytest.approx((0.5, 4.0))
    exact = [claims({"a": theirs, "b": theirs}, "a", "b", rng)[1]]
    assert exact == [pytest.approx((1.0, 1.0, 2.0, 2.0))]


def test_one_episode_has_no_interval() -> None:
    one = Points(np.full((1, 1, 1), 0.1), np.full((1, 1, 1), 0.3))
    compared = compare_fronts({"a": one, "b": one}, "a", 0.1, [0.1], np.random.default_rng(0))
    assert compared["b"].share.value == pytest.approx(0.15)
    assert all(math.isnan(found.high) for found in (compared["b"].share, compared["b"].more, *compared["b"].delivery))


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fronts") / "results"
    scenarios.get("star8-v0", slots=40, name="tiny").save(out.with_name("tiny.toml"))
    policies = given("local-reactive", "maxweight", "random-legal")
    world = ("--scenario", str(out.with_name("tiny.toml")), *policies, "--seeds", "2", "--out", str(out))
    assert dpem("benchmark", "fronts", *world) == 0
    return out


def test_results_of_several_prices_are_fronts(fronts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        dpem("front", str(fronts), "--reference", "maxweight", "--level", "0.01", "--out", str(tmp_path / "a.svg")) == 0
    )
    told = capsys.readouterr().out
    assert (tmp_path / "a.svg").stat().st_size > 1000
    assert all(name in told for name in ("local-reactive", "maxweight", "random-legal", "at 0.01"))
    points = points_of(read(fronts))
    assert points["maxweight"].delivery.shape == (4, 1, 2)
    table = front_table(read(fronts), "maxweight")
    assert table.limit == pytest.approx(points["maxweight"].contention.mean(axis=(1, 2)).max())
    assert (table.points, table.episodes) == (4, 2)
    assert len(table.fronts) == len(table.differences) == 2 + 4


def test_results_of_other_policies_on_the_same_episodes_are_compared_as_one(
    fronts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = ("--scenario", str(fronts.with_name("tiny.toml")), "--seeds", "2")
    assert dpem("benchmark", "fronts", *given("central-reactive"), *world, "--out", str(tmp_path / "central")) == 0
    both = str(fronts), str(tmp_path / "central")
    assert dpem("front", *both, "--reference", "maxweight", "--out", str(tmp_path / "both.svg")) == 0
    told = capsys.readouterr().out
    assert "maxweight" in told
    assert "central-reactive" in told
    whole, alone = (front_table(together(list(map(read, map(Path, of)))), "maxweight") for of in (both, both[:1]))
    found = {record["policy"]: record["share"].value for record in whole.records}
    assert {each["policy"]: each["share"].value for each in alone.records}.items() <= found.items()
    assert {"central-reactive (delay 0 s)", "central-reactive (delay 0.5 s)"} < set(found)
    assert "is in several of the results" in complaint(capsys, "front", both[0], both[0])
    shorter = ("benchmark", "fronts", *given("idle"), *world[:3], "1", "--out", str(tmp_path / "one"))
    assert dpem(*shorter) == 0
    capsys.readouterr()
    assert "not of the same scenarios and episodes" in complaint(capsys, "front", both[0], str(tmp_path / "one"))


def test_bad_input_is_one_line(fronts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(fronts)
    assert "--reference is 'maxwait'; did you mean 'maxweight'?" in complaint(
        capsys, "front", results, "--reference", "maxwait"
    )
    assert "a number above 0" in complaint(capsys, "front", results, "--limit", "0")
    assert "--out is 'a.gif'; expected a name that ends with .png" in complaint(
        capsys, "front", results, "--out", "a.gif"
    )
    assert "summary.json" in complaint(capsys, "front", str(tmp_path))


def test_points_of_different_networks_are_no_front(
    fronts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = ("--scenario", str(fronts.with_name("tiny.toml")), "--seeds", "1", "--out", str(tmp_path))
    assert dpem("benchmark", "coherence", *given("idle"), *world) == 0
    capsys.readouterr()
    told = complaint(capsys, "front", str(tmp_path))
    assert "coherence_time=1.0 and" in told
    assert "differ in hardware: a front is of scenarios that differ in rewards alone" in told


def test_a_change_is_made_to_all_points(fronts: Path, tmp_path: Path) -> None:
    world = ("--scenario", str(fronts.with_name("tiny.toml")), "--set", "coherence_time=5", "--seeds", "1")
    assert dpem("benchmark", "fronts", *given("idle"), *world, "--out", str(tmp_path)) == 0
    played = [each["scenario"] for each in read(tmp_path).summary["scenarios"]]
    assert [each["reward"]["contention_penalty"] for each in played] == [0.05, 0.15, 0.5, 1.5]
    assert {each["hardware"]["coherence_time"] for each in played} == {5.0}


def test_policies_that_never_contend_need_a_limit() -> None:
    with pytest.raises(DpemError, match=r"idle has no contention at any of its points; pass --limit"):
        front_table(idle_alone())


def idle_alone():  # type: ignore[no-untyped-def]
    from dpem_env.envs.metric_labels import METRICS
    from dpem_env.experiments.results import Key, Results, Rows

    rows = Rows()
    for seed in range(2):
        rows.add("w", "h", Key("idle", None, None), 0, seed, {"contention": 0.0, "delivery_rate": 0.0})
    mean = {"mean": {"value": 0.0, "low": 0.0, "high": 0.0}}
    who = {"label": "idle", "policy": "idle", "forecaster": None, "delay": None}
    who["metrics"] = {name: mean for name in ("contention", "delivery_rate") if name in METRICS}
    played = {"episodes": [0, 1], "seeds": [{"topology": 0}, {"topology": 1}], "bound": None, "contestants": [who]}
    scenario = {"name": "w", "scenario": {}, **played}
    summary = {"version": {}, "split": "evaluation", "reference": "idle", "scenarios": [scenario]}
    return Results(summary, rows.frame())
