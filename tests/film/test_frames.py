"""A film shows what the episode's log holds, slot by slot."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.session import Session
from dpem_env.film.frames import Camera, require_same_episode
from dpem_env.logs.recorder import read_log
from dpem_env.simulator.state import Status
from dpem_env.support.errors import LogError
from support.episode_logs import Header, Row, record_episode, rewrite

SLOTS = 60
MESH = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=16.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "maxweight.parquet"
    record_episode(path, MESH, "maxweight")
    return path


@pytest.fixture(scope="module")
def seen(log: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The film, and beside it what the session says in every slot."""
    states: list[dict[str, Any]] = []

    def note(session: Session) -> None:
        state = {name: array.copy() for name, array in session.simulator.state_of(0).items()}
        states.append(state | {"masks": None if session.done else session.look().masks[0].copy()})

    film = Camera(read_log(log)).film(on_frame=note)
    return film, states[1:]


def unpacked(text: str) -> Any:
    return np.frombuffer(b64decode(text), dtype=np.uint8)


def test_it_has_a_frame_before_every_slot_and_one_at_the_end(seen: tuple[dict[str, Any], Any]) -> None:
    film, _ = seen
    assert film["verified"]
    assert len(film["frames"]) == len(film["delivered"]) == len(film["contention"]) == SLOTS + 1
    assert film["frames"][0]["d"] == film["frames"][0]["c"] == film["frames"][0]["a"] == []


def test_its_frames_are_the_states_of_the_episode(seen: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    film, states = seen
    pairs = segments = joined = 0
    for frame, state in zip(film["frames"][1:], states, strict=True):
        assert len(frame["a"]) == (state["alloc_peer"] >= 0).sum()
        assert sum(len(allocation) - 2 for allocation in frame["a"]) == (state["link_rounds"] >= 0).sum()
        for route, quality, *held in frame["a"]:
            spans = [(code >> 6, (code & 63) >> 1) for code in held]
            assert 1 <= quality <= film["qualities"]
            assert all(hop + span < len(film["routes"][route]) for hop, span in spans)
            segments, joined = segments + len(spans), joined + sum(span > 1 for _, span in spans)
        assert sum(number for *_, number in frame["s"]) == state["stock_count"].sum()
        assert sum(number for _, number in frame["c"]) == state["contended"].sum()
        used = film["memory"] * unpacked(frame["m"]) / 255
        assert np.rint(used) == pytest.approx(film["memory"] - state["free_memory"])
        pairs += len(frame["s"])
    assert min(pairs, segments, joined) > 0


def test_legal_actions_are_those_of_the_masks(seen: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    film, states = seen
    for frame, state in zip(film["frames"][1:-1], states, strict=False):
        bits = np.unpackbits(unpacked(frame["l"]).reshape(20, -1), axis=1)
        assert np.array_equal(bits[:, : state["masks"].shape[1]], state["masks"])
    for before, frame in zip(film["frames"], film["frames"][1:], strict=False):
        bits = np.unpackbits(unpacked(before["l"]).reshape(20, -1), axis=1)
        assert all(bits[node, action] for node, action, *_ in frame["d"])


def test_requests_end_as_in_the_episode(seen: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    film, states = seen
    served = np.array([request[5] for request in film["requests"]])
    status = states[-1]["request_status"][: len(served)]
    assert np.array_equal(served >= 0, status >= 0)
    due = np.array([request[1] for request in film["requests"]]) < SLOTS
    assert film["delivered"][-1] == pytest.approx((status >= 0)[due].mean(), abs=1e-4)
    assert (status[due] != Status.PENDING).all()
    lowest = np.array([film["classes"][request[4]] for request in film["requests"]])
    fidelity = np.array([request[7] for request in film["requests"]]) / 1000
    assert (fidelity[served >= 0] >= lowest[served >= 0] - 5e-4).all()


def test_forecasts_are_those_that_were_logged(log: Path, seen: tuple[dict[str, Any], Any]) -> None:
    film, _ = seen
    for frame, row in zip(film["frames"], read_log(log).rows, strict=False):
        expected = np.reshape(row["forecast"], (20, -1, film["horizon"])).sum(axis=1)
        shown = unpacked(frame["f"]).reshape(expected.shape) * film["forecast_unit"]
        assert np.abs(shown - expected).max() <= 0.51 * film["forecast_unit"]


def test_without_a_forecaster_nothing_was_expected(tmp_path: Path) -> None:
    record_episode(tmp_path / "log", MESH.override(slots=4))
    film = Camera(read_log(tmp_path / "log")).film()
    assert film["forecast_unit"] == 0.0
    assert not any("f" in frame for frame in film["frames"])


def test_a_log_that_was_changed_is_filmed_and_said_to_be(log: Path, tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        rows[5]["action"] = [0] * 20

    film = Camera(read_log(rewrite(log, tmp_path / "changed", change))).film()
    assert not film["verified"]
    assert "decisions were changed after recording in 1 slot(s): 5" in film["replay"]


def test_only_one_episode_is_seen_from_two_sides(log: Path, tmp_path: Path) -> None:
    record_episode(tmp_path / "same", MESH, "local-reactive")
    require_same_episode([read_log(log), read_log(tmp_path / "same")], ["a", "b"])
    record_episode(tmp_path / "other", MESH.override(request_rate=8.0))
    with pytest.raises(LogError, match="a and b are of different episodes: their scenario_hash differ"):
        require_same_episode([read_log(log), read_log(tmp_path / "other")], ["a", "b"])


def test_what_relays_decide_is_told_by_name(tmp_path: Path) -> None:
    record_episode(tmp_path / "log", scenarios.get("swap-chain4-v0", swapping="agents", slots=20), "swap-asap")
    film = Camera(read_log(tmp_path / "log")).film()
    assert film["verified"]
    assert film["choices"] == ["wait", "swap", "discard"]
    assert {action for frame in film["frames"] for _, action, *_ in frame["d"]} == {1}
