"""The Gymnasium façade: one controller for the whole network."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dpem_env.envs.graph import EDGE_FEATURES, GraphView, graph_of
from dpem_env.envs.rendering import FPS, MODES, Rendering
from dpem_env.envs.rewards import Outcome
from dpem_env.envs.session import Session, as_actions, shows_arguments
from dpem_env.envs.sums import EpisodeSums
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ScenarioError, require_one_of

Observation = NDArray[np.float32] | spaces.GraphInstance


class CentralEnv(gymnasium.Env[Observation, NDArray[np.int64]]):
    """The same network under central control: one controller decides for all nodes, δ seconds late.

    It plays by the rules of `EntanglementEnv`: at most one new allocation per node and slot, the
    same verbs, the same requests and random draws for the same seed.

    **Action.** ``MultiDiscrete([1 + D·Q] * N)``, entry i coded as the action of ``agent_i`` (with ``routes=True``,
    ``1 + D·Q·k``). With ``conditional=True`` as many follow that a node withholds, waiting instead, unless it finds the
    way free on their arrival. ``info["action_mask"]`` is (N, actions) int8. A command illegal on arrival is a wait,
    counted in ``info["illegal_actions"]``.

    In a chain with ``swapping="agents"`` commands are on swaps, ``MultiDiscrete([2] * N)``, or 3 with ``discard=True``;
    the view has all segments as they were δ ago, but those that the cutoff has ended since, and nothing of the
    controller's own commands.

    **Observation.** ``Box(0, 1, (N, F), float32)``: the rows of all nodes, features as in `EntanglementEnv`, with
    remote ones as of the view (telemetry age 0). The view is the network after phase 0 of slot t - δ/dt; allocations
    past their time-to-live are closed in it, the controller's own commands since count as open, and forecasts are
    shifted by δ. Pending requests are those seen then; a slack of 0 says that all of a peer's are overdue by now. For
    the first δ/dt slots nothing is known: zeros, and only waiting is legal.

    With ``observation="graph"`` it is a ``Graph``: these rows as ``nodes``, and of the fibres ``edges`` (E, 3) and
    ``edge_links`` (E, 2), those of `graph`, which change with the topology alone. Only a controller sees all rows, so
    only here is the graph an observation; an agent of `EntanglementEnv` knows of others what its own row tells, and who
    trains there with all rows (``state``) has the same edges from its `graph`.

    **Reward.** Sum over nodes of earned - β·contended; ``info["delivered"]``, ``info["earned"]`` and
    ``info["contended"]`` are (N,). The last info has the episode's ``metrics``, a dict with all that tables tell.

    **Episode.** Truncated after ``episode.slots`` slots; ``reset(seed=s)`` as in `EntanglementEnv`.

    **Arguments.** ``delay``: δ in s, taken to the nearest slot, halves down. ``observation``: ``"flat"`` or
    ``"graph"``. Others and overrides as in `EntanglementEnv`.

    **Version history.** v0: first rules; v1: noisy purification, swapping as soon as possible, deadlines by
    class (docs/reproduce-paper.md, 2026-11-29). Provisional until release 0.1.
    """

    metadata = {"render_modes": list(MODES), "render_fps": FPS}  # noqa: RUF012

    @shows_arguments
    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        *,
        delay: float = 0.0,
        observation: Literal["flat", "graph"] = "flat",
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        require_one_of("observation", observation, ("flat", "graph"))
        if delay is None:  # to a session: nodes decide
            raise ScenarioError("delay is None; expected seconds >= 0")
        self.session = Session(scenario, 1, delay, 1, **arguments)
        self.scenario = self.session.scenario
        self.render_mode, self._rendering = render_mode, Rendering(self.session, render_mode)
        nodes, observer = self.session.num_nodes, self.session.observer
        self._graph_observation = observation == "graph"
        self.observation_space: spaces.Space[Any] = spaces.Box(0.0, 1.0, (nodes, observer.table.width), np.float32)
        if self._graph_observation:
            one_node = spaces.Box(0.0, 1.0, (observer.table.width,), np.float32)
            self.observation_space = spaces.Graph(one_node, spaces.Box(0.0, 1.0, (len(EDGE_FEATURES),), np.float32))
        self.action_space = spaces.MultiDiscrete(np.full(nodes, observer.code.num_actions))
        self._illegal = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        self.session.reset(seed, options)
        super().reset(seed=None if seed is None else int(seed))  # which takes no integers of NumPy
        self._illegal, self._sums = 0, EpisodeSums(self.session)
        if self._graph_observation:
            self._graph = self.graph()
        shown = self._shown(*self.session.look(), self.session.outcome())
        self._rendering.played()
        return shown

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one slot; raises ActionError unless `action` is (N,) integers, and after the last slot."""
        session = self.session
        session.require_running()
        chosen = as_actions("action", action, (session.num_nodes,))
        turn = session.play(*session.observer.code.commands(chosen))
        self._illegal += int(session.simulator.refused.sum())
        self._sums.add(turn.outcome)
        observation, info = self._shown(*turn)
        self._rendering.played()
        return observation, float(turn.outcome.reward[0].sum()), False, session.done, info

    def graph(self) -> GraphView:
        """The network of this episode for message passing between the rows of observations."""
        return graph_of(self.session)

    def render(self) -> Any:
        """As `EntanglementEnv.render`."""
        return self._rendering.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._rendering.close()

    def _shown(
        self, observations: NDArray[np.float32], masks: NDArray[np.int8], outcome: Outcome
    ) -> tuple[Observation, dict[str, Any]]:
        simulator = self.session.simulator
        info = {
            "action_mask": masks[0],
            "illegal_actions": self._illegal,
            "delivered": simulator.state.delivered[0].copy(),
            "earned": outcome.earned[0],
            "contended": simulator.state.contended[0].copy(),
        }
        if self.session.done:
            info["metrics"] = self._sums.metrics().as_dict()
        rows = observations[0]
        if not self._graph_observation:
            return rows, info
        edges, links = self._graph.edge_attr.copy(), self._graph.edge_index.T.copy()
        return spaces.GraphInstance(rows, edges, links), info
