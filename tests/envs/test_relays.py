"""Relays that decide on swaps, through every façade: what they may do changes from slot to slot."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test

import dpem_env
from dpem_env.envs.central import CentralEnv
from dpem_env.simulator.actions import Choice
from support.rollouts import legal_actions

RELAYS: dict[str, Any] = {"swapping": "agents", "discard": True, "news_period": 1.0}


@pytest.mark.parametrize("arguments", [{}, {"observation": "dict"}])
def test_agents_that_are_relays_pass_pettingzoos_tests(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Observation ")  # neither array nor Box: a dict
        parallel_api_test(dpem_env.parallel_env("swap-chain4-v0", **RELAYS, **arguments), num_cycles=60)
        api_test(dpem_env.env("swap-chain4-v0", max_cycles=30, **RELAYS, **arguments), num_cycles=150)


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_masks_of_every_slot_are_those_of_the_slot(observation: Any) -> None:
    env, rng = dpem_env.parallel_env("swap-chain5-v0", observation=observation, **RELAYS), np.random.default_rng(0)
    seen, infos = env.reset(seed=1)
    told, delivered = set(), 0
    for _ in range(80):
        masks = {agent: (seen if observation == "dict" else infos)[agent]["action_mask"] for agent in env.agents}
        assert np.array_equal(list(masks.values()), env.session.masks())
        told |= {tuple(mask.tolist()) for mask in masks.values()}
        seen, *_, infos = env.step(legal_actions({agent: {"action_mask": mask} for agent, mask in masks.items()}, rng))
        delivered += sum(info["delivered"] for info in infos.values())
        assert not any(info["illegal_actions"] for info in infos.values())
    assert {(1, 0, 0), (1, 0, 1), (1, 1, 1)} == told
    assert delivered > 0


def test_relays_play_the_same_chain_through_every_facade() -> None:
    alone = dpem_env.parallel_env("swap-chain5-v0", **RELAYS)
    batch = dpem_env.make_vec("swap-chain5-v0", 1, **RELAYS)
    central = CentralEnv("swap-chain5-v0", delay=0.0, **RELAYS)
    _, infos = alone.reset(seed=3)
    _, of_batch = batch.reset(seed=3)
    central.reset(seed=3)
    for _ in range(40):
        masks = np.array([info["action_mask"] for info in infos.values()])
        assert np.array_equal(of_batch["action_mask"].reshape(masks.shape), masks)
        action = np.where(masks[:, Choice.SWAP] == 1, Choice.SWAP, Choice.WAIT)
        *_, infos = alone.step(dict(zip(alone.agents, action.tolist(), strict=True)))
        *_, of_batch = batch.step(action)
        central.step(action)
        digests = {env.session.simulator.digest() for env in (alone, batch, central)}
        assert len(digests) == 1
