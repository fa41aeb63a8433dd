"""Episodes played for tests: random legal actions, digests of all that was seen, demands written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env import parallel_env, scenarios
from dpem_env.demand.forecast import Forecaster
from dpem_env.demand.requests import Demand, Pieces, tabulate
from dpem_env.envs.control import CentralControl
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.network.network import build_network
from dpem_env.policies import Decision, NetworkView
from support.worlds import IDEAL

Infos = dict[str, dict[str, Any]]

# What `reset(options=…)` refuses: misspelt names first, which would play another episode.
BAD_OPTIONS: list[Any] = [
    {"topology": 5},
    {"demand_sed": 5},
    {"topology_seed": 5, "Demand_seed": 6},
    {"seed": 5},
    {"topology-seed": 5},
    {"options": {"topology_seed": 5}},
    {5: 5},
    {None: 5},
    {"demand_seed": True},
    {"topology_seed": None},
    {"topology_seed": 2.0},
    {"topology_seed": "5"},
    {"demand_seed": -1},
    {"demand_seed": np.int64(-1)},
    {"demand_seed": [5]},
    [],
    [("topology_seed", 5)],
    "topology_seed",
    0,
]


def masked(observations: dict[str, Any], infos: Infos) -> Infos:
    """By agent what holds its mask: the observation if that is a dict, else the info."""
    return {agent: seen if isinstance(seen, dict) else infos[agent] for agent, seen in observations.items()}


def legal_actions(infos: Infos, rng: np.random.Generator, share: float = 1.0) -> dict[str, int]:
    """A random legal action for every agent; the others than `share` of them wait."""
    acts = rng.random(len(infos)) < share
    return {
        agent: int(rng.choice(np.flatnonzero(info["action_mask"]))) if act else 0
        for act, (agent, info) in zip(acts, infos.items(), strict=True)
    }


def rollout_digest(env: EntanglementEnv, seed: int | None, slots: int | None = None) -> str:
    """Fingerprint of every observation, mask, reward and end of an episode of random legal actions."""
    fingerprint = hashlib.blake2b(digest_size=16)
    rng = np.random.default_rng(99)
    observations, infos = env.reset(seed=seed)
    played = 0
    while env.agents and (slots is None or played < slots):
        for agent, observation in observations.items():
            fingerprint.update(f"{agent} {infos[agent]['illegal_actions']}".encode())
            fingerprint.update(observation)
            fingerprint.update(infos[agent]["action_mask"])
        observations, reward, terminated, truncated, infos = env.step(legal_actions(infos, rng, 0.3))
        fingerprint.update(repr((reward, terminated, truncated)).encode())
        played += 1
    return fingerprint.hexdigest()


def named_rollout_digest(scenario: str, seed: int) -> str:
    """`rollout_digest` of a shipped scenario with the moving average attached."""
    return rollout_digest(parallel_env(scenario, forecaster="moving-average", max_cycles=120), seed)


def demand_of(requests: Sequence[tuple[int, int, int, int, int]], shape: tuple[int, int]) -> Demand:
    """A demand of these requests: (slot, source, place of the peer, class, last slot)."""
    columns = np.array(sorted(requests), dtype=np.int32).reshape(-1, 5).T
    slot, source, peer = columns[:3]
    return Demand(tabulate(*columns), Pieces(source, peer, slot, slot + 1, np.ones(len(slot))), shape)


def session_with(
    requests: Sequence[tuple[int, int, int, int, int]],
    scenario: str = "chain3-v0",
    *,
    slots: int = 40,
    forecaster: str | Forecaster | None = None,
    routes: bool = False,
    silent: bool = False,
    **fields: Any,
) -> Session:
    """A session in the ideal world, at slot 0 on topology 0, with these requests; `silent` sources emit nothing."""
    chosen = scenarios.get(scenario, **IDEAL | fields)
    session = Session(chosen, forecaster=forecaster, routes=routes)
    network = build_network(chosen, 0)
    session.begin_with(network, demand_of(requests, network.peers.shape), EpisodeSeeds(0, 0), slots)
    if silent:
        session.simulator.world.emit(0.0)
    return session


def wait(session: Session, slots: int = 1) -> None:
    """Play slots in which nobody acts."""
    for _ in range(slots):
        session.step(np.zeros(session.network.num_nodes, dtype=np.int64))


def control_of(session: Session, delay: float = 0.0, forecaster: str | Forecaster | None = None) -> Session:
    """The session, taken over by controllers that see it `delay` seconds late."""
    session.control = CentralControl(session.simulator, delay, forecaster, session.observer.routes)
    session.control.begin()
    session.nodes_decide = False
    return session


def view_of(session: Session) -> NetworkView:
    """What the controller of a session knows, which must be something."""
    view = session.view()
    assert view is not None
    return view


def decision(session: Session, actions: dict[int, int], routes: dict[int, int] | None = None) -> Decision:
    """Node -> action, everybody else waiting; routes are auto unless named."""
    action = np.zeros(session.network.num_nodes, dtype=np.int64)
    route = np.full(session.network.num_nodes, -1, dtype=np.int64)
    for table, chosen in ((action, actions), (route, routes or {})):
        table[list(chosen)] = list(chosen.values())
    return Decision(action, route)


def same(a: Any, b: Any) -> bool:
    """Whether two named tuples or dicts of arrays hold the same values bit for bit."""
    left, right = (dict(x) if isinstance(x, dict) else x._asdict() for x in (a, b))
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def rows_that_differ(a: NDArray[Any], b: NDArray[Any]) -> list[int]:
    """Rows in which two matrices differ."""
    return np.flatnonzero((a != b).any(axis=1)).tolist()
