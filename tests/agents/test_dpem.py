"""The paper's system, assembled: it trains end to end, goes on where it was, and plays with its own forecasters."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpem_agents import dpem as assembled
from dpem_agents.dpem import train_dpem
from dpem_agents.federation import federation
from dpem_agents.forecasters.recurrent import GRU
from dpem_agents.ppo.checkpoint import load
from dpem_agents.ppo.hyperparameters import Hyperparameters
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import build_network
from dpem_env.policies import get_policy
from dpem_env.support.errors import PolicyError
from support.command_line import dpem

CHAIN = scenarios.get("chain3-v0", slots=50)
QUICK = Hyperparameters(networks=1, slots=16, minibatches=2, epochs=1, hidden=4, encoder="plain")
PRIVATE = federation(period=1, epsilon=4.0, delta=1e-2)


def trained(out: Path, timesteps: int = 96, topology_seed: int = 5) -> Path:
    return train_dpem(
        CHAIN,
        timesteps,
        out,
        topology_seed=topology_seed,
        hours=0.5,
        federation=PRIVATE,
        hyperparameters=QUICK,
        validation_episodes=1,
    )


def test_all_layers_are_trained_and_play_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "there")
    about = load(path).about
    assert about["mode"] == "federated"
    assert about["federated_rounds"] == 2
    assert about["settings"]["forecaster"] == f"gru:{tmp_path / 'there' / 'gru.npz'}"
    moved = (tmp_path / "there").rename(tmp_path / "here")
    policy = get_policy(f"ppo:{moved}")
    assert isinstance(get_forecaster(policy.forecaster), GRU)
    assert run_episode(CHAIN, policy, EpisodeSeeds(5, 3))[0].submitted > 0


def test_a_folder_of_trainings_plays_on_each_of_their_networks_with_what_was_learned_there(tmp_path: Path) -> None:
    seeds = (5, 6)
    alone = {seed: get_policy(f"ppo:{trained(tmp_path / f'all/{seed}', 48, seed).parent}") for seed in seeds}
    together = get_policy(f"ppo:{tmp_path / 'all'}")
    assert together.forecaster == f"gru:{tmp_path / 'all'}"
    assert {file.parent.name for file in together.sources} == {"5", "6"}
    for seed in (*seeds, seeds[0]):
        played = [run_episode(CHAIN, policy, EpisodeSeeds(seed, 3))[0] for policy in (together, alone[seed])]
        assert str(played[0]) == str(played[1])
    with pytest.raises(PolicyError, match="none of the 2 trainings, on as many networks, was on this one of 3 nodes"):
        together.reset(CHAIN, build_network(CHAIN, 8), 0)


def test_a_folder_with_two_trainings_on_one_network_is_refused(tmp_path: Path) -> None:
    for place in ("one", "two"):
        trained(tmp_path / place, 48)
    with pytest.raises(PolicyError, match=r"the policy of .*two.* plays on that of .*one.*, too"):
        get_policy(f"ppo:{tmp_path}")


def test_the_same_call_again_trains_no_forecaster_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path)
    before = (tmp_path / "gru.npz").read_bytes()

    def again(*arguments: object, **named: object) -> None:
        raise AssertionError

    monkeypatch.setattr(assembled, "train_forecasters", again)
    trained(tmp_path)
    assert (tmp_path / "gru.npz").read_bytes() == before


@pytest.mark.slow
def test_the_preset_of_the_command_is_the_assembled_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rounds = ("--federate.delta", "0.01", "--federate.period", "1")
    small = ("--scenario", "chain3-v0", "--set", "slots=40", "--learn.slots", "16", "--learn.hidden", "4")
    assert dpem("train", *small, "--preset", "dpem", "--hours", "0.5", *rounds, "--timesteps", "768") == 0
    out = capsys.readouterr().out
    assert "use it as --policy ppo:runs/chain3-v0+slots=40-dpem" in out
    folder = tmp_path / "runs" / "chain3-v0+slots=40-dpem"
    assert {"checkpoint.npz", "gru.npz", "learning_curve.json", "policy.npz"} <= {
        file.name for file in folder.iterdir()
    }
