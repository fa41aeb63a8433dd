"""Evaluation: contestants, paired episodes, intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.control import delay_in_slots
from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments import evaluation
from dpem_env.experiments.evaluation import (
    Arm,
    ArmResult,
    Method,
    arms,
    evaluate,
    mean_and_interval,
    methods,
    paired_difference,
    run_episode,
)
from dpem_env.policies import Decision, LocalPolicy, get_policy
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import PolicyError


@pytest.fixture
def scenario() -> Scenario:
    return scenarios.get("mesh20-v0", slots=24, request_rate=8.0)


class Notes:
    """A recorder that keeps what it was shown."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.slots: list[int] = []
        self.decisions: list[Decision] = []
        self.forecasts: list[Any] = []
        self.rewards = 0.0

    def begin(self, session: Session, label: str) -> None:
        self.labels.append(label)
        self.requests = session.demand.requests

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        self.slots.append(session.slot)
        self.decisions.append(decision)
        self.forecasts.append(forecast)
        self.rewards += float(session.rewards().mean())


def test_local_policies_play_once_and_central_ones_once_per_delay() -> None:
    contestants = arms(["local-reactive", "central-reactive", "central:local-reactive"], [0.0, 0.5])
    assert contestants == [
        Arm("local-reactive"),
        Arm("central-reactive", 0.0),
        Arm("central-reactive", 0.5),
        Arm("central:local-reactive", 0.0),
        Arm("central:local-reactive", 0.5),
    ]


def test_without_a_delay_central_policies_have_none() -> None:
    assert arms(["central-reactive"], []) == [Arm("central-reactive", 0.0)]


def test_a_contestant_named_twice_plays_once() -> None:
    assert arms(["local-reactive", "local-reactive"], []) == [Arm("local-reactive")]
    assert arms(["central-reactive"], [0.5, 0.5]) == [Arm("central-reactive", 0.5)]


def test_labels_tell_contestants_apart() -> None:
    contestants = arms(["local-reactive", "central-reactive"], [0.0, 0.25]) + arms(["local-reactive"], [], "oracle")
    assert [arm.label for arm in contestants] == [
        "local-reactive",
        "central-reactive (delay 0 s)",
        "central-reactive (delay 0.25 s)",
        "local-reactive +oracle",
    ]


def test_a_mistyped_policy_is_told_with_the_nearest() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'local-reactiv'; did you mean 'local-reactive'"):
        arms(["local-reactiv"], [])


def test_a_central_policy_cannot_be_put_under_central_control() -> None:
    with pytest.raises(PolicyError, match="'central-reactive' is central already"):
        arms(["central:central-reactive"], [])


def test_mean_and_interval_of_known_values() -> None:
    # Student's t for 2 degrees of freedom at 97.5 %: 4.302653 (any table).
    mean, width = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert width == pytest.approx(4.302653 * 1.0 / math.sqrt(3), rel=1e-6)


def test_values_that_do_not_exist_are_left_out() -> None:
    assert mean_and_interval([1.0, math.nan, 2.0, 3.0]) == mean_and_interval([1.0, 2.0, 3.0])
    assert all(math.isnan(number) for number in mean_and_interval([math.nan]))
    assert all(math.isnan(number) for number in mean_and_interval([]))


def test_one_value_has_a_mean_but_no_interval() -> None:
    mean, width = mean_and_interval([7.0])
    assert mean == 7.0
    assert math.isnan(width)


def result_with(policy: str, rates: list[float]) -> ArmResult:
    blank = dict.fromkeys(EpisodeMetrics.__dataclass_fields__, 0)
    return ArmResult(Arm(policy), [EpisodeMetrics(**(blank | {"delivery_rate": rate})) for rate in rates])


def test_differences_are_paired_by_episode() -> None:
    ours, theirs = result_with("a", [0.1, 0.5, 0.9]), result_with("b", [0.0, 0.4, 0.8])
    mean, width = paired_difference(ours, theirs, "delivery_rate")
    assert mean == pytest.approx(0.1)
    assert width == pytest.approx(0.0, abs=1e-12)
    assert ours.mean_and_interval("delivery_rate")[1] > 0.5


def test_differences_are_taken_over_the_common_episodes() -> None:
    ours, theirs = result_with("a", [0.1, 0.5, 0.9]), result_with("b", [0.0, 0.4])
    assert paired_difference(ours, theirs, "delivery_rate")[0] == pytest.approx(0.1)
    assert paired_difference(theirs, ours, "delivery_rate")[0] == pytest.approx(-0.1)


def test_an_episode_missing_on_one_side_is_left_out_of_the_difference() -> None:
    ours, theirs = result_with("a", [0.1, math.nan, 0.9]), result_with("b", [0.0, 0.4, 0.7])
    assert paired_difference(ours, theirs, "delivery_rate")[0] == pytest.approx(0.15)


def test_all_contestants_meet_the_same_requests(scenario: Scenario) -> None:
    results = [ArmResult(arm, []) for arm in arms(["local-reactive", "central-reactive"], [0.5])]
    notes: dict[tuple[str, int], Notes] = {}
    evaluate(scenario, results, 2, recorder_of=lambda arm, index: notes.setdefault((arm.policy, index), Notes()))
    assert [len(result.episodes) for result in results] == [2, 2]
    for index in range(2):
        ours, theirs = notes["local-reactive", index].requests, notes["central-reactive", index].requests
        assert len(ours.slot) > 0
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    first, second = (notes["local-reactive", index].requests for index in range(2))
    assert len(first.slot) != len(second.slot) or not np.array_equal(first.source, second.source)


def test_a_recorder_sees_every_slot_once(scenario: Scenario) -> None:
    notes = Notes()
    metrics, session = run_episode(
        scenario, get_policy("local-reactive"), episode_seeds(scenario, "train", 3), recorder=notes, label="mine"
    )
    assert notes.labels == ["mine"]
    assert notes.slots == list(range(1, 25))
    assert notes.forecasts == [None] * 24
    assert notes.rewards == pytest.approx(metrics.reward)
    assert session.done


def test_the_same_episode_comes_out_the_same(scenario: Scenario) -> None:
    seeds = episode_seeds(scenario, "evaluation", 1)
    first, second = (run_episode(scenario, get_policy("central-reactive"), seeds, delay=0.5)[0] for _ in range(2))
    assert first.as_dict() == second.as_dict()
    assert first.submitted > 0


def test_a_local_rule_under_central_control_without_delay_plays_its_own_episode(scenario: Scenario) -> None:
    seeds = episode_seeds(scenario, "evaluation", 0)
    local, session = run_episode(scenario, get_policy("local-reactive"), seeds)
    central, controlled = run_episode(scenario, get_policy("central:local-reactive"), seeds, delay=0.0)
    assert central.as_dict() == local.as_dict()
    assert controlled.simulator.digest() == session.simulator.digest()


def test_a_controller_orders_nothing_until_its_delay_has_passed(scenario: Scenario) -> None:
    notes = Notes()
    seeds = episode_seeds(scenario, "evaluation", 0)
    run_episode(scenario, get_policy("central-reactive"), seeds, delay=0.75, recorder=notes)
    delay = delay_in_slots(scenario, 0.75)
    assert delay == 3
    assert all(not decision.action.any() for decision in notes.decisions[:delay])
    assert any(decision.action.any() for decision in notes.decisions[delay:])


@pytest.mark.parametrize(("policy", "delay"), [("local-reactive", 0.0), ("central-reactive", 0.5)])
def test_the_forecasts_decided_on_are_shown_to_the_recorder(scenario: Scenario, policy: str, delay: float) -> None:
    notes = Notes()
    seeds = episode_seeds(scenario, "evaluation", 0)
    _, session = run_episode(scenario, get_policy(policy), seeds, delay=delay, forecaster="mean-rates", recorder=notes)
    expected = session.network.weights * 8.0 * 0.25
    late = delay_in_slots(scenario, delay)
    assert notes.forecasts[:late] == [None] * late
    for forecast in notes.forecasts[late:]:
        assert forecast.shape == (1, *session.network.peers.shape, 8)
        np.testing.assert_allclose(forecast[0, :, :, 5], expected, rtol=1e-6)


def test_a_given_forecaster_overrides_the_policys_own(scenario: Scenario) -> None:
    class Forecasting(LocalPolicy):
        forecaster = "mean-rates"

        def act(self, observations: Any, masks: Any) -> Decision:
            return Decision(np.zeros(len(masks), dtype=np.int64))

    seeds = episode_seeds(scenario, "evaluation", 0)
    own, none = Notes(), Notes()
    run_episode(scenario, Forecasting(), seeds, recorder=own)
    run_episode(scenario, Forecasting(), seeds, forecaster="none", recorder=none)
    assert all(forecast is not None for forecast in own.forecasts)
    assert none.forecasts == [None] * 24


def test_fewer_than_one_seed_is_refused(scenario: Scenario) -> None:
    with pytest.raises(PolicyError, match="seeds must be at least 1, given 0"):
        evaluate(scenario, [ArmResult(Arm("local-reactive"), [])], 0)


def test_an_interruption_keeps_the_finished_episodes(scenario: Scenario) -> None:
    results = [ArmResult(arm, []) for arm in arms(["local-reactive", "central-reactive"], [])]

    def stop(arm: Arm, index: int, session: Session) -> None:
        if (arm.policy, index) == ("local-reactive", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(scenario, results, 3, on_episode=stop)
    assert [len(result.episodes) for result in results] == [2, 1]


def test_a_pattern_names_the_checkpoints_of_one_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (2, 0, 1):
        (tmp_path / f"seed{seed}.zip").touch()
    monkeypatch.setattr(evaluation, "get_policy", lambda name: get_policy("idle"))
    pattern = f"learned:{tmp_path}/seed*.zip"
    [learner, rule] = methods([f"{pattern}+oracle", "idle"], [])
    assert learner.arms == tuple(Arm(f"learned:{tmp_path}/seed{k}.zip", None, "oracle") for k in range(3))
    assert learner.label == f"{pattern} +oracle, 3 training seeds"
    assert rule == Method("idle", (Arm("idle"),))
    assert arms([pattern], []) == [Arm(f"learned:{tmp_path}/seed{k}.zip") for k in range(3)]
    with pytest.raises(PolicyError, match="no file matches"):
        methods([f"learned:{tmp_path}/run*.zip"], [])


def test_a_central_method_comes_once_per_delay() -> None:
    found = methods(["central:local-reactive", "idle"], [0.0, 0.5, 0.5])
    assert [(method.policy, method.delay) for method in found] == [
        ("central:local-reactive", 0.0), ("central:local-reactive", 0.5), ("idle", None)
    ]  # fmt: skip
