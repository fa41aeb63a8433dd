"""What every local rule owes: legal actions, its own row alone, no memory of earlier episodes, no favourite number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.acp import AdaptiveContinuous
from dpem_baselines.base_stock import CentralPredictive, LocalPredictive
from dpem_baselines.local import LocalReactive
from dpem_baselines.maxweight import CentralMaxWeight, MaxWeight
from dpem_baselines.simple import Idle, RandomLegal
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import build_network
from dpem_env.observations.features import NODE_FEATURES, FeatureTable
from dpem_env.policies import Centralized, CentralPolicy, LocalPolicy, available, get_policy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Tally
from support.hand_made import PLACES, QUALITIES, SCENARIO
from support.rollouts import view_of

NAMES = {
    "idle": Idle,
    "random-legal": RandomLegal,
    "local-reactive": LocalReactive,
    "local-predictive": LocalPredictive,
    "acp": AdaptiveContinuous,
    "maxweight": MaxWeight,
    "central-predictive": CentralPredictive,
    "central-maxweight": CentralMaxWeight,
}
LOCAL = [rule for rule in NAMES.values() if issubclass(rule, LocalPolicy)]
CENTRAL = [rule for rule in NAMES.values() if issubclass(rule, CentralPolicy)]
DETERMINISTIC = [LocalReactive, LocalPredictive, MaxWeight]
BUSY = {"request_rate": 12.0, "outages": {"mean_up": 20.0, "mean_down": 2.0}, "rows": 2}


def play(scenario: Scenario, policy: LocalPolicy | CentralPolicy, slots: int, topology: int = 5) -> Session:
    """An episode to its end."""
    central = isinstance(policy, CentralPolicy)
    session = Session(scenario, delay=0.0 if central else None, forecaster=policy.forecaster)
    session.begin(EpisodeSeeds(topology, 6), slots)
    policy.reset(scenario, session.network, 6)
    while not session.done:
        if isinstance(policy, LocalPolicy):
            decision = policy.act(session.observer.table.read(session.observations()), session.masks())
            session.step(decision.action, decision.route)
        else:
            session.step(*policy.act(view_of(session)))
    return session


@pytest.mark.parametrize("name", NAMES)
def test_installed_under_its_name(name: str) -> None:
    assert name in available()
    assert type(get_policy(name)) is NAMES[name]


@pytest.mark.parametrize("rule", LOCAL + CENTRAL)
def test_every_action_is_legal_also_when_rows_run_out_and_links_fail(rule: Callable[[], LocalPolicy]) -> None:
    session = play(scenarios.get("mesh20-v0", **BUSY), rule(), 150)
    submitted, illegal = (session.simulator.tally(t)[0] for t in (Tally.SUBMITTED, Tally.ILLEGAL))
    assert illegal == 0
    assert (submitted > 100) == (rule is not Idle)


@pytest.mark.parametrize("rule", CENTRAL)
def test_a_central_scheduler_at_no_delay_is_never_denied(rule: Callable[[], CentralPolicy]) -> None:
    session = play(scenarios.get("mesh20-v0", **BUSY), rule(), 150)
    assert session.simulator.tally(Tally.DENIED)[0] == 0


@pytest.mark.parametrize("rule", LOCAL + CENTRAL)
def test_reset_forgets_the_episode_before(rule: Callable[[], LocalPolicy]) -> None:
    scenario, used = scenarios.get("mesh20-v0", request_rate=6.0), rule()
    play(scenario, used, 60, topology=7)
    assert play(scenario, used, 60).simulator.digest() == play(scenario, rule(), 60).simulator.digest()


@pytest.mark.parametrize("rule", LOCAL)
@pytest.mark.parametrize("name", ["chain3-v0", "mesh20-v0"])
def test_at_no_delay_the_rule_under_central_control_reproduces_its_own_episode(
    rule: Callable[[], LocalPolicy], name: str
) -> None:
    scenario = scenarios.get(name, request_rate=4.0)
    own, wrapped = play(scenario, rule(), 100), play(scenario, Centralized(rule()), 100)
    assert own.simulator.digest() == wrapped.simulator.digest()


def random_situation(seed: int, count: int = 40) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Observations of all sorts in which no two peers are quite alike, and masks; a fifth of the rows are quiet."""
    rng = np.random.default_rng(seed)
    table = FeatureTable(SCENARIO)
    matrix = rng.random((count, table.width), dtype=np.float32)
    blocks = matrix[:, len(NODE_FEATURES) :].reshape(count, PLACES, table.peer_width)
    blocks[:, :, : table.offset["open_allocations"]] *= rng.random((count, PLACES, 1)) < 0.1
    blocks[:, :, table.offset["open_allocations"]] *= rng.random((count, PLACES)) < 0.2
    blocks[:, :, table.offset["stored_pairs"]] *= 0.2
    blocks[:, :, table.offset["slack"]] *= 1 + rng.permuted(np.tile(np.arange(PLACES), (count, 1)), axis=1)
    blocks[:, :, table.offset["hops"]] *= 0.4
    masks = np.ones((count, 1 + PLACES * QUALITIES), dtype=np.int8)
    masks[::5, 1:] = 0
    return matrix, masks


def decide(rule: type[LocalPolicy], matrix: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
    policy = rule()
    policy.reset(SCENARIO, build_network(SCENARIO, 0), 0)
    return policy.act(FeatureTable(SCENARIO).read(matrix), masks).action


@pytest.mark.parametrize("rule", LOCAL)
def test_a_node_decides_from_its_own_row_alone(rule: type[LocalPolicy]) -> None:
    matrix, masks = random_situation(1)
    among_these = decide(rule, matrix, masks)
    assert (among_these > 0).any() == (rule is not Idle)
    for i in range(len(matrix)):
        others, _ = random_situation(2)
        others[i] = matrix[i]
        assert decide(rule, others, masks)[i] == among_these[i]


@pytest.mark.parametrize("rule", DETERMINISTIC)
def test_a_nodes_number_does_not_matter(rule: type[LocalPolicy]) -> None:
    matrix, masks = random_situation(3)
    assert np.array_equal(decide(rule, matrix[::-1].copy(), masks[::-1].copy()), decide(rule, matrix, masks)[::-1])


@pytest.mark.parametrize("rule", [LocalPredictive, MaxWeight])
def test_where_a_peer_stands_in_the_list_does_not_matter_unless_two_are_equal(rule: type[LocalPolicy]) -> None:
    matrix, masks = random_situation(4)
    blocks = matrix[:, len(NODE_FEATURES) :].reshape(len(matrix), PLACES, -1)
    blocks[:, :, : FeatureTable(SCENARIO).offset["open_allocations"]] = 0.0  # requests are counted, so they may tie
    moved = matrix.copy()
    moved[:, len(NODE_FEATURES) :] = blocks[:, ::-1].reshape(len(matrix), -1)
    here, there = decide(rule, matrix, masks), decide(rule, moved, masks)
    place, quality = np.divmod(here - 1, QUALITIES)
    assert np.array_equal(there, np.where(here > 0, 1 + (PLACES - 1 - place) * QUALITIES + quality, 0))
    assert (here > 0).sum() > 10
