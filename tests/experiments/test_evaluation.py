"""An episode played by a policy: paired, repeatable, seen by whoever looks on."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.control import delay_in_slots
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import Decision, LocalPolicy, get_policy
from dpem_env.scenarios import Scenario


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


def test_all_policies_meet_the_same_requests(scenario: Scenario) -> None:
    notes: dict[tuple[str, int], Notes] = {}
    for name, index in product(("local-reactive", "central-reactive"), range(2)):
        notes[name, index] = Notes()
        seeds = episode_seeds(scenario, "evaluation", index)
        run_episode(scenario, get_policy(name), seeds, delay=0.5, recorder=notes[name, index])
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
    assert central.as_dict() == local.as_dict() | {"messages": 0.0}  # the controller asks nobody
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
