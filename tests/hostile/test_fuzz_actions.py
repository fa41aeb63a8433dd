"""Actions of any kind: played, or refused with an ActionError before anything happens."""

from __future__ import annotations

import decimal
import fractions
import numbers
from typing import Any

import numpy as np
import pytest
from hostile_input import THINGS, inputs, one_of, refused, report, tried

from dpem_env import parallel_env, scenarios
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.central import CentralEnv
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.network.network import build_network
from dpem_env.simulator import Episode, Simulator, Tally, Verdict
from dpem_env.support.errors import ActionError

EXTREMES = (-(2**63), 2**63 - 1, -(2**31), 2**31, -1, 0, 1)
INTEGERS = (*EXTREMES, *(np.dtype(kind).type(3) for kind in "bBhHiIqQ"), np.uint64(2**64 - 1), np.array(2), True, False)
OTHERS = (
    *THINGS, None, 2**63, 2**70, -(2**100), 1j, b"1", (1,), {1}, range(2), object(), len, int, slice(1),
    decimal.Decimal(1), fractions.Fraction(1), np.float32(1), np.bool_(True), np.datetime64("2024-01-01"),
    np.timedelta64(1), np.array([1]), np.array([[1]]), np.array([]), np.array("x"), np.array(1.5),
)  # fmt: skip


def is_integer(value: Any) -> bool:
    """Whether it can stand for an action."""
    whole = isinstance(value, numbers.Integral) or (
        isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu"
    )
    return whole and not isinstance(value, bool | np.timedelta64)


def hostile_actions(rng: np.random.Generator, env: EntanglementEnv) -> Any:
    """An action for each agent, some of them of any kind, or agents missing, unknown or in no dict at all."""
    count = env.action_space(env.possible_agents[0]).n
    actions: dict[Any, Any] = {agent: int(rng.integers(count)) for agent in env.possible_agents}
    for _ in range(int(rng.integers(3))):
        agent = one_of(rng, env.possible_agents)
        actions[agent] = one_of(rng, INTEGERS if rng.random() < 0.6 else OTHERS)
    luck = rng.random()
    if luck < 0.1:
        del actions[one_of(rng, env.possible_agents)]
    elif luck < 0.2:
        actions[one_of(rng, ["agent_99", "agent_-1", "", 0, None, (1, 2), "agent_0\n", 1.5])] = 0
    elif luck < 0.25:
        actions[one_of(rng, [0, "agent_00", None])] = actions.pop(one_of(rng, env.possible_agents))
    elif luck < 0.3:
        return one_of(
            rng, [None, 0, "agent_0", list(actions), list(actions.values()), tuple(actions.items()), set(actions)]
        )
    return actions


@pytest.mark.parametrize("arguments", [{}, {"routes": True}, {"observation": "dict"}], ids=str)
def test_any_actions_are_played_or_refused_before_anything_happens(arguments: dict[str, Any]) -> None:
    env, accepted = parallel_env("chain3-v0", max_cycles=50, **arguments), []
    for number, rng in enumerate(inputs(800)):
        if not env.agents:
            env.reset(seed=number)
        actions = hostile_actions(rng, env)
        agents, before = env.agents, env.session.simulator.digest()
        returned = tried(env.step, actions)
        accepted.append(not refused(returned))
        if accepted[-1]:
            assert sorted(actions) == sorted(agents)
            assert all(is_integer(value) for value in actions.values()), actions
            assert all(list(part) == agents for part in returned)
        else:
            assert isinstance(returned, ActionError)
        assert (env.session.simulator.digest() == before) == refused(returned)
    report("dictionaries of actions", accepted)


def test_after_the_episode_only_no_actions_are_taken() -> None:
    env = parallel_env("chain3-v0", max_cycles=1)
    waits = dict.fromkeys(env.possible_agents, 0)
    with pytest.raises(ActionError, match="call reset"):
        env.step(waits)
    env.reset(seed=0)
    env.step(waits)
    assert env.step({}) == ({}, {}, {}, {}, {})
    for actions in (waits, {"agent_0": 0}, {"x": None}, [1], "x"):
        assert isinstance(tried(env.step, actions), ActionError)


def test_any_seed_and_options_begin_an_episode_or_are_refused() -> None:
    env, accepted = parallel_env("chain3-v0", max_cycles=2), []
    names = ["topology_seed", "demand_seed", "other", ""]
    for rng in inputs(300):
        seed = one_of(rng, [None, 0, 1, np.int64(5), *OTHERS])
        options = {one_of(rng, names): one_of(rng, [0, 3, *OTHERS]) for _ in range(int(rng.integers(3)))}
        accepted.append(not refused(tried(env.reset, seed=seed, options=options)))
    report("seeds and options", accepted)


def test_any_central_action_is_played_or_refused_before_anything_happens() -> None:
    env, over, accepted = CentralEnv("chain3-v0", max_cycles=50, delay=0.25), True, []
    mixed = [[0, 0, other] for other in ("x", None, 0.5, 2**70, 1j)]
    for number, rng in enumerate(inputs(800)):
        if over:
            env.reset(seed=number)
        values = [one_of(rng, INTEGERS) for _ in range(3)]
        shaped = [values, np.array([*values[:2], 0]), values[:2], [values], np.array([1.0, 0.0, 2.0])]
        action = rng.integers(-9, 99, 3) if rng.random() < 0.4 else one_of(rng, [*shaped, *mixed, *OTHERS])
        before = env.session.simulator.digest()
        returned = tried(env.step, action)
        accepted.append(not refused(returned))
        if accepted[-1]:
            assert env.observation_space.contains(returned[0])
        else:
            assert isinstance(returned, ActionError)
        over = accepted[-1] and returned[3]
        assert (env.session.simulator.digest() == before) == refused(returned)
    report("central actions", accepted)


def test_any_integers_are_played_by_the_simulator_and_illegal_ones_wait() -> None:
    """Action, route and priority are any 64-bit integers, two environments at a time."""
    world = scenarios.get("star8-v0", request_rate=8.0)
    network = build_network(world, 0)
    simulator = Simulator(world, 2)
    choices = 1 + world.demand.peers * world.control.qualities
    for number, rng in enumerate(inputs(800)):
        if number % 40 == 0:
            seeds = (number, number + 1)
            simulator.begin([Episode(network, draw_demand(world, network, seed, 40), seed, 40) for seed in seeds])
        action, route, priority = (
            np.where(rng.random((2, 8)) < 0.2, rng.choice(EXTREMES, (2, 8)), rng.integers(-1, high, (2, 8)))
            for high in (choices + 1, 4, 3)
        )
        illegal = simulator.tally(Tally.ILLEGAL).copy()
        tried(simulator.step, action, route, priority)
        verdict = simulator.state.verdict
        assert (verdict[(action < 0) | (action >= choices)] == Verdict.ILLEGAL).all()
        assert (verdict[action == 0] == Verdict.WAIT).all()
        assert (verdict[(action > 0) & (route >= world.routing.routes_per_peer)] == Verdict.ILLEGAL).all()
        assert (simulator.tally(Tally.ILLEGAL) - illegal == (verdict == Verdict.ILLEGAL).sum(axis=1)).all()
        assert (simulator.state.free_memory >= 0).all()
        assert (simulator.state.free_memory <= simulator.world.memory).all()
