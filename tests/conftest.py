"""Shared fixtures. Tests leave the user's cache alone."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("DPEM_CACHE", str(ROOT / ".cache"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that is not shipped; tests that need it are skipped where it is absent."""
    folder = os.environ.get("DPEM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: set DPEM_DATA to a folder with abilene/ and coronet/")
    return Path(folder)


@pytest.fixture
def drawn() -> None:
    """For tests of the picture of results, which takes a second to draw: in all others an empty file stands for it."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path, *_: object) -> None:
        path.touch()

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("dpem_env.report.results_figure.save_results_figure", touch)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two workers, one does all that shares something dear: a fixture of a module, or single phases, compiled."""
    for item in items:
        module: ModuleType = item.module  # type: ignore[attr-defined]
        if plays_phases(module):
            item.add_marker(pytest.mark.xdist_group("phases"))
        elif any(fixture[-1].scope == "module" for fixture in item._fixtureinfo.name2fixturedefs.values()):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.xdist_group(module.__name__))


@cache
def plays_phases(module: ModuleType) -> bool:
    """Whether tests there have anything of the modules that call `play_phase`."""
    origins = {getattr(value, "__module__", None) for value in vars(module).values()}
    return not origins.isdisjoint(("simulator.hand_drawn", "golden.phases"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what tests play before any of them listens to what is said meanwhile; two workers begin with one each."""
    if session.config.option.collectonly or not session.items:
        return
    parts = [play_a_slot]
    if any(plays_phases(item.module) for item in session.items):  # type: ignore[attr-defined]
        parts.append(play_a_phase)
    for part in reversed(parts) if os.environ.get("PYTEST_XDIST_WORKER") == "gw1" else parts:
        part()


def play_a_phase() -> None:
    from simulator.hand_drawn import Phase, draw

    draw().play(Phase.AGE)


def play_a_slot() -> None:
    from dpem_env import CentralEnv, parallel_env

    nodes, controller = parallel_env("chain3-v0", routes=True), CentralEnv("chain3-v0", delay=0.25)
    nodes.reset(seed=0)
    nodes.step(dict.fromkeys(nodes.agents, 0))
    nodes.state()
    controller.reset(seed=0)
    for _ in range(2):
        controller.step(controller.action_space.sample() * 0)
