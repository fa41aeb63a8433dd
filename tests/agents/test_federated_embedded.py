"""Federated training: nodes learn alone between rounds, share what they should and nothing else, within the budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ppo_models import TOPOLOGY

from command_line import dpem
from dpem_agents.federated import BudgetExhausted, Ledger
from dpem_agents.federated.embedded import Federation, federation
from dpem_agents.ppo.checkpoint import load
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_agents.ppo.learner import Learner
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.ppo.training import Settings, train
from dpem_env import scenarios
from dpem_env.errors import DpemError, ScenarioError
from dpem_env.evaluation import run_episode
from dpem_env.session import EpisodeSeeds

CHAIN = scenarios.get("chain3-v0", slots=50)
QUICK = Hyperparameters(networks=1, slots=16, minibatches=2, epochs=2, hidden=8, encoder="plain")
ROLLOUT = 16 * 3
OPEN = federation(privacy="off", period=2)
SEEDED = federation(period=2, noise_seed=7, delta=1e-2)


def trained(out: Path, chosen: Federation | None = OPEN, rollouts: int = 6, **arguments: Any) -> Path:
    known = {"hyperparameters": QUICK, "topology_seed": TOPOLOGY, "validation_episodes": 1, "validations": 2}
    return train(CHAIN, "federated", rollouts * ROLLOUT, out, federation=chosen, **known | arguments)


def learner(folder: Path, chosen: Federation, rollouts: int = 100) -> Learner:
    settings = Settings(CHAIN.hash, "federated", 0, None, None, TOPOLOGY, QUICK, chosen)
    return Learner(CHAIN, settings, rollouts * ROLLOUT, "cpu", None, folder)


def actors(path: Path) -> dict[str, Any]:
    return load(path).actor


def assert_equal_over_nodes(arrays: dict[str, Any], names: list[str]) -> None:
    for name, array in arrays.items():
        assert np.array_equal(array[0], array[1]) == (name in names), name


def test_the_head_of_networks_per_peer_is_shared_and_nothing_else_of_them(tmp_path: Path) -> None:
    path = trained(tmp_path, hyperparameters=replace(QUICK, encoder="per-peer"))
    head = [f"actor.{layer}.{kind}" for layer in ("quality", "wait") for kind in ("weight", "bias")]
    assert set(head) < set(actors(path))
    assert_equal_over_nodes(actors(path), head)


def test_after_a_round_nodes_have_the_shared_weights_in_common_and_no_others(tmp_path: Path) -> None:
    head = ["actor.2.weight", "actor.2.bias"]
    assert_equal_over_nodes(actors(trained(tmp_path / "head")), head)
    whole = federation(privacy="off", period=2, share="whole")
    path = trained(tmp_path / "policy", whole)
    assert_equal_over_nodes(actors(path), list(actors(path)))
    critics = {name: a for name, a in load(path, training=True).arrays.items() if "weights.critic" in name}
    assert critics
    assert_equal_over_nodes(critics, [])
    between = trained(tmp_path / "between", rollouts=7)  # the last rollout was after the last round
    assert_equal_over_nodes(actors(between), [])


def test_the_shared_weights_are_the_mean_of_what_nodes_have_learned(tmp_path: Path) -> None:
    made = learner(tmp_path, OPEN)
    averaging = made.averaging
    assert averaging is not None
    head = made.model.policy.mlp_extractor.actor[2].weight
    start = head.detach().clone()
    assert torch.equal(start[0], start[1])
    learned = start + torch.arange(3.0)[:, None, None]
    head.data.copy_(learned)
    averaging.average()
    np.testing.assert_allclose(head.detach(), (start + 1.0).numpy(), rtol=1e-6)
    assert averaging.rounds == 1


def test_between_rounds_it_is_independent_learning(tmp_path: Path) -> None:
    never = federation(privacy="off", period=100)
    path = trained(tmp_path / "federated", never, 3)
    weights = actors(path)
    # From the same start for all nodes, which independent learners do not have: put it into theirs.
    alone = Learner(
        CHAIN, Settings(CHAIN.hash, "independent", 0, None, None, TOPOLOGY, QUICK), 3 * ROLLOUT, "cpu", None, tmp_path
    )
    for parameter in alone.model.policy.mlp_extractor.actor.parameters():
        parameter.data[:] = parameter.data[0].clone()
    alone.learn(lambda: None, lambda: None)
    named = {
        f"actor.{name}": p.detach().numpy() for name, p in alone.model.policy.mlp_extractor.actor.named_parameters()
    }
    assert all(np.array_equal(array, named[name]) for name, array in weights.items())


@pytest.mark.parametrize("chosen", [OPEN, SEEDED], ids=["off", "noised"])
def test_an_interrupted_training_goes_on_where_it_was(
    chosen: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = load(trained(tmp_path / "straight", chosen), training=True)
    usual, calls = Learner.average_if_due, [0]

    def interrupted(self: Learner) -> None:
        usual(self)
        calls[0] += 1
        if calls[0] == 4:  # between two rounds
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "average_if_due", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", chosen)
    monkeypatch.setattr(Learner, "average_if_due", usual)
    resumed = load(trained(tmp_path / "stopped", chosen), training=True)
    assert resumed.about["federated_rounds"] == 3
    for name, array in straight.arrays.items():
        assert np.array_equal(array, resumed.arrays[name]), name


def test_privacy_is_booked_and_a_longer_training_finds_the_budget_exhausted(tmp_path: Path) -> None:
    chosen = federation(period=2, epsilon=4.0, delta=1e-2)
    path = trained(tmp_path, chosen)
    ledger = Ledger(tmp_path / "ledger.json")
    assert ledger.rounds == 3
    assert ledger.private
    spent = json.loads((tmp_path / "ledger.json").read_text())
    with pytest.raises(BudgetExhausted, match="round 4 would take ε to"):
        trained(tmp_path, chosen, rollouts=8)
    assert json.loads((tmp_path / "ledger.json").read_text()) == spent
    kept = load(path)
    assert kept.about["timesteps"] == 8 * ROLLOUT
    assert kept.about["federated_rounds"] == 3
    anew = trained(tmp_path, chosen, resume=False)
    assert load(anew).about["federated_rounds"] == 3


def test_noise_is_not_repeatable_unless_it_is_seeded(tmp_path: Path) -> None:
    private = federation(period=2, epsilon=4.0, delta=1e-2)
    first, second = (actors(trained(tmp_path / name, private, 2)) for name in ("a", "b"))
    assert not np.array_equal(first["actor.2.weight"], second["actor.2.weight"])
    assert Ledger(tmp_path / "a" / "ledger.json").private
    first, second = (actors(trained(tmp_path / name, SEEDED, 2)) for name in ("c", "d"))
    assert np.array_equal(first["actor.2.weight"], second["actor.2.weight"])
    assert not Ledger(tmp_path / "c" / "ledger.json").private


def test_the_checkpoint_is_a_policy_of_its_topology(tmp_path: Path) -> None:
    policy = PpoPolicy(trained(tmp_path))
    assert run_episode(CHAIN, policy, EpisodeSeeds(TOPOLOGY, 3))[0].submitted > 0
    assert isinstance(policy.actor.checkpoint.about["topology"], str)


def test_the_command_trains_and_tells_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--scenario", "chain3-v0", "--set", "slots=40", "--learn", "slots=16", "--learn", "hidden=4")
    options = (
        "--federate",
        "epsilon=4",
        "--federate",
        "period=1",
        "--federate",
        "share=whole",
        "--federate",
        "delta=0.01",
    )
    assert dpem("train", *small, "--mode", "federated", *options, "--timesteps", "96", "--out", str(tmp_path)) == 0
    assert f"use it as --policy ppo:{tmp_path}" in capsys.readouterr().out
    assert load(tmp_path).about["settings"]["federation"]["epsilon"] == 4


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shared": "head"}, "unknown field of a federation 'shared'; did you mean 'share'"),
        ({"share": "all"}, "share is 'all'; expected one of 'head', 'whole'"),
        ({"privacy": "none"}, "privacy is 'none'; expected one of 'central', 'local', 'off'"),
        ({"period": 0}, "federation's period is 0"),
        ({"privacy": "off", "epsilon": 2.0}, "none with 'off'"),
        ({"epsilon": None}, "expected an epsilon with privacy 'central'"),
    ],
)
def test_a_federation_is_checked(values: dict[str, Any], line: str) -> None:
    with pytest.raises(DpemError, match=line) as told:
        federation(**values)
    assert "\n" not in str(told.value)


def test_a_federation_goes_with_its_mode_only(tmp_path: Path) -> None:
    with pytest.raises(DpemError, match="a federation goes with mode 'federated', and with no other"):
        train(CHAIN, "shared", 48, tmp_path / "new", federation=OPEN)
    with pytest.raises(ScenarioError, match=r"expected one of .*'federated'"):
        train(CHAIN, "together", 48, tmp_path / "new")
    assert not (tmp_path / "new").exists()
