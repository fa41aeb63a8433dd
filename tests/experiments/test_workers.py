"""Work items: what they are, and that whoever plays them and whatever dies, every result comes once and the same."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dpem_env import scenarios
from dpem_env.envs.session import episode_seeds
from dpem_env.experiments.contestants import PolicySpec
from dpem_env.experiments.evaluation import run_episode
from dpem_env.experiments.origins import Origins
from dpem_env.experiments.workers import DEATHS, ONE_THREAD, WorkItem, expected_of, here, on_processes, on_ray, play
from dpem_env.policies import get_policy
from dpem_env.support.errors import DpemError, PolicyError
from support.suites import few

HERE = Path(__file__).parent
SCENARIO = scenarios.get("chain3-v0", slots=8, request_rate=4.0)


def square(number: int) -> int:
    return number * number


def die_once(mark: Path, number: int) -> int:
    """The square, but the first worker to be given 2 dies of it."""
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_of_two(number: int) -> int:
    if number == 2:
        os._exit(1)
    return number * number


def refuse_two(number: int) -> int:
    if number == 2:
        raise PolicyError("not two")
    return number


def environment(number: int) -> tuple[int, dict[str, str | None]]:
    return os.getpid(), {name: os.environ.get(name) for name in ONE_THREAD}


def pid_and_wait(folder: Path, number: int) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_an_item_is_played_as_an_episode_is() -> None:
    item = WorkItem(SCENARIO, "validation", 3, PolicySpec("central-reactive", 0.5, "mean-rates"))
    seeds = episode_seeds(SCENARIO, "validation", 3)
    metrics, _ = run_episode(SCENARIO, get_policy("central-reactive"), seeds, delay=0.5, forecaster="mean-rates")
    assert play(item) == expected_of(item, Origins()) | {"nodes": 3, "metrics": metrics.as_dict()}
    assert item.identity()["seeds"] == {"topology": 1003, "demand": 1_000_003}
    assert item.identity()["scenario_hash"] == SCENARIO.hash


def test_every_item_has_a_file_of_its_own_below_its_folder() -> None:
    hostile = SCENARIO.override(name="../../etc/pass wd")
    items = [
        WorkItem(scenario, split, index, policy)
        for scenario in (SCENARIO, hostile, SCENARIO.override(name=".."))
        for policy in (
            PolicySpec("a"),
            PolicySpec("a", 0.0),
            PolicySpec("a", 0.1234567),
            PolicySpec("a", 0.1234568),
            PolicySpec("a", None, "oracle"),
        )
        for split in ("train", "evaluation")
        for index in (0, 1)
    ]
    files = {item.file for item in items}
    assert len(files) == len(items)
    for file in files:
        assert len(file.parts) == 3
        assert not {".", ".."} & set(file.parts)
    assert items[1].file.name == "train-00001.json"


PLAYERS: dict[str, Callable[..., Any]] = {"here": here, "two processes": partial(on_processes, workers=2)}


@pytest.mark.parametrize("player", few([*PLAYERS.values()]), ids=PLAYERS)
def test_every_item_comes_once_with_its_result(player: Callable[..., Any]) -> None:
    assert sorted(player(square, [3, 1, 2, 2, 5])) == [(1, 1), (2, 4), (2, 4), (3, 9), (5, 25)]
    assert list(player(square, [])) == []


def test_processes_play_what_one_plays() -> None:
    items = [
        WorkItem(SCENARIO, "evaluation", i, PolicySpec(name)) for i in range(2) for name in ("local-reactive", "idle")
    ]
    alone = dict(here(play, items))
    found = list(on_processes(play, items, 2))
    assert len(found) == len(items)
    assert dict(found) == alone
    assert alone[items[0]]["metrics"] != alone[items[1]]["metrics"]


def test_a_worker_is_another_process_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    [(_, (process, threads))] = on_processes(environment, [0], 1)
    assert process != os.getpid()
    assert set(threads.values()) == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_worker_that_dies_costs_no_result(tmp_path: Path) -> None:
    results = list(on_processes(partial(die_once, tmp_path / "mark"), [1, 2, 3, 4, 5], 2))
    assert (tmp_path / "mark").exists()
    assert sorted(results) == [(n, n * n) for n in range(1, 6)]


@pytest.mark.slow
def test_an_item_that_kills_every_worker_is_given_up_after_all_others_are_done() -> None:
    results = []

    def keep_all() -> None:
        for result in on_processes(die_of_two, [2, 1, 3, 4], 1):
            results.append(result)

    with pytest.raises(DpemError, match=f"workers died {DEATHS} times in a row"):
        keep_all()
    assert sorted(results) == [(1, 1), (3, 9), (4, 16)]


@pytest.mark.parametrize("player", PLAYERS.values(), ids=PLAYERS)
def test_what_a_worker_raises_is_raised_here(player: Callable[..., Any]) -> None:
    with pytest.raises(PolicyError, match="not two"):
        list(player(refuse_two, [2]))


def _gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] == "Z"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from functools import partial; from pathlib import Path; from test_workers import pid_and_wait\n"
        "from dpem_env.experiments.workers import on_processes\n"
        f"if __name__ == '__main__': list(on_processes(partial(pid_and_wait, Path({str(tmp_path)!r})), [1, 2], 2))\n"
    )
    script = tmp_path.with_suffix(".py")
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.send_signal(how)
    parent.wait(60)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    while not all(map(_gone, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ray_where_it_is_absent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DpemError, match=r"--ray needs Ray: pip install 'dpem-env\[ray\]'"):
        list(on_ray(square, [1], "local"))


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


@pytest.fixture
def known_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster that starts now find the functions of this file."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.mark.slow
@needs_ray
def test_a_ray_cluster_plays_what_one_process_plays() -> None:
    items = [
        WorkItem(SCENARIO, "evaluation", i, PolicySpec(name)) for i in range(3) for name in ("local-reactive", "idle")
    ]
    assert dict(on_ray(play, items, "local")) == dict(here(play, items))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
@needs_ray
@pytest.mark.usefixtures("known_to_workers")
def test_a_ray_worker_that_is_killed_costs_no_result(tmp_path: Path) -> None:
    results = list(on_ray(partial(die_once, tmp_path / "mark"), [1, 2, 3, 4, 5], "local"))
    assert (tmp_path / "mark").exists()
    assert sorted(results) == [(n, n * n) for n in range(1, 6)]


@pytest.mark.slow
@needs_ray
@pytest.mark.usefixtures("known_to_workers")
def test_what_goes_wrong_on_ray_is_told() -> None:
    with pytest.raises(PolicyError, match="not two"):
        list(on_ray(refuse_two, [2], "local"))
    with pytest.raises(DpemError, match="gave up on 2"):
        list(on_ray(die_of_two, [2], "local"))
    with pytest.raises(DpemError, match="no cluster"):
        list(on_ray(square, [1], "auto"))
