"""Shared fixtures. Tests leave the user's cache alone."""

from __future__ import annotations

import os
from pathlib import Path

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
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file stands for the picture of the results, which takes a second to draw: for tests of other things."""

    def touch(path: Path, *_: object) -> None:
        path.touch()

    monkeypatch.setattr("dpem_env.report.results_figure.save_results_figure", touch)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile once, before there are workers and before a test listens to what is said while it is done."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    from dpem_env import CentralEnv, parallel_env

    nodes, controller = parallel_env("chain3-v0", routes=True), CentralEnv("chain3-v0", delay=0.25)
    nodes.reset(seed=0)
    nodes.step(dict.fromkeys(nodes.agents, 0))
    nodes.state()
    controller.reset(seed=0)
    for _ in range(2):
        controller.step(controller.action_space.sample() * 0)
