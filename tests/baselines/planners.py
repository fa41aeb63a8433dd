"""Planning baselines in hand-made situations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dpem_baselines.limits import Limits
from dpem_baselines.linear_program import CentralLP
from dpem_baselines.planning import PathPlanner
from dpem_env.envs.session import Session
from dpem_env.policies import Decision
from support.rollouts import control_of, session_with, view_of

THREE_OVER_THE_HUB = [(0, 1, 0, 0, 3), (0, 2, 0, 0, 3), (0, 3, 0, 0, 3)]  # 1-7, 2-1 and 3-2


def star(requests: Any = THREE_OVER_THE_HUB, **fields: Any) -> Session:
    """Seven leaves around a hub that emits 16 pairs/s over 10 km links, with ample memory and swaps unless named."""
    return session_with(requests, "star8-v0", silent=True, **{"memory": (16, 16), "relay_swap_rate": 100.0, **fields})


def planned(planner: PathPlanner, session: Session, seed: int = 0, **changed: Any) -> Decision:
    """What the planner decides on a session as it is now, with fields of its view `changed`."""
    planner.reset(session.scenario, session.network, seed)
    return planner.act(replace(view_of(control_of(session)), **changed))


def played(planner: PathPlanner, session: Session, slots: int, delay: float = 0.0, **options: Any) -> list[list[int]]:
    """Actions of all nodes, slot by slot."""
    planner.reset(session.scenario, session.network, 0)
    control_of(session, delay, **options)
    actions = []
    for _ in range(slots):
        view = session.view()
        decision = planner.act(view) if view else Decision(np.zeros(session.network.num_nodes, dtype=np.int64))
        actions.append(decision.action.tolist())
        session.step(*decision)
    return actions


def choice(planner: CentralLP, worth: list[float], limits: list[list[float]], capacity: list[float]) -> list[int]:
    """What a planner that needs no more than these arrays chooses."""
    unused: Any = None
    return planner.choose(unused, np.array(worth), limits_of(limits, capacity), unused).tolist()


def limits_of(needs: Any, capacity: Any) -> Limits:
    """Limits from a matrix, one row per thing and one column per candidate."""
    matrix = np.array(needs, dtype=np.float64)
    things = np.broadcast_to(np.arange(len(matrix)), matrix.T.shape)
    return Limits(np.where(matrix.T == 0, len(matrix), things), matrix.T, np.append(capacity, np.inf))
