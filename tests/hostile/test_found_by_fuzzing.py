"""What fuzzing found: once it crashed, hung or was answered in many lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile_input import play, refused, tried

from dpem_env import parallel_env, scenarios
from dpem_env.cli import main
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.logs.recorder import read_log
from dpem_env.network.topology import build_topology
from dpem_env.scenarios import data
from dpem_env.scenarios.traces import TrafficMatrices, read_matrices
from dpem_env.simulator import Tally
from dpem_env.support.errors import ActionError, DataError, DpemError, LogError, ScenarioError
from support.episode_logs import record_episode
from support.rollouts import session_with

SPAN = {"start": 5_000_000, "stop": 2**64}


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": [1]},  # TypeError: unhashable
        {"generator": {}},
        {"self": 1},  # TypeError: several values for an argument
        {"scenario": 1},
        {"nodes": 16**5000},  # ValueError: too many digits to print
        {"summary": "\udcff"},  # loaded, then could not be written
        {"nodes": 2**40},  # loaded, then crashed when played
        {"peers": 2**40},
        {"memory": (1, 2**40)},
        {"forecast_horizon": 2**40},
        {"request_rate": 1e9},
        {"seeds": {"evaluation": {"topology": SPAN, "demand": SPAN}}},  # no len()
        {"side": 1e308},  # loaded, then overflowed
        {"links_per_node": 1e308},
        {"contention_penalty": 1e308},
        {"popularity_sigma": 1e3},
        {"gravity_length": 5e-324},
        {"coherence_time": 5e-324},
        {"session_duration": 1e300},
        {"session_duration": 1e9, "session_share": 1e-9},
        {"generation_rate": (0.0, 1e-320)},  # loaded, then observed NaN
        {"generator": "star", "relay_swap_rate": 1e300},
        {"class_weights": (5e-324, 0.0, 0.0)},  # loaded, then drew a class that does not exist
        {"slot_duration": 1e-9, "deadline": 1e-9, "time_to_live": 1e-9, "telemetry_period": 2e-9},
    ],
    ids=" ".join,
)
def test_a_world_that_cannot_be_played_is_refused(fields: dict[str, Any]) -> None:
    assert refused(tried(scenarios.get, "mesh20-v0", **fields))


@pytest.mark.parametrize(
    "text",
    [
        'name = "x"\n"a\\nb" = 1',
        'name = "x"\n"a\\u2028b" = 1',
        'name = "x"\nsummary = ["' + "y" * 5000 + '"]',
        'name = "x"\n[episode]\nslots = ' + "1" * 5000,
        'name = "x"\n[episode]\nslots = 0x' + "f" * 5000,
    ],
    ids=lambda text: text[:30],
)
def test_what_cannot_be_quoted_in_a_line_is_refused_in_one_line(text: str) -> None:
    assert refused(tried(scenarios.from_toml, text))


def test_a_message_is_one_line_that_keeps_its_beginning_and_its_end() -> None:
    message = str(DpemError("file 'a\nb': " + "x" * 9999 + "\u2028 expected a number"))
    assert message.startswith("file 'a b': xxx")
    assert message.endswith("xxx expected a number")
    assert len(message) <= 600
    assert str(DpemError("short")) == "short"


@pytest.mark.parametrize("read", [scenarios.load, read_log])
def test_a_path_that_cannot_be_one_is_refused(read: Callable[[str], object]) -> None:
    assert refused(tried(read, "a\0.toml"))


@pytest.mark.parametrize("scenario", [None, Path("a.toml"), 5, []], ids=str)
def test_what_is_no_name_of_a_scenario_is_refused(scenario: Any) -> None:
    assert refused(tried(scenarios.get, scenario))


def test_a_negative_zero_is_zero() -> None:
    play(scenarios.get("mesh20-v0", popularity_sigma=-0.0))


def test_the_largest_request_rate_follows_from_the_longest_episode() -> None:
    assert not refused(tried(scenarios.get, "chain3-v0", slots=4, request_rate=1e7))
    assert refused(tried(scenarios.get, "chain3-v0", slots=4, request_rate=1.01e7))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_trace_too_short_for_the_three_splits_is_refused(times: int) -> None:
    matrices = TrafficMatrices(np.ones((times, 2, 2)), ("a", "b"))
    outcomes = [tried(matrices.window, split) for split in ("train", "validation", "evaluation")]
    assert any("at least 4" in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("value", [1e300, 1e-300])
def test_traffic_beyond_measure_is_refused(tmp_path: Path, value: float) -> None:
    np.savez(tmp_path / "a.npz", tm_mbps=np.full((5, 2, 2), value), nodes=np.array(["a", "b"]))
    assert isinstance(tried(read_matrices, tmp_path / "a.npz"), DataError)


TOWN = {"name": "a", "lon": 0.0, "lat": 0.0}


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        json.dumps({"nodes": [TOWN | {"lon": 1e308}] * 2, "edges": [{"u": 0, "v": 1, "km": 1.0}]}),
        json.dumps({"nodes": [TOWN | {"lon": [0.0], "lat": [0.0]}] * 2, "edges": [{"u": 0, "v": 1, "km": 1.0}]}),
    ],
    ids=lambda content: content[:20],
)
def test_a_topology_file_of_impossible_places_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / data.SOURCES["coronet"].file
    path.parent.mkdir()
    path.write_text(content)
    assert isinstance(tried(build_topology, scenarios.get("coronet100-v0", data_dir=tmp_path), 0), DataError)


def test_a_log_whose_column_names_are_no_text_is_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "a.parquet", scenarios.get("chain3-v0", slots=2))
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content.replace(b"priority", b"\xdd\xffiority"))
    assert isinstance(tried(read_log, tmp_path / "b.parquet"), LogError)


@pytest.mark.parametrize("name", ["slot", "state"])
def test_a_log_with_a_column_twice_is_refused(tmp_path: Path, name: str) -> None:
    record_episode(tmp_path / "a.parquet", scenarios.get("chain3-v0", slots=2))
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.append_column(name, table[name]), tmp_path / "b.parquet")
    with pytest.raises(LogError, match=f"it has 2 columns '{name}'"):
        read_log(tmp_path / "b.parquet")


def test_the_longest_sessions_are_drawn_in_no_time() -> None:
    world = scenarios.get("chain3-v0", predictability=1.0, session_duration=1e7, session_share=0.5, request_rate=100.0)
    session = Session(world)
    session.begin(EpisodeSeeds(0, 0))
    assert len(session.demand.pieces.node) <= 2 * 6


def test_a_trace_none_of_whose_pairs_is_reachable_is_refused(data_dir: Path) -> None:
    session = Session("abilene-trace-v0", generation_rate=(0.0, 0.0), data_dir=data_dir)
    assert "only 0 of 12 nodes have a peer" in str(tried(session.begin, EpisodeSeeds(0, 0)))


@pytest.mark.parametrize("value", ["[" * 2000, "9" * 5000])
def test_a_setting_that_is_no_toml_is_refused_in_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "chain3-v0", "--set", f"slots={value}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_out_folder_that_can_be_no_path_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--scenario", "chain3-v0", "--policy", "local-reactive", "--out", "a\0b"]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_ragged_list_of_actions_is_refused() -> None:
    env = CentralEnv("chain3-v0")
    env.reset(seed=0)
    with pytest.raises(ActionError, match="ragged"):
        env.step([[0], [0, 1], 0])  # type: ignore[arg-type]


@pytest.mark.parametrize("slots", [2**31, 10**30, True, 0])
def test_an_episode_longer_than_slots_are_counted_is_refused(slots: int) -> None:
    with pytest.raises(ScenarioError, match="max_cycles is"):
        parallel_env("chain3-v0", max_cycles=slots)


def test_arrays_in_place_of_names_and_actions_are_refused() -> None:
    with pytest.raises(ScenarioError, match="split is"):
        parallel_env("chain3-v0", split=np.zeros(2))
    env = parallel_env("chain3-v0", max_cycles=1)
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, 0))
    with pytest.raises(ActionError, match="reset"):
        env.step(np.zeros(3))
    with pytest.raises(ScenarioError, match="options"):
        env.reset(options=5)


def test_a_control_delay_beyond_all_episodes_is_refused() -> None:
    with pytest.raises(ScenarioError, match="delay is"):
        CentralEnv("chain3-v0", delay=1e300)


def test_a_burst_that_meets_stored_pairs_is_looked_at_once_per_pair() -> None:
    """A hundred thousand requests in the slot in which a pair is in stock: the queue is searched once, not for each."""
    burst = 100_000
    session = session_with([(8, 0, 0, 0, 11)] * burst, generation_rate=(40.0, 40.0), swap_rate=(40.0, 40.0))
    for _ in range(8):
        session.step(np.array([1, 0, 0]))
    assert session.simulator.tally(Tally.ARRIVED)[0] == burst
    assert session.simulator.tally(Tally.FROM_STOCK)[0] > 0
