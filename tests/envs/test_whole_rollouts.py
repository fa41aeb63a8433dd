"""Equal seeds and actions give equal episodes to their very end, by every door: PettingZoo's own test stops early.

`pettingzoo.test.parallel_seed_test` of version 1.27 compares one step and takes it for the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from pettingzoo.test import parallel_seed_test

import dpem_env
from dpem_env import CentralEnv, EntanglementEnv, EntanglementVectorEnv, make_vec, parallel_env
from support.rollouts import legal_actions, masked

SLOTS = 30
VARIANTS: list[dict[str, Any]] = [{}, {"routes": True, "conditional": True}, {"forecaster": "moving-average"}]
Rollout = Callable[[Any, int], Iterator[Any]]


def in_parallel(env: EntanglementEnv, seed: int) -> Iterator[Any]:
    """All that is returned in an episode, and state()."""
    rng = np.random.default_rng(0)
    observations, infos = env.reset(seed=seed)
    yield observations, infos, env.state()
    while env.agents:
        observations, *ends, infos = env.step(legal_actions(masked(observations, infos), rng, 0.3))
        yield observations, *ends, infos, env.state()


def in_turn(env: Any, seed: int) -> Iterator[Any]:
    """All that is told to an agent whose turn it is."""
    rng = np.random.default_rng(0)
    env.reset(seed=seed)
    for agent in env.agent_iter():
        observation, *ends, over, info = env.last()
        yield agent, observation, ends, over, info
        env.step(None if over else legal_actions(masked({agent: observation}, {agent: info}), rng, 0.3)[agent])


def by_one_controller(env: CentralEnv, seed: int) -> Iterator[Any]:
    """All that the controller is told."""
    rng, over = np.random.default_rng(0), False
    observation, info = env.reset(seed=seed)
    yield observation, info
    while not over:
        chosen = legal_actions({str(i): {"action_mask": mask} for i, mask in enumerate(info["action_mask"])}, rng, 0.3)
        observation, reward, terminated, over, info = env.step(np.array(list(chosen.values())))
        yield observation, reward, terminated, over, info


def in_arrays(envs: EntanglementVectorEnv, seed: int) -> Iterator[Any]:
    """All arrays of two episodes, the second of them begun without a seed."""
    rng = np.random.default_rng(0)
    observations, infos = envs.reset(seed=seed)
    yield observations, infos
    for _ in range(2 * SLOTS):
        masks = infos["action_mask"]
        chosen = (rng.random(masks.shape) * masks).argmax(axis=1) * (rng.random(len(masks)) < 0.3)
        observations, *ends, infos = envs.step(chosen)
        yield observations, *ends, infos


DOORS: dict[str, tuple[Callable[..., Any], Rollout]] = {
    "parallel": (parallel_env, in_parallel),
    "parallel, dicts": (lambda *given, **more: parallel_env(*given, observation="dict", **more), in_parallel),
    "AEC": (dpem_env.env, in_turn),
    "AEC, dicts": (lambda *given, **more: dpem_env.env(*given, observation="dict", **more), in_turn),
    "central": (lambda *given, **more: CentralEnv(*given, delay=0.5, **more), by_one_controller),
    "vector": (lambda *given, **more: make_vec(*given, num_envs=2, **more), in_arrays),
}


def first_difference(one: Iterable[Any], other: Iterable[Any]) -> int | None:
    """Where two rollouts differ first, None if they do not."""
    both = enumerate(zip_longest(one, other))
    return next((place for place, (a, b) in both if not data_equivalence(a, b, exact=True)), None)


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
@pytest.mark.parametrize("door", DOORS)
def test_equal_seeds_give_equal_rollouts_and_others_do_not(door: str, arguments: dict[str, Any]) -> None:
    build, play = DOORS[door]
    one, other = (build("star8-v0", max_cycles=SLOTS, **arguments) for _ in range(2))
    assert first_difference(play(one, 5), play(other, 5)) is None
    assert first_difference(play(one, 5), play(other, 6)) is not None
    assert first_difference(play(one, 7), play(other, 7)) is None  # whatever was played before


@pytest.mark.parametrize("door", DOORS)
def test_a_rollout_lasts_to_the_end_of_the_episode(door: str) -> None:
    build, play = DOORS[door]
    told = len(list(play(build("chain3-v0", max_cycles=SLOTS), 0)))
    assert told == {"AEC": 3 * (SLOTS + 1), "vector": 2 * SLOTS + 1}.get(door.split(",")[0], SLOTS + 1)


class LuckyAtTheEnd(EntanglementEnv):
    """Draws from the global generator, late in the episode."""

    def step(self, actions: dict[str, int]) -> Any:
        if self.agents and self.session.slot >= SLOTS - 3:
            actions = {agent: int(np.random.randint(2)) for agent in actions}  # noqa: NPY002
        return super().step(actions)


def test_what_pettingzoos_test_overlooks_is_found() -> None:
    def build() -> LuckyAtTheEnd:
        return LuckyAtTheEnd("star8-v0", max_cycles=SLOTS)

    parallel_seed_test(build, num_cycles=SLOTS)
    difference = first_difference(in_parallel(build(), 5), in_parallel(build(), 5))
    assert difference is not None
    assert difference > SLOTS - 3
