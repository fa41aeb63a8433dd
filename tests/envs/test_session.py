"""One environment at a time: seeds, slots, and what may be known when."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from dpem_env import scenarios
from dpem_env.envs.session import EpisodeSeeds, Session, as_actions, episode_seeds
from dpem_env.observations.features import NEWS
from dpem_env.scenarios import Split
from dpem_env.support.errors import ActionError
from support.rollouts import decision, session_with, wait

SPLITS: tuple[Split, ...] = ("train", "validation", "evaluation")


@pytest.mark.parametrize("name", sorted(scenarios.SCENARIOS))
def test_the_splits_share_no_seed(name: str) -> None:
    scenario = scenarios.get(name)
    drawn = {split: [episode_seeds(scenario, split, index) for index in range(3000)] for split in SPLITS}
    for part in (0, 1):
        seeds = [{seeds[part] for seeds in drawn[split]} for split in SPLITS]
        assert sum(map(len, seeds)) == len(set.union(*seeds))
    assert all(len(set(seeds)) == 3000 for seeds in drawn.values())


def test_seed_lists_are_cyclic() -> None:
    scenario = scenarios.get("mesh100-v0")
    assert episode_seeds(scenario, "train", 0) == EpisodeSeeds(0, 0)
    assert episode_seeds(scenario, "train", 65) == EpisodeSeeds(1, 65)
    assert episode_seeds(scenario, "evaluation", 101) == EpisodeSeeds(2001, 2_000_101)


def test_before_the_first_episode_there_is_nothing_to_look_at() -> None:
    session = Session(scenarios.get("chain3-v0"))
    looks = (session.observations, session.global_state, session.masks, session.rewards, lambda: session.slot)
    for look in (*looks, lambda: session.done, lambda: session.new_requests(0), lambda: session.step([0, 0, 0])):
        with pytest.raises(ActionError, match=r"^no episode has begun: call reset\(\) first$"):
            look()


def test_bools_are_no_actions_wherever_they_stand() -> None:
    for given in ([True, 0, 1], [0, np.True_, 1], (0, 1, np.array(False)), np.ones(3, np.bool_), [True] * 3, [2.0] * 3):
        with pytest.raises(ActionError, match=r"expected \(3,\) integers$"):
            as_actions("actions", given, (3,))
    for given in ([1, 0, 1], (np.int8(1), 0, np.array(1)), np.array([1, 0, 1], np.uint8), range(3)):
        assert as_actions("actions", given, (3,)).dtype == np.int64


def test_an_episode_lasts_its_slots() -> None:
    session = session_with([], slots=3)
    for slot in range(3):
        assert (session.slot, session.done) == (slot, False)
        wait(session)
    assert (session.slot, session.done) == (3, True)
    session.begin(EpisodeSeeds(0, 0))
    assert (session.slot, session.slots) == (0, 400)


def test_equal_seeds_give_equal_episodes_and_others_do_not() -> None:
    def digest(seeds: EpisodeSeeds) -> str:
        session = Session(scenarios.get("star8-v0"))
        session.begin(seeds, 60)
        while not session.done:
            session.step(session.masks()[:, 1].astype(np.int64))
        return session.simulator.digest()

    assert digest(EpisodeSeeds(0, 0)) == digest(EpisodeSeeds(0, 0))
    assert len({digest(EpisodeSeeds(t, d)) for t in (0, 1) for d in (0, 1)}) == 4


def test_a_second_episode_is_what_it_would_have_been_as_the_first() -> None:
    scenario = scenarios.get("mesh20-v0")
    used, fresh = (Session(scenario, forecaster="moving-average") for _ in range(2))
    used.begin(EpisodeSeeds(3, 3), 50)
    rng = np.random.default_rng(0)
    while not used.done:
        used.step([int(rng.choice(np.flatnonzero(mask))) for mask in used.masks()])
    for session in (used, fresh):
        session.begin(EpisodeSeeds(4, 4), 50)
    while not fresh.done:
        action = [int(rng.choice(np.flatnonzero(mask))) for mask in fresh.masks()]
        for session in (used, fresh):
            session.step(action)
        assert used.simulator.digest() == fresh.simulator.digest()
        assert np.array_equal(used.observations(), fresh.observations())


def test_looking_changes_nothing() -> None:
    session = session_with([(0, 0, 1, 0, 3)], forecaster="persistence")
    session.step(decision(session, {0: 4}).action)
    before, unwatched = session.simulator.digest(), copy.deepcopy(session)
    first = session.observations(), session.global_state(), session.masks(), session.rewards()
    second = session.observations(), session.global_state(), session.masks(), session.rewards()
    assert session.simulator.digest() == before
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
        assert not np.shares_memory(a, b)
    for s in (session, unwatched):
        wait(s, 3)
    assert session.simulator.digest() == unwatched.simulator.digest()
    assert np.array_equal(session.observations(), unwatched.observations())


def test_the_global_state_differs_from_the_observations_in_remote_features_only() -> None:
    session = session_with([(0, 0, 1, 0, 3)], "star8-v0", slots=40)  # without news: as of a snapshot
    wait(session, 6)
    session.step(decision(session, {7: 1, 5: 1}).action)
    table = session.observer.table
    local, fresh = table.read(session.observations()), table.read(session.global_state())
    for name in table.offset:
        if name not in ("telemetry_age", "route_load", *NEWS):
            assert np.array_equal(getattr(local, name), getattr(fresh, name)), name
    assert (fresh.route_load > local.route_load).any()


def test_new_requests_are_those_that_arrive_in_the_slot() -> None:
    requests = [(0, 0, 1, 0, 3), (4, 1, 0, 2, 7), (4, 2, 1, 1, 7)]
    session = session_with(requests)
    counts = [len(session.new_requests(slot).source) for slot in range(6)]
    assert counts == [1, 0, 0, 0, 2, 0]
    pending = []
    for _ in range(6):
        pending.append(session.observer.table.read(session.observations()).pending.sum())
        wait(session)
    assert pending == [1, 1, 1, 1, 2, 2]


def test_integers_of_any_kind_are_actions_together() -> None:
    mixed = [np.uint64(1), 0, np.int8(2)]
    assert as_actions("actions", mixed, (3,)).tolist() == [1, 0, 2]
    for too_large in (np.full(3, 2**64 - 1, dtype=np.uint64), [np.uint64(2**64 - 1), 0, 0], [2**63, 0, 0]):
        with pytest.raises(ActionError):
            as_actions("actions", too_large, (3,))
