"""Many networks stepped at once, every agent of each a sub-environment: a Gymnasium vector environment of arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dpem_env.envs.graph import GraphView, graph_of
from dpem_env.envs.metrics import contention, delivery_rate
from dpem_env.envs.rewards import Outcome
from dpem_env.envs.session import Session, as_actions, shows_arguments
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ScenarioError, require_one_of

Rows = NDArray[np.float32]


class EntanglementVectorEnv(VectorEnv[Rows, NDArray[np.int64], NDArray[Any]]):
    """The game of `EntanglementEnv` on several networks at once, without dictionaries.

    Sub-environment ``e·N + i`` is agent i of network e: ``num_envs`` of this class is networks × agents. Network e
    plays the very episodes of an `EntanglementEnv` reset with ``seed + e`` and then, again and again, without a seed.

    **Observation, action, reward** of each sub-environment: as in `EntanglementEnv`; batched, they are (num_envs, F)
    float32, (num_envs,) integers and (num_envs,) float64. Every array is fresh.

    **Infos.** ``action_mask`` (num_envs, actions) int8; ``illegal_actions`` (num_envs,) counts of the running episode;
    ``delivered``, ``earned`` (what that is
    worth) and ``contended`` (num_envs,), what the reward is made of. ``final_info`` also has ``delivery_rate``
    and ``contention`` (num_envs,) of the episode that each has finished, equal for all agents of a network.

    **Episode.** All sub-environments are truncated together, none is ever terminated. The autoreset mode is
    ``SAME_STEP``: the step that truncates returns the first observation of the next episode, and the last one of the
    finished episode in ``infos["final_obs"]``, its infos in ``infos["final_info"]`` (``_final_obs`` and ``_final_info``
    are all True). A learner bootstraps its value from them: truncation is not the end of the task.

    **Central control.** With ``control="central"`` a controller per network commands its nodes, ``delay`` seconds late:
    the game of `CentralEnv`. Row ``e·N + i`` is then what the controller of network e sees of node i, and action
    ``e·N + i`` its command for the node. Rewards stay the nodes' own.

    **Arguments.** ``num_networks``: networks stepped at once. ``control``: ``"local"`` or ``"central"``. ``delay``: of
    central control, in s (default: 0). ``threads``: networks are shared out among that many threads; results do not
    depend on it. ``forecaster``: each of several networks gets a copy. ``scenario``, ``split``, ``routes``,
    ``conditional``, ``max_cycles`` and overrides as in `EntanglementEnv`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    @shows_arguments
    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        num_networks: int = 1,
        *,
        control: Literal["local", "central"] = "local",
        delay: float | None = None,
        threads: int = 1,
        **arguments: Any,
    ) -> None:
        require_one_of("control", control, ("local", "central"))
        if control == "local" and delay is not None:
            raise ScenarioError(f'delay is {delay!r}, but nodes decide for themselves; add control="central"')
        if control == "central" and delay is None:
            delay = 0.0
        self.session = Session(scenario, num_networks, delay, threads, **arguments)
        self.scenario, self.max_cycles = self.session.scenario, self.session.max_cycles
        self.simulator, self.observer = self.session.simulator, self.session.observer
        self.num_networks, self.agents_per_network = self.session.num_networks, self.session.num_nodes
        self.num_envs = self.num_networks * self.agents_per_network
        self.single_observation_space = spaces.Box(0.0, 1.0, (self.observer.table.width,), np.float32)
        self.single_action_space = spaces.Discrete(self.observer.code.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Rows, dict[str, Any]]:
        """Begin an episode in every network: network e as `EntanglementEnv.reset(seed + e, options)`."""
        self.session.reset(seed, options)
        self._illegal = np.zeros((self.num_networks, self.agents_per_network), dtype=np.int64)
        observations, masks = self._rows(*self.session.look())
        return observations, self._infos(masks, self.session.outcome())

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Play one slot in every network.

        Raises ActionError unless `actions` is (num_envs,) integers, and before the first reset.
        """
        chosen = as_actions("actions", actions, (self.num_envs,)).reshape(self.num_networks, -1)
        turn = self.session.play(*self.observer.code.commands(chosen))
        observations, masks = self._rows(turn.observations, turn.masks)
        outcome = turn.outcome
        self._illegal += self.simulator.refused
        infos = self._infos(masks, outcome)
        over = self.session.done
        if over:
            for name, metric in (("delivery_rate", delivery_rate), ("contention", contention)):
                of_networks = [metric(self.simulator, network) for network in range(self.num_networks)]
                infos[name] = np.repeat(of_networks, self.agents_per_network)
            final = {"final_obs": observations, "final_info": infos}
            final |= {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in final}
            observations, infos = self.reset()
            infos |= final
        return (
            observations,
            outcome.reward.ravel(),
            np.zeros(self.num_envs, dtype=np.bool_),
            (np.ones if over else np.zeros)(self.num_envs, dtype=np.bool_),
            infos,
        )

    def graph(self, padded: bool = False) -> GraphView:
        """The networks of these episodes as one graph between the rows of observations: `dpem_env.envs.graph`.

        With `padded` it has the same shapes in every episode. Ask again when episodes end.
        """
        return graph_of(self.session, padded)

    def _rows(self, observations: Rows, masks: NDArray[np.int8]) -> tuple[Rows, NDArray[np.int8]]:
        """Both as (num_envs, …)."""
        return observations.reshape(self.num_envs, -1), masks.reshape(self.num_envs, -1)

    def _infos(self, masks: NDArray[np.int8], outcome: Outcome) -> dict[str, Any]:
        state = self.simulator.state
        return {
            "action_mask": masks,
            "illegal_actions": self._illegal.flatten(),
            "delivered": state.delivered.flatten(),
            "earned": outcome.earned.ravel(),
            "contended": state.contended.flatten(),
        }


def make_vec(scenario: str | Scenario = "mesh100-v0", num_envs: int = 1, **arguments: Any) -> EntanglementVectorEnv:
    """`num_envs` networks of a scenario stepped at once; arguments and overrides as on `EntanglementVectorEnv`."""
    return EntanglementVectorEnv(scenario, num_envs, **arguments)
