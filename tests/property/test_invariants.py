"""Invariants over random scenarios and random actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dpem_env import physics, scenarios
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ContractError, ScenarioError
from dpem_env.testing import check_env

UNHURRIED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
SLOTS = 24
RATE = st.sampled_from([0.0, 0.4, 4.0, 40.0])
SWAPPING = st.sampled_from(
    [
        {"swapping": "all"},
        {"swapping": "all", "cutoff": 1},
        {"swapping": "asap"},
        {"swapping": "asap", "regenerate": True},
        {"swapping": "asap", "regenerate": True, "cutoff": 2},
    ]
)


def spans(values: Any) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.tuples(values, values).map(lambda pair: (min(pair), max(pair)))


@st.composite
def worlds(draw: st.DrawFn) -> Scenario:
    """Small networks of every generated kind with any hardware, demand and control."""
    network = draw(
        st.sampled_from(
            [
                {"generator": "mesh", "side": 30.0},
                {"generator": "mesh", "side": 5.0, "links_per_node": 5.0},
                {"generator": "chain", "spacing": 5.0},
                {"generator": "star", "spacing": 5.0},
            ]
        )
    )
    outages = draw(st.sampled_from([None, {"mean_up": 2.0, "mean_down": 0.5}]))
    return scenarios.get(
        "mesh20-v0",
        name="drawn",
        nodes=draw(st.integers(2, 9)),
        generation_rate=draw(spans(RATE)),
        swap_rate=draw(spans(RATE)),
        memory=draw(spans(st.integers(1, 6))),
        coherence_time=draw(st.sampled_from([0.2, 1.0, 60.0])),
        link_fidelity=draw(st.sampled_from([0.75, 0.9, 0.98, 1.0])),
        purification_gates=draw(st.sampled_from(["ideal", "noisy"])),
        swap_success=draw(st.sampled_from([0.0, 0.5, 1.0])),
        routes_per_peer=draw(st.integers(1, 3)),
        max_hops=draw(st.integers(1, 6)),
        min_link_rate=0.0,
        min_swap_rate=0.0,
        peers=draw(st.integers(1, 5)),
        request_rate=draw(st.sampled_from([0.0, 4.0, 100.0])),
        predictability=draw(st.sampled_from([0.0, 0.5, 1.0])),
        deadline=draw(st.integers(1, 8)) * 0.25,
        rows=draw(st.integers(1, 3)),
        qualities=draw(st.integers(1, 3)),
        time_to_live=draw(st.integers(1, 8)) * 0.25,
        telemetry_delay=draw(st.integers(1, 4)),
        slots=SLOTS,
        outages=outages,
        **network,
        **draw(SWAPPING),
    )


@contextmanager
def somebody_has_a_peer() -> Iterator[None]:
    """Passes over worlds in which nothing can be played."""
    try:
        yield
    except ScenarioError as error:
        assume("only 0 of" not in str(error))
        raise


@given(worlds(), st.booleans(), st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=UNHURRIED)
def test_every_world_keeps_the_contract(world: Scenario, routes: bool, conditional: bool) -> None:
    """Conservation of pairs, requests, qubits and tokens; the mask is what is accepted; determinism; copies."""
    try:
        with somebody_has_a_peer():
            check_env(EntanglementEnv(world, routes=routes, conditional=conditional), seeds=(0, 1), processes=False)
    except ContractError as error:
        if not str(error).startswith("seeds:"):  # a world in which nothing happens is the same under any seed
            raise


@given(worlds(), st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None, suppress_health_check=UNHURRIED)
def test_no_pair_is_ever_better_than_a_fresh_one_of_its_purification(world: Scenario, seed: int) -> None:
    session = Session(world)
    with somebody_has_a_peer():
        session.begin(EpisodeSeeds(seed % 1000, seed))
    rng = np.random.default_rng(seed)
    fresh = physics.werner_from_fidelity(world.hardware.link_fidelity)
    noise, qualities = world.hardware.purification_fidelities, range(1, world.control.qualities + 1)
    best = np.array([0.0] + [physics.pumped_werner(fresh, q, *noise) for q in qualities])
    while not session.done:
        before = session.simulator.state_of(0)
        session.step(rng.integers(-1, session.observer.code.num_actions + 1, size=session.network.num_nodes))
        state = session.simulator.state_of(0)
        assert (state["link_werner"] <= best[state["link_rounds"] + 1] + 1e-12).all()
        stored = np.arange(state["stock_werner"].shape[1]) < state["stock_count"][:, None]
        assert (state["stock_werner"][stored] <= best.max() + 1e-12).all()
        # Complete links ask for no more pairs: complete before and after, a link still holds the same, older pair.
        kept = (state["alloc_slot"] == before["alloc_slot"]) & (state["alloc_slot"] >= 0)
        complete = [each["link_rounds"] == each["alloc_quality"][:, :, None] - 1 for each in (before, state)]
        same = kept[:, :, None] & complete[0] & complete[1]
        assert (state["link_werner"][same] <= before["link_werner"][same]).all()


@given(worlds(), st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None, suppress_health_check=UNHURRIED)
def test_segments_fit_on_their_route_and_hold_every_qubit_once(world: Scenario, seed: int) -> None:
    session = Session(world)
    with somebody_has_a_peer():
        session.begin(EpisodeSeeds(seed % 1000, seed))
    rng = np.random.default_rng(seed)
    cutoff = SLOTS if world.control.cutoff is None else world.control.cutoff
    while not session.done:
        session.step(rng.integers(-1, session.observer.code.num_actions + 1, size=session.network.num_nodes))
        state = session.simulator.state_of(0)
        held, span = state["link_rounds"] >= 0, state["link_hops"]
        assert (held == (span > 0)).all()
        assert not state["link_werner"][~held].any()
        assert (state["link_slot"][~held] == -1).all()
        assert (state["slot"][0] - state["link_slot"][held] <= cutoff).all()
        complete = held & (state["link_rounds"] == state["alloc_quality"][:, :, None] - 1)
        assert complete[span > 1].all()
        for i, row in np.argwhere(state["alloc_peer"] >= 0):
            hops = session.network.routes.hops[i, state["alloc_peer"][i, row], state["alloc_route"][i, row]]
            [left] = np.nonzero(held[i, row])
            right = left + span[i, row, left]
            assert (right <= hops).all()
            assert len(set(right)) == len(right)
            covered = {link for h in np.flatnonzero(complete[i, row]) for link in range(h, h + span[i, row, h])}
            assert state["alloc_complete"][i, row] == len(covered)
        if world.control.swapping == "all":
            assert span.max(initial=0) <= 1
