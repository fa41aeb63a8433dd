"""Rounds of federated averaging: what updates amount to, and what nodes can send that must do no harm."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_rounds import averager, config, off, play
from numpy.typing import ArrayLike
from ppo_models import draw_weights, learner
from scipy import stats

from dpem_agents.federated import DPConfig, NoisedUpdate, SharedSpec
from dpem_agents.federated.mechanism import clipped, longest_noised
from dpem_agents.federation import Aggregator
from dpem_env import scenarios
from dpem_env.support.errors import DpemError

QUIET = 1e-12  # a noise multiplier that leaves only what is summed, to be seen
UNUSABLE = {
    "nan": ([np.nan, 0.0, 0.0], "no finite numbers"),
    "infinite": ([np.inf, 0.0, 0.0], "no finite numbers"),
    "overflowing": ([1e200, 0.0, 0.0], "no finite numbers"),
    "short": ([1.0, 1.0], r"shape \(2,\) instead of \(3,\)"),
    "a matrix": ([[1.0, 1.0, 1.0]], r"shape \(1, 3\)"),
    "a number": (1.0, r"shape \(\)"),
    "with a number of examples": (([1.0, 1.0, 1.0], 500), "no vector of numbers"),
    "words": (["a", "b", "c"], "no vector of numbers"),
    "digits": (["1", "2", "3"], "no vector of numbers"),
    "whole numbers of 400 digits": ([10**400, 0, 0], "no vector of numbers"),
    "a whole number of 400 digits": (10**400, "no vector of numbers"),
    "complex": (np.ones(3) * 1j, "no vector of numbers"),
    "nothing": (None, "no vector of numbers"),
}


def quiet(**changed: Any) -> DPConfig:
    return config(**{"noise_multiplier": QUIET, "noise_seed": 0} | changed)


# The average


def test_without_privacy_the_weights_become_the_mean_of_the_nodes_weights() -> None:
    made = averager(off(), 3, start=[1.0, 2.0, 3.0])
    local = {node: np.random.default_rng(node).normal(size=3) for node in range(4)}
    made.sample(range(10))
    weights, report = made.aggregate({node: made.update_of(node, vector) for node, vector in local.items()})
    np.testing.assert_allclose(weights, np.mean(list(local.values()), axis=0))
    assert (report.epsilon, report.private, report.noise_std) == (math.inf, False, 0.0)
    assert report.public()["epsilon"] is None


def test_the_server_takes_part_of_the_step_if_told_so() -> None:
    made = averager(off(), 1, server_lr=0.25, start=[1.0])
    assert play(made, {0: [2.0], 1: [6.0]})[0].tolist() == [2.0]
    assert play(made, {0: [4.0]})[0].tolist() == [3.0]


def test_updates_are_clipped_as_a_whole_and_divided_by_the_expected_cohort() -> None:
    # (3, 4) has length 5 and keeps its direction; (0.3, 0.4) is within the clip.
    weights, report = play(averager(quiet(population=8), 2), {0: [3.0, 4.0], 1: [0.3, 0.4]})
    np.testing.assert_allclose(weights, [(0.6 + 0.3) / 8, (0.8 + 0.4) / 8], atol=1e-9)
    assert report.operator.clipped_share == 0.5


def test_local_updates_are_clipped_by_their_nodes_and_divided_by_the_expected_cohort() -> None:
    weights, report = play(averager(quiet(population=8, mode="local"), 2), {0: [3.0, 4.0], 1: [0.3, 0.4]})
    np.testing.assert_allclose(weights, [(0.6 + 0.3) / 8, (0.8 + 0.4) / 8], atol=1e-9)
    assert report.operator.clipped_share is None  # known to the nodes alone


def test_replies_that_are_missing_change_neither_divisor_nor_noise() -> None:
    dp = quiet(noise_multiplier=1.0, population=10)
    all_reply, one_replies = averager(dp, 4), averager(dp, 4)
    first = play(all_reply, {node: np.full(4, 0.1) for node in range(10)})
    second = play(one_replies, {0: np.full(4, 0.1)})
    np.testing.assert_allclose(first[0] - second[0], 9 * 0.1 / 10)  # the same seeded noise in both
    assert first[1].noise_std == second[1].noise_std == 0.1
    assert first[1].expected_cohort == 10.0


@pytest.mark.parametrize(
    "update", [[0.0] * 3, [0.2] * 3, [1e6] * 3, [-1e150] * 3, *(bad for bad, _ in UNUSABLE.values())]
)
def test_no_node_moves_the_average_by_more_than_clip_over_expected_cohort(update: Any) -> None:
    dp = quiet(noise_multiplier=1.0, clip_norm=2.0, population=5)
    others = {node: np.random.default_rng(node).normal(size=3) for node in range(4)}
    made, without = averager(dp, 3), averager(dp, 3)
    for one in (made, without):
        one.sample(range(5))
    moved = made.aggregate(others | {4: update})[0] - without.aggregate(others)[0]
    assert np.linalg.norm(moved) <= 2.0 / 5 * (1 + 1e-12)


def test_an_update_of_zeros_is_an_update_like_any_other() -> None:
    made = averager(quiet(), 3)
    weights, report = play(made, {node: np.zeros(3) for node in range(10)})
    assert np.abs(weights).max() < 1e-9
    assert (report.operator.rejected, report.operator.clipped_share) == ({}, 0.0)
    assert clipped(np.zeros(3), 1.0).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("aggregator", ["mean", "median", "trimmed_mean"])
def test_what_cannot_be_averaged_contributes_nothing_and_is_told(kind: str, aggregator: Aggregator) -> None:
    update, reason = UNUSABLE[kind]
    made = averager(off(), 3, aggregator=aggregator)
    made.sample(range(10))
    weights, report = made.aggregate({0: np.full(3, 1.0), 1: np.full(3, 3.0), "bad": np.ones(3), 2: update})
    assert weights.tolist() == [2.0, 2.0, 2.0]
    assert report.operator.received == 4
    assert report.operator.rejected.keys() == {"bad", 2}
    assert report.operator.rejected["bad"] == "it did not join this round"
    assert re.search(reason, report.operator.rejected[2])


@pytest.mark.parametrize("kind", UNUSABLE)
def test_centrally_as_well_and_the_divisor_stays(kind: str) -> None:
    made = averager(quiet(population=4), 3)
    made.sample(range(4))
    weights, report = made.aggregate({0: [0.5, 0.0, 0.0], 1: UNUSABLE[kind][0]})
    np.testing.assert_allclose(weights, [0.125, 0.0, 0.0], atol=1e-9)
    assert list(report.operator.rejected) == [1]


def test_locally_an_update_longer_than_clip_and_noise_make_one_is_rejected_and_told() -> None:
    # One update of 1e150 among 20 nodes would move the weights to 4e149.
    dp, size = config(mode="local", population=20, clip_norm=0.5, noise_multiplier=2.0, noise_seed=3), 50
    made, without = averager(dp, size), averager(dp, size)
    honest: dict[Hashable, Any] = {node: made.update_of(node, np.full(size, 9.0)) for node in range(19)}
    for one in (made, without):
        one.sample(range(20))
    bad = NoisedUpdate(np.full(size, 1e150 / math.sqrt(size)))
    weights, report = made.aggregate(honest | {19: bad})
    assert np.array_equal(weights, without.aggregate(honest)[0])  # divided by 20 all the same
    assert list(report.operator.rejected) == [19]
    assert re.search(r"length 1e\+150; clip and noise make .* a probability of 1e-09", report.operator.rejected[19])
    assert report.noise_std == pytest.approx(2.0 * 0.5 * math.sqrt(19) / 20)
    assert made.ledger.charges == without.ledger.charges


@pytest.mark.parametrize("size", [1, 68, 1220])
def test_the_longest_update_that_counts_is_the_clip_and_a_quantile_of_the_noise(size: int) -> None:
    dp = config(mode="local", population=2, clip_norm=3.0, noise_multiplier=0.7)
    longest = longest_noised(dp, size)
    assert longest == pytest.approx(3.0 + 0.7 * 3.0 * stats.chi.isf(1e-9, size), rel=1e-9)
    for length, counts in ((longest * (1 - 1e-9), True), (longest * (1 + 1e-9), False)):
        made = averager(dp, size)
        made.sample(range(2))
        vector = np.zeros(size)
        vector[0] = -length
        weights, report = made.aggregate({0: NoisedUpdate(vector)})
        assert weights.any() == counts == (report.operator.rejected == {})


def test_honest_nodes_are_not_rejected_however_long_their_updates_were_before_the_clip() -> None:
    made = averager(config(mode="local", population=1000, clip_norm=2.0, noise_multiplier=0.5), 20)
    for _ in range(5):
        report = play(made, {node: np.full(20, 1e6 * (node % 3)) for node in range(1000)})[1]
        assert report.operator.rejected == {}


def test_an_update_without_noise_is_refused_where_nodes_noise_their_own() -> None:
    made = averager(config(mode="local"), 3)
    made.sample(range(10))
    with pytest.raises(DpemError, match="mode 'local' expects of node 3 one noised at its node"):
        made.aggregate({3: np.zeros(3)})
    assert made.ledger.rounds == 0
    central = averager(config(), 3)
    central.sample(range(10))
    with pytest.raises(DpemError, match="mode 'central' expects of node 3 the plain difference"):
        central.aggregate({3: NoisedUpdate(np.zeros(3))})


@pytest.mark.parametrize("mode", ["central", "local", "off"])
def test_a_round_in_which_nobody_replies_is_charged_and_centrally_noised(mode: str) -> None:
    dp = off() if mode == "off" else config(mode=mode)
    made = averager(dp, 3)
    weights, report = play(made, {})
    assert weights.all() == weights.any() == (mode == "central")
    assert made.ledger.rounds == report.round == 1
    assert report.operator.clipped_share is None
    assert report.noise_std == (0.1 if mode == "central" else 0.0)


# Robust aggregators


@pytest.mark.parametrize("aggregator", ["median", "trimmed_mean"])
@pytest.mark.parametrize("nodes", [3, 10])
def test_robust_aggregators_resist_an_outlier_a_hundred_times_as_long(aggregator: Aggregator, nodes: int) -> None:
    honest: dict[Hashable, ArrayLike] = {n: 1.0 + 0.1 * np.random.default_rng(n).normal(size=5) for n in range(nodes)}
    attacked = honest | {0: np.full(5, -100.0)}
    error = {
        rule: np.abs(play(averager(off(), 5, aggregator=rule), attacked)[0] - 1.0).max()
        for rule in ("mean", aggregator)
    }
    assert error["mean"] > 10.0
    assert error[aggregator] < 0.25


def test_the_trimmed_mean_is_that_of_scipy_where_the_share_is_whole() -> None:
    updates = np.random.default_rng(0).normal(size=(10, 5))
    weights, _ = play(averager(off(), 5, aggregator="trimmed_mean"), dict(enumerate(updates)))
    np.testing.assert_allclose(weights, stats.trim_mean(updates, 0.2, axis=0))


@pytest.mark.parametrize("aggregator", ["median", "trimmed_mean"])
@pytest.mark.parametrize("mode", ["central", "local"])
def test_privacy_is_refused_with_aggregators_other_than_the_mean(aggregator: Aggregator, mode: str) -> None:
    with pytest.raises(DpemError, match=f"aggregator '{aggregator}' goes with mode 'off' only"):
        averager(config(mode=mode), 3, aggregator=aggregator)


# Rounds


def test_each_node_joins_by_itself_with_the_probability_asked_for() -> None:
    made = averager(config(population=100, sample_rate=0.3), 1)
    sizes, joined = [], np.zeros(100)
    for _ in range(400):
        cohort = made.sample(range(100))
        made.aggregate({})
        sizes.append(len(cohort))
        joined[cohort] += 1
    # Far beyond any chance: a cohort of fixed size has no variance, nodes that are preferred have too much.
    assert stats.binomtest(sum(sizes), 40_000, 0.3).pvalue > 1e-9
    for counts, trials in ((np.array(sizes), 100), (joined, 400)):
        spread = float(np.square(counts - trials * 0.3).sum() / (trials * 0.3 * 0.7))
        assert 2 * min(stats.chi2.cdf(spread, counts.size), stats.chi2.sf(spread, counts.size)) > 1e-9


def test_a_round_is_aggregated_once() -> None:
    made = averager(config(), 3)
    with pytest.raises(DpemError, match="no round is open"):
        made.aggregate({})
    play(made, {})
    with pytest.raises(DpemError, match="no round is open"):
        made.aggregate({})
    assert made.ledger.rounds == 1


def test_a_cohort_cannot_be_drawn_again_until_it_suits() -> None:
    made = averager(config(), 3)
    made.sample(range(10))
    with pytest.raises(DpemError, match="the round is open already"):
        made.sample(range(10))


@pytest.mark.parametrize("nodes", [range(11), [1, 2, 2]])
def test_more_nodes_than_the_population_or_the_same_twice_are_refused(nodes: Any) -> None:
    with pytest.raises(DpemError, match="expected different ones, 10 at most"):
        averager(config(), 3).sample(nodes)


def test_global_weights_cannot_be_changed_by_hand() -> None:
    made = averager(off(), 2)
    for weights in (made.weights, play(made, {0: [1.0, 1.0]})[0]):
        with pytest.raises(ValueError, match="read-only"):
            weights[0] = 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregator": "krum"}, "aggregator is 'krum'"),
        ({"server_lr": 0.0}, "server_lr is 0.0"),
        ({"start": [0.0]}, r"start has shape \(1,\); expected \(2,\)"),
        ({"start": [0.0, np.nan]}, "all finite"),
        ({"start": [0, 10**400]}, "start is no vector of numbers"),
    ],
)
def test_an_averager_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DpemError, match=message):
        averager(off(), 2, **options)


def test_the_nodes_of_a_stack_agree_after_a_round_on_what_they_share_alone(tmp_path: Path) -> None:
    made = learner(scenarios.get("chain3-v0", slots=24), "independent", tmp_path, encoder="per-peer")
    encoder = made.model.policy.mlp_extractor.actor.peer.weight
    spec = SharedSpec.from_stack(made.model)
    averaging = averager(off(made.nodes), spec.size, start=spec.get_all(made.model).mean(axis=0))
    draw_weights(made)  # instead of learning
    local, body = spec.get_all(made.model), encoder.detach().clone()
    cohort = averaging.sample(range(made.nodes))
    weights, _ = averaging.aggregate({node: averaging.update_of(node, local[node]) for node in cohort})
    spec.set_all(made.model, weights)
    np.testing.assert_allclose(spec.get_all(made.model), np.tile(local.mean(axis=0), (made.nodes, 1)), rtol=1e-5)
    assert (encoder == body).all()


def test_federated_averaging_loads_neither_torch_nor_the_accountant_until_they_are_needed() -> None:
    code = (
        "import sys, dpem_agents.federated as f; s = f.SharedSpec(('w',), ((2,),)); "
        "a = f.FederatedAverager(s, f.DPConfig(population=2, clip_norm=1.0, noise_multiplier=1.0), start=[0, 0]); "
        "a.aggregate({n: [1, 1] for n in a.sample(range(2))}); "
        "print(*{'torch', 'stable_baselines3', 'dp_accounting', 'flwr'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
