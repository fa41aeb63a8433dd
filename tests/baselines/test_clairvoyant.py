"""The bound on an episode: hand-drawn episodes with known optima, and policies that must not exceed either bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpem_baselines.bound import delivered_bound
from dpem_baselines.clairvoyant import EpisodeBound, clairvoyant_bounds, emissions, episode_bound
from dpem_env import scenarios
from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import EpisodeSeeds, Session, episode_seeds
from dpem_env.experiments.evaluation import run_episode
from dpem_env.network.network import Network, build_network, with_routes
from dpem_env.policies import get_policy
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Tally
from support.rollouts import demand_of, wait
from support.suites import few
from support.worlds import IDEAL

SLOTS = 40
SWAPS = 0.9  # swap success

Request = tuple[int, int]  # slot of arrival, last slot


def chain(hops: int, **fields: Any) -> tuple[Scenario, Network]:
    """Nodes in a line without loss; node 0 wants pairs with the last one and nobody else wants anything."""
    lossless = {"attenuation": 0.0, "relay_generation_rate": 8.0, "fidelity_classes": (0.7,), "class_weights": (1.0,)}
    scenario = scenarios.get("chain3-v0", nodes=hops + 1, peers=1, **IDEAL | lossless | fields)
    topology = build_network(scenario, 0).topology
    peers = np.full((hops + 1, 1), -1, dtype=np.int32)
    peers[0, 0] = hops
    return scenario, with_routes(scenario, topology, peers, (peers >= 0).astype(float), {})


def bound(
    requests: Sequence[Request], emitted: dict[tuple[int, int], int], hops: int = 1, width: float = 0.25, **fields: Any
) -> float:
    """The bound on an episode of SLOTS slots; `emitted` maps (slot, node) to pairs."""
    scenario, network = chain(hops, **fields)
    demand = demand_of([(first, 0, 0, 0, last) for first, last in requests], (hops + 1, 1))
    pairs = np.zeros((SLOTS, hops + 1), dtype=np.int64)
    for place, number in emitted.items():
        pairs[place] = number
    found = episode_bound(scenario, network, demand.requests, pairs, width)
    assert found.requests == sum(last < SLOTS for _, last in requests)
    return found.delivered


def emitter(**fields: Any) -> int:
    """The node that feeds the only link of `chain(1)`."""
    return int(chain(1, **fields)[1].topology.emitter[0])


def test_emissions_are_those_of_the_simulator() -> None:
    session = Session(scenarios.get("mesh20-v0"))
    session.begin(EpisodeSeeds(1000, 1_000_000), 60)
    counts = []
    for _ in range(60):
        before = int(session.simulator.tally(Tally.EMITTED)[0])
        wait(session)
        counts.append(int(session.simulator.tally(Tally.EMITTED)[0]) - before)
    assert emissions(session.scenario, session.network, 1_000_000, 60).sum(axis=1).tolist() == counts


def test_one_pair_serves_one_request_while_its_deadline_lasts() -> None:
    e = emitter()
    requests = [(8, 11), (8, 11)]
    assert bound(requests, {(8, e): 1}) == pytest.approx(1.0)
    assert bound(requests, {(11, e): 1}) == pytest.approx(1.0)
    assert bound(requests, {(12, e): 1}) == pytest.approx(0.0)
    assert bound(requests, {(9, e): 2, (11, e): 7}) == pytest.approx(2.0)
    assert bound(requests, {(9, 1 - e): 5}) == pytest.approx(0.0)


def test_a_pair_made_before_the_request_serves_it_until_it_is_too_weak() -> None:
    # Class 0.9 with T = 12 s: ln(w/0.867)·6 s is 0.70 s for w of fidelity 0.98, 0.77 s after two purifications.
    fields: dict[str, Any] = {"coherence_time": 12.0, "fidelity_classes": (0.9,), "time_to_live": 0.25}
    e = emitter(**fields)
    held = [bound([(20, 23)], {(slot, e): 9}, qualities=1, **fields) for slot in range(15, 21)]
    assert held == pytest.approx([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    held = [bound([(20, 23)], {(slot, e): 9}, qualities=3, **fields) for slot in range(15, 21)]
    assert held == pytest.approx([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert bound([(20, 23)], {(0, e): 1}, coherence_time=60.0) == pytest.approx(1.0)
    assert bound([(36, 39)], {(0, e): 1}, coherence_time=0.01, fidelity_classes=(0.25,)) == pytest.approx(1.0)


def test_a_link_can_be_held_for_the_time_to_live_and_no_longer() -> None:
    # The pair emitted in slot 0 can wait for the try of an allocation that is admitted in slot 0 and has 4 slots.
    fields: dict[str, Any] = {"coherence_time": 0.5, "fidelity_classes": (0.9,), "time_to_live": 1.0}
    e = emitter(**fields)
    assert bound([(3, 3)], {(0, e): 1}, **fields) == pytest.approx(1.0)
    assert bound([(4, 4)], {(0, e): 1}, **fields) == pytest.approx(0.0)


def test_swap_tokens_are_saved_up_to_the_cap() -> None:
    # 0.5 swaps/s gain an eighth of a token a slot; the source is no limit.
    plenty = {(slot, 1): 9 for slot in range(SLOTS)}
    fields: dict[str, Any] = {"relay_swap_rate": 0.5, "hops": 2, "coherence_time": 0.01, "attenuation": 0.0}
    fields |= {"fidelity_classes": (0.9,), "link_fidelity": 0.999, "gate_fidelity": 1.0, "readout_fidelity": 1.0}
    crowd = [(0, 3)] * 9
    assert bound(crowd, plenty, **fields) == pytest.approx(4 / 8 * SWAPS)
    late = [(30, 33)] * 9
    assert bound(late, plenty, **fields) == pytest.approx((2.0 + 4 / 8) * SWAPS)


def test_every_try_takes_a_pair_of_every_link() -> None:
    pairs = {(8, 1): 3}
    assert bound([(8, 11)] * 9, pairs, hops=2, relay_swap_rate=30.0, token_cap=9.0) == pytest.approx(1.5 * SWAPS)


def test_a_link_between_two_relays_counts_as_lost_at_either_end() -> None:
    # One relay's source feeds an outer link and the middle one, of which a delivered pair takes p^-1 and p^-2.
    scenario, network = chain(3, relay_swap_rate=30.0, token_cap=9.0, swapping="asap")
    requests = demand_of([(8, 0, 0, 0, 11)] * 9, (4, 1)).requests
    emitted = np.zeros((SLOTS, 4), dtype=np.int64)
    emitted[8, network.topology.emitter] = 3
    usual, tighter = (episode_bound(scenario, network, requests, emitted, 0.25, losses=on) for on in (False, True))
    fed = np.bincount(network.topology.emitter, minlength=4)
    assert usual.delivered == pytest.approx(3 / fed.max() * SWAPS)
    assert fed.max() == 2
    assert tighter.delivered == pytest.approx(3 / (1 / SWAPS + 1 / SWAPS**2))


def test_a_saturated_link_delivers_every_pair_that_arrives() -> None:
    scenario = scenarios.get("chain3-v0", nodes=2, peers=1, request_rate=30.0, slots=100)
    network = build_network(scenario, 0)
    (found,) = clairvoyant_bounds(scenario, [EpisodeSeeds(0, 5)])
    e = network.topology.emitter[0]
    emitted = emissions(scenario, network, 5, 100)[:, e]
    assert found.delivered == pytest.approx(emitted.sum() * network.topology.transmission[0])


def test_requests_whose_last_slot_lies_outside_do_not_count() -> None:
    e = emitter()
    assert bound([(38, 39), (38, 40)], {(38, e): 5}) == pytest.approx(1.0)
    scenario, network = chain(1)
    nothing = episode_bound(scenario, network, demand_of([], (2, 1)).requests, np.zeros((SLOTS, 2), dtype=np.int64))
    assert nothing == EpisodeBound(0, 0.0)
    assert np.isnan(nothing.share)


def mesh_episode(**fields: Any) -> tuple[Scenario, Network, Any, NDArray[np.int64]]:
    scenario = scenarios.get("mesh20-v0", request_rate=12.0, slots=80, **fields)
    session = Session(scenario)
    session.begin(EpisodeSeeds(1003, 1_000_003))
    pairs = emissions(scenario, session.network, 1_000_003, 80)
    return scenario, session.network, session.demand.requests, pairs


def test_more_emissions_or_finer_knowledge_of_time_move_the_bound_the_right_way() -> None:
    scenario, network, requests, pairs = mesh_episode()
    coarse, usual, fine = (episode_bound(scenario, network, requests, pairs, width) for width in (2.0, 1.0, 0.5))
    assert usual.requests == coarse.requests == fine.requests
    assert coarse.delivered >= usual.delivered >= fine.delivered
    assert coarse.delivered > fine.delivered
    assert usual.delivered < usual.requests
    less, more = (episode_bound(scenario, network, requests, number) for number in (pairs // 2, pairs * 2))
    assert less.delivered < usual.delivered < more.delivered
    patient = scenario.override(time_to_live=8.0)
    assert episode_bound(patient, network, requests, pairs).delivered >= usual.delivered - 1e-6


CONTESTANTS = {  # policy: forecaster
    "local-reactive": None,
    "central-reactive": None,
    "local-predictive": "oracle",
    "central-predictive": "oracle",
}


def played(scenario: Scenario, policy: str, seeds: Sequence[EpisodeSeeds]) -> list[EpisodeMetrics]:
    return [run_episode(scenario, get_policy(policy), seed, forecaster=CONTESTANTS[policy])[0] for seed in seeds]


def assert_not_exceeded(scenario: Scenario, episodes: int) -> None:
    """Means over episodes, within three standard errors of the paired differences."""
    seeds = [episode_seeds(scenario, "validation", k) for k in range(episodes)]
    share = np.array([found.share for found in clairvoyant_bounds(scenario, seeds)])
    rate = np.array([delivered_bound(scenario, build_network(scenario, seed.topology)).delivered for seed in seeds])
    duration = scenario.episode.slots * scenario.control.slot_duration
    assert np.nanmin(share) >= 0.0
    assert np.nanmax(share) <= 1.0 + 1e-6
    for policy in CONTESTANTS:
        metrics = played(scenario, policy, seeds)
        over = np.array([episode.delivery_rate for episode in metrics]) - share
        faster = np.array([episode.delivered for episode in metrics]) / duration - rate
        for excess in (over[np.isfinite(over)], faster):
            assert excess.mean() <= 3 * excess.std(ddof=1) / np.sqrt(len(excess))


@pytest.mark.parametrize(
    ("scenario", "request_rate"),
    few([("mesh20-v0", 10.0), ("chain3-v0", 6.0), ("star8-v0", 6.0)]),
)
def test_no_policy_exceeds_the_bounds(scenario: str, request_rate: float) -> None:
    assert_not_exceeded(scenarios.get(scenario, request_rate=request_rate, slots=40), 20)


@pytest.mark.slow
def test_no_policy_exceeds_the_bounds_on_a_hundred_nodes() -> None:
    assert_not_exceeded(scenarios.get("mesh100-v0", slots=120), 30)


@pytest.mark.slow
def test_lucky_episodes_exceed_the_bound_their_mean_does_not() -> None:
    # A saturated link: what is delivered is a number of arrivals, what bounds it their mean given the emissions.
    scenario = scenarios.get("chain3-v0", nodes=2, peers=1, request_rate=8.0, deadline=4.0, slots=100)
    seeds = [EpisodeSeeds(0, seed) for seed in range(40)]
    share = np.array([found.share for found in clairvoyant_bounds(scenario, seeds)])
    excess = np.array([episode.delivery_rate for episode in played(scenario, "local-reactive", seeds)]) - share
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    assert (excess > 0).any()
    assert -0.05 < excess.mean() < 3 * error
