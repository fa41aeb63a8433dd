"""The Gymnasium façade: one controller for the whole network."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dpem_env.demand.forecast import Forecaster
from dpem_env.envs.control import CentralControl
from dpem_env.envs.metrics import contention, delivery_rate
from dpem_env.envs.parallel import EntanglementEnv
from dpem_env.envs.session import as_actions
from dpem_env.policies import Decision
from dpem_env.scenarios import Scenario, Split


class CentralEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.int64]]):
    """The same network under central control: one controller decides for all nodes, δ seconds late.

    It drives the simulator of `EntanglementEnv` by the same rules: at most one new allocation per node and slot, the
    same verbs, the same demand and luck for the same seed.

    **Action.** ``MultiDiscrete([1 + D·Q] * N)``, entry i coded as the action of ``agent_i`` (with ``routes=True``,
    ``1 + D·Q·k``). ``info["action_mask"]`` is (N, actions) int8. A command illegal on arrival is a wait, counted in
    ``info["illegal_actions"]``.

    **Observation.** ``Box(0, 1, (N, F), float32)``: the rows of all nodes, features as in `EntanglementEnv`, with
    remote ones as of the view (telemetry age 0). The view is the network after phase 0 of slot t - δ/dt; allocations
    past their time-to-live are closed in it, the controller's own commands since count as open, and forecasts are
    shifted by δ. Pending requests are those seen then; a slack of 0 says that all of a peer's are overdue by now. For
    the first δ/dt slots nothing is known: zeros, and only waiting is legal.

    **Reward.** Sum over nodes of delivered - β·contended; ``info["delivered"]`` and ``info["contended"]`` are (N,). The
    last info also has the episode's ``delivery_rate`` and ``contention``.

    **Episode.** Truncated after ``episode.slots`` slots; ``reset(seed=s)`` as in `EntanglementEnv`.

    **Arguments.** ``delay``: δ in s, taken to the nearest slot, halves down. ``max_cycles``, ``scenario``, ``split``,
    ``routes``, ``forecaster``, ``data_dir``, ``render_mode`` and overrides as in `EntanglementEnv`.

    **Version history.** v0: first rules; provisional until release 0.1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        *,
        delay: float = 0.0,
        split: Split = "train",
        routes: bool = False,
        forecaster: str | Forecaster | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        max_cycles: int | None = None,
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        self._nodes = EntanglementEnv(
            scenario,
            split=split,
            routes=routes,
            data_dir=data_dir,
            max_cycles=max_cycles,
            render_mode=render_mode,
            **overrides,
        )
        self.scenario = self._nodes.scenario
        self.session = self._nodes.session
        self.render_mode = render_mode
        self.control = CentralControl(self.session, delay, forecaster)
        nodes = len(self._nodes.possible_agents)
        observer = self.session.observer
        self.node_observation_space = spaces.Box(0.0, 1.0, (observer.table.width,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (nodes, observer.table.width), np.float32)
        self.action_space = spaces.MultiDiscrete(np.full(nodes, observer.num_actions))
        self._illegal = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode."""
        self._nodes.reset(seed, options)
        super().reset(seed=None if seed is None else int(seed))  # which takes no integers of NumPy
        self.control.begin()
        self._illegal = 0
        return self._observe()

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Play one slot; raises ActionError unless `action` is (N,) integers, and after the last slot."""
        self.session.require_running()
        chosen = as_actions("action", action, (self.session.network.num_nodes,))
        self.control.step(Decision(*self.session.observer.decode(chosen)))
        self._illegal += int(self.session.simulator.refused.sum())
        observation, info = self._observe()
        return observation, float(self.session.rewards().sum()), False, self.session.done, info

    def render(self) -> Any:
        """As `EntanglementEnv.render`."""
        return self._nodes.render()

    def _observe(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        view = self.control.view()
        shape = self.observation_space.shape
        assert shape is not None
        if view is None:
            observation = np.zeros(shape, dtype=np.float32)
            masks = np.zeros((shape[0], self.session.observer.num_actions), dtype=np.int8)
            masks[:, 0] = 1
        else:
            observation, masks = view.observations.matrix, view.masks
        simulator = self.session.simulator
        info = {
            "action_mask": masks,
            "illegal_actions": self._illegal,
            "delivered": simulator.state.delivered[0].copy(),
            "contended": simulator.state.contended[0].copy(),
        }
        if self.session.done:
            info |= {"delivery_rate": delivery_rate(simulator), "contention": contention(simulator)}
        return observation, info
