"""Differential privacy: the noise has the scale it should, what it costs is counted right, and the budget holds."""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_rounds import after_rounds, averager, config, off, play
from scipy import optimize, stats

from dpem_agents.federated import AdaptiveClipping, BudgetExhausted, DPConfig, Ledger, NoisedUpdate, node_update
from dpem_agents.federated.accounting import LARGEST_EPSILON, Accountant, Charge, epsilon
from dpem_agents.federated.mechanism import SUMMED, SystemRandomness
from dpem_env.support.errors import DpemError

CHANCE = 1e-9  # of a false alarm, of tests whose noise is really random


def exact_epsilon(multiplier: float, delta: float) -> float:
    """ε of one Gaussian mechanism (Balle & Wang, ICML 2018, Theorem 8); T of them are one of multiplier/√T."""

    def excess(eps: float) -> float:
        a, b = 0.5 / multiplier - eps * multiplier, -0.5 / multiplier - eps * multiplier
        return float(stats.norm.cdf(a) - math.exp(eps + stats.norm.logcdf(b)) - delta)

    return float(optimize.brentq(excess, 0.0, 1000.0, xtol=1e-10))


def assert_gaussian(noise: np.ndarray, deviation: float) -> None:
    """Mean 0, that standard deviation (χ²) and a normal shape (Kolmogorov–Smirnov)."""
    squares = float(np.square(noise / deviation).sum())
    assert 2.0 * min(stats.chi2.cdf(squares, noise.size), stats.chi2.sf(squares, noise.size)) > CHANCE
    assert stats.kstest(noise / deviation, "norm").pvalue > CHANCE


# Accounting


@pytest.mark.parametrize(
    ("accountant", "rate", "expected"),
    [("rdp", 0.1, 7.90), ("pld", 0.1, 7.05), ("rdp", 1.0, 96.1), ("pld", 1.0, 91.8)],
)
def test_epsilon_equals_the_reference_values(accountant: Accountant, rate: float, expected: float) -> None:
    dp = config(sample_rate=rate, accountant=accountant)
    assert dp.epsilon(100) == pytest.approx(expected, rel=7e-4)


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 100), (6.0, 100), (4.0, 1)])
def test_without_sampling_epsilon_is_that_of_the_exact_composition(multiplier: float, rounds: int) -> None:
    dp = config(noise_multiplier=multiplier, accountant="pld")
    assert dp.epsilon(rounds) == pytest.approx(exact_epsilon(multiplier / math.sqrt(rounds), 1e-5), rel=1e-4)
    assert exact_epsilon(0.1, 1e-5) == pytest.approx(91.82, abs=0.005)


def test_rounds_of_different_kinds_are_composed() -> None:
    charges = (Charge(1.0, 3.0, rounds=5), Charge(1.0, 4.0, rounds=10))
    together = (5 / 3.0**2 + 10 / 4.0**2) ** -0.5
    assert epsilon(charges, 1e-5) == pytest.approx(exact_epsilon(together, 1e-5), rel=1e-4)
    assert epsilon((*charges, Charge(1.0, 0.0)), 1e-5) == math.inf
    assert epsilon((), 1e-5) == 0.0


def test_calibration_finds_the_least_noise_within_the_target() -> None:
    dp = DPConfig.calibrate(8.0, 100, population=100, clip_norm=1.0)
    assert dp.noise_multiplier == pytest.approx(6.0, rel=2e-3)
    assert dp.epsilon(100) <= 8.0 < dp.epsilon(101)
    assert dp.max_epsilon == 8.0


def test_calibration_counts_on_sampling_centrally_alone() -> None:
    plan = {"population": 100, "clip_norm": 1.0, "sample_rate": 0.1, "max_epsilon": 3.0}
    central = DPConfig.calibrate(2.0, 10, **plan)
    local = DPConfig.calibrate(2.0, 10, **plan, mode="local")
    every_round = DPConfig.calibrate(2.0, 10, **plan | {"sample_rate": 1.0})
    assert local.noise_multiplier == every_round.noise_multiplier > 2 * central.noise_multiplier
    assert central.max_epsilon == 3.0


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_without_dp_accounting_asking_for_epsilon_says_what_to_install(
    accountant: Accountant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("dp_accounting", "dp_accounting.pld", "dp_accounting.rdp"):
        monkeypatch.setitem(sys.modules, module, None)
    dp = config(noise_multiplier=1.2345, accountant=accountant)  # a figure that is in no cache
    _, report = play(averager(dp, 3), {})  # no ε is needed without a budget
    for ask in (lambda: report.epsilon, lambda: dp.epsilon(1)):
        with pytest.raises(DpemError, match=r"pip install 'dpem-env\[federated\]'"):
            ask()
    assert play(averager(off(accountant=accountant), 3), {})[1].epsilon == math.inf  # which needs no accountant


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize(
    "charge",
    [Charge(1.0, 1.0, rounds=10**6), Charge(0.01, 0.5, rounds=10**6), Charge(1.0, 1e-12), Charge(1.0, 1e-300)],
    ids=str,
)
def test_rounds_beyond_all_privacy_are_counted_at_once_and_without_warnings(
    charge: Charge, accountant: Accountant, recwarn: pytest.WarningsRecorder
) -> None:
    # Distributions of such losses would not fit into memory.
    assert epsilon((charge,), 1e-5, accountant) > LARGEST_EPSILON
    assert epsilon((Charge(1.0, 1e300),), 1e-5, accountant) < 1e-3
    assert len(recwarn) == 0


# Noise


def test_central_noise_has_the_scale_of_clip_and_multiplier_over_the_expected_cohort() -> None:
    dp = config(population=40, sample_rate=0.5, clip_norm=3.0, noise_multiplier=2.0)
    weights, report = play(averager(dp, 20_000), {})
    assert report.noise_std == pytest.approx(2.0 * 3.0 / 20.0)
    assert_gaussian(weights, report.noise_std)


def test_local_noise_is_added_by_each_node_and_its_average_is_so_much_larger() -> None:
    dp = config(mode="local", population=16, clip_norm=3.0, noise_multiplier=2.0)
    sent = node_update(dp, np.zeros(20_000), np.zeros(20_000))
    assert isinstance(sent, NoisedUpdate)
    assert_gaussian(sent.vector, 2.0 * 3.0)
    weights, report = play(averager(dp, 20_000), {node: np.zeros(20_000) for node in range(16)})
    central = play(averager(config(population=16, clip_norm=3.0, noise_multiplier=2.0), 3), {})[1]
    assert report.noise_std == pytest.approx(math.sqrt(16) * central.noise_std)
    assert_gaussian(weights, report.noise_std)


@pytest.mark.parametrize("mode", ["central", "local"])
def test_an_experiments_seed_does_not_fix_the_noise(mode: str) -> None:
    # Stable-Baselines3 seeds numpy's global generator, from which others draw their noise.
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        drawn.append(play(averager(config(mode=mode), 50), {0: np.zeros(50)})[0])
    assert not np.isclose(*drawn).any()


def test_noise_is_drawn_from_the_systems_cryptographic_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    usual = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda size: asked.append(size) or usual(size))
    play(averager(config(), 50), {})
    node_update(config(mode="local"), np.zeros(50), np.zeros(50))
    assert asked == [10 * 8, SUMMED * 50 * 8, SUMMED * 50 * 8]  # the cohort of ten nodes, then noise


def test_the_systems_randomness_is_uniform_within_the_interval_and_gaussian_to_its_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = SystemRandomness().random(100_000)
    assert stats.kstest(drawn, "uniform").pvalue > CHANCE
    assert_gaussian((SystemRandomness().normal(3.0, 2.0, 100_000) - 3.0), 2.0)
    for byte, end in ((b"\0", 2.0**-53), (b"\xff", 1.0 - 2.0**-53)):
        monkeypatch.setattr(secrets, "token_bytes", lambda size, byte=byte: byte * size)
        assert SystemRandomness().random(2).tolist() == [end, end]
        assert np.isfinite(SystemRandomness().normal(0.0, 1.0, 2)).all()


def test_an_experiments_seed_does_not_fix_who_joins() -> None:
    cohorts = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        cohorts.append(averager(config(population=200, sample_rate=0.5), 3).sample(range(200)))
    assert cohorts[0] != cohorts[1]


@pytest.mark.parametrize("mode", ["central", "local"])
def test_a_noise_seed_repeats_a_run_which_is_then_not_private(mode: str) -> None:
    dp = config(mode=mode, noise_seed=7, sample_rate=0.5)
    updates = {node: np.ones(5) for node in range(10)}
    made, again = averager(dp, 5), averager(dp, 5)
    reports = [play(one, updates)[1] for one in (made, again, made, again)]
    assert np.array_equal(made.weights, again.weights)
    assert not any(report.private for report in reports)
    assert not reports[0].public()["private"]
    assert play(averager(config(mode=mode), 5), updates)[1].private


def test_a_seeded_run_has_other_noise_in_every_round_and_of_every_node() -> None:
    made = averager(config(noise_seed=7), 5)
    first, second = (play(made, {})[0] for _ in range(2))
    assert not np.isclose(first, second - first).any()
    local = config(mode="local", noise_seed=7)
    sent = [node_update(local, np.zeros(5), np.zeros(5), *which) for which in ((0, 0), (0, 1), (1, 0), (0, "0"))]
    assert len({update.vector.tobytes() for update in sent if isinstance(update, NoisedUpdate)}) == 4
    made = averager(local, 5)
    sent = [made.update_of(node, made.weights) for node in (0, 1)]
    play(made, {})
    sent.append(made.update_of(0, made.weights))
    assert len({update.vector.tobytes() for update in sent if isinstance(update, NoisedUpdate)}) == 3


def test_a_node_clips_before_it_adds_noise_and_sends_mere_noise_for_nan() -> None:
    dp = config(mode="local", clip_norm=2.0, noise_multiplier=1e-9)
    for local, expected in (([300.0, 400.0], [1.2, 1.6]), ([0.3, 0.4], [0.3, 0.4]), ([np.nan, 1.0], [0.0, 0.0])):
        sent = node_update(dp, np.add(local, 1.0), np.ones(2))
        assert isinstance(sent, NoisedUpdate)
        np.testing.assert_allclose(sent.vector, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["central", "local"])
def test_a_node_with_weights_of_another_shape_is_told(mode: str) -> None:
    with pytest.raises(DpemError, match=r"shape \(5, 1\); expected \(5,\)"):
        node_update(config(mode=mode), np.zeros((5, 1)), np.zeros(5))
    with pytest.raises(DpemError, match="local weights are no vector of numbers"):
        node_update(config(mode=mode), [10**400], np.zeros(1))


# Adaptive clipping


@pytest.mark.parametrize("factor", [1000.0, 0.001])
@pytest.mark.parametrize("quantile", [0.3, 0.8])
def test_the_clip_comes_to_the_quantile_of_the_norms_from_far_off(factor: float, quantile: float) -> None:
    norms = np.exp(np.linspace(-1.0, 1.0, 100))
    target = float(np.quantile(norms, quantile))
    adaptive = AdaptiveClipping(quantile)
    made = averager(config(population=100, clip_norm=factor * target, adaptive=adaptive, noise_seed=1), 2)
    clips = []
    for _ in range(250):
        play(made, {node: [norm, 0.0] for node, norm in enumerate(norms)})
        clips.append(made.clip_norm)
    assert np.exp(np.log(clips[-50:]).mean()) == pytest.approx(target, rel=0.05)


def test_the_clip_falls_when_updates_are_shorter_and_rises_when_they_are_longer() -> None:
    adaptive = AdaptiveClipping(0.5, rate=0.2, count_noise=0.6)
    for length, expected in ((0.5, math.exp(-0.1)), (2.0, math.exp(0.1))):
        made = averager(config(adaptive=adaptive, population=1000, noise_seed=1), 1)
        report = play(made, {node: [length] for node in range(1000)})[1]
        assert made.clip_norm == pytest.approx(expected, rel=1e-3)
        assert report.clip_norm == 1.0  # of the round itself
        assert report.operator.clipped_share == (length > 1.0)


def test_counting_for_the_clip_is_paid_with_more_noise_on_the_updates_at_equal_cost() -> None:
    adaptive = AdaptiveClipping(count_noise=1.0)
    dp = config(adaptive=adaptive, noise_multiplier=1.6, population=100)
    # Both Gaussians together: sensitivities 1 (in clips) and 1/2.
    assert dp.update_multiplier**-2 + (0.5 / 1.0) ** 2 == pytest.approx(1.6**-2)
    weights, report = play(averager(dp, 20_000), {})
    assert report.noise_std == pytest.approx(dp.update_multiplier / 100)
    assert_gaussian(weights, report.noise_std)
    assert report.charges == (Charge(1.0, 1.6),)
    by_default = config(adaptive=AdaptiveClipping(), noise_multiplier=1.6, population=100, sample_rate=0.5)
    assert by_default.count_noise == 2.5  # a twentieth of the expected cohort


def test_the_count_for_the_clip_is_noised_as_promised() -> None:
    # Nobody replies: what moves the clip is noise alone.
    dp = config(adaptive=AdaptiveClipping(0.5, rate=1.0, count_noise=3.0), population=10)
    moves = []
    for _ in range(2000):
        made = averager(dp, 1)
        play(made, {})
        moves.append(math.log(made.clip_norm))
    assert_gaussian(np.array(moves), 3.0 / 10)


# The budget


def test_epsilon_grows_with_every_round_whoever_replies() -> None:
    made = averager(config(), 3)
    reports = [play(made, {0: np.ones(3)} if number % 2 else {})[1] for number in range(3)]
    assert [report.round for report in reports] == [1, 2, 3]
    assert [report.epsilon for report in reports] == pytest.approx([config().epsilon(n) for n in (1, 2, 3)])


def test_a_round_beyond_the_budget_is_refused_before_its_release(tmp_path: Path) -> None:
    dp = config(max_epsilon=config().epsilon(3) + 1e-6)
    made = after_rounds(dp, 3, Ledger(tmp_path / "ledger.json"))
    before, stored = made.weights.copy(), (tmp_path / "ledger.json").read_bytes()
    with pytest.raises(BudgetExhausted, match=r"round 4 would take ε to .* beyond max_epsilon"):
        made.sample(range(10))
    restarted = averager(dp, 3, ledger=Ledger(tmp_path / "ledger.json"))
    with pytest.raises(BudgetExhausted):
        restarted.sample(range(10))
    assert np.array_equal(made.weights, before)
    assert made.ledger.rounds == restarted.ledger.rounds == 3
    assert (tmp_path / "ledger.json").read_bytes() == stored


def test_a_budget_that_another_run_used_up_meanwhile_leaves_the_round_open_and_all_as_it_was() -> None:
    ledger = Ledger()
    dp = config(max_epsilon=config().epsilon(2) + 1e-6, adaptive=AdaptiveClipping(count_noise=1.0), noise_seed=3)
    made, other = averager(dp, 3, ledger=ledger), averager(dp, 3, ledger=ledger)
    play(made, {})
    made.sample(range(10))
    play(other, {})
    before, clip = made.weights.copy(), made.clip_norm
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            made.aggregate({})
    assert np.array_equal(made.weights, before)
    assert made.clip_norm == clip
    assert ledger.rounds == 2


def test_the_ledger_survives_a_restart_and_another_configuration(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "ledger.json"
    after_rounds(config(), 2, Ledger(path))
    after_rounds(config(noise_multiplier=2.0), 3, Ledger(path))
    made = after_rounds(config(), 1, Ledger(path))
    assert made.ledger.charges == (Charge(1.0, 1.0, rounds=3), Charge(1.0, 2.0, rounds=3))
    report = play(made, {})[1]
    assert report.round == 7
    assert report.epsilon == epsilon((Charge(1.0, 1.0, rounds=4), Charge(1.0, 2.0, rounds=3)), 1e-5, "rdp")


@pytest.mark.parametrize("earlier", [off(), config(noise_seed=1)])
def test_one_round_without_secret_noise_makes_the_whole_history_not_private(earlier: DPConfig, tmp_path: Path) -> None:
    after_rounds(earlier, 1, Ledger(tmp_path / "ledger.json"))
    later = after_rounds(config(), 1, Ledger(tmp_path / "ledger.json"))
    report = play(later, {})[1]
    assert not report.private
    assert (report.epsilon == math.inf) == (earlier.mode == "off")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": "dpem-privacy-ledger-1"}',
        '{"format": "another", "charges": []}',
        "[]",
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1.0}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1.0, "noise_multiplier": -1.0}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 0.0, "noise_multiplier": 1.0}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1, "noise_multiplier": 1, "rounds": 0}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1, "noise_multiplier": 1, "rounds": 1.5}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1, "noise_multiplier": 1, "private": 1}]}',
        '{"format": "dpem-privacy-ledger-1", "charges": [{"sample_rate": 1, "noise_multiplier": "1"}]}',
    ],
)
def test_a_damaged_ledger_is_never_taken_for_an_empty_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(DpemError, match=r"privacy ledger .* cannot be used"):
        Ledger(tmp_path / "ledger.json")


def test_nothing_is_released_if_the_ledger_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "ledger.json")
    made = averager(config(), 3, ledger=ledger)
    made.sample(range(10))
    ledger.path = tmp_path / "file" / "ledger.json"
    with pytest.raises(DpemError, match="cannot be written"):
        made.aggregate({})
    assert not made.weights.any()
    assert ledger.rounds == 0
    ledger.path = tmp_path / "ledger.json"
    assert made.aggregate({})[0].all()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


# What is told


def test_noise_longer_than_the_clip_is_warned_of() -> None:
    # 9,000 weights and 100 nodes: 0.95 clips at z = 1, 5.7 at z = 6.
    for multiplier, expected in ((1.0, 0.949), (6.0, 5.69)):
        report = play(averager(config(population=100, noise_multiplier=multiplier), 9000), {})[1]
        assert report.noise_to_clip == pytest.approx(expected, rel=1e-3)
        assert (report.warning is None) == (expected < 1.0)
    assert "5.7 times as long" in str(report.warning)


def test_what_may_be_published_holds_no_exact_numbers_of_nodes() -> None:
    report = play(averager(config(), 3), {0: np.ones(3), 1: np.full(3, np.nan)})[1]
    public = report.public()
    json.dumps(public, allow_nan=False)
    known = {field.name for field in dataclasses.fields(report)} - {"operator"}
    assert public.keys() == known | {"epsilon", "warning"}
    assert (public["mode"], public["delta"], public["expected_cohort"]) == ("central", 1e-5, 10.0)
    assert "add or remove one node" in public["neighbours"]
    assert "not nodes' own weights" in public["covers"]
    assert "operator only" in report.operator.notice
    assert report.operator.received == 2
    assert "received" not in repr(report)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mode": "shuffle"}, "mode is 'shuffle'; expected one of"),
        ({"accountant": "gdp"}, "accountant is 'gdp'; expected one of"),
        ({"population": 0}, "population is 0; expected a whole number from 1 on"),
        ({"population": 9.5}, "population is 9.5"),
        ({"population": 10**400}, "population is 1000"),
        ({"clip_norm": 10**400}, "clip_norm is 1000"),
        ({"noise_multiplier": 10**400}, "noise_multiplier is 1000"),
        ({"max_epsilon": 10**400}, "max_epsilon is 1000"),
        ({"noise_seed": 10**400}, "noise_seed is 1000"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; expected a finite number above 0"),
        ({"clip_norm": math.inf}, "clip_norm is inf"),
        ({"clip_norm": "1"}, "clip_norm is '1'"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0; expected a finite number above 0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
        ({"sample_rate": 1.1}, "sample_rate is 1.1; expected a number above 0 and at most 1"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"delta": 0.1}, "delta is 0.1; expected a number above 0 and below 0.1"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"max_epsilon": -1.0}, "max_epsilon is -1.0"),
        ({"noise_seed": -1}, "noise_seed is -1; expected a whole number from 0 on"),
        ({"noise_seed": True}, "noise_seed is True"),
        ({"mode": "off"}, "neither noise nor budget"),
        ({"mode": "off", "noise_multiplier": 0.0, "max_epsilon": 8.0}, "neither noise nor budget"),
        ({"adaptive": AdaptiveClipping(), "mode": "local"}, "adaptive is an AdaptiveClipping, in mode 'central' alone"),
        ({"adaptive": True}, "adaptive is an AdaptiveClipping"),
        ({"adaptive": AdaptiveClipping(count_noise=0.5)}, r"count_noise is 0.5; expected more than half the noise"),
        ({"adaptive": AdaptiveClipping(count_noise=11.0)}, r"at most the expected cohort \(10\)"),
    ],
)
def test_a_configuration_that_protects_nothing_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DpemError, match=message):
        config(**changed)


@pytest.mark.parametrize("changed", [{"quantile": 1.0}, {"rate": 0.0}, {"count_noise": -1.0}])
def test_adaptive_clipping_that_cannot_adapt_is_refused(changed: dict[str, float]) -> None:
    with pytest.raises(DpemError, match=f"{next(iter(changed))} is"):
        AdaptiveClipping(**changed)


@pytest.mark.parametrize(
    ("target", "rounds", "settings"),
    [
        (0.0, 10, {}),
        (1000.0, 10, {}),
        (1.0, 0, {}),
        (1.0, 10**400, {}),
        (1.0, 10, {"noise_multiplier": 1.0}),
        (1.0, 10, {"mode": "off"}),
    ],
)
def test_a_target_that_cannot_be_met_is_refused(target: float, rounds: int, settings: dict[str, Any]) -> None:
    with pytest.raises(DpemError, match=r"target_epsilon is|rounds is|calibrate finds"):
        DPConfig.calibrate(target, rounds, population=10, clip_norm=1.0, **settings)
