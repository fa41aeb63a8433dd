"""Observations: what every feature says in situations drawn by hand, its scale and its age."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import numpy as np
import pytest

from dpem_env import parallel_env, scenarios
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.network.network import build_network
from dpem_env.observations.feature_writer import write_fixed, write_observations
from dpem_env.observations.features import (
    NODE_FEATURES,
    PEER_FEATURES,
    ROUTE,
    Columns,
    FeatureTable,
    Observations,
    Observer,
)
from dpem_env.simulator import Episode, Simulator, Verdict
from simulator.hand_drawn import HandDrawn
from support.rollouts import demand_of, rows_that_differ, session_with, wait

REMOTE = [feature.name for feature in PEER_FEATURES if feature.age == ROUTE]


class Chain:
    """chain3 drawn by hand: node 1 feeds both links; peers are 0: (1, 2), 1: (2, 0), 2: (0, 1)."""

    def __init__(
        self,
        requests: tuple[tuple[int, int, int, int, int], ...] = (),
        news: tuple[str, ...] | None = None,
        **fields: Any,
    ) -> None:
        self.scenario = scenarios.get("chain3-v0", **fields)
        network = build_network(self.scenario, 0)
        assert network.peers.tolist() == [[1, 2], [2, 0], [0, 1]]
        self.drawn = HandDrawn(self.scenario, network, demand_of(requests, network.peers.shape), 40, 0)
        self.drawn.world.emit(0.0)
        self.observer = Observer(self.drawn.simulator, news=news)

    def matrix(self, fresh: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.observer.observe(fresh=fresh)[0]

    def read(self, fresh: bool = False) -> Observations:
        return self.observer.table.read(self.matrix(fresh))


def test_the_documentation_tells_every_declared_feature_where_it_is_and_how_wide_a_row_is() -> None:
    documented = inspect.getdoc(EntanglementEnv) or ""
    rule = re.search(r"^=[= ]+$", documented, re.MULTILINE)
    assert rule is not None
    rows = documented.split(rule[0])[2].strip().splitlines()
    assert [row.split()[1] for row in rows] == [feature.name for feature in (*NODE_FEATURES, *PEER_FEATURES)]
    columns = [row.split()[0] for row in rows]
    table = FeatureTable(scenarios.get("mesh100-v0"))
    assert columns[: len(NODE_FEATURES)] == [str(column) for column in range(len(NODE_FEATURES))]
    assert columns[len(NODE_FEATURES) :][0].startswith("p+0")
    assert columns[-1].endswith(str(table.peer_width - 1))
    told = re.search(r"Of the F\s+features (\d+) .* P = (\d+)·C \+ (\d+) \+ H \+ (\d+)·k of each peer", documented)
    assert told is not None
    node, per_class, single, per_route = map(int, told.groups())
    one_class = {"fidelity_classes": (0.7,), "class_weights": (1.0,), "deadline": 1.0}
    for fields in ({}, {"peers": 3, "forecast_horizon": 5, "routes_per_peer": 2} | one_class):
        world = scenarios.get("mesh100-v0", **fields)
        peer = per_class * len(world.demand.fidelity_classes) + single + world.observation.forecast_horizon
        peer += per_route * world.routing.routes_per_peer
        assert FeatureTable(world).width == node + world.demand.peers * peer


def test_scales_are_the_scenarios_constants() -> None:
    scale = FeatureTable(scenarios.get("mesh100-v0")).scale
    assert scale == {
        "free_memory": 16.0,
        "generation_rate": 10.0,
        "swap_rate": 5.0,
        "coherence_time": 60.0,
        "swap_tokens": 2.0,
        "open_rows": 4.0,
        "source_backlog": 8.0,
        "telemetry_age": 2.0,
        "pending": 8.0,
        "slack": 8.0,
        "open_allocations": 8.0,
        "links_complete": 8.0,
        "stored_pairs": 8.0,
        "best_werner": 1.0,
        "hops": 8.0,
        "build_time": 2.0,
        "route_up": 1.0,
        "route_load": 1.0,
        "min_quality": 3.0,
        "forecast": 4.0,
        "source_claims_worst": 16.0,
        "source_claims_sum": 32.0,
        "swap_claims_worst": 8.0,
        "swap_claims_sum": 32.0,
        "slowest_link": 8.0,
        "useful_in_time": 1.0,
        "room": 16.0,
        "candidate_up": 1.0,
        "candidate_hops": 8.0,
        "candidate_build_time": 2.0,
    }
    assert FeatureTable(scenarios.get("star8-v0")).scale["generation_rate"] == 16.0  # the hub's
    assert FeatureTable(scenarios.get("mesh100-v0", news_period=None)).scale["telemetry_age"] == 6.0  # of telemetry


def test_the_features_of_a_node() -> None:
    chain = Chain()
    chain.drawn.open(0, 1, links=[0.9, None])  # 0-1-2: holds 1, 2 and 1 qubits and waits for source 1
    chain.drawn.open(0, 0)
    chain.drawn.open(2, 1, quality=2, links=[(0, 0.9)])
    chain.drawn.state.tokens[:] = [0.0, 1.5, 0.25]
    seen = chain.read()
    assert seen.free_memory.tolist() == [2, 0, 2]
    assert seen.generation_rate.tolist() == [4, 8, 4]
    assert seen.swap_rate.tolist() == [2, 2, 2]
    assert seen.coherence_time.tolist() == [60, 60, 60]
    assert seen.swap_tokens.tolist() == [0, 1.5, 0.25]
    assert seen.open_rows.tolist() == [2, 0, 1]
    assert seen.source_backlog.tolist() == [0, 3, 0]


def test_the_demand_of_a_peer() -> None:
    chain = Chain(((0, 0, 1, 0, 3), (0, 0, 1, 2, 2), (0, 0, 1, 2, 3), (1, 1, 0, 1, 4)))
    seen = chain.read()
    assert seen.pending[0].tolist() == [[0, 0, 0], [1, 0, 2]]
    assert seen.slack[0].tolist() == [0, 3]  # slots 0, 1 and 2 are left to the most urgent
    assert not seen.pending[1:].any()
    chain.drawn.wait()
    seen = chain.read()
    assert seen.pending[1].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert seen.slack.tolist() == [[0, 2], [4, 0], [0, 0]]
    chain.drawn.wait(2)
    assert chain.read().pending[0, 1].tolist() == [1, 0, 1]
    assert chain.read().slack[0, 1] == 1  # this slot is its last


def test_the_progress_of_a_peer() -> None:
    chain = Chain()
    chain.drawn.open(0, 1, quality=2, links=[(0, 0.9), (0, 0.9)])
    assert chain.read().links_complete[0].tolist() == [0, 0]  # a purification round is missing on each
    chain.drawn.open(0, 1, links=[None, 0.9])
    chain.drawn.open(0, 1)
    seen = chain.read()
    assert seen.open_allocations.tolist() == [[0, 3], [0, 0], [0, 0]]
    assert seen.links_complete[0].tolist() == [0, 1]  # of the one furthest on


def test_the_stock_of_a_peer() -> None:
    chain = Chain()
    for werner in (0.75, 0.9, 0.8):
        chain.drawn.store(1, 0, werner)
    seen = chain.read()
    assert seen.stored_pairs.tolist() == [[0, 0], [3, 0], [0, 0]]
    assert seen.best_werner[1] == pytest.approx([0.9, 0.0])
    assert seen.free_memory.tolist() == [4, 1, 1]
    assert not seen.stored_pairs[2].any()  # a pair belongs to the node that allocated it


def test_the_topology_of_a_peer() -> None:
    chain = Chain()
    routes = build_network(chain.scenario, 0).routes
    chain.drawn.open(0, 0)
    seen = chain.read(fresh=True)
    assert seen.hops.tolist() == [[1, 2], [1, 1], [2, 1]]
    assert seen.build_time == pytest.approx(routes.build_time[:, :, 0])
    assert seen.route_up.tolist() == [[1, 1], [1, 1], [1, 1]]
    # One qubit of four is in use at nodes 0 and 1; source 1, at 8 pairs/s for 2 s, is asked for one.
    assert seen.route_load == pytest.approx(np.array([[0.25, 0.25], [0.25, 0.25], [0.25, 0.25]]))
    assert seen.min_quality.tolist() == routes.quality[:, :, 0].tolist()
    chain.drawn.state.link_up[1] = 0  # 1-2
    assert chain.read(fresh=True).route_up.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_the_current_route_is_the_first_whose_links_are_up() -> None:
    session = session_with((), "mesh20-v0")
    state, routes = session.simulator.state, session.network.routes
    i, d = np.argwhere(routes.hops[:, :, 1] > 0)[0]
    first, second = (set(routes.links[i, d, r, : routes.hops[i, d, r]].tolist()) for r in (0, 1))
    state.link_up[0, min(first - second)] = 0
    seen = session.observer.table.read(session.global_state())
    assert seen.hops[i, d] == routes.hops[i, d, 1]
    assert seen.build_time[i, d] == pytest.approx(routes.build_time[i, d, 1])
    assert seen.min_quality[i, d].tolist() == routes.quality[i, d, 1].tolist()
    assert seen.route_up[i, d] == 1


def test_forecasts_fill_the_last_columns_of_their_peer_but_for_news() -> None:
    chain = Chain(news=())
    forecast = np.arange(3 * 2 * 8, dtype=np.float32).reshape(1, 3, 2, 8) / 12.0
    matrix = chain.observer.observe(forecast)[0]
    assert chain.observer.table.read(matrix).forecast == pytest.approx(np.minimum(forecast[0], 4.0))
    width = chain.observer.table.peer_width
    assert matrix[0, 8 + width - 8 : 8 + width] == pytest.approx(forecast[0, 0, 0] / 4.0)
    assert matrix[0, 8 + 2 * width - 1] == pytest.approx(forecast[0, 0, 1, 7] / 4.0)
    assert not chain.read().forecast.any()


def test_features_are_written_where_their_declaration_says() -> None:
    session = session_with(((0, 0, 1, 0, 3), (0, 4, 0, 2, 2)), "mesh20-v0", news_period=0.25)
    wait(session, 6)
    observer, simulator = session.observer, session.simulator
    table, forecast = observer.table, np.full((1, 20, 8, 8), 0.5, dtype=np.float32)
    usual = observer.observe(forecast)[0]
    # The same features in the opposite order.
    sizes = {feature.name: table.sizes[feature.size] for feature in (*NODE_FEATURES, *PEER_FEATURES)}
    where = {f.name: column for column, f in enumerate(reversed(NODE_FEATURES))}
    column = 0
    for feature in reversed(PEER_FEATURES):
        where[feature.name] = column
        column += sizes[feature.name]
    inverse = [np.zeros_like(divisors) for divisors in table.divisors]
    for feature in (*NODE_FEATURES, *PEER_FEATURES):
        start = where[feature.name]
        inverse[feature in PEER_FEATURES][start : start + sizes[feature.name]] = 1.0 / table.scale[feature.name]
    fixed, turned = np.empty_like(usual)[None], np.empty_like(usual)[None]
    turned_table = (*inverse, Columns(any_news=True, **where))
    simulator.run((write_fixed, *turned_table, fixed))
    everywhere = np.arange(fixed.shape[2], dtype=np.uint32)
    simulator.run((write_observations, forecast, False, *turned_table, everywhere, fixed, turned))
    for feature in (*NODE_FEATURES, *PEER_FEATURES):
        for block in [-1] if feature in NODE_FEATURES else range(8):
            first = 0 if block < 0 else len(NODE_FEATURES) + block * table.peer_width
            here, there = (first + place[feature.name] for place in (where, table.offset))
            size = sizes[feature.name]
            assert np.array_equal(turned[0][:, here : here + size], usual[:, there : there + size]), feature.name
    assert usual.any(axis=0).sum() > table.width / 2


def test_negative_and_huge_values_are_clipped() -> None:
    chain = Chain(tuple((0, 0, 0, 1, 3) for _ in range(30)))
    forecast = np.full((1, 3, 2, 8), -1.0, dtype=np.float32)
    forecast[0, 1] = 1e30
    matrix = chain.observer.observe(forecast)[0]
    assert chain.observer.table.read(matrix).pending[0, 0].tolist() == [0, 8, 0]
    assert not chain.observer.table.read(matrix).forecast[0].any()
    assert (chain.observer.table.read(matrix).forecast[1] == 4.0).all()
    assert matrix.min() == 0.0
    assert matrix.max() == 1.0


@pytest.mark.parametrize("qubits", [7, 10, 13])
def test_counts_read_in_natural_units_are_whole(qubits: int) -> None:
    chain = Chain(memory=(qubits, qubits))
    for used in range(qubits):
        assert chain.read().free_memory[0] == qubits - used
        chain.drawn.store(0, 0, 0.9)


def test_a_scenario_of_one_class_keeps_the_axis_of_classes() -> None:
    chain = Chain(((0, 0, 1, 0, 3),), fidelity_classes=(0.75,), class_weights=(1.0,), deadline=1.0)
    assert chain.read().pending.shape == (3, 2, 1)
    assert chain.read().pending[0, 1, 0] == 1


@pytest.mark.parametrize("leading", [(), (2,)])
def test_what_is_read_is_kept_and_is_not_to_be_written_to(leading: tuple[int, ...]) -> None:
    chain = Chain(((0, 0, 1, 0, 3), (0, 2, 0, 2, 3)))
    matrix = np.broadcast_to(chain.matrix(), (*leading, *chain.matrix().shape))
    seen = chain.observer.table.read(matrix)
    requests = np.zeros((*leading, 3, 2, 3))
    requests[..., 0, 1, 0] = requests[..., 2, 0, 2] = 1
    assert np.array_equal(seen.pending, requests)
    for name in ("free_memory", "slack", "pending"):
        assert getattr(seen, name) is getattr(seen, name)
        with pytest.raises(ValueError, match="read-only"):
            getattr(seen, name)[..., 0] = 1.0


def test_an_unknown_name_is_no_feature() -> None:
    with pytest.raises(AttributeError, match="no feature 'pendnig'"):
        _ = Chain().read().pendnig


def test_padded_peers_are_zero_and_masked() -> None:
    session = session_with((), "mesh20-v0", peers=19, min_swap_rate=1.5)
    padded = session.network.peers < 0
    assert padded.any()
    assert not padded.all()
    wait(session, 2)
    table = session.observer.table
    forecast = np.ones((1, 20, 19, 8), dtype=np.float32)
    blocks = session.observer.observe(forecast)[0][:, 8:].reshape(20, 19, table.peer_width)
    assert not blocks[padded].any()
    assert blocks[~padded].any(axis=1).all()
    allocations = session.masks()[:, 1:].reshape(20, 19, 3)
    assert not allocations[padded].any()
    assert allocations[~padded].all()


def test_before_the_first_snapshot_only_what_is_fixed_about_routes_is_known() -> None:
    session = session_with(((0, 0, 1, 0, 3),), news_period=None)
    seen = session.observer.table.read(session.observations())
    routes = session.network.routes
    assert seen.hops.tolist() == routes.hops[:, :, 0].tolist()
    assert seen.build_time == pytest.approx(routes.build_time[:, :, 0])
    assert seen.min_quality.tolist() == routes.quality[:, :, 0].tolist()
    for name in set(REMOTE) - {"hops", "build_time", "min_quality", "slowest_link", "useful_in_time"}:
        assert not getattr(seen, name).any(), name
    assert seen.pending[0, 1, 0] == 1  # a node knows itself
    wait(session)
    seen = session.observer.table.read(session.observations())
    assert (seen.hops > 0).all()
    assert (seen.route_up == 1).all()


def test_the_age_of_telemetry_counts_slots_since_the_snapshot() -> None:
    session = session_with(())
    ages = []
    for _ in range(11):
        ages.append(session.observer.table.read(session.observations()).telemetry_age[0])
        wait(session)
    # Taken before slots 0, 4, 8, ...; readable one slot after that. 0 at slot 0: unknown.
    assert ages == [0, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert not session.observer.table.read(session.global_state()).telemetry_age.any()


def test_a_remote_change_is_seen_when_its_snapshot_can_be_read_and_not_before() -> None:
    session = session_with((), "star8-v0")
    wait(session, 5)
    other = copy.deepcopy(session)
    other.simulator.state.link_up[0, 6] = 0  # 0-7
    differ = {}
    for slot in range(5, 12):
        differ[slot] = rows_that_differ(session.observations(), other.observations())
        assert 1 in rows_that_differ(session.global_state(), other.global_state())
        wait(session)
        wait(other)
    towards_7 = np.flatnonzero((session.network.peers == 7).any(axis=1)).tolist()
    # The next snapshot is taken after slot 7 and readable two slots later.
    assert differ == {slot: [] for slot in range(5, 9)} | {slot: sorted({*towards_7, 7}) for slot in range(9, 12)}


def test_a_remote_load_is_seen_when_its_snapshot_can_be_read_and_not_before() -> None:
    session = session_with((), "star8-v0", silent=True, time_to_live=20.0)
    wait(session, 4)
    other = copy.deepcopy(session)
    action = np.zeros(8, dtype=np.int64)
    action[7] = 1  # towards node 3, through the hub
    wait(session)
    other.step(action)
    for slot in range(5, 11):
        before, after = (s.observer.table.read(s.observations()) for s in (session, other))
        assert (after.route_load[1] > before.route_load[1]).any() == (slot >= 9)
        assert after.source_backlog[0] == before.source_backlog[0] + 2  # the hub knows itself now
        wait(session)
        wait(other)


def test_a_node_does_not_see_what_only_others_know() -> None:
    session = session_with((), "star8-v0")
    wait(session, 6)
    other = copy.deepcopy(session)
    state = other.simulator.state
    state.free_memory[0, 2:] -= 1
    state.tokens[0, 2:] += 0.5
    state.link_up[0, 3] = 0
    state.pending[0, 2:] += 1
    state.queue_head[0, 2:] = 0
    state.stock_count[0, 2:] = 1
    state.stock_peer[0, 2:, 0] = 0
    state.stock_werner[0, 2:, 0] = 0.9
    state.alloc_peer[0, 2:, 0] = 0
    assert rows_that_differ(session.observations(), other.observations()) == list(range(2, 8))


def test_masks_do_not_tell_of_other_nodes() -> None:
    session = session_with((), "star8-v0")
    other = copy.deepcopy(session)
    other.simulator.state.free_memory[0, 2:] = 0
    other.simulator.state.alloc_peer[0, 2:] = 0
    assert rows_that_differ(session.masks(), other.masks()) == list(range(2, 8))


@pytest.mark.parametrize(("routes", "conditional"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_mask_is_what_the_simulator_accepts(routes: bool, conditional: bool) -> None:
    env = parallel_env("chain3-v0", routes=routes, conditional=conditional, rows=1, request_rate=6.0)
    rng = np.random.default_rng(3)
    env.reset(seed=1)
    refused, accepted = 0, 0
    for _ in range(12):
        session = env.session
        masks = session.masks()
        for agent in range(3):
            for action in range(-1, session.observer.code.num_actions + 1):
                trial = copy.deepcopy(session)
                actions = np.zeros((1, 3), dtype=np.int64)
                actions[0, agent] = action
                trial.step(*trial.observer.code.commands(actions))
                legal = trial.simulator.state.verdict[0, agent] != Verdict.ILLEGAL
                assert legal == (0 <= action < session.observer.code.num_actions and masks[agent, action] == 1)
                accepted += legal
                refused += not legal
        env.step({a: int(rng.choice(np.flatnonzero(mask))) for a, mask in zip(env.agents, masks, strict=True)})
    assert accepted > 0
    assert refused > 12 * 3 * (2 + routes * 12)  # more than what no network could accept: rows were full, too


def test_an_action_with_a_route_names_peer_quality_and_route() -> None:
    observer = Observer(Simulator(scenarios.get("mesh20-v0")), routes=True)
    q, k = 3, 3
    assert observer.code.num_actions == 1 + 8 * q * k
    for d, quality, route in ((0, 1, 0), (7, 3, 2), (4, 2, 1)):
        action = 1 + (d * q + quality - 1) * k + route
        decoded, chosen, *_ = observer.code.commands(np.array([[action, 0]]))
        assert chosen is not None
        assert decoded.tolist() == [[1 + d * q + quality - 1, 0]]
        assert chosen.tolist() == [[route, -1]]


def test_environments_of_a_batch_are_observed_each_for_itself() -> None:
    scenario = scenarios.get("chain3-v0")
    network = build_network(scenario, 0)
    demands = [demand_of([(0, 0, 1, 0, 3)], (3, 2)), demand_of([(0, 2, 0, 1, 3)], (3, 2))]
    both = Simulator(scenario, 2)
    both.begin([Episode(network, demand, 0, 40) for demand in demands])
    together = Observer(both)
    for b, demand in enumerate(demands):
        alone = Simulator(scenario)
        alone.begin([Episode(network, demand, 0, 40)])
        assert np.array_equal(together.observe()[b], Observer(alone).observe()[0])
        assert np.array_equal(together.masks()[b], Observer(alone).masks()[0])
