"""Episodes to watch: pictures and texts that follow the slot, windows that show themselves, recordings."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

from dpem_env import CentralEnv, parallel_env
from dpem_env.envs.rendering import MODES, Rendering
from dpem_env.envs.session import Session
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import get_policy
from dpem_env.report.episode_view import BEND, MOST, EpisodeView, Moment, _arcs, as_text
from dpem_env.simulator import Tally
from dpem_env.support.errors import ActionError, DpemWarning
from support.rollouts import legal_actions, session_with, wait

RING = (214, 39, 40)  # tab:red


def of(session: Session, mode: str | None = "ansi") -> Any:
    return Rendering(session, mode).render()


@pytest.mark.parametrize("build", [parallel_env, CentralEnv])
def test_every_mode_gives_what_gymnasium_says(build: Any, windows: list[Any]) -> None:
    assert build("chain3-v0").metadata["render_modes"] == list(MODES)
    kinds = {}
    for mode in (None, *MODES):
        env = build("chain3-v0", render_mode=mode)
        env.reset(seed=0)
        kinds[mode] = type(env.render())
        env.close()
    assert kinds == {None: type(None), "human": type(None), "rgb_array": np.ndarray, "ansi": str}


def test_a_picture_has_one_size_and_changes_with_what_happens() -> None:
    env = parallel_env("chain3-v0", render_mode="rgb_array", request_rate=9.0)
    _, infos = env.reset(seed=0)
    rng, pictures = np.random.default_rng(0), []
    for _ in range(4):
        pictures.append(env.render())
        *_, infos = env.step(legal_actions(infos, rng))
    assert {(picture.dtype, picture.shape) for picture in pictures} == {(np.dtype(np.uint8), (640, 900, 3))}
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert np.array_equal(env.render(), env.render())
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert np.array_equal(other.render(), env.render())


def test_a_new_network_is_a_new_map() -> None:
    env = parallel_env("mesh20-v0", render_mode="rgb_array")
    env.reset(options={"topology_seed": 1, "demand_seed": 1})
    first = env.render()
    env.reset(options={"topology_seed": 2, "demand_seed": 1})
    second = env.render()
    env.reset(options={"topology_seed": 1, "demand_seed": 1})
    assert not np.array_equal(first, second)
    assert np.array_equal(first, env.render())


def test_a_window_follows_by_itself_and_closes(windows: list[Any]) -> None:
    env = parallel_env("chain3-v0", render_mode="human", max_cycles=5)
    env.reset(seed=0)
    assert len(windows) == 1
    for _ in range(3):
        env.step(dict.fromkeys(env.agents, 0))
    assert len(windows) == 4
    assert len(set(windows)) == 1  # the same window
    assert env.render() is None
    env.close()
    assert pyplot.get_fignums() == []


def test_where_there_are_no_windows_that_is_said(recwarn: pytest.WarningsRecorder) -> None:
    env = parallel_env("chain3-v0", render_mode="human")
    assert str(recwarn.pop(DpemWarning).message).startswith("render_mode 'human': there are no windows here: set MPLB")
    env.reset(seed=0)
    assert env.render() is None


def test_a_text_tells_the_fate_of_every_request() -> None:
    session = session_with([(0, 0, 0, 0, 3), (0, 2, 1, 0, 0), (2, 1, 0, 0, 9)], silent=True)
    first = of(session)
    assert "slot 0 of 40   0 of 0 due pairs delivered   contention 0.0000   2 pending" in first
    assert "pending     2  node 0 → node 1, node 2 → node 1" in first
    wait(session)
    second = of(session)
    assert "slot 1 of 40   0 of 1 due" in second
    assert "pending     1  node 0 → node 1" in second
    assert "expired     1  node 2 → node 1" in second
    wait(session)
    assert "expired     0" in of(session)


def test_a_pair_is_served_in_the_slot_that_delivers_it() -> None:
    session = session_with([(0, 0, 0, 0, 9)])
    session.step([1, 0, 0])
    while session.simulator.tally(Tally.DELIVERED)[0] == 0:
        assert "served      0" in of(session)
        wait(session)
    assert "served      1  node 0 → node 1" in of(session)
    wait(session)
    assert "served      0" in of(session)


def test_contended_nodes_have_rings_and_requests_have_arcs() -> None:
    session = session_with([])
    network = session.network
    view, n, links = EpisodeView(network), network.num_nodes, network.topology.num_links
    calm = Moment("", np.zeros(n), np.zeros(links), np.zeros(n, np.int64), dict.fromkeys(FATES, np.zeros((0, 2), int)))
    still = view.picture(calm)
    ringed = view.picture(calm._replace(contended=np.array([0, 2, 0])))
    asked = view.picture(calm._replace(requests=calm.requests | {"pending": np.array([[0, 2]])}))
    assert (ringed == RING).all(axis=2).sum() > (still == RING).all(axis=2).sum()
    assert not np.array_equal(asked, still)
    assert np.array_equal(view.picture(calm), still)
    crowded = calm._replace(allocations=np.full(links, MOST, float))
    assert np.array_equal(view.picture(crowded), view.picture(crowded._replace(allocations=np.full(links, 99.0))))


FATES = ("pending", "served", "expired")


def test_an_arc_leads_from_end_to_end_and_back_on_the_other_side() -> None:
    there, back = _arcs(np.array([[[0.0, 0.0], [4.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]]))
    assert there[0].tolist() == back[-1].tolist() == [0, 0]
    assert there[-1].tolist() == back[0].tolist() == [4, 0]
    assert there[:, 1].max() == pytest.approx(BEND * 4, rel=0.01)
    assert back[:, 1].min() == pytest.approx(-BEND * 4, rel=0.01)


def test_a_text_names_some_of_many() -> None:
    network = session_with([]).network
    many = dict.fromkeys(FATES, np.zeros((0, 2), int)) | {"pending": np.tile([[0, 1]], (9, 1))}
    moment = Moment("now", np.array([0.5, 1.0, 0.0]), np.zeros(2), np.array([1, 0, 3]), many)
    assert as_text(network, moment).splitlines() == [
        "now",
        "pending     9  " + ", ".join(["node 0 → node 1"] * 6) + ", and 3 more",
        "served      0",
        "expired     0",
        "contended   2  node 0, node 2",
        "memory in use 50%, at most 100% (node 1)",
    ]


# --------------------------------------------------------------------------------------------------- one's own loop


def test_ones_own_loop_comes_to_the_metrics_of_a_run() -> None:
    env = parallel_env("star8-v0", split="evaluation", max_cycles=60, news=())
    observations, infos = env.reset(seed=3)
    policy, total = get_policy("local-reactive"), np.zeros(8)
    policy.reset(env.scenario, env.session.network, env.session.seeds.demand)
    delivered = contended = 0
    named = {agent: set(info) for agent, info in infos.items()}
    while env.agents:
        with pytest.raises(ActionError, match="not over"):
            env.metrics()
        rows = env.session.observer.table.read(np.stack([*observations.values()]))
        masks = np.stack([info["action_mask"] for info in infos.values()])
        action = policy.act(rows, masks).action.tolist()  # type: ignore[call-arg, arg-type, union-attr]
        observations, reward, _, _, infos = env.step(dict(zip(env.agents, action, strict=True)))
        total += list(reward.values())
        delivered += sum(info["delivered"] for info in infos.values())
        contended += sum(info["contended"] for info in infos.values())
        assert {agent: set(info) for agent, info in infos.items()} == named
        assert all(np.asarray(told).dtype.kind in "iuf" for info in infos.values() for told in info.values())
    metrics = env.metrics()
    expected, _ = run_episode(env.scenario.override(slots=60), policy, env.session.seeds)
    assert metrics == expected.as_dict()
    assert metrics["delivered"] == delivered > 0
    assert metrics["charges"] * 8 == contended > 0
    assert metrics["reward"] == pytest.approx(total.mean())


def test_an_episode_is_recorded_as_a_video(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    from gymnasium.wrappers import RecordVideo

    env = RecordVideo(CentralEnv("chain3-v0", render_mode="rgb_array", max_cycles=4), str(tmp_path))
    env.reset(seed=0)
    over = False
    while not over:
        _, _, _, over, _ = env.step(env.action_space.sample() * 0)
    env.close()
    assert [path.suffix for path in tmp_path.iterdir() if path.stat().st_size > 1000] == [".mp4"]
