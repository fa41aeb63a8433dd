"""Learners of swaps: what they see is what the simulator shows, grades are exact, and they learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dpem_agents.swapping.chains import Chains, Grading, rows_of
from dpem_agents.swapping.ppo import COUNT, ChainsVecEnv, PpoLearning, inputs_of, masks_of
from dpem_agents.swapping.q_learning import QLearning
from dpem_agents.swapping.views import SEES, View
from dpem_baselines.swap_chain import Segment, SwapChain, asap, mean_delivery_time
from dpem_baselines.swapping import chain_state, solved
from dpem_env.simulator.actions import Choice

ROOT = Path(__file__).resolve().parents[2]
FIVE = SwapChain(5, 0.9, 0.5, 2)
STATE = (Segment(0, 2, 1), Segment(2, 3, 0), Segment(3, 4, 2))


@pytest.fixture(scope="module")
def grading() -> Grading:
    return Grading(FIVE)


def test_what_is_graded_is_what_the_simulator_shows(grading: Grading) -> None:
    chains, rng = Chains(FIVE, 8, 60, seed=1), np.random.default_rng(0)
    seen, states = chains.look(), set()
    for _ in range(60):
        for rows, masks in zip(seen.rows, seen.masks, strict=True):
            state = chain_state(grading.table.read(rows))
            states.add(state)
            assert np.allclose(rows_of(grading.table, state), rows)
            place = list(grading.optimum.swaps).index(state)
            shown, may = grading._shown
            assert np.array_equal(may[place], masks)
            assert np.array_equal(shown[place], rows_of(grading.table, state))
        seen = chains.play((rng.random(seen.masks.shape) * seen.masks).argmax(axis=-1))
    assert len(states) > 50


def test_swap_asap_has_its_exact_grade_and_waiting_none(grading: Grading) -> None:
    exact = mean_delivery_time(FIVE, asap)
    assert grading.slots(lambda _, masks: masks[..., Choice.SWAP].astype(np.int64)) == pytest.approx(exact)
    best = solved(FIVE).slots
    assert grading.per_cent(lambda _, masks: masks[..., 1].astype(np.int64)) == pytest.approx(100 * best / exact)
    assert grading.per_cent(lambda _, masks: np.zeros(masks.shape[:2], dtype=np.int64)) == 0.0


@pytest.mark.parametrize(
    ("sees", "numbers"),
    [
        ("joint", [[2, 0, 1, 1, 1, 0, 0, 2]]),
        ("chain", [[2, 0, 1, 1, 1, 0, 0, 2]] * 3),
        ("own", [[0, 0, 0, 0], [2, 1, 1, 0], [1, 0, 1, 2]]),
    ],
)
def test_learners_see_lengths_and_ages(sees: str, numbers: list[list[int]], grading: Grading) -> None:
    view = View(sees, grading.table)
    assert view.numbers(rows_of(grading.table, STATE)[None])[0].tolist() == numbers
    assert (view.ranges == ([5, 3, 5, 3] if sees == "own" else [5] * 4 + [3] * 4)).all()


def test_a_network_is_given_every_number_as_a_one_among_zeros_and_who_it_is_for(grading: Grading) -> None:
    view = View("own", grading.table)
    inputs = inputs_of(view, rows_of(grading.table, STATE)[None])
    assert inputs.shape == (3, 16 + 3)
    assert (inputs.sum(axis=1) == 5).all()
    assert np.flatnonzero(inputs[1]).tolist() == [2, 5 + 1, 8 + 1, 13 + 0, 16 + 1]


def test_masks_are_pairs_of_waiting_and_swapping() -> None:
    masks = np.array([[[1, 0], [1, 1], [1, 0], [1, 1], [1, 0]]], dtype=np.int8)
    table = Grading(FIVE).table
    assert masks_of(View("joint", table), masks).tolist() == [[True, True, True, False, True, True]]
    assert masks_of(View("own", table), masks).tolist() == [[True, True], [True, False], [True, True]]


def test_relays_learn_by_tables_to_wait_while_others_swap(grading: Grading) -> None:
    learner = QLearning(FIVE, "chain", grading.table, seed=0)
    grades = [grading.per_cent(learner.decide) for _ in learner.learn(300_000, 3)]
    assert max(grades) > 93.0 > 100 * solved(FIVE).slots / mean_delivery_time(FIVE, asap)


@pytest.mark.parametrize("sees", SEES)
def test_a_table_decides_only_what_is_legal(sees: str, grading: Grading) -> None:
    learner = QLearning(SwapChain(4, 0.7, 0.5, 2), sees, Grading(SwapChain(4, 0.7, 0.5, 2)).table, seed=0)
    assert list(learner.learn(10 * 256, 2)) == [5 * 256, 10 * 256]
    chains = Chains(learner.chain, 4, 50, seed=3)
    seen = chains.look()
    for _ in range(50):
        chosen = learner.decide(seen.rows, seen.masks)
        assert np.take_along_axis(seen.masks, chosen[..., None], axis=-1).all()
        seen = chains.play(chosen)


@pytest.mark.parametrize("sees", SEES)
def test_an_episode_of_ppo_ends_with_the_delivery(sees: str, grading: Grading) -> None:
    env = ChainsVecEnv(Chains(FIVE, COUNT, 40, seed=0), View(sees, grading.table))
    env.reset()
    ended = 0
    for _ in range(20):
        swap = env.action_masks().reshape(env.num_envs, -1, 2)[..., 1]
        rows, rewards, over, infos = env.step(swap.astype(np.int64))
        assert (rewards == np.float32(-0.1)).all()
        assert rows.shape == (env.num_envs, *env.observation_space.shape)  # type: ignore[misc]
        assert [("terminal_observation" in info) for info in infos] == over.tolist()
        assert len(set(over.reshape(COUNT, -1).sum(axis=1)) - {0, env.num_envs // COUNT}) == 0
        ended += int(over.sum())
    assert ended > 0


def test_ppo_learns_to_swap(grading: Grading) -> None:
    learner = PpoLearning(FIVE, "own", grading.table, seed=0)
    played = list(learner.learn(6 * 256 * 32, 2))
    assert played == [3 * 256 * 32, 6 * 256 * 32]
    assert grading.per_cent(learner.decide) > 60.0


def committed(chain: str, learner: str, sees: str) -> list[float]:
    """Final grades of every seed, and the best on the way."""
    path = ROOT / f"baselines/results/swapping/{chain}/{learner}-{sees}.json"
    found = json.loads(path.read_text("utf-8"))
    return [found["least"], found["most"], max(max(curve["per_cent"]) for curve in found["curves"])]


def test_what_the_page_says_of_learners_is_what_they_came_to() -> None:
    rules = json.loads((ROOT / "baselines/results/truth/views.json").read_text("utf-8"))["rows"]
    level = {(row["chain"], row["rule"]): row["per_cent"] for row in rules}
    for learner in ("q", "ppo"):
        joint, told = committed("five", learner, "joint"), committed("five", learner, "chain")
        assert min(joint[0], told[0]) > 100.0 - 0.6
        assert 99.0 < told[0] < max(joint[2], told[2]) < 100.0
    searched = level["five", "own segments, searched"]
    assert 99.55 < max(committed("four", "q", sees)[2] for sees in ("joint", "chain")) < 99.6
    assert searched - 0.2 < committed("five", "ppo", "own")[0] < committed("five", "ppo", "own")[1] <= searched
    asap = level["four", "swap-asap"]
    assert level["four", "own segments, searched"] == committed("four", "ppo", "own")[0] == asap
    assert committed("four", "q", "own")[1] < asap - 10.0
