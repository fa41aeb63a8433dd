"""The simulator against closed forms and exact Markov chains, on three nodes in a line: 0 - relay 1 - 2.

Node 0 acts, nobody else does. First the chains of `markov_chains` are compared with closed forms, then the simulator
with the chains: node 0 opens a new allocation in every slot in which it has none, and a finished pair serves one of a
long queue of requests. Last, two closed forms with requests that come and go.

Statistics: 100 independent environments with the seeds 0..99, at least 300,000 slots in all. Every figure is a ratio
of sums; its standard error is that of a ratio estimator over the environments (Cochran, Sampling Techniques, 3rd ed.,
1977, §2.11), with no assumption about what happens within one. Single figures must agree within 3 standard errors: a
correct simulator would fail 0.3 % of such comparisons (Student, 99 degrees of freedom). The shares of a whole
waiting-time distribution may be farther off, each by as much as keeps the chance of any false alarm among them at that
of a single figure (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, poisson

from dpem_env import scenarios
from dpem_env.demand.requests import Demand, draw_demand
from dpem_env.network.network import Network, build_network
from dpem_env.scenarios import Scenario
from dpem_env.simulator import Episode, Simulator
from dpem_env.simulator.actions import ActionCode
from support.rollouts import demand_of

from . import asap_chains
from .asap_chains import AsapChain
from .markov_chains import Chain, LongRun, averages, long_run

Floats = NDArray[np.float64]

ENVIRONMENTS = 100
SLOTS = 300_000  # at least so many in all
WARM_UP = 20  # allocations, slots or requests left out at the start: by then the empty network is forgotten
SLOT = 0.25  # s
ARRIVAL = 10 ** (-0.2 * 10 / 10)  # η of 10 km at 0.2 dB/km
GATE, READOUT = 0.995, 0.998
SWAP_FACTOR = GATE * (4 * READOUT**2 - 1) / 3
ROUNDING = 1e-9


@dataclass(frozen=True)
class Hardware:
    """What node 0 builds and with what."""

    hops: int = 2
    quality: int = 1
    end_rate: float = 4.0  # pairs/s
    relay_rate: float = 8.0  # pairs/s; a link draws on its end with the larger rate
    relay_swap_rate: float = 8.0  # swaps/s: two per slot, so that tokens never run out
    swap_success: float = 0.9
    coherence_time: float = 60.0  # s
    link_fidelity: float = 0.98
    time_to_live: int = 8  # slots
    asap: bool = False
    cutoff: int | None = None  # slots
    regenerate: bool = False
    bernoulli: bool = False
    noisy_purification: bool = True

    def scenario(self, **fields: Any) -> Scenario:
        """The same as overrides of chain3-v0; every finished pair is good enough for every request."""
        nodes = max(self.hops + 1, 3)
        return scenarios.get(
            "chain3-v0",
            rows=1,
            nodes=nodes,
            peers=nodes - 1,
            swapping="asap" if self.asap else "all",
            cutoff=self.cutoff,
            regenerate=self.regenerate,
            emission="bernoulli" if self.bernoulli else "poisson",
            generation_rate=(self.end_rate, self.end_rate),
            relay_generation_rate=self.relay_rate,
            relay_swap_rate=self.relay_swap_rate,
            swap_success=self.swap_success,
            coherence_time=self.coherence_time,
            link_fidelity=self.link_fidelity,
            purification_gates="noisy" if self.noisy_purification else "ideal",
            time_to_live=self.time_to_live * SLOT,
            fidelity_classes=(0.25,),
            class_weights=(1.0,),
            **{"deadline": 1.0} | fields,
        )

    def chain(self) -> Chain:
        """The same in slots and Werner parameters."""
        links = tuple(range(self.hops))
        from_relay = ((self.relay_rate * SLOT, links),)
        from_ends = tuple((self.end_rate * SLOT, (link,)) for link in links)
        return Chain(
            sources=from_relay if self.relay_rate > self.end_rate else from_ends,
            arrival=ARRIVAL,
            fresh=(4 * self.link_fidelity - 1) / 3,
            decay=math.exp(-2 * SLOT / self.coherence_time),
            quality=self.quality,
            swap_success=self.swap_success,
            swap_factor=SWAP_FACTOR,
            token_gain=self.relay_swap_rate * SLOT,
            token_cap=2.0,
            time_to_live=self.time_to_live,
            gates=GATE**2 if self.noisy_purification else 1.0,
            readouts=(2 * READOUT - 1) ** 2 if self.noisy_purification else 1.0,
        )

    def asap_chain(self) -> AsapChain:
        """The same where relays swap as soon as they can, and every link has a source of its own."""
        mean = self.end_rate * SLOT
        return AsapChain(
            hops=self.hops,
            arrival=mean * ARRIVAL if self.bernoulli else 1.0 - math.exp(-mean * ARRIVAL),
            fresh=(4 * self.link_fidelity - 1) / 3,
            decay=math.exp(-2 * SLOT / self.coherence_time),
            swap_success=self.swap_success,
            swap_factor=SWAP_FACTOR,
            time_to_live=self.time_to_live,
            cutoff=self.time_to_live if self.cutoff is None else self.cutoff,
            regenerate=self.regenerate,
        )

    def long_run(self) -> LongRun:
        """What comes of it in the long run, exactly."""
        if self.asap:
            return averages(asap_chains.ends(self.asap_chain()), self.time_to_live)
        return long_run(self.chain())


SOURCE_PER_LINK = Hardware(
    end_rate=3.0, relay_rate=3.0, swap_success=0.6, coherence_time=4.0, asap=True, bernoulli=True
)
CASES = {
    "one link": Hardware(hops=1, end_rate=2.0, relay_rate=1.0),
    "two links, a source each, fast decay": Hardware(relay_rate=1.0, coherence_time=2.0, swap_success=1.0),
    "two links, one source, swaps fail": Hardware(swap_success=0.5),
    "a relay short of swap tokens": Hardware(relay_swap_rate=1.5, coherence_time=10.0),
    "one purification round, one source": Hardware(
        quality=2, relay_rate=12.0, link_fidelity=0.9, coherence_time=4.0, time_to_live=6
    ),
    "two purification rounds, a source each": Hardware(
        quality=3, end_rate=8.0, relay_rate=1.0, link_fidelity=0.8, coherence_time=4.0, time_to_live=5
    ),
    "two purification rounds with ideal gates": Hardware(
        quality=3, relay_rate=16.0, link_fidelity=0.8, coherence_time=4.0, time_to_live=5, noisy_purification=False
    ),
    "two links as soon as possible, with a cutoff": Hardware(
        end_rate=2.0, relay_rate=1.0, coherence_time=4.0, asap=True, cutoff=1
    ),
    "three links as soon as possible": replace(SOURCE_PER_LINK, hops=3),
    "four links as soon as possible, made again, with a cutoff": replace(
        SOURCE_PER_LINK, hops=4, cutoff=2, regenerate=True
    ),
}
DEAR = ("two purification rounds, a source each", "two purification rounds with ideal gates")


def of(case: str, *more: Any) -> Any:
    """A case to try: the worker that has sampled it tries all that is said of it; samples that take long are slow."""
    alone = pytest.mark.xdist_group(f"the sample of {case}")
    return pytest.param(case, *more, marks=[alone, pytest.mark.slow] if case in DEAR else alone)


of_case = pytest.mark.parametrize("case", [of(case) for case in CASES])


# ------------------------------------------------------------------------------------- the chains and closed forms


def completion(by_slot: Callable[[NDArray[np.int64]], Floats], time_to_live: int) -> Floats:
    """Shares of allocations finished in their 1st, 2nd, … slot and torn down, from the distribution function."""
    return np.diff(by_slot(np.arange(time_to_live + 1)), append=1.0)


def one_source(successes: int, per_slot: float) -> Callable[[NDArray[np.int64]], Floats]:
    """Slots until so many of a source's pairs have arrived: arrivals are a Poisson process (Kingman 1993, §5.1)."""
    return lambda slots: poisson.sf(successes - 1, per_slot * slots)


def test_the_chain_of_one_link_waits_for_the_first_arrival() -> None:
    hardware = CASES["one link"]
    per_slot = 2.0 * SLOT * ARRIVAL
    exact = long_run(hardware.chain())
    assert exact.waiting == pytest.approx(completion(one_source(1, per_slot), 8), abs=ROUNDING)
    assert exact.rate == pytest.approx(1 - math.exp(-per_slot))  # memoryless: a time-out costs nothing
    assert exact.werner == pytest.approx((4 * 0.98 - 1) / 3)


def test_the_chain_of_two_links_on_one_source_waits_for_the_second_arrival() -> None:
    hardware = replace(CASES["two links, one source, swaps fail"], swap_success=1.0)
    expected = completion(one_source(2, 8.0 * SLOT * ARRIVAL), 8)
    assert long_run(hardware.chain()).waiting == pytest.approx(expected, abs=ROUNDING)


def test_the_chain_of_two_links_with_a_source_each_waits_for_the_later_and_lets_the_earlier_decay() -> None:
    chain = CASES["two links, a source each, fast decay"].chain()
    p = 1 - math.exp(-4.0 * SLOT * ARRIVAL)
    decay = math.exp(-2 * SLOT / 2.0)
    fresh = (4 * 0.98 - 1) / 3
    exact = long_run(chain)
    assert exact.waiting == pytest.approx(completion(lambda slots: (1 - (1 - p) ** slots) ** 2, 8), abs=ROUNDING)
    first = {slot: p * (1 - p) ** (slot - 1) for slot in range(1, 9)}
    both = sum(first.values()) ** 2
    held = sum(first[a] * first[b] * decay ** abs(a - b) for a in first for b in first)
    assert exact.werner == pytest.approx(fresh**2 * chain.swap_factor * held / both, abs=ROUNDING)
    slots = sum(1 - (1 - (1 - p) ** slot) ** 2 for slot in range(8))  # mean: Σ P(open after `slot` slots)
    assert exact.rate == pytest.approx(both / slots, abs=ROUNDING)


def test_the_chain_of_a_single_slot_purifies_if_enough_pairs_arrive_and_the_rounds_succeed() -> None:
    hardware = replace(CASES["two purification rounds, a source each"], hops=1, time_to_live=1, quality=2)
    per_slot, fresh = 8.0 * SLOT * ARRIVAL, (4 * 0.8 - 1) / 3
    success = (1 + (GATE * (2 * READOUT - 1) * fresh) ** 2) / 2
    # Every two pairs that arrive are one try, whose failure empties the link again.
    expected = sum(poisson.pmf(n, per_slot) * (1 - (1 - success) ** (n // 2)) for n in range(40))
    assert long_run(hardware.chain()).rate == pytest.approx(expected, abs=ROUNDING)


# -------------------------------------------------------------------------------------- the simulator and the chains


class Sample(NamedTuple):
    """Consecutive allocations of every environment, (environments, allocations)."""

    slots: NDArray[np.int64]  # from admission to end, both counted
    werner: Floats  # of the finished pair; NaN where torn down


class Estimate(NamedTuple):
    """A ratio of sums and its standard error."""

    value: float
    error: float

    def off_by(self, expected: float) -> float:
        """Distance from the expected value in standard errors; figures without chance must be equal."""
        distance = abs(self.value - expected)
        return distance / self.error if distance > ROUNDING else 0.0


def ratio(parts: Floats, wholes: Floats) -> Estimate:
    """Σparts/Σwholes of independent environments, (environments, …); linearised standard error."""
    part, whole = (np.asarray(x, dtype=np.float64).reshape(ENVIRONMENTS, -1).sum(axis=1) for x in (parts, wholes))
    value = part.sum() / whole.sum()
    error = np.std(part - value * whole, ddof=1) / whole.mean() / math.sqrt(ENVIRONMENTS)
    return Estimate(float(value), float(error))


def peer_place(network: Network, peer: int) -> int:
    return int(np.flatnonzero(network.peers[0] == peer)[0])


def begin(scenario: Scenario, network: Network, demands: Sequence[Demand], slots: int) -> Simulator:
    simulator = Simulator(scenario, ENVIRONMENTS)
    simulator.begin([Episode(network, demand, seed, slots) for seed, demand in enumerate(demands)])
    return simulator


def step(simulator: Simulator, acts: NDArray[np.bool_], place: int, quality: int = 1) -> None:
    """Node 0 allocates a pair to that peer where it `acts`; the others wait."""
    action = np.zeros((ENVIRONMENTS, simulator.num_nodes), dtype=np.int64)
    action[acts, 0] = ActionCode.of(simulator.scenario).encode(place, quality)
    simulator.step(action)


def has_none_open(simulator: Simulator) -> NDArray[np.bool_]:
    return simulator.state.alloc_slot[:, 0, 0] < 0


@cache
def exact(case: str) -> LongRun:
    return CASES[case].long_run()


@cache
def played(case: str) -> Sample:
    hardware = CASES[case]
    scenario = hardware.scenario()
    network = build_network(scenario, 0)
    place = peer_place(network, hardware.hops)
    allocations = WARM_UP + math.ceil(1.1 * SLOTS / ENVIRONMENTS / exact(case).slots)
    horizon = allocations * hardware.time_to_live
    queue = demand_of([(0, 0, place, 0, horizon)] * allocations, network.peers.shape)
    simulator = begin(scenario, network, [queue] * ENVIRONMENTS, horizon)
    closed = []
    to_close = np.full(ENVIRONMENTS, allocations)
    while to_close.max() > 0:
        step(simulator, has_none_open(simulator), place, hardware.quality)
        closed.append(has_none_open(simulator))
        to_close -= closed[-1]
    last_slot = np.array([np.flatnonzero(of_one)[:allocations] for of_one in np.transpose(closed)])
    werner = np.full(last_slot.shape, np.nan)
    for b, slots_served in enumerate(simulator.state.request_status):
        finished = np.isin(last_slot[b], slots_served)
        # Requests of one urgency are served in their order.
        werner[b, finished] = simulator.state.request_werner[b, : finished.sum()]
    slots = np.diff(last_slot, axis=1, prepend=-1)
    return Sample(slots[:, WARM_UP:], werner[:, WARM_UP:])


def rate_of(sample: Sample) -> Estimate:
    return ratio(~np.isnan(sample.werner), sample.slots)


def werner_of(sample: Sample) -> Estimate:
    return ratio(np.nan_to_num(sample.werner), ~np.isnan(sample.werner))


def waiting_of(sample: Sample, time_to_live: int) -> list[Estimate]:
    finished = ~np.isnan(sample.werner)
    every = np.ones_like(sample.slots)
    in_slot = [ratio(finished & (sample.slots == slot), every) for slot in range(1, time_to_live + 1)]
    return [*in_slot, ratio(~finished, every)]


@of_case
def test_the_sample_is_of_at_least_three_hundred_thousand_slots(case: str) -> None:
    assert played(case).slots.sum() >= SLOTS


@of_case
def test_finished_pairs_per_slot_are_those_of_the_chain(case: str) -> None:
    assert rate_of(played(case)).off_by(exact(case).rate) < 3.0


@of_case
def test_mean_fidelity_is_that_of_the_chain(case: str) -> None:
    assert werner_of(played(case)).off_by(exact(case).werner) < 3.0  # fidelity is (1 + 3w)/4: no need to convert


@of_case
def test_waiting_times_and_time_outs_are_distributed_as_in_the_chain(case: str) -> None:
    shares = waiting_of(played(case), CASES[case].time_to_live)
    allowed = norm.isf(norm.sf(3.0) / len(shares))
    for share, expected in zip(shares, exact(case).waiting, strict=True):
        assert share.off_by(expected) < allowed


@pytest.mark.parametrize(
    ("case", "slightly"),
    [
        of("one link", {"arrival": 0.98 * ARRIVAL}),
        of("two links, a source each, fast decay", {"decay": math.exp(-2 * SLOT / 2.1)}),
        of("two links, one source, swaps fail", {"swap_success": 0.49}),
        of("a relay short of swap tokens", {"swap_success": 0.88}),
        of("a relay short of swap tokens", {"token_cap": 1.5}),
        of("a relay short of swap tokens", {"fresh": 0.97}),
        of("two links as soon as possible, with a cutoff", {"cutoff": 2}),
        of("three links as soon as possible", {"cutoff": 3}),
        of("four links as soon as possible, made again, with a cutoff", {"cutoff": 3}),
    ],
)
def test_the_samples_are_large_enough_to_tell_a_slightly_different_world(case: str, slightly: dict[str, Any]) -> None:
    hardware = CASES[case]
    if hardware.asap:
        different = replace(hardware, **slightly).long_run()
    else:
        different = long_run(replace(hardware.chain(), **slightly))
    sample = played(case)
    assert max(rate_of(sample).off_by(different.rate), werner_of(sample).off_by(different.werner)) > 3.0


# ---------------------------------------------------------------------------------- requests, deadlines and the stock

PERFECT_MEMORY = 1e9  # s


def test_keeping_one_pair_in_stock_serves_the_poisson_requests_of_a_two_state_chain() -> None:
    """Requests of node 0 to its neighbour live for one slot; it builds a pair whenever it has none.

    Before a slot's requests arrive it has a pair or not. In every slot k requests come, Poisson with mean 0.4; a stored
    pair serves one of them; a node left without one finishes a pair with probability p, whatever went before, which
    serves a request left over, else is stored. In balance, as many slots end with a pair lost as with one won:
    has·(P(k > 0) - P(k = 1)·p) = (1 - has)·P(k = 0)·p.
    """
    per_slot = 0.4
    hardware = Hardware(hops=1, relay_rate=1.0, coherence_time=PERFECT_MEMORY)
    all_ask_alike = {"request_rate": 6 * per_slot / SLOT, "popularity_sigma": 0.0, "gravity_length": 1e9}
    scenario = hardware.scenario(deadline=SLOT, **all_ask_alike)
    network = build_network(scenario, 0)
    place, slots = peer_place(network, 1), SLOTS // ENVIRONMENTS + WARM_UP
    demands = [draw_demand(scenario, network, seed, slots) for seed in range(ENVIRONMENTS)]
    simulator = begin(scenario, network, demands, slots)
    for _ in range(slots):
        step(simulator, has_none_open(simulator) & (simulator.state.stock_count[:, 0] == 0), place)
    asked, served, from_stock = [], [], []
    for b, demand in enumerate(demands):
        of_pair = demand.requests
        counted = (of_pair.source == 0) & (of_pair.peer == place) & (of_pair.slot >= WARM_UP)
        asked.append(counted.sum())
        served.append((simulator.state.request_status[b, : len(counted)][counted] >= 0).sum())
        from_stock.append(simulator.state.request_from_stock[b, : len(counted)][counted].sum())
    p = 1 - math.exp(-4.0 * SLOT * ARRIVAL)
    none, one = math.exp(-per_slot), per_slot * math.exp(-per_slot)
    has = none * p / (none * p + 1 - none - one * p)
    at_once = has * (1 - none)
    built = p * (has * (1 - none - one) + (1 - has) * (1 - none))
    assert ratio(served, asked).off_by((at_once + built) / per_slot) < 3.0
    assert ratio(from_stock, asked).off_by(at_once / per_slot) < 3.0


def test_a_pair_too_late_for_its_request_serves_the_next() -> None:
    """A request comes every 8 slots and waits for 2; if it finds no pair, node 0 allocates one, for 8 slots.

    A request that finds no pair is served with probability a, that both links are there in 2 slots, and leaves a pair
    behind with probability b, that they take 3 to 8. One that finds a pair is served and leaves none. So a share
    b/(1 + b) of requests find a pair, and (a + b)/(1 + b) are served.
    """
    period, patience = 8, 2
    hardware = Hardware(relay_rate=5.0, swap_success=1.0, coherence_time=PERFECT_MEMORY)
    scenario = hardware.scenario()
    network = build_network(scenario, 0)
    place, slots = peer_place(network, 2), (SLOTS // ENVIRONMENTS // period + WARM_UP) * period
    asked = [(slot, 0, place, 0, slot + patience - 1) for slot in range(0, slots, period)]
    simulator = begin(scenario, network, [demand_of(asked, network.peers.shape)] * ENVIRONMENTS, slots)
    for _ in range(slots):
        step(simulator, has_none_open(simulator) & (simulator.state.pending[:, 0, place, 0] > 0), place)
    served = simulator.state.request_status[:, WARM_UP:] >= 0
    within = one_source(2, 5.0 * SLOT * ARRIVAL)
    a = within(np.array(patience))
    b = within(np.array(period)) - a
    assert ratio(served, np.ones_like(served)).off_by(float((a + b) / (1 + b))) < 3.0
    from_stock = simulator.state.request_from_stock[:, WARM_UP:]
    assert ratio(from_stock, np.ones_like(served)).off_by(float(b / (1 + b))) < 3.0
