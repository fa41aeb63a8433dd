"""Forecasters averaged by the machinery of policies: what is shared becomes one, counts and scales stay at home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasting import PEERS, drawn_counts

from command_line import complaint, dpem
from dpem_agents.federated import BudgetExhausted, Ledger
from dpem_agents.federated.embedded import Federation, federation
from dpem_agents.forecasters.checkpoint import load
from dpem_agents.forecasters.history import History
from dpem_agents.forecasters.training import Training, train_forecasters
from dpem_env import scenarios
from dpem_env.errors import DpemError

CHAIN = scenarios.get("chain3-v0", slots=50)
OPEN = federation(privacy="off", period=2)
PRIVATE = federation(period=2, epsilon=4.0, delta=1e-2)
HEAD = ["output", "output_bias"]


def trained(chosen: Federation | None, cell: str = "gru", epochs: float = 2.0) -> Training:
    """Three nodes after ten batches of their histories, hence five rounds."""
    counts = drawn_counts(4300).astype(np.uint8)
    session = Training(History(counts, PEERS), cell, hidden=3, horizon=4, episode=100)
    done = [batch for batch, _ in session.run(epochs, chosen)]
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
    options: dict[str, Any] = {"hours": 0.5, "hidden": 3, "epochs": 1.0, "ledgers": tmp_path}
    train_forecasters(CHAIN, [4, 5], federation=PRIVATE, **options)
    rounds = [Ledger(tmp_path / f"ledger-{seed}.json").rounds for seed in (4, 5)]
    assert rounds[0] == rounds[1] > 0
    spent = (tmp_path / "ledger-5.json").read_text()
    with pytest.raises(BudgetExhausted, match="nothing was released"):
        train_forecasters(CHAIN, [5], federation=PRIVATE, **options)
    assert (tmp_path / "ledger-5.json").read_text() == spent
    train_forecasters(CHAIN, [6], federation=PRIVATE, **options)  # other nodes


def test_nodes_with_little_history_learn_more_together() -> None:
    def lowest(chosen: Federation | None) -> float:
        """Mean over nodes of the loss on what each has kept back."""
        counts = drawn_counts(1200).astype(np.uint8)
        session = Training(History(counts, PEERS), "gru", hidden=3, horizon=4, episode=100, learning_rate=0.05)
        for _ in session.run(20.0, chosen):
            pass
        return float(session.lowest.mean())

    assert lowest(federation(privacy="off", period=1, share="whole")) < lowest(None)


def test_the_command_averages_and_books(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gru.npz"
    small = ("--scenario", "chain3-v0", "--set", "slots=50", "--topology", "5", "--hours", "0.5", "--hidden", "3")
    federate = ("--federate", "epsilon=4", "--federate", "delta=0.01", "--federate", "period=2")
    assert dpem("train-forecaster", *small, *federate, "--out", str(out)) == 0
    assert load(out).model == "gru"
    booked = json.loads((tmp_path / "gru-privacy" / "ledger-5.json").read_text())
    assert booked["charges"][0]["rounds"] > 0
    capsys.readouterr()
    assert "beyond max_epsilon 4" in complaint(capsys, "train-forecaster", *small, *federate, "--out", str(out))
    ridge = ("--model", "ridge", "--out", str(tmp_path / "ridge.npz"))
    line = complaint(capsys, "train-forecaster", *small, *federate, *ridge)
    assert "--federate averages recurrent networks: choose --model gru, lstm or rnn" in line


def test_forecasters_of_other_names_cannot_be_shared() -> None:
    from dpem_agents.federated.embedded import Averaging

    with pytest.raises(DpemError, match="leave none of the learned parameters"):
        Averaging(OPEN, {}, 1)
