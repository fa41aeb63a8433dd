"""Forecasters with a checkpoint: inference against PyTorch, state, independence of nodes, bad input of every kind."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasting import LEARNED, PEERS, drawn_checkpoint, drawn_counts, observed, setting

from dpem_agents.forecasters import recurrent
from dpem_agents.forecasters.bayes_filter import BayesFilter
from dpem_agents.forecasters.checkpoint import GATES, Checkpoint, load
from dpem_agents.forecasters.history import History, counts_of, draw_history
from dpem_agents.forecasters.online import OnlineGRU
from dpem_agents.forecasters.recurrent import GRU, LSTM, RecurrentForecaster, VanillaRNN
from dpem_agents.forecasters.ridge import RidgeForecaster, fit
from dpem_env import scenarios
from dpem_env.demand.forecast import Forecaster, get_forecaster
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.network.network import build_network
from dpem_env.support.errors import DpemError, PolicyError, ScenarioError
from dpem_env.support.provenance import stamp

KINDS: dict[str, Any] = {
    "ridge": lambda: RidgeForecaster(drawn_checkpoint("ridge")),
    "gru": lambda: GRU(drawn_checkpoint("gru")),
    "lstm": lambda: LSTM(drawn_checkpoint("lstm")),
    "rnn": lambda: VanillaRNN(drawn_checkpoint("rnn")),
    "gru-online": lambda: OnlineGRU(drawn_checkpoint("gru"), every=7, learning_rate=0.5),
    "bayes-filter": BayesFilter,
}
LEARNING = sorted(set(KINDS) - {"bayes-filter"})


def begun(kind: str) -> Any:
    forecaster = KINDS[kind]()
    forecaster.reset(setting())
    return forecaster


# ------------------------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("cell", sorted(GATES))
@pytest.mark.parametrize("hidden", [1, 5])
def test_inference_equals_pytorchs_own_cells(cell: str, hidden: int) -> None:
    checkpoint = drawn_checkpoint(cell, hidden)
    arrays = {name: torch.tensor(array) for name, array in checkpoint.topologies[0].items()}
    module: Any = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell, "rnn": torch.nn.RNNCell}[cell](3, hidden)
    counts = drawn_counts(60)
    forecaster = RecurrentForecaster(checkpoint)
    forecaster.reset(setting())
    forecasts = observed(forecaster, counts)
    for i in range(len(PEERS)):
        module.weight_ih.data = arrays["input"][i].T.contiguous()
        module.weight_hh.data = arrays["recurrent"][i].T.contiguous()
        module.bias_ih.data, module.bias_hh.data = arrays["input_bias"][i], arrays["recurrent_bias"][i]
        state: Any = None
        for slot, count in enumerate(torch.tensor(counts[:, i], dtype=torch.float32)):
            inputs = torch.stack((count.log1p(), count.sum().log1p().expand(2), arrays["size"][i]), dim=1)
            state = module(inputs, state)
            hidden_state = state[0] if cell == "lstm" else state
            link = hidden_state @ arrays["output"][i] + arrays["output_bias"][i]
            told = arrays["scale"][i][:, None] * torch.nn.functional.softplus(link)
            assert np.abs(forecasts[slot][i] - told[:, :3].detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", sorted(set(LEARNING) - {"gru-online"}))
def test_beyond_what_was_learned_the_last_step_is_held(kind: str) -> None:
    forecaster = begun(kind)
    observed(forecaster, drawn_counts(9))
    near, far, farther = forecaster.predict(), forecaster.predict(lead=2), forecaster.predict(lead=40)
    assert np.array_equal(near[:, :, 2], far[:, :, 0])  # both are three slots ahead
    assert np.array_equal(farther, np.repeat(far[:, :, 2:], 3, axis=2))
    assert LEARNED == 5
    assert not np.array_equal(far[:, :, 1], far[:, :, 2])


def test_the_ridge_forecast_is_the_weighted_sum_of_window_means() -> None:
    weights = np.zeros((3, 9, LEARNED), dtype=np.float32)
    weights[0, 0, 0], weights[0, 2, 1], weights[0, 8, 2] = 1.0, 2.0, 3.0  # last slot; last 4 slots; the scale
    weights[2, 7, 0] = -1.0
    forecaster = RidgeForecaster(drawn_checkpoint("ridge", weights=weights))
    forecaster.reset(setting())
    counts = np.zeros((6, 3, 2), dtype=np.int64)
    counts[:, 0, 1] = (9, 0, 1, 2, 0, 4)
    counts[:, 2, 0] = 1
    forecasts = observed(forecaster, counts)
    assert forecasts[5][0, 1] == pytest.approx([4.0, 2.0 * 7.0 / 4.0, 3.0 * 0.3])
    # Slots before the episode count as the scale, 0.3.
    assert forecasts[1][0, 1] == pytest.approx([0.0, 2.0 * (0.3 + 0.3 + 9.0) / 4.0, 0.9])
    assert not forecasts[5][2].any()  # never negative


def test_ridge_weights_are_the_least_squares_solution_of_a_nodes_own_history() -> None:
    counts = drawn_counts(500, seed=3).astype(np.uint8)
    fitted = fit(History(counts, PEERS), horizon=2, penalty=0.0)
    forecaster = RidgeForecaster(Checkpoint("ridge", "", "", 2, 0, (fitted,)))
    forecaster.reset(setting())
    scale = fitted["scale"].astype(np.float64)
    rows, targets = [], []
    past = np.concatenate((np.repeat(scale[None], 128, axis=0), counts))
    for slot in range(498):
        for d in range(2):
            means = [past[slot + 129 - window : slot + 129, 2, d].mean() for window in (1, 2, 4, 8, 16, 32, 64, 128)]
            rows.append(np.array([*means, scale[2, d]]) / np.sqrt(scale[2, d]))
            targets.append(counts[slot + 1 : slot + 3, 2, d] / np.sqrt(scale[2, d]))
    solution = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    assert np.allclose(fitted["weights"][2], solution, atol=2e-3)


# ----------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_copies_made_in_the_middle_of_an_episode_go_on_alike(kind: str) -> None:
    counts = drawn_counts(40)
    forecaster = begun(kind)
    observed(forecaster, counts[:17])
    twins = pickle.loads(pickle.dumps(forecaster)), copy.deepcopy(forecaster)
    expected = observed(forecaster, counts[17:], first=17)
    for twin in twins:
        assert np.array_equal(observed(twin, counts[17:], first=17), expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_new_episode_remembers_nothing(kind: str) -> None:
    counts = drawn_counts(30)
    forecaster = begun(kind)
    first = observed(forecaster, counts)
    forecaster.reset(setting())
    assert np.array_equal(observed(forecaster, counts), first)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_was_seen_long_ago_still_matters(kind: str) -> None:
    counts = np.zeros((12, 3, 2), dtype=np.int64)
    other = counts.copy()
    other[0] = PEERS >= 0
    assert not np.array_equal(observed(begun(kind), counts)[-1], observed(begun(kind), other)[-1])


def test_copies_share_the_checkpoint_which_cannot_be_written_to() -> None:
    forecaster = begun("gru")
    assert copy.deepcopy(forecaster).checkpoint is forecaster.checkpoint
    with pytest.raises(ValueError, match="read-only"):
        forecaster.checkpoint.topologies[0]["output"][:] = 0.0


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("node", range(3))
def test_a_nodes_forecast_depends_on_its_own_requests_alone(kind: str, node: int) -> None:
    counts = drawn_counts(40)
    perturbed = np.where(np.arange(3)[:, None] == node, counts, drawn_counts(40, seed=9))
    alone, among = observed(begun(kind), counts), observed(begun(kind), perturbed)
    assert np.array_equal(np.array(alone)[:, node], np.array(among)[:, node])
    others = np.arange(3) != node
    assert not np.array_equal(np.array(alone)[:, others], np.array(among)[:, others])


def test_an_online_forecaster_learns_during_the_episode_and_forgets_at_its_end() -> None:
    counts = drawn_counts(40)
    online, fixed = begun("gru-online"), begun("gru")
    changing, constant = observed(online, counts), observed(fixed, counts)
    # Every 7 slots, once the latest 7 + LEARNED are there: at 14 for the first time.
    assert np.array_equal(changing[:13], constant[:13])
    assert all(not np.array_equal(a, b) for a, b in zip(changing[13:], constant[13:], strict=True))
    online.reset(setting())
    assert np.array_equal(observed(online, counts[:13]), constant[:13])


def test_what_a_node_learns_online_is_its_own_history_alone() -> None:
    counts = drawn_counts(30)
    perturbed = np.where(np.arange(3)[:, None] == 1, drawn_counts(30, seed=9), counts)
    one, other = begun("gru-online"), begun("gru-online")
    observed(one, counts)
    observed(other, perturbed)
    learned = one.learned
    for name, a, b in zip(learned, one._weights, other._weights, strict=False):
        assert np.array_equal(a[[0, 2]], b[[0, 2]]), name
    assert not np.array_equal(one._weights[4][1], other._weights[4][1])
    assert not np.array_equal(one._weights[4][0], learned["output"][0])


def test_learning_online_lowers_the_loss_on_what_keeps_coming() -> None:
    counts = np.broadcast_to(2 * (PEERS >= 0), (400, 3, 2))
    online, fixed = OnlineGRU(drawn_checkpoint("gru"), every=10, learning_rate=0.05), begun("gru")
    online.reset(setting())
    real = PEERS >= 0
    told, kept = (observed(forecaster, counts)[-1][real] for forecaster in (online, fixed))
    assert (np.abs(told - 2.0) < np.abs(kept - 2.0)).all()


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("counts", ["nothing", "a burst", "a peer never seen"])
def test_forecasts_are_finite_and_not_negative_whatever_comes(kind: str, counts: str) -> None:
    table = np.zeros((30, 3, 2), dtype=np.int64)
    if counts == "a burst":
        table[5, 0, 1] = 5000
    if counts == "a peer never seen":
        table[:, 2, 1] = 4
    forecaster = begun(kind)
    for forecast in (*observed(forecaster, table), forecaster.predict(lead=16)):
        assert forecast.shape == (3, 2, 3)
        assert np.isfinite(forecast).all()
        assert (forecast >= 0).all()
        assert not forecast[1, 1].any()  # no peer


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_forecast_before_anything_was_seen_is_one_too(kind: str) -> None:
    forecast = begun(kind).predict()
    assert np.isfinite(forecast).all()
    assert (forecast >= 0).all()


def written(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "weights.npz"
    drawn_checkpoint("gru", **changed).save(path)
    return path


def one_line(error: pytest.ExceptionInfo[DpemError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", ["ridge", *sorted(GATES)])
def test_a_checkpoint_is_read_back_as_it_was_written(model: str, tmp_path: Path) -> None:
    checkpoint = drawn_checkpoint(model)
    checkpoint.save(tmp_path / "new" / "weights.npz")
    about = str(np.load(tmp_path / "new" / "weights.npz")["about"])
    assert json.loads(about)["stamp"] == stamp()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["weights.npz"]
    again = load(tmp_path / "new" / "weights.npz")
    assert (again.model, again.scenario, again.scenario_hash) == (model, "chain3-v0", "0" * 12)
    assert (again.horizon, again.hidden) == (LEARNED, checkpoint.hidden)
    assert again.topologies[0].keys() == checkpoint.topologies[0].keys()
    for name, array in checkpoint.topologies[0].items():
        assert np.array_equal(again.topologies[0][name], array)
        assert again.topologies[0][name].dtype == array.dtype


@pytest.mark.parametrize(("name", "kind"), [("gru", GRU), ("gru-online", OnlineGRU)])
def test_a_checkpoint_is_named_after_the_colon(name: str, kind: type, tmp_path: Path) -> None:
    path = written(tmp_path)
    forecaster = get_forecaster(f"{name}:{path}")
    assert type(forecaster) is kind
    assert isinstance(forecaster, Forecaster)
    with pytest.raises(PolicyError, match=f"needs an argument: {name}:ARGUMENT") as error:
        get_forecaster(name)
    one_line(error)


@pytest.mark.parametrize("name", ["lstm", "rnn", "ridge"])
def test_a_checkpoint_of_another_model_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=f"of a gru, not of a {name}: say gru:PATH") as error:
        get_forecaster(f"{name}:{written(tmp_path)}")
    one_line(error)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["output", "scale"])
def test_a_checkpoint_with_entries_that_are_no_numbers_is_refused(name: str, entry: float, tmp_path: Path) -> None:
    array = drawn_checkpoint("gru").topologies[0][name].copy()
    array.flat[1] = entry
    with pytest.raises(PolicyError, match=f"{name} has entries that are no numbers") as error:
        load(written(tmp_path, **{name: array}))
    one_line(error)


@pytest.mark.parametrize("name", ["output", "scale", "recurrent"])
def test_a_checkpoint_whose_arrays_do_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    array = drawn_checkpoint("gru").topologies[0][name]
    with pytest.raises(PolicyError, match=f"{name} has shape") as error:
        load(written(tmp_path, **{name: array[:, :-1]}))
    one_line(error)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PolicyError, match=r"weights\.npz' cannot be used") as error:
        load(path)
    one_line(error)


def _missing(path: Path) -> None:
    path.unlink()


def _text(path: Path) -> None:
    path.write_text("not a checkpoint", encoding="utf-8")


def _single_array(path: Path) -> None:
    with open(path, "wb") as stream:
        np.save(stream, np.zeros(3))


def _other_archive(path: Path) -> None:
    np.savez(path, x=np.zeros(3))


def _pickled(path: Path) -> None:
    np.savez(path, about=np.array([object()], dtype=object))


def _not_json(path: Path) -> None:
    np.savez(path, about=np.array("{"))


def _later_format(path: Path) -> None:
    np.savez(path, about=np.array('{"format": "dpem-forecaster-2"}'))


def _no_topology(path: Path) -> None:
    Checkpoint("gru", "x", "y", 5, 4, ()).save(path)


def _odd_numbers(path: Path) -> None:
    Checkpoint("gru", "x", "y", -5, 4, drawn_checkpoint("gru").topologies).save(path)


def _odd_key(path: Path) -> None:
    np.savez(path, about=np.array('{"format": "dpem-forecaster-1"}'), peers=PEERS)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        _missing,
        _text,
        _single_array,
        _other_archive,
        _pickled,
        _not_json,
        _later_format,
        _no_topology,
        _odd_numbers,
        _odd_key,
        _folder,
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(spoil: Any, tmp_path: Path) -> None:
    path = written(tmp_path)
    spoil(path)
    with pytest.raises(PolicyError, match="cannot be used") as error:
        get_forecaster(f"gru:{path}")
    one_line(error)


@pytest.mark.parametrize("kind", LEARNING)
def test_a_network_that_was_not_learned_is_refused_in_one_line(kind: str) -> None:
    forecaster = KINDS[kind]()
    others = PEERS.copy()
    others[0] = (2, 1)
    with pytest.raises(PolicyError, match="1 topologies of chain3-v0, but not this network of 3 nodes") as error:
        forecaster.reset(setting(others))
    one_line(error)
    with pytest.raises(PolicyError, match=r"is for 2 peers per node; chain3-v0.* has 3") as error:
        forecaster.reset(setting(np.pad(PEERS, ((0, 0), (0, 1)), constant_values=-1)))
    one_line(error)


def test_of_several_topologies_the_one_with_these_peers_is_used() -> None:
    mine, other = drawn_checkpoint("gru"), drawn_checkpoint("gru", seed=1, peers=PEERS[::-1].copy())
    both = Checkpoint("gru", "x", "y", LEARNED, 4, (*other.topologies, *mine.topologies))
    forecaster = GRU(both)
    forecaster.reset(setting())
    counts = drawn_counts(5)
    assert np.array_equal(observed(forecaster, counts), observed(begun("gru"), counts))


def test_a_checkpoint_that_cannot_be_written_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DpemError, match="cannot be written") as error:
        drawn_checkpoint("gru").save(tmp_path / "file" / "weights.npz")
    one_line(error)


def test_a_history_shorter_than_the_forecast_is_refused_and_one_shorter_than_the_windows_is_enough() -> None:
    with pytest.raises(ScenarioError, match="history of 5 slots is too short"):
        fit(History(np.zeros((5, 3, 2), dtype=np.uint8), PEERS), horizon=5)
    weights = fit(History(drawn_counts(40).astype(np.uint8), PEERS), horizon=5)["weights"]
    assert np.isfinite(weights).all()
    silent = fit(History(np.zeros((40, 3, 2), dtype=np.uint8), PEERS), horizon=5)
    forecaster = RidgeForecaster(Checkpoint("ridge", "", "", 5, 0, (silent,)))
    forecaster.reset(setting())
    assert np.isfinite(observed(forecaster, drawn_counts(40))).all()


@pytest.mark.parametrize("hours", [0.0, -1.0, 1e9, float("nan")])
def test_a_history_of_no_or_too_many_slots_is_refused(hours: float) -> None:
    with pytest.raises(ScenarioError, match="a history has 1 to 1000000"):
        draw_history(scenarios.get("chain3-v0"), 0, hours)


def test_a_history_holds_the_requests_that_were_drawn() -> None:
    scenario = scenarios.get("chain3-v0")
    history = draw_history(scenario, 0, hours=0.5)
    assert history.counts.shape == (7200, 3, 2)
    assert history.counts.dtype == np.uint8
    assert history.counts.sum() / 7200 == pytest.approx(3.4 * 0.25, rel=0.1)
    assert np.array_equal(history.scale()[history.peers < 0], np.zeros((history.peers < 0).sum()))
    second = draw_history(scenario, 1, hours=0.5)
    demand = draw_demand(scenario, build_network(scenario, 1), scenario.seeds.train.demand[1], 7200)
    assert np.array_equal(second.counts, counts_of(demand, 7200))
    assert second.counts.sum() == len(demand.requests.slot)


def test_a_replayed_file_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no other demand to learn from"):
        draw_history(scenarios.get("chain3-v0", kind="replay", requests_file="requests.csv"), 0)


def test_a_learned_forecaster_fills_the_forecasts_of_a_session() -> None:
    scenario = scenarios.get("star8-v0")
    ridge = Checkpoint("ridge", scenario.name, scenario.hash, 8, 0, (fit(draw_history(scenario, 0, 0.1), 8),))
    session = Session(scenario, forecaster=RidgeForecaster(ridge))
    session.begin(episode_seeds(scenario, "train", 0))
    assert session.forecast is not None
    assert session.forecast.shape == (1, 8, 4, 8)
    with pytest.raises(PolicyError, match="but not this network"):
        session.begin(episode_seeds(scenario, "train", 1))


def test_inference_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    counts = drawn_counts(3)
    assert np.isfinite(observed(begun("gru"), counts)).all()
    with pytest.raises(DpemError, match=r"pip install 'dpem-env\[agents\]'") as error:
        KINDS["gru-online"]()
    one_line(error)


def test_exponential_and_softplus_are_as_exact_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "exponential", recurrent.exponential.py_func)
    points = np.concatenate((np.linspace(-87.0, 87.0, 4001), [0.0, -0.0, 1e-30])).astype(np.float32)
    powers = np.array([recurrent.exponential(x) for x in points])
    assert powers.dtype == np.float32
    assert powers == pytest.approx(np.exp(points.astype(np.float64)), rel=3e-7)
    assert recurrent.exponential(np.float32(1e9)) == recurrent.exponential(np.float32(87.0))
    assert recurrent.exponential(np.float32(-1e9)) == recurrent.exponential(np.float32(-87.0))
    softened = [recurrent.softplus.py_func(x) for x in points]
    assert softened == pytest.approx(np.logaddexp(0.0, points.astype(np.float64)), rel=3e-7)
