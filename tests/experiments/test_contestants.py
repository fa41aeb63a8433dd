"""Who is compared: policies by their specs, contestants by name, delay and training seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_env.experiments import contestants as module
from dpem_env.experiments.contestants import Contestant, PolicySpec, contestants, policy_specs
from dpem_env.policies import get_policy
from dpem_env.support.errors import PolicyError


def test_local_policies_play_once_and_central_ones_once_per_delay() -> None:
    policies = policy_specs(["local-reactive", "central-reactive", "central:local-reactive"], [0.0, 0.5])
    assert policies == [
        PolicySpec("local-reactive"),
        PolicySpec("central-reactive", 0.0),
        PolicySpec("central-reactive", 0.5),
        PolicySpec("central:local-reactive", 0.0),
        PolicySpec("central:local-reactive", 0.5),
    ]


def test_without_a_delay_central_policies_have_none() -> None:
    assert policy_specs(["central-reactive"], []) == [PolicySpec("central-reactive", 0.0)]


def test_a_contestant_named_twice_plays_once() -> None:
    assert policy_specs(["local-reactive", "local-reactive"], []) == [PolicySpec("local-reactive")]
    assert policy_specs(["central-reactive"], [0.5, 0.5]) == [PolicySpec("central-reactive", 0.5)]


def test_labels_tell_contestants_apart() -> None:
    found = contestants(["local-reactive", "central-reactive"], [0.0, 0.25])
    found += contestants(["local-reactive"], [], ["oracle"])
    assert [each.label for each in found] == [
        "local-reactive",
        "central-reactive (delay 0 s)",
        "central-reactive (delay 0.25 s)",
        "local-reactive +oracle",
    ]


def test_a_mistyped_policy_is_told_with_the_nearest() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'local-reactiv'; did you mean 'local-reactive'"):
        policy_specs(["local-reactiv"], [])


def test_a_central_policy_cannot_be_put_under_central_control() -> None:
    with pytest.raises(PolicyError, match="'central-reactive' has a controller already"):
        policy_specs(["central:central-reactive"], [])


def test_a_pattern_names_the_checkpoints_of_one_contestant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (2, 0, 1):
        (tmp_path / f"seed{seed}.zip").touch()
    monkeypatch.setattr(module, "get_policy", lambda name: get_policy("idle"))
    pattern = f"learned:{tmp_path}/seed*.zip"
    [learner, rule] = contestants([f"{pattern}+oracle", "idle"], [])
    assert learner.policies == tuple(PolicySpec(f"learned:{tmp_path}/seed{k}.zip", None, "oracle") for k in range(3))
    assert learner.label == f"{pattern} +oracle, 3 training seeds"
    assert rule == Contestant("idle", (PolicySpec("idle"),))
    assert policy_specs([pattern], []) == [PolicySpec(f"learned:{tmp_path}/seed{k}.zip") for k in range(3)]
    with pytest.raises(PolicyError, match="no file matches"):
        contestants([f"learned:{tmp_path}/run*.zip"], [])


def test_a_central_contestant_comes_once_per_delay() -> None:
    found = contestants(["central:local-reactive", "idle"], [0.0, 0.5, 0.5])
    assert [(each.policy, each.delay) for each in found] == [
        ("central:local-reactive", 0.0), ("central:local-reactive", 0.5), ("idle", None)
    ]  # fmt: skip
