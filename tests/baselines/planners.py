"""Planning baselines in hand-made situations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from dpem_baselines.linear_program import CentralLP
from dpem_baselines.planning import PathPlanner
from dpem_env.demand.forecast import Forecaster
from dpem_env.envs.control import CentralControl
from dpem_env.envs.session import Session
from dpem_env.policies import Decision, NetworkView
from support.rollouts import session_with

THREE_OVER_THE_HUB = [(0, 1, 0, 0, 3), (0, 2, 0, 0, 3), (0, 3, 0, 0, 3)]  # 1-7, 2-1 and 3-2


def star(requests: Any = THREE_OVER_THE_HUB, **fields: Any) -> Session:
    """Seven leaves around a hub that emits 16 pairs/s over 10 km links, with ample memory and swaps unless named."""
    return session_with(requests, "star8-v0", silent=True, **{"memory": (16, 16), "relay_swap_rate": 100.0, **fields})


def view_of(session: Session, delay: float = 0.0, forecaster: Forecaster | None = None) -> NetworkView:
    control = CentralControl(session, delay, forecaster)
    control.begin()
    view = control.view()
    assert view is not None
    return view


def planned(planner: PathPlanner, session: Session, seed: int = 0, **changed: Any) -> Decision:
    """What the planner decides on a session as it is now, with fields of its view `changed`."""
    planner.reset(session.scenario, session.network, seed)
    return planner.act(replace(view_of(session), **changed))


def played(planner: PathPlanner, session: Session, slots: int, delay: float = 0.0, **options: Any) -> list[list[int]]:
    """Actions of all nodes, slot by slot."""
    planner.reset(session.scenario, session.network, 0)
    control = CentralControl(session, delay, **options)
    control.begin()
    actions = []
    for _ in range(slots):
        view = control.view()
        decision = planner.act(view) if view else Decision(np.zeros(session.network.num_nodes, dtype=np.int64))
        actions.append(decision.action.tolist())
        control.step(decision)
    return actions


def choice(planner: CentralLP, worth: list[float], limits: list[list[float]], capacity: list[float]) -> list[int]:
    """What a planner that needs no more than these arrays chooses."""
    unused: Any = None
    matrix = sparse.csc_array(np.array(limits))
    return planner.choose(unused, np.array(worth), matrix, np.array(capacity), unused).tolist()
