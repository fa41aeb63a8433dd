"""Training: every node learns from its own history alone, keeps its best, and ends up knowing what can be known."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from forecasting import PEERS, drawn_checkpoint, drawn_counts, observed, setting

from dpem_agents.forecasters import training
from dpem_agents.forecasters.cells import Batch, clip, loss
from dpem_agents.forecasters.checkpoint import GATES, Checkpoint, load
from dpem_agents.forecasters.history import History
from dpem_agents.forecasters.recurrent import GRU, RecurrentForecaster
from dpem_agents.forecasters.ridge import RidgeForecaster, train_ridge
from dpem_agents.forecasters.training import Interrupted, Training, train_forecasters
from dpem_agents.libraries import one_thread
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds
from dpem_env.experiments.forecast_skill import ForecastItem, score_episode
from dpem_env.network.network import build_network
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import DpemError, ScenarioError

QUICK = {"hours": 0.1, "hidden": 3, "epochs": 1.0}


def trained(counts: Any, peers: Any = PEERS, cell: str = "gru", epochs: float = 2.0) -> dict[str, Any]:
    """Each node's best weights, and under "last …" those it ended with."""
    session = Training(History(counts.astype(np.uint8), peers), cell, hidden=3, horizon=4, episode=100)
    for _ in session.run(epochs):
        pass
    return session.best() | {f"last {name}": weight.detach().numpy() for name, weight in session.weights.items()}


def played(arrays: dict[str, Any], counts: Any, cell: str = "gru") -> Any:
    horizon = arrays["output_bias"].shape[1]
    forecaster = RecurrentForecaster(Checkpoint(cell, "", "", horizon, arrays["output"].shape[1], (arrays,)))
    forecaster.reset(setting(arrays["peers"]))
    return np.array(observed(forecaster, counts, peers=arrays["peers"]))


@pytest.mark.parametrize("cell", sorted(GATES))
def test_the_loss_is_the_poisson_likelihood_of_the_forecasts_that_inference_makes(cell: str) -> None:
    checkpoint = drawn_checkpoint(cell)
    arrays = checkpoint.topologies[0]
    counts = drawn_counts(13 + 3)
    forecasts = played(dict(arrays), counts[:13], cell)  # of 3 slots ahead
    weights = {name: torch.tensor(arrays[name][..., :3] if "output" in name else arrays[name]) for name in arrays}
    batch = Batch(counts[None], arrays["scale"], arrays["size"], horizon=3)
    losses, _ = loss(cell, weights, batch)
    assert batch.scored == [0, 4, 8, 12]
    expected = np.zeros(3)
    for slot in batch.scored:
        for i, d, h in np.ndindex(3, 2, 3):
            if PEERS[i, d] >= 0:
                told = forecasts[slot, i, d, h]
                expected[i] += (told - counts[slot + 1 + h, i, d] * np.log(told / arrays["scale"][i, d])) / 12
    assert losses.numpy() == pytest.approx(expected / arrays["scale"].sum(axis=1), rel=1e-4)


@pytest.mark.parametrize("cell", sorted(GATES))
def test_untrained_networks_forecast_about_the_mean_of_the_history(cell: str) -> None:
    counts = drawn_counts(800)
    arrays = Training(History(counts.astype(np.uint8), PEERS), cell, 6, horizon=4, episode=100).best()
    real = PEERS >= 0
    forecast = played(arrays, counts[:50], cell)[:, real].mean(axis=(0, 2))
    assert forecast == pytest.approx(counts.mean(axis=0)[real], rel=0.3)


@pytest.mark.parametrize("cell", sorted(GATES))
@pytest.mark.parametrize("other", range(3))
def test_what_a_node_learns_depends_on_its_own_history_alone(cell: str, other: int) -> None:
    counts = drawn_counts(500)
    perturbed = counts.copy()
    perturbed[:, other] = drawn_counts(500, seed=5)[:, other]
    one, two = trained(counts, cell=cell), trained(perturbed, cell=cell)
    same = np.arange(3) != other
    for name in one:
        assert np.array_equal(one[name][same], two[name][same]), name
    assert not np.array_equal(one["last output"][other], two["last output"][other])


def test_what_training_hands_out_stays_as_it_is_while_training_goes_on() -> None:
    counts = drawn_counts(500)
    counts[np.arange(500) // 20 % 2 == 0] = 0  # something to learn
    session = Training(History(counts.astype(np.uint8), PEERS), "gru", 3, horizon=4, episode=100)
    batches = session.run(4.0)
    next(batches)
    early = Checkpoint("gru", "", "", 4, 3, (session.best(),)).topologies[0]  # read-only from now on
    before = {name: array.copy() for name, array in early.items()}
    for _ in batches:
        pass
    assert not np.array_equal(session.best()["output"], before["output"])
    assert all(np.array_equal(early[name], before[name]) for name in before)


def test_training_is_repeated_exactly() -> None:
    counts = drawn_counts(500)
    one, two = trained(counts), trained(counts)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_gradients_are_shortened_node_by_node() -> None:
    weights = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 1, 1)}
    weights["a"].grad, weights["b"].grad = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[[4.0]], [[0.4]]])
    clip(weights)
    assert torch.allclose(weights["a"].grad, torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    assert torch.allclose(weights["b"].grad, torch.tensor([[[0.8]], [[0.4]]]))


def test_every_node_keeps_the_weights_that_did_best_on_the_end_of_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Training(History(drawn_counts(500).astype(np.uint8), PEERS), "gru", 3, horizon=4, episode=100)
    checked: list[tuple[Any, Any]] = []
    validate = Training._keep_the_better

    def recording(self: Training) -> None:
        weights = {name: weight.detach().numpy().copy() for name, weight in self.weights.items()}
        fresh = copy.copy(self)
        fresh.lowest, fresh._best = np.full(3, np.inf), copy.deepcopy(self._best)
        validate(fresh)
        checked.append((fresh.lowest, weights))
        validate(self)

    monkeypatch.setattr(Training, "_keep_the_better", recording)
    session.learning_rate = 0.5  # far too much: validation goes up and down
    for _ in session.run(6.0):
        pass
    losses = np.array([each for each, _ in checked])
    best = losses.argmin(axis=0)
    assert len(set(best.tolist())) > 1  # nodes differ in when they were best
    assert np.allclose(session.lowest, losses.min(axis=0))
    for i in range(3):
        kept, best_weights = session.best()["output"][i], checked[best[i]][1]["output"][i]
        assert kept.dtype == np.float16
        assert np.array_equal(kept, best_weights.astype(np.float16))


def test_pairs_that_never_ask_and_nodes_without_peers_do_no_harm() -> None:
    peers = np.array([[1, 2], [-1, -1], [0, 1]], dtype=np.int32)
    counts = drawn_counts(500)
    counts[:, 0], counts[:, 1] = 0, 0
    arrays = trained(counts, peers)
    assert all(np.isfinite(array).all() for array in arrays.values())
    forecasts = played(arrays, counts[:30])
    assert not forecasts[:, 1].any()
    assert (forecasts[:, 0] > 0).all()
    assert (forecasts[:, 0] < 0.02).all()


def test_an_interrupted_training_keeps_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = scenarios.get("chain3-v0")
    batches = Training.run

    def interrupted(self: Training, epochs: float, *_: Any) -> Iterator[tuple[int, int]]:
        for done, total in batches(self, epochs):
            if len(begun) == 2:
                raise KeyboardInterrupt
            yield done, total

    begun: list[int] = []
    draw = training.draw_history

    def drawn(*arguments: Any) -> History:
        begun.append(arguments[1])
        return draw(*arguments)

    monkeypatch.setattr(Training, "run", interrupted)
    monkeypatch.setattr(training, "draw_history", drawn)
    with pytest.raises(Interrupted) as interrupt:
        train_forecasters(scenario, (0, 1, 2), **QUICK)
    checkpoint = interrupt.value.learned
    assert begun == [0, 1]
    assert len(checkpoint.topologies) == 2
    for array in checkpoint.topologies[1].values():
        assert np.isfinite(array).all()


def test_a_trained_checkpoint_serves_its_topologies_after_a_trip_to_disk(tmp_path: Any) -> None:
    scenario = scenarios.get("star8-v0")
    train_forecasters(scenario, (0, 3), cell="rnn", **QUICK).save(tmp_path / "weights.npz")
    checkpoint = load(tmp_path / "weights.npz")
    assert (checkpoint.scenario, checkpoint.scenario_hash, checkpoint.model) == (scenario.name, scenario.hash, "rnn")
    assert checkpoint.horizon == 8 + 16  # the observation's, after 4 s of delay
    for seed, arrays in zip((0, 3), checkpoint.topologies, strict=True):
        assert np.array_equal(arrays["peers"], build_network(scenario, seed).peers)
    item = ForecastItem(scenario.override(slots=40), EpisodeSeeds(3, 0), f"rnn:{tmp_path / 'weights.npz'}")
    assert np.isfinite(score_episode(item)["deviance"]).all()


def test_a_history_shorter_than_two_segments_is_refused() -> None:
    with pytest.raises(ScenarioError, match="history of 150 slots is too short to learn from; needed: 204"):
        Training(History(drawn_counts(150).astype(np.uint8), PEERS), "gru", 3, horizon=4, episode=100)


def test_training_without_torch_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DpemError, match=r"pip install 'dpem-env\[agents\]'") as error:
        train_forecasters(scenarios.get("chain3-v0"), (0,))
    assert "\n" not in str(error.value)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ScenarioError, match="cell is 'gruu'; expected one of 'gru', 'lstm', 'rnn'"):
        train_forecasters(scenarios.get("chain3-v0"), (0,), cell="gruu")


def test_training_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


SMALL = {"nodes": 4, "request_rate": 2.0, "session_duration": 10.0, "session_share": 0.1}
HELD_OUT = range(2_000_000, 2_000_012)


def deviance(forecaster: Any, scenario: Scenario) -> float:
    """On demand of the evaluation split, mean over the slots ahead."""
    sums = [score_episode(ForecastItem(scenario, EpisodeSeeds(0, seed), forecaster)) for seed in HELD_OUT]
    return sum(np.sum(each["deviance"]) for each in sums) / sum(np.sum(each["forecasts"]) for each in sums)


@pytest.mark.slow
@pytest.mark.parametrize("cell", sorted(GATES))
def test_recurrent_forecasters_beat_averages_but_not_the_bayes_filter(cell: str) -> None:
    scenario = scenarios.get("star8-v0", predictability=1.0, peers=3, **SMALL)
    learned = deviance(RecurrentForecaster(train_forecasters(scenario, (0,), hours=6.0, cell=cell)), scenario)
    assert deviance("bayes-filter", scenario) < learned
    for window in (5, 10, 20, 40, 80):
        assert learned < 0.9 * deviance(f"moving-average:{window}", scenario)
    assert learned < 0.6 * deviance("mean-rates", scenario)
    ridge = train_ridge(scenario, (0,), hours=6.0)
    assert learned < deviance(RidgeForecaster(ridge), scenario)


def test_a_quickly_trained_gru_and_ridge_lie_between_the_averages_and_the_bayes_filter() -> None:
    scenario = scenarios.get("star8-v0", predictability=1.0, peers=3, **SMALL)
    learned = train_forecasters(scenario, (0,), hours=2.0, hidden=8, epochs=3.0, learning_rate=0.05)
    gru, ridge = GRU(learned), RidgeForecaster(train_ridge(scenario, (0,), hours=2.0))
    ceiling, average, mean = (deviance(name, scenario) for name in ("bayes-filter", "moving-average:20", "mean-rates"))
    for forecaster in (gru, ridge):
        assert ceiling < deviance(forecaster, scenario) < 0.9 * average
    assert average < mean


@pytest.mark.slow
def test_where_nothing_can_be_predicted_nothing_beats_the_mean_rates() -> None:
    scenario = scenarios.get("star8-v0", predictability=0.0, peers=3, **SMALL)
    mean = deviance("mean-rates", scenario)
    assert deviance("bayes-filter", scenario) == pytest.approx(mean, rel=1e-12)
    assert deviance("moving-average:80", scenario) > 1.1 * mean
    gru = GRU(train_forecasters(scenario, (0,), hours=1.0, hidden=8, epochs=2.0, learning_rate=0.05))
    ridge = RidgeForecaster(train_ridge(scenario, (0,), hours=1.0))
    for forecaster in (gru, ridge):  # they know the mean rates, but for the chance of a finite sample
        assert deviance(forecaster, scenario) == pytest.approx(mean, rel=0.01)
