"""The reward: delivered minus the price of contention, slot by slot and agent by agent."""

from __future__ import annotations

import numpy as np
import pytest

from dpem_env import parallel_env, scenarios
from dpem_env.envs.rewards import Rewarder
from dpem_env.network.network import build_network
from dpem_env.simulator import Episode, Simulator, Tally
from support.rollouts import legal_actions, session_with, wait


@pytest.mark.parametrize(("penalty", "expected"), [(0.05, [0.9, 0, -0.05]), (0.5, [0, 0, -0.5]), (0.0, [1, 0, 0])])
def test_the_reward_is_delivered_minus_the_penalty_times_contended(penalty: float, expected: list[float]) -> None:
    scenario = scenarios.get("chain3-v0", contention_penalty=penalty)
    network = build_network(scenario, 0)
    simulator = Simulator(scenario, 2)
    simulator.begin([Episode(network, session_with([]).demand, 0, 10)] * 2)
    simulator.state.delivered[1] = [1, 0, 0]
    simulator.state.contended[1] = [2, 0, 1]
    reward = Rewarder(simulator).outcome().reward
    assert reward[0].tolist() == [0, 0, 0]
    assert reward[1] == pytest.approx(expected)


def test_the_default_penalty_is_a_twentieth() -> None:
    assert all(scenario.reward.contention_penalty == 0.05 for scenario in scenarios.SCENARIOS.values())


@pytest.mark.parametrize(("values", "worth"), [((), 1.0), ((3.0, 1.0, 1.0), 3.0), ((0.0, 1.0, 1.0), 0.0)])
def test_a_delivery_on_arrival_counts_in_the_step_before(values: tuple[float, ...], worth: float) -> None:
    session = session_with([(1, 0, 0, 0, 4)], silent=True, class_values=values)
    state = session.simulator.state
    state.stock_count[0, 0], state.stock_peer[0, 0, 0], state.stock_werner[0, 0, 0] = 1, 0, 0.9
    state.free_memory[0, :2] -= 1
    wait(session)
    assert session.slot == 1
    assert session.rewards().tolist() == [worth, 0, 0]
    wait(session)
    assert session.rewards().tolist() == [0, 0, 0]


@pytest.mark.parametrize("values", [(), (1.0, 1.0, 1.0)])
def test_the_rewards_of_an_episode_add_up_to_its_counts(values: tuple[float, ...]) -> None:
    env = parallel_env("chain3-v0", request_rate=6.0, contention_penalty=0.25, class_values=values)
    rng = np.random.default_rng(0)
    _, infos = env.reset(seed=2)
    delivered, charged, total = 0, 0, 0.0
    while env.agents:
        _, reward, _, _, infos = env.step(legal_actions(infos, rng, 0.5))
        state = env.session.simulator.state
        assert list(reward.values()) == (state.delivered[0] - 0.25 * state.contended[0]).tolist()
        delivered, charged = delivered + int(state.delivered.sum()), charged + int(state.contended.sum())
        total += sum(reward.values())
    assert delivered == env.session.simulator.tally(Tally.DELIVERED)[0] > 0
    assert charged > 0
    assert total == pytest.approx(delivered - 0.25 * charged)
