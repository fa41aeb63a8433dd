"""Entanglement switches: published formulas, the chain in slots, and the simulator."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dpem_baselines.switch import KeepLinks, Switch, after_swaps, published, slotted, unlimited
from dpem_env.envs.session import Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.scenarios import Scenario, get

SLOTS, BEGINNING, NETWORKS = 1000, 200, 50


def scenario_of(switch: Switch, slots: int = SLOTS) -> Scenario:
    users, p = switch.users, switch.generation
    return get(
        "switch8-v0",
        nodes=users + 1,
        peers=users,
        generation_rate=(p, p),
        swap_success=switch.swap_success,
        slots=slots,
    )


def test_one_link_per_user_is_the_published_case_solved_by_hand() -> None:
    # k = 3, B = 1: 0 -> 1 with 3μ, 1 -> 0 with 2μ, so 3/5 of the time one is stored, and each 1 -> 0 is a swap.
    assert published(Switch(3, 0.5, 0.9, 1)) == pytest.approx((0.9 * 0.5 * 2 * 3 / 5, 3 / 5))


@pytest.mark.parametrize("users", [3, 5, 8])
def test_large_buffers_come_to_the_formulas_for_endless_ones(users: int) -> None:
    switch = Switch(users, 0.01, 0.8, 200)
    assert published(switch) == pytest.approx(unlimited(switch))
    assert unlimited(switch).capacity == pytest.approx(0.8 * users * 0.01 / 2)


@pytest.mark.parametrize(("users", "buffer"), [*product((2, 3, 8), (1, 3))])
def test_short_slots_come_to_continuous_time_and_differ_in_proportion_to_their_length(users: int, buffer: int) -> None:
    def apart(p: float) -> np.ndarray:
        switch = Switch(users, p, 1.0, buffer)
        return np.divide(slotted(switch), published(switch)) - 1.0

    assert np.abs(apart(1e-6)).max() < 1e-5
    assert apart(1e-4) == pytest.approx(10 * apart(1e-5), rel=0.01, abs=1e-8)


def test_links_are_swapped_until_one_user_has_some_left() -> None:
    assert after_swaps(3, 2) == (1, 2)
    assert after_swaps(1, 4) == (1, 2)  # one old with a fresh one, then two fresh ones
    assert after_swaps(0, 4) == (0, 2)


def test_of_links_that_never_fail_one_is_left_over_in_every_other_slot() -> None:
    # Seven users: three swaps and one link left, then that and seven more make four swaps.
    assert slotted(Switch(7, 1.0, 0.5, 4)) == pytest.approx((0.5 * 3.5, 0.5))


@pytest.mark.parametrize(
    "switch",
    [Switch(2, 0.2, 1.0, 3), Switch(3, 0.3, 0.5, 1), Switch(8, 0.1, 0.9, 4)],
    ids=lambda switch: f"{switch.users} users",
)
def test_the_simulator_plays_the_chain_in_slots(switch: Switch) -> None:
    session = Session(scenario_of(switch), NETWORKS, split="evaluation")
    session.reset(0)
    state, found = session.simulator.state, np.zeros((NETWORKS, 2))
    for slot in range(SLOTS):
        asks = (state.alloc_peer[:, :, 0] < 0) & (state.stock_count < switch.buffer)
        session.step(np.where(np.arange(switch.users + 1) > 0, asks, 0))
        if slot >= BEGINNING:
            found += np.stack([state.delivered.sum(axis=1), state.stock_count.sum(axis=1)], axis=1)
    found /= SLOTS - BEGINNING
    error = found.std(axis=0, ddof=1) / np.sqrt(NETWORKS)
    assert (np.abs(found.mean(axis=0) - slotted(switch)) < 4 * error).all()
    assert (error < 0.05 * np.array(slotted(switch))).all()  # it can tell them from others


def test_users_keep_as_many_links_as_they_are_told_to_and_all_that_they_make_is_swapped() -> None:
    scenario = scenario_of(Switch(8, 0.1, 1.0, 2), slots=200)
    for links in (1, 2):
        most = Most()
        metrics, _ = run_episode(scenario, KeepLinks(links), episode_seeds(scenario, "train", 0), recorder=most)
        assert most.stored == links
        assert metrics.delivered > 50


class Most:
    """The most pairs that anybody has stored in an episode."""

    stored = 0

    def begin(self, session: Session, label: str) -> None:
        """An episode begins."""

    def record(self, session: Session, decision: object, forecast: object) -> None:
        """A slot has been played."""
        self.stored = max(self.stored, int(session.simulator.state.stock_count.max()))
