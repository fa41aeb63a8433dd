"""Counter-based draws: the right generator, no two keys alike, and no policy that can shift another draw."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import kstest
from scipy.stats import poisson as poisson_law

from dpem_env.demand.requests import draw_demand
from dpem_env.network.network import build_network
from dpem_env.scenarios import get
from dpem_env.simulator import Episode, Simulator, Tally
from dpem_env.simulator.randomness import EMISSION, ORDER, OUTAGE, PURIFICATION, SWAP, TRANSMISSION

from .hand_drawn import Phase, bits, draw, poisson_count, uniform

PURPOSES = (TRANSMISSION, PURIFICATION, SWAP, EMISSION, ORDER, OUTAGE)
WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator: its state grows by the golden ratio, each output mixes the state."""
    outputs = []
    for _ in range(count):
        seed = (seed + GOLDEN) % WORD
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        outputs.append(z ^ (z >> 31))
    return outputs


def test_the_reference_generator_gives_its_published_numbers() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("slot", [-1, 0, 399])
def test_draws_of_one_key_are_outputs_of_splitmix64(slot: int) -> None:
    stream = 2**63 + 12345
    outputs = splitmix64(stream, slot + 1)
    # slot -1 is the stream's own state mixed, so one step of the generator back
    key = splitmix64((stream - GOLDEN) % WORD, slot + 2)[-1]
    assert slot < 0 or key == outputs[-1]
    drawn = [int(bits(np.uint64(stream), slot, 0, 0, 0, 0, attempt)) for attempt in range(1, 5)]
    assert drawn == splitmix64(key, 4)


def test_a_uniform_number_is_the_top_53_bits() -> None:
    for attempt in range(50):
        word = int(bits(np.uint64(7), 3, SWAP, 1, 2, 3, attempt))
        assert uniform(np.uint64(7), 3, SWAP, 1, 2, 3, attempt) == (word >> 11) / 2**53


def test_no_two_keys_share_their_bits() -> None:
    keys = product(PURPOSES, (0, 1, 2**20 - 1), (0, 1, 254), (0, 1, 15), (0, 1, 500))
    words = [int(bits(np.uint64(7), slot, *key)) for key in keys for slot in (0, 1)]
    assert len(set(words)) == len(words) == 6 * 3**4 * 2


@pytest.mark.parametrize("part", ["slot", "owner", "row", "attempt"])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_draws_along_any_part_of_the_key_are_uniform(purpose: int, part: str) -> None:
    key = {"slot": 5, "purpose": purpose, "owner": 3, "row": 2, "hop": 1, "attempt": 0}
    sample = [uniform(np.uint64(99), *(key | {part: value}).values()) for value in range(250)]
    assert kstest(sample, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.25


@pytest.mark.parametrize("mean", [0.0, 0.01, 1.0, 2.5, 40.0, 500.0])
def test_poisson_counts_are_quantiles(mean: float) -> None:
    u = np.linspace(0.0005, 0.9995, 997)
    counts = [poisson_count(mean, x) for x in u]
    assert counts == (poisson_law.ppf(u, mean).tolist() if mean else [0] * len(u))


def outcomes(*also: int) -> list[int]:
    """Link rounds of node 1's allocation over several slots, with allocations of other leaves before it."""
    drawn = draw([(0, 1), (0, 2), (0, 3)], {i: [0] for i in (1, 2, 3)}, attenuation=0.3, link_fidelity=0.7, qualities=9)
    drawn.world.link_emitter[:] = [1, 2, 3]  # every leaf its own source
    drawn.world.emit(2.0)
    for leaf in (*also, 1):
        drawn.open(leaf, 0, quality=9)
    rounds = []
    for slot in range(16):
        drawn.at(slot)
        drawn.play(Phase.GENERATE)
        rounds.append(int(drawn.state.link_rounds[1, 0, 0]))
    return rounds


def test_an_allocations_luck_does_not_depend_on_who_else_is_there() -> None:
    alone = outcomes()
    assert len(set(alone)) > 3
    assert alone != sorted(alone)  # some purification has failed
    assert outcomes(2) == outcomes(3, 2) == alone


def test_two_policies_meet_the_same_arrivals_emissions_and_outages() -> None:
    scenario = get("mesh20-v0", outages={"mean_up": 5.0, "mean_down": 2.0})
    network = build_network(scenario, 0)
    demand = draw_demand(scenario, network, 3, 60)
    idle, busy, other = Simulator(scenario), Simulator(scenario), Simulator(scenario)
    for simulator, seed in ((idle, 11), (busy, 11), (other, 12)):
        simulator.begin([Episode(network, demand, seed, 60)])
    rng = np.random.default_rng(0)
    exogenous = (Tally.ARRIVED, Tally.EMITTED)
    links_differed = emissions_differed = False
    for _ in range(60):
        for simulator in (idle, other):
            simulator.step(np.zeros((1, 20)))
        busy.step(rng.integers(0, 25, size=(1, 20)))
        for count in exogenous:
            assert idle.tally(count)[0] == busy.tally(count)[0]
        assert np.array_equal(idle.state.link_up, busy.state.link_up)
        links_differed |= not np.array_equal(idle.state.link_up, other.state.link_up)
        emissions_differed |= bool(idle.tally(Tally.EMITTED) != other.tally(Tally.EMITTED))
    assert busy.tally(Tally.DELIVERED)[0] > 0
    assert links_differed
    assert emissions_differed
    assert 0 < idle.state.link_up.mean() < 1
