"""An episode played by a policy to its end: its metrics, and every slot of it for whoever looks on."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.decisions import require_decision
from dpem_env.envs.metrics import EpisodeMetrics
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.envs.sums import EpisodeSums
from dpem_env.policies import CentralPolicy, Decision, HybridPolicy, Policy
from dpem_env.scenarios import Scenario


class Recorder(Protocol):
    """Sees an episode as it is played; the episode log is one."""

    def begin(self, session: Session, label: str) -> None:
        """The session has just begun its episode."""

    def record(self, session: Session, decision: Decision, forecast: Any) -> None:
        """One slot has been played."""


def run_episode(
    scenario: Scenario,
    policy: Policy,
    seeds: EpisodeSeeds,
    *,
    delay: float = 0.0,
    forecaster: Any = None,
    recorder: Recorder | None = None,
    label: str = "",
) -> tuple[EpisodeMetrics, Session]:
    """Play one episode to its end; returns its metrics and the session in its final state.

    `delay` (s) is that of a controller, if there is one. `forecaster` overrides the policy's own.
    """
    forecaster = forecaster if forecaster is not None else policy.forecaster
    session = Session.of(policy, scenario, delay=delay, forecaster=forecaster)
    session.begin(seeds)
    policy.reset(scenario, session.network, seeds.demand)
    if recorder is not None:
        recorder.begin(session, label)
    sums = EpisodeSums(session)
    while not session.done:
        decision, forecast = _decided(session, policy)
        decision = decision._replace(action=session.carried_out(decision.action))  # as logs have it
        session.step(*decision)
        sums.add(session.outcome())
        if recorder is not None:
            recorder.record(session, decision, forecast)
    return sums.metrics(), session


def _decided(session: Session, policy: Policy) -> tuple[Decision, NDArray[np.float32] | None]:
    """What a policy decides in the current slot, and the forecast it was shown."""
    nodes = session.network.num_nodes
    if isinstance(policy, CentralPolicy):
        view = session.view()
        assert session.control is not None
        blind = Decision(np.zeros(nodes, dtype=np.int64))
        return blind if view is None else require_decision(policy.act(view), nodes), session.control.forecast
    look = session.look()
    shown = session.observer.table.read(look.observations[0]), look.masks[0]
    decision = policy.act(*shown, session.advice(policy)) if isinstance(policy, HybridPolicy) else policy.act(*shown)
    return require_decision(decision, nodes).of_nodes(), session.forecast
