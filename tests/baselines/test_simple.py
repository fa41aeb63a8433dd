"""Doing nothing, and doing anything that is legal."""

from __future__ import annotations

import numpy as np

from dpem_baselines.simple import Idle, RandomLegal
from dpem_env.network.network import build_network
from support.hand_made import PLACES, QUALITIES, SCENARIO, free, many, nodes


def test_idle_waits_whatever_it_sees() -> None:
    seen = nodes({"pending": {0: (9, 9, 9)}}, {})
    assert Idle().act(seen, free(seen)).action.tolist() == [0, 0]


def test_every_legal_action_is_equally_likely_and_no_other_is_taken() -> None:
    draws = 6000
    seen = many({}, draws)
    masks = np.zeros((draws, 1 + PLACES * QUALITIES), dtype=np.int8)
    legal = [0, 3, 11, 24]
    masks[:, legal] = 1
    policy = RandomLegal()
    policy.reset(SCENARIO, build_network(SCENARIO, 0), 0)
    actions = policy.act(seen, masks).action
    assert np.unique(actions).tolist() == legal
    assert np.abs(np.bincount(actions)[legal] / draws - 0.25).max() < 0.03
