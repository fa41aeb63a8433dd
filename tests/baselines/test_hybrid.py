"""The hybrid: prices that a controller raises and lowers, and nodes that decide at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpem_baselines.hybrid import HybridMaxWeight
from dpem_baselines.maxweight import MaxWeight
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.experiments.contestants import contestants
from dpem_env.experiments.evaluation import run_episode
from dpem_env.policies import HybridPolicy, get_policy
from dpem_env.policy_contract import check_policy
from dpem_env.support.errors import ContractError, PolicyError

SCENARIO = scenarios.get("mesh20-v0", request_rate=12.0, slots=60)
SEEDS = EpisodeSeeds(3, 4)


def session_of(policy: HybridPolicy, delay: float = 0.0) -> Session:
    """The beginning of an episode."""
    session = Session.of(policy, SCENARIO, delay=delay, forecaster=policy.forecaster)
    session.begin(SEEDS)
    policy.reset(SCENARIO, session.network, SEEDS.demand)
    return session


def test_without_prices_it_is_maxweight_over_ranked_routes() -> None:
    free_of_charge, options = {"step": 1e-9, "target": 100.0}, {"link_price": 0.1, "load_price": 0.03}
    hybrid, _ = run_episode(SCENARIO, HybridMaxWeight(**free_of_charge, **options), SEEDS, delay=0.5)
    local, _ = run_episode(SCENARIO, MaxWeight(**options, routes="ranked"), SEEDS)
    assert hybrid.as_dict() == local.as_dict()


def test_a_price_follows_what_is_claimed_beyond_the_target_and_never_falls_below_zero() -> None:
    policy = HybridMaxWeight(step=0.5, target=0.25)
    session = session_of(policy)
    assert (session.advice(policy) == 0).all()
    node = int(session.network.topology.emitter[session.network.routes.links[0, 0, 0, 0]])
    topology = session.network.topology
    view = session.view()
    assert view is not None
    view.source_claims[node] = 7
    share = 7 / max(topology.generation_rate[node] * SCENARIO.control.time_to_live, 1.0)
    advice = policy.advise(view)
    links = session.network.routes.links
    fed = ((links >= 0) & (topology.emitter[links] == node)).sum(axis=3)  # links of every route at that source
    assert advice == pytest.approx(fed * 0.5 * (share - 0.25))
    view.source_claims[node] = 0
    for _ in range(round(share / 0.25) + 1):
        advice = policy.advise(view)
    assert (advice == 0).all()


def test_relays_have_prices_and_ends_have_none() -> None:
    policy = HybridMaxWeight(step=1.0, target=0.0)
    session = session_of(policy)
    view, routes = session.view(), session.network.routes
    assert view is not None
    view.swap_claims[:] = 1
    rates = np.maximum(session.network.topology.swap_rate * SCENARIO.control.time_to_live, 1.0)
    i, d = np.argwhere(routes.hops[..., 0] >= 3)[0]
    relays = routes.nodes[i, d, 0, 1 : routes.hops[i, d, 0]]
    assert policy.advise(view)[i, d, 0] == pytest.approx((1.0 / rates[relays]).sum())


def test_advice_is_as_old_as_the_view_and_there_is_none_before() -> None:
    policy = HybridMaxWeight()
    session, waits = session_of(policy, delay=0.75), np.zeros(20, dtype=np.int64)
    for _ in range(3):
        assert session.advice(policy) is None
        session.step(waits)
    assert session.advice(policy) is not None


def test_what_nodes_do_is_no_command_of_the_controllers() -> None:
    policy = HybridMaxWeight()
    session = session_of(policy, delay=0.5)
    for slot in range(12):
        look = session.look()
        decision = policy.act(session.observer.table.read(look.observations[0]), look.masks[0], None)
        session.step(*decision)
        if slot == 1:
            assert session.simulator.state.num_open[0, 0] > 0
            view = session.view()  # of slot 0, when nothing was open
            assert view is not None
            assert view.source_claims.sum() == 0


def test_it_keeps_what_is_promised_of_policies() -> None:
    check_policy("hybrid-maxweight")

    class Nosy(HybridMaxWeight):
        def act(self, observations: Any, masks: Any, advice: Any) -> Any:
            return (
                super()
                .act(observations, masks, advice)
                ._replace(action=np.where(masks[:, 1] == 1, 1, 0) * int(observations.pending[::2].sum() % 2))
            )

    with pytest.raises(ContractError, match="rows of other nodes differ"):
        check_policy(Nosy)


def test_it_plays_once_per_delay_and_cannot_be_put_under_central_control() -> None:
    assert [each.delay for each in contestants(["hybrid-maxweight", "maxweight"], [0.0, 0.5])] == [0.0, 0.5, None]
    with pytest.raises(PolicyError, match="has a controller already"):
        get_policy("central:hybrid-maxweight")
