"""Forecasters averaged by the machinery of policies: what is shared becomes one, counts and scales stay at home."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasting import PEERS, drawn_counts
from killing import Killed, killed_at, killed_at_random

from dpem_agents.checkpoints import Arrays
from dpem_agents.federated import BudgetExhausted, Ledger
from dpem_agents.federation import Federation, federation
from dpem_agents.forecasters.checkpoint import Checkpoint, load
from dpem_agents.forecasters.history import History
from dpem_agents.forecasters.training import Training, train_forecasters
from dpem_env import scenarios
from dpem_env.support.errors import DpemError
from dpem_env.support.files import sole_writer
from support.command_line import complaint, dpem

CHAIN = scenarios.get("chain3-v0", slots=50)
OPEN = federation(privacy="off", period=2)
PRIVATE = federation(period=2, epsilon=4.0, delta=1e-2)
SEEDED = federation(period=2, epsilon=4.0, delta=1e-2, noise_seed=7)
HEAD = ["output", "output_bias"]


def trained(chosen: Federation | None, cell: str = "gru", epochs: float = 2.0) -> Training:
    """Three nodes after ten batches of their histories, hence five rounds."""
    counts = drawn_counts(4300).astype(np.uint8)
    session = Training(History(counts, PEERS), cell, hidden=3, horizon=4, episode=100)
    if chosen is not None:
        session.federate(chosen, epochs)
    done = [batch for batch, _ in session.run(epochs)]
    assert done == list(range(1, 11))
    return session


def common(session: Training) -> list[str]:
    """Names of the weights that all nodes have in common."""
    arrays = {name: weight.detach().numpy() for name, weight in session.weights.items()}
    return sorted(name for name, array in arrays.items() if (array == array[0]).all())


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_after_a_round_nodes_have_the_shared_weights_in_common_and_no_others(cell: str) -> None:
    assert common(trained(None, cell)) == []
    assert common(trained(OPEN, cell)) == HEAD
    body = trained(federation(privacy="off", period=2, share="body"), cell)
    assert common(body) == sorted(body.weights.keys() - set(HEAD))
    whole = trained(federation(privacy="off", period=2, share="whole"), cell)
    assert common(whole) == sorted(whole.weights)
    assert len(np.unique(whole.scale[PEERS >= 0])) > 3  # the mean counts of pairs are a node's own


def test_what_is_averaged_is_what_nodes_have_learned() -> None:
    session = trained(OPEN)
    assert session.averaging is not None
    head = session.weights["output"]
    start = head.detach().clone()
    head.data += torch.arange(3.0)[:, None, None]
    session.averaging.average()
    np.testing.assert_allclose(head.detach(), (start + 1.0).numpy(), rtol=1e-5)


def test_the_privacy_of_a_topologys_nodes_has_a_ledger_of_its_own(tmp_path: Path) -> None:
    learned = learn(tmp_path, [4, 5])
    rounds = [Ledger(tmp_path / f"ledger-{seed}.json").rounds for seed in (4, 5)]
    assert rounds[0] == rounds[1] > 0
    spent = (tmp_path / "ledger-5.json").read_text()
    assert_same(learn(tmp_path, [5]).topologies, learned.topologies[1:])  # from what was released
    with pytest.raises(BudgetExhausted, match="nothing was released"):
        learn(tmp_path, [5], seed=1)
    assert (tmp_path / "ledger-5.json").read_text() == spent
    learn(tmp_path, [6])  # other nodes


@pytest.mark.parametrize(
    "chosen", [pytest.param(SEEDED, id="seeded", marks=pytest.mark.slow), pytest.param(PRIVATE, id="secret")]
)
def test_killed_again_and_again_it_ends_with_the_rounds_it_was_planned_for(chosen: Federation, tmp_path: Path) -> None:
    straight, kills = learn(tmp_path / "straight", [4, 5], chosen), 0
    for moment in count(2, 3):
        try:
            with killed_at(moment):
                learned = learn(tmp_path / "killed", [4, 5], chosen)
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert_as_planned(tmp_path, chosen)
    if chosen is SEEDED:
        assert_same(learned.topologies, straight.topologies)
    assert_same(learn(tmp_path / "killed", [4, 5], chosen).topologies, learned.topologies)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [SEEDED, PRIVATE], ids=["seeded", "secret"])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(chosen: Federation, tmp_path: Path) -> None:
    straight = learn(tmp_path / "straight", [4, 5], chosen, epochs=4.0)
    began = time.monotonic()
    learn(tmp_path / "timed", [4, 5], chosen, epochs=4.0)
    seconds = time.monotonic() - began

    def run() -> None:
        learn(tmp_path / "killed", [4, 5], chosen, epochs=4.0).save(tmp_path / "killed.npz")

    assert killed_at_random(run, 20, 0.7 * seconds) == 20
    assert_as_planned(tmp_path, chosen)
    if chosen is SEEDED:
        assert_same(load(tmp_path / "killed.npz").topologies, straight.topologies)


def test_one_process_trains_with_a_folder_of_ledgers_at_a_time(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(DpemError, match="another process is writing"):
        learn(tmp_path, [4])


def learn(ledgers: Path, topologies: list[int], chosen: Federation = PRIVATE, **changed: Any) -> Checkpoint:
    options: dict[str, Any] = {"hours": 0.5, "hidden": 3, "epochs": 1.0, "federation": chosen}
    return train_forecasters(CHAIN, topologies, ledgers=ledgers, **options | changed)


def assert_same(ours: Sequence[Arrays], theirs: Sequence[Arrays]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert all(np.array_equal(array, other[name]) for name, array in one.items())


def assert_as_planned(folder: Path, chosen: Federation) -> None:
    """As many charges and releases as without kills, of each topology."""
    for seed in (4, 5):
        killed, straight = (Ledger(folder / name / f"ledger-{seed}.json") for name in ("killed", "straight"))
        assert killed.charges == straight.charges
        kept, expected = (
            {path.name: path.read_bytes() for path in (folder / name / f"ledger-{seed}-releases").iterdir()}
            for name in ("killed", "straight")
        )
        assert kept.keys() == expected.keys()
        assert len(kept) == killed.rounds
        assert (kept == expected) == (chosen is SEEDED)


def test_nodes_with_little_history_learn_more_together() -> None:
    def lowest(chosen: Federation | None) -> float:
        """Mean over nodes of the loss on what each has kept back."""
        counts = drawn_counts(1200).astype(np.uint8)
        session = Training(History(counts, PEERS), "gru", hidden=3, horizon=4, episode=100, learning_rate=0.05)
        if chosen is not None:
            session.federate(chosen, 20.0)
        for _ in session.run(20.0):
            pass
        return float(session.lowest.mean())

    assert lowest(federation(privacy="off", period=1, share="whole")) < lowest(None)


def test_the_command_averages_and_books(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gru.npz"
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--topology", "5", "--hours", "0.5", "--hidden", "3")
    federate = ("--federate.epsilon", "4", "--federate.delta", "0.01", "--federate.period", "2")
    assert dpem("train-forecaster", *small, *federate, "--out", str(out)) == 0
    assert load(out).model == "gru"
    booked = json.loads((tmp_path / "gru-privacy" / "ledger-5.json").read_text())
    assert booked["charges"][0]["rounds"] > 0
    capsys.readouterr()
    before = out.read_bytes()
    assert dpem("train-forecaster", *small, *federate, "--out", str(out)) == 0
    assert out.read_bytes() == before
    capsys.readouterr()
    other = ("--seed", "1", "--out", str(out))
    assert "beyond max_epsilon 4" in complaint(capsys, "train-forecaster", *small, *federate, *other)
    assert out.read_bytes() == before
    out.unlink()
    assert "beyond max_epsilon 4" in complaint(capsys, "train-forecaster", *small, *federate, *other)
    assert load(out).model == "gru"  # what was learned until then
    ridge = ("--model", "ridge", "--out", str(tmp_path / "ridge.npz"))
    line = complaint(capsys, "train-forecaster", *small, *federate, *ridge)
    assert "--federate.… averages recurrent networks: choose --model gru, lstm or rnn" in line


def test_a_command_whose_ledger_was_deleted_learns_nothing_and_touches_no_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, privacy = tmp_path / "gru.npz", tmp_path / "gru-privacy"
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--hours", "0.5", "--hidden", "3", "--out", str(out))
    federate = ("--federate.epsilon", "4", "--federate.delta", "0.01", "--federate.period", "2")
    both = ("--topology", "5", "--topology", "6")
    assert dpem("train-forecaster", *small, *federate, *both) == 0
    (privacy / "ledger-6.json").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    monkeypatch.setattr("dpem_agents.forecasters.training.draw_history", None)
    for changed in ((), ("--seed", "1")):
        line = complaint(capsys, "train-forecaster", *small, *federate, *both, *changed)
        assert "ledger-6.json' is missing, which booked" in line
        assert "put it back as it was, or begin anew in another folder" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_a_training_that_would_average_nothing_is_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "run", None)
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--topology", "5", "--hours", "0.5", "--epochs", "2")
    options = ("--federate.period", "400", "--out", str(tmp_path / "gru.npz"))
    line = complaint(capsys, "train-forecaster", *small, *options)
    assert re.search(r"federation's period is 400 batches, and the training has (\d+): no round would be played", line)
    assert "learn from more hours, or for more epochs, or choose a period of" in line


def test_forecasters_of_other_names_cannot_be_shared() -> None:
    from dpem_agents.federated.embedded import Averaging

    with pytest.raises(DpemError, match="leave none of the learned parameters"):
        Averaging(OPEN, {}, 1)
