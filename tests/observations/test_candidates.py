"""What nodes read of their candidate routes: claims by others, memory, links, times and chances."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from dpem_env import CentralEnv, make_vec, parallel_env, physics, scenarios
from dpem_env.envs.session import Session
from dpem_env.observations.features import NEWS, FeatureTable, Observations, Observer
from dpem_env.simulator import Episode, Simulator, Tally
from dpem_env.support.errors import ScenarioError
from simulator.hand_drawn import HandDrawn, Segment, draw
from support.rollouts import control_of, rows_that_differ, session_with, view_of, wait

FAR, NEAR = 0, 1
CLAIMS = NEWS[:4]


def chain(**fields: Any) -> HandDrawn:
    """Node 1 feeds both links and relays between nodes 0 and 2; sources are silent."""
    given = {"generation_rate": [1.0, 4.0, 1.0], "memory": 10, "rows": 6, "news_period": 0.25} | fields
    drawn = draw(**given)
    drawn.world.emit(0.0)
    return drawn


def read(drawn: HandDrawn, fresh: bool = True) -> Observations:
    observer = Observer(drawn.simulator)
    return observer.table.read(observer.observe(fresh=fresh)[0])


def claims(seen: Observations, i: int, d: int) -> list[float]:
    """Worst and sum at sources, worst and sum at swap engines, of the only route."""
    return [float(getattr(seen, name)[i, d, 0]) for name in CLAIMS]


def test_others_claim_a_source_with_every_link_that_waits_for_it() -> None:
    drawn = chain()
    drawn.open(2, NEAR)  # one link
    drawn.open(2, FAR, links=[1.0, None])  # one of its two is there
    drawn.open(0, FAR)  # two links
    seen = read(drawn)
    assert claims(seen, 0, NEAR) == [2, 2, 0, 0]  # node 2's
    assert claims(seen, 0, FAR) == [2, 4, 1, 1]  # the same source, once for each link
    assert claims(seen, 2, FAR)[:2] == [2, 4]  # node 0's
    assert claims(seen, 1, 0)[:2] == [4, 4]  # its source is claimed by others only


def test_a_link_that_is_down_claims_nothing() -> None:
    drawn = chain()
    drawn.open(2, FAR)
    drawn.state.link_up[1] = 0  # 1-2
    assert claims(read(drawn), 0, FAR)[:2] == [1, 2]


def test_others_claim_a_swap_engine_until_they_have_swapped() -> None:
    four = {"fibres": [(0, 1), (1, 2), (2, 3)], "peers": {0: [3], 1: [3], 2: [0], 3: [0]}, "generation_rate": 2.0}
    drawn = chain(**four, swapping="asap")
    drawn.open(0, 0)
    assert claims(read(drawn), 3, 0)[2:] == [1, 2]
    drawn.open(2, 0, links=[1.0, 1.0])  # ready to swap at node 1
    assert claims(read(drawn), 3, 0)[2:] == [2, 3]
    drawn.hold(0, 0, 0, Segment(hops=2))  # has swapped there
    drawn.state.alloc_complete[0, 0] = 2
    assert claims(read(drawn), 3, 0)[2:] == [1, 2]
    assert claims(read(drawn), 0, 0)[2:] == [1, 1]  # node 2's


def test_there_is_room_for_as_many_allocations_as_the_tightest_node_has_memory_for() -> None:
    drawn = chain(memory=[4, 4, 3])
    seen = read(drawn)
    assert seen.room[0, :, 0].tolist() == [2, 4]  # a relay needs two qubits, an end one
    drawn.open(2, FAR)
    assert read(drawn).room[0, :, 0].tolist() == [1, 2]


def test_a_route_is_up_if_all_its_links_are() -> None:
    drawn = chain()
    drawn.state.link_up[1] = 0
    seen = read(drawn)
    assert seen.candidate_up[0, :, 0].tolist() == [0, 1]
    assert seen.useful_in_time[0, FAR, 0] == 0.0
    assert seen.slowest_link[0, FAR, 0] > 0.0


def test_every_candidate_route_is_told_of_beside_what_is_fixed_about_it() -> None:
    square = {"fibres": [(0, 1), (1, 3), (0, 2), (2, 3)], "peers": {0: [3, 1], 3: [0]}, "routes_per_peer": 3}
    drawn = chain(**square, generation_rate=[1.0, 4.0, 2.0, 1.0])
    drawn.state.link_up[1] = 0  # 1-3
    seen = read(drawn)
    network = drawn.simulator.episodes[0].network  # type: ignore[union-attr]
    assert seen.candidate_hops[0, 0].tolist() == network.routes.hops[0, 0].tolist() == [2, 2, 0]
    assert seen.candidate_build_time[0, 0, :2] == pytest.approx(network.routes.build_time[0, 0, :2])
    assert seen.candidate_up[0, 0].tolist() == [0, 1, 0]
    assert not any(getattr(seen, name)[0, 0, 2] for name in NEWS)  # no such route


def test_the_slowest_link_waits_for_its_share_of_its_source() -> None:
    drawn = chain(attenuation=0.2)
    rate = 4.0 * physics.transmission(10.0, 0.2)
    assert read(drawn).slowest_link[0, NEAR, 0] == pytest.approx(1 / rate)
    assert read(drawn).slowest_link[0, FAR, 0] == pytest.approx(2 / rate)  # two links at one source
    drawn.open(2, NEAR)
    drawn.open(0, NEAR)  # one's own share in the source, too
    assert read(drawn).slowest_link[0, NEAR, 0] == pytest.approx(3 / rate)


def test_on_one_hop_the_slowest_link_takes_as_long_as_the_route() -> None:
    seen = session_with((), "mesh20-v0", news_period=0.25).global_state()
    table = FeatureTable(scenarios.get("mesh20-v0"))
    told = table.read(seen)
    one = told.candidate_hops == 1
    assert one.any()
    assert told.slowest_link[one] == pytest.approx(told.candidate_build_time[one], rel=1e-5)
    unclipped = (told.candidate_build_time < 2.0) & (told.candidate_hops > 0)
    apart = session_with((), "mesh20-v0").network  # where no two links share, it is no more than the build time
    assert apart is not None
    assert (told.slowest_link[unclipped] <= 2 * told.candidate_build_time[unclipped] * (1 + 1e-5)).all()


def test_the_chance_to_come_in_time_is_that_of_the_formula() -> None:
    drawn = chain(attenuation=0.2, swap_success=0.8)
    rate, time = 4.0 * physics.transmission(10.0, 0.2), 2.0
    assert read(drawn).useful_in_time[0, NEAR, 0] == pytest.approx(1 - np.exp(-rate * time))
    assert read(drawn).useful_in_time[0, FAR, 0] == pytest.approx(0.8 * (1 - np.exp(-rate * time / 2)) ** 2)
    drawn.open(2, NEAR)
    assert read(drawn).useful_in_time[0, NEAR, 0] == pytest.approx(1 - np.exp(-rate * time / 2))


def finished(drawn: HandDrawn, others: int = 0, episodes: int = 2000) -> tuple[float, float]:
    """What node 0 is told of its chance to reach its first peer, and the share of episodes in which it does."""
    scenario, episode = drawn.simulator.scenario, drawn.simulator.episodes[0]
    assert episode is not None
    batch = Simulator(scenario, episodes)
    batch.begin([Episode(episode.network, episode.demand, seed, 40) for seed in range(episodes)])
    still = np.zeros((episodes, batch.num_nodes), dtype=np.int64)
    for _ in range(others):
        action = still.copy()
        action[:, 1] = 1  # node 1, to its first peer
        batch.step(action)
        assert (batch.state.verdict[:, 1] == 1).all()
    told = Observer(batch).table.read(Observer(batch).observe()).useful_in_time[:, 0, 0, 0]
    action = still.copy()
    action[:, 0] = 1
    batch.step(action)
    row = np.argmax(batch.state.alloc_peer[:, 0] >= 0, axis=1)
    done = np.zeros(episodes, dtype=np.bool_)
    for _ in range(8):
        done |= (batch.state.alloc_peer[np.arange(episodes), 0, row] < 0) & (batch.state.stock_count[:, 0] > 0)
        batch.step(still)
    return float(told.mean()), float(done.mean())


FOUR: dict[str, Any] = {
    "fibres": [(0, 1), (1, 2), (2, 3)],
    "peers": {0: [3], 1: [3], 2: [0], 3: [0]},
    "generation_rate": [1.6, 1.4, 1.2, 1.0],  # every link has a source of its own
    "swap_rate": 1000.0,
    "news_period": 0.25,
    "attenuation": 0.2,
}


def test_the_chance_is_that_of_the_simulator_where_nobody_shares_and_swaps_succeed() -> None:
    told, happened = finished(draw(**FOUR))
    assert 0.2 < told < 0.8
    assert happened == pytest.approx(told, abs=4 * np.sqrt(told * (1 - told) / 2000))


@pytest.mark.parametrize("swapping", ["all", "asap"])
@pytest.mark.parametrize(("others", "success"), [(0, 0.9), (1, 1.0), (2, 0.9)])
def test_the_chance_is_near_that_of_the_simulator_with_others_and_lost_swaps(
    others: int, success: float, swapping: str
) -> None:
    told, happened = finished(draw(**FOUR, swapping=swapping, swap_success=success), others)
    assert happened == pytest.approx(told, abs=0.06)


def test_before_anything_is_known_the_network_is_taken_to_be_idle() -> None:
    late, idle = (chain(news_period=period, news_delay=delay) for period, delay in ((0.25, 0.5), (0.25, None)))
    late.open(2, FAR)
    told, expected = read(late, fresh=False), read(idle)
    for name in ("slowest_link", "useful_in_time", "candidate_hops", "candidate_build_time"):
        assert np.array_equal(getattr(told, name), getattr(expected, name)), name
    for name in (*CLAIMS, "room", "candidate_up"):
        assert not getattr(told, name).any(), name


def test_without_news_nodes_never_know_more_of_candidate_routes_than_of_an_idle_network() -> None:
    session = session_with((), "star8-v0", news_period=None, silent=True)
    first = session.observer.table.read(session.observations())
    session.step(np.array([0, 1, 1, 1, 0, 0, 0, 0]))
    wait(session, 3)
    later = session.observer.table.read(session.observations())
    assert session.simulator.state.num_open[0, 0] > 0
    for name in NEWS:
        assert np.array_equal(getattr(first, name), getattr(later, name)), name
    assert session.observer.table.read(session.global_state()).source_claims_worst.any()


@pytest.mark.parametrize("news", [(), ("room",), ("useful_in_time", "source_claims_sum"), CLAIMS, NEWS])
def test_news_that_are_not_asked_for_take_no_room_and_change_nothing_else(news: tuple[str, ...]) -> None:
    whole = session_with(((0, 0, 1, 0, 3),), "mesh20-v0", news_period=0.25)
    rng = np.random.default_rng(1)
    for _ in range(6):
        whole.step(rng.integers(0, 25, 20))
    some = Observer(whole.simulator, news=news)
    assert some.table.news == tuple(name for name in NEWS if name in news)
    assert some.table.width == whole.observer.table.width - 8 * 3 * (len(NEWS) - len(news))
    told, all_told = some.table.read(some.observe()[0]), whole.observer.table.read(whole.observations())
    for name in some.table.offset:
        assert np.array_equal(getattr(told, name), getattr(all_told, name)), name
    for name in set(NEWS) - set(news):
        with pytest.raises(AttributeError, match=f"no feature {name!r}: it is not in"):
            getattr(told, name)


def test_every_facade_lets_the_news_be_chosen() -> None:
    width = FeatureTable(scenarios.get("chain3-v0"), ("room",)).width
    assert parallel_env("chain3-v0", news=["room"]).observation_space("agent_0").shape == (width,)
    assert CentralEnv("chain3-v0", news={"room"}).observation_space.shape == (3, width)
    assert make_vec("chain3-v0", 2, news=("room",)).single_observation_space.shape == (width,)
    late = Session("chain3-v0", delay=0.25, news=("room",))
    late.reset(1)
    assert late.look().observations.shape == (1, 3, width)


@pytest.mark.parametrize(
    ("news", "told"),
    [(("rom",), "did you mean 'room'?"), ("room", "expected names"), (5, "expected names"), ([5], "news")],
)
def test_news_that_do_not_exist_are_told_in_one_line(news: Any, told: str) -> None:
    with pytest.raises(ScenarioError, match="news") as error:
        parallel_env("chain3-v0", news=news)
    assert told in str(error.value)


def test_a_change_on_ones_route_is_read_one_slot_later_and_elsewhere_never() -> None:
    session = session_with((), "star8-v0", news_period=0.25)
    wait(session, 3)
    other = copy.deepcopy(session)
    action = np.zeros(8, dtype=np.int64)
    action[7] = 1
    assert rows_that_differ(session.observations(), other.observations()) == []
    wait(session)
    other.step(action)
    before, after = (s.observer.table.read(s.observations()) for s in (session, other))
    asked = np.array([0 in routes for routes in session.network.routes.nodes.reshape(8, -1)])
    assert asked.all()  # every route leads over the hub
    assert (
        ((after.room < before.room) | (after.source_claims_sum > before.source_claims_sum))[1:7].any(axis=(1, 2)).all()
    )
    owner = (after.source_claims_sum[7], before.source_claims_sum[7])
    assert np.array_equal(*owner)  # one's own claims are not others'


def test_with_no_delay_a_controller_sees_what_nodes_read() -> None:
    session = control_of(session_with((), "mesh20-v0", news_period=0.25))
    rng = np.random.default_rng(2)
    for _ in range(5):
        session.step(rng.integers(0, 25, 20))
    view = view_of(session)
    assert np.array_equal(view.local_observations.matrix, session.observer.observe()[0])
    assert np.array_equal(view.observations.matrix, session.global_state())
    assert view.local_observations.source_claims_sum.any()


def test_totals_of_an_episode_do_not_depend_on_who_looks() -> None:
    one, other = (session_with((), "star8-v0", news_period=period) for period in (0.25, None))
    for _ in range(6):
        for session in (one, other):
            session.step(np.array([0, 1, 2, 3, 1, 2, 3, 1]))
            session.observations()
    assert one.simulator.tally(Tally.EMITTED) == other.simulator.tally(Tally.EMITTED)
    assert np.array_equal(one.simulator.state.tally, other.simulator.state.tally)
