"""A price for everything: it is maxweight where only that rule's prices are above 0, and every other price is felt."""

from __future__ import annotations

import pytest

from dpem_baselines.maxweight import MaxWeight
from dpem_baselines.priced import PRICES, WORTHS, Priced
from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.experiments.evaluation import run_episode

MESH = scenarios.get("mesh20-v0", slots=60, qualities=1, request_rate=6.0)
NOTHING: dict[str, float] = dict.fromkeys(WORTHS | PRICES, 0.0)
AS_MAXWEIGHT = NOTHING | {"further": 1.0, "soon": 0.5, "links": 0.1, "sources": 0.4, "swaps": 0.4}


def test_it_is_maxweight_with_the_prices_of_that() -> None:
    usual = MaxWeight(link_price=0.1, load_price=0.4, lookahead=4, forecast_weight=0.5, routes="ranked")
    for seed in range(3):
        seeds = EpisodeSeeds(seed, seed)
        ours = run_episode(MESH, Priced(**AS_MAXWEIGHT), seeds)[0]
        assert ours.as_dict() == run_episode(MESH, usual, seeds)[0].as_dict()
        assert ours.delivery_rate > 0


def decided(options: dict[str, float]) -> list[tuple[int, ...]]:
    """What nodes of a busy network decide in some slots in which all has gone as another rule would have it."""
    rule, usual, busy = Priced(**options), Priced(), scenarios.get("mesh20-v0", slots=60, request_rate=20.0)
    session, decisions = Session(busy, forecaster="moving-average", news=rule.news), []
    session.begin(EpisodeSeeds(3, 3))
    for each in (rule, usual):
        each.reset(busy, session.network, 0)
    for _ in range(40):
        seen, masks = session.observer.table.read(session.observations()), session.masks()
        decision = rule.act(seen, masks)
        assert decision.route is not None
        decisions += zip(decision.action.tolist(), decision.route.tolist(), strict=True)
        session.step(*usual.act(seen, masks))
    return decisions


@pytest.mark.parametrize("name", [*WORTHS, "quality"])
def test_every_weight_is_felt(name: str) -> None:
    assert decided(AS_MAXWEIGHT) != decided(AS_MAXWEIGHT | {name: 1e6})


@pytest.mark.parametrize("name", sorted(set(PRICES) - {"quality"}))
def test_whoever_cannot_pay_a_price_asks_for_less(name: str) -> None:
    usual, dear = decided(AS_MAXWEIGHT), decided(AS_MAXWEIGHT | {name: 1e6})
    assert sum(action > 0 for action, _ in dear) < sum(action > 0 for action, _ in usual)
