"""Silence: whose actions are not carried out, when, in every way to play, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.hybrid import HybridMaxWeight
from dpem_env import make_vec, parallel_env, scenarios
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.envs.silence import SilentAgents
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario
from dpem_env.scenarios.schema import Silence
from dpem_env.simulator.state import VERDICT

SLOTS, WINDOW = 24, range(4, 12)
BUSY = scenarios.get("mesh20-v0", slots=SLOTS, request_rate=20.0)
RULE = {"share": 0.22, "start": 1.0, "duration": 2.0}  # 5 of 20
SILENT = BUSY.override(silence=RULE)
SEEDS = EpisodeSeeds(3, 4)


def begun(scenario: Scenario, **how: Any) -> Session:
    session = Session(scenario, **how)
    session.begin(SEEDS)
    return session


def legal(masks: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int64]:
    """(…, N) a random action of every node, an allocation where one is allowed."""
    scores = rng.random(masks.shape) * masks
    scores[..., 0] = np.where(masks[..., 1:].any(axis=-1), 0.0, 1.0)
    return scores.argmax(axis=-1)


def silent_nodes(session: Session) -> NDArray[np.bool_]:
    """(B, N) who is silent while silence lasts."""
    assert session.silent_agents is not None
    return session.silent_agents.silent


def drawn(share: float, nodes: int, *seeds: int) -> NDArray[np.bool_]:
    agents = SilentAgents(BUSY, Silence(share=share), nodes_decide=True)
    agents.begin(nodes, seeds)
    return agents.silent


@pytest.mark.parametrize(
    ("share", "nodes", "number"), [(0.05, 20, 1), (0.05, 21, 2), (0.07, 100, 7), (1e-9, 3, 1), (1.0, 3, 3)]
)
def test_so_many_agents_are_silent_rounded_up(share: float, nodes: int, number: int) -> None:
    assert drawn(share, nodes, 0, 1).sum(axis=1).tolist() == [number, number]


def test_who_is_silent_follows_from_the_demand_seed() -> None:
    some = drawn(0.25, 20, *range(50))
    assert (some == drawn(0.25, 20, *range(50))).all()
    assert len({tuple(row) for row in some.tolist()}) > 40
    assert some.any(axis=0).all()
    assert (some <= drawn(0.5, 20, *range(50))).all()


def test_it_does_not_depend_on_who_plays_nor_on_the_network() -> None:
    _, one = run_episode(SILENT, get_policy("local-reactive"), SEEDS)
    _, other = run_episode(SILENT, get_policy("maxweight"), SEEDS._replace(topology=5))
    _, advised = run_episode(SILENT, HybridMaxWeight(), SEEDS, delay=0.5)
    assert silent_nodes(one).sum() == 5
    assert (silent_nodes(one) == silent_nodes(other)).all()
    assert (silent_nodes(one) == silent_nodes(advised)).all()


@pytest.mark.parametrize("method", ["step", "play", "advance"])
def test_silent_agents_wait_and_all_else_goes_on(method: str) -> None:
    """Bit for bit what would be without silence, if these agents chose to wait while it lasts."""
    session, other, rng = begun(SILENT), begun(BUSY), np.random.default_rng(0)
    silent, hushed = silent_nodes(session)[0], 0
    for slot in range(SLOTS):
        masks = session.masks()
        assert (masks == other.masks()).all()
        action = legal(masks, rng)
        getattr(session, method)(action)
        other.step(np.where(silent & (slot in WINDOW), 0, action))
        assert session.simulator.digest() == other.simulator.digest()
        admitted = session.simulator.state.verdict[0] == VERDICT.ADMITTED
        if slot in WINDOW:
            hushed += np.count_nonzero(action[silent])
            assert (session.simulator.state.verdict[0][silent] == VERDICT.WAIT).all()
            assert admitted[~silent].any()
    assert hushed > 10


def test_only_while_it_lasts() -> None:
    session, rng = begun(SILENT), np.random.default_rng(0)
    silent = silent_nodes(session)[0]
    asked = dict.fromkeys(range(SLOTS), 0)
    for slot in asked:
        session.step(legal(session.masks(), rng))
        asked[slot] = np.count_nonzero(session.simulator.state.verdict[0][silent] != VERDICT.WAIT)
    assert [slot for slot in asked if asked[slot] == 0 and slot <= WINDOW.stop] == list(WINDOW)


@pytest.mark.parametrize("observation", ["flat", "graph"])
def test_of_a_silent_controller_no_command_is_carried_out_and_it_knows(observation: Any) -> None:
    silent, other = (CentralEnv(each, delay=0.5, observation=observation) for each in (SILENT, BUSY))
    rows = [np.asarray(env.reset(seed=0)[1]["action_mask"]) for env in (silent, other)]
    rng, ordered = np.random.default_rng(0), 0
    for slot in range(SLOTS):
        action = legal(rows[0], rng)
        seen, _, _, _, info = silent.step(action)
        would, _, _, _, wait = other.step(np.zeros_like(action) if slot in WINDOW else action)
        if observation == "graph":
            seen, would = seen.nodes, would.nodes  # type: ignore[union-attr]
        assert np.array_equal(seen, would)  # type: ignore[arg-type]
        rows = [info["action_mask"], wait["action_mask"]]
        assert (rows[0] == rows[1]).all()
        if slot in WINDOW:
            ordered += np.count_nonzero(action)
            assert (silent.session.simulator.state.verdict == VERDICT.WAIT).all()
    assert ordered > 20
    assert silent.session.simulator.digest() == other.session.simulator.digest()


def test_an_advising_controller_is_silent_and_so_are_agents() -> None:
    policy = HybridMaxWeight()
    session = Session.of(policy, SILENT, delay=0.25, forecaster=policy.forecaster)
    session.begin(SEEDS)
    policy.reset(SILENT, session.network, SEEDS.demand)
    advised, rng = [], np.random.default_rng(0)
    for slot in range(SLOTS):
        if session.advice(policy) is not None:
            advised.append(slot)
        session.step(legal(session.masks(), rng))
        verdict = session.simulator.state.verdict
        if slot in WINDOW:
            assert (verdict[silent_nodes(session)] == VERDICT.WAIT).all()
            assert (verdict == VERDICT.ADMITTED).any()
    assert advised == [slot for slot in range(1, SLOTS) if slot not in WINDOW]


def test_agents_of_the_parallel_environment_do_not_know_that_they_are_silent() -> None:
    env, other = parallel_env(SILENT), parallel_env(BUSY)
    (seen, infos), (_, _) = env.reset(seed=0), other.reset(seed=0)
    rng = np.random.default_rng(0)
    silent = silent_nodes(env.session)[0]
    for slot in range(SLOTS):
        masks = np.array([infos[agent]["action_mask"] for agent in env.possible_agents])
        action = legal(masks, rng)
        told = np.where(silent & (slot in WINDOW), 0, action)
        seen, reward, _, _, infos = env.step(dict(zip(env.possible_agents, action.tolist(), strict=True)))
        would = other.step(dict(zip(other.possible_agents, told.tolist(), strict=True)))
        assert reward == would[1]
        for agent in env.possible_agents:
            assert np.array_equal(seen[agent], would[0][agent])
            assert np.array_equal(infos[agent]["action_mask"], would[4][agent]["action_mask"])
    assert env.session.simulator.digest() == other.session.simulator.digest()


@pytest.mark.parametrize("how", [{}, {"control": "central", "delay": 0.25}])
def test_every_network_of_the_vector_environment_has_silent_agents_of_its_own(how: dict[str, Any]) -> None:
    vec, rng = make_vec(SILENT, 3, **how), np.random.default_rng(0)
    _, infos = vec.reset(seed=0)
    alone = [Session(SILENT, delay=how.get("delay")) for _ in range(3)]
    for seed, session in enumerate(alone):
        session.reset(seed)
    silent = silent_nodes(vec.session)
    assert (silent == np.concatenate([silent_nodes(session) for session in alone])).all()
    assert len({tuple(row) for row in silent.tolist()}) == (1 if how else 3)
    for slot in range(SLOTS - 1):
        action = legal(infos["action_mask"], rng)
        _, _, _, _, infos = vec.step(action)
        for session, own in zip(alone, action.reshape(3, -1), strict=True):
            session.step(own)
        if slot in WINDOW:
            assert (vec.simulator.state.verdict[silent] == VERDICT.WAIT).all()
    for network, session in enumerate(alone):
        assert vec.simulator.digest(network) == session.simulator.digest()


def test_silent_relays_that_decide_on_swaps_wait() -> None:
    """Their links stay as they are, though they ask for swaps."""
    scenario = scenarios.get("swap-chain3-v0", swapping="agents", silence={"share": 1.0, "start": 0.0, "duration": 9.0})
    session, waiting, asked = begun(scenario), begun(scenario.override(silence=None)), 0
    for _ in range(9):
        action = session.masks()[:, 1].astype(np.int64)
        asked += action.sum()
        session.step(action)
        waiting.step(np.zeros(3, dtype=np.int64))
    assert asked > 0
    assert session.simulator.digest() == waiting.simulator.digest()
