"""Many networks stepped at once, every agent of each a sub-environment: a Gymnasium vector environment of arrays."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dpem_env import scenarios
from dpem_env.demand.forecast import Forecaster, NewRequests, get_forecaster, setting_of
from dpem_env.demand.requests import draw_demand
from dpem_env.envs.metrics import contention, delivery_rate
from dpem_env.envs.rewards import rewards
from dpem_env.envs.session import EpisodeChoice, as_actions, as_forecast, episode_seeds, require_seed, require_slots
from dpem_env.network.network import build_network
from dpem_env.observations.features import Observer
from dpem_env.scenarios import Scenario, Split
from dpem_env.simulator import Call, Episode, Simulator
from dpem_env.support.errors import ActionError, ScenarioError
from dpem_env.support.seeding import SEEDS

Rows = NDArray[np.float32]


class EntanglementVectorEnv(VectorEnv[Rows, NDArray[np.int64], NDArray[Any]]):
    """The game of `EntanglementEnv` on several networks at once, without dictionaries.

    Sub-environment ``e·N + i`` is agent i of network e: ``num_envs`` of this class is networks × agents. Network e
    plays the very episodes of an `EntanglementEnv` reset with ``seed + e`` and then, again and again, without a seed.

    **Observation, action, reward** of each sub-environment: as in `EntanglementEnv`; batched, they are (num_envs, F)
    float32, (num_envs,) integers and (num_envs,) float64. Every array is fresh.

    **Infos.** ``action_mask`` (num_envs, actions) int8; ``illegal_actions`` (num_envs,) counts of the running episode;
    ``delivered`` and ``contended`` (num_envs,), what the reward is made of. ``final_info`` also has ``delivery_rate``
    and ``contention`` (num_envs,) of the episode that each has finished, equal for all agents of a network.

    **Episode.** All sub-environments are truncated together, none is ever terminated. The autoreset mode is
    ``SAME_STEP``: the step that truncates returns the first observation of the next episode, and the last one of the
    finished episode in ``infos["final_obs"]``, its infos in ``infos["final_info"]`` (``_final_obs`` and ``_final_info``
    are all True). A learner bootstraps its value from them: truncation is not the end of the task.

    **Arguments.** ``num_networks``: networks stepped at once. ``threads``: networks are shared out among that many
    threads; results do not depend on it. ``forecaster``: each network gets a copy. ``scenario``, ``split``, ``routes``,
    ``data_dir``, ``max_cycles`` and overrides as in `EntanglementEnv`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        num_networks: int = 1,
        *,
        threads: int = 1,
        split: Split = "train",
        routes: bool = False,
        forecaster: str | Forecaster | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        max_cycles: int | None = None,
        **overrides: Any,
    ) -> None:
        for name, given in (("num_envs", num_networks), ("threads", threads)):
            if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
                raise ScenarioError(f"{name} is {given!r}; expected a whole number >= 1")
        self.scenario = scenarios.get(scenario, **overrides)
        self.num_networks = int(num_networks)
        self.max_cycles = self.scenario.episode.slots if max_cycles is None else max_cycles
        require_slots(self.max_cycles)
        self.data_dir = data_dir
        self.simulator = Simulator(self.scenario, self.num_networks, threads)
        self.observer = Observer(self.simulator, routes)
        chosen = get_forecaster(forecaster)
        self.forecasters = [copy.deepcopy(chosen) for _ in range(self.num_networks)] if chosen else []
        self._choices = [EpisodeChoice(self.scenario, split) for _ in range(self.num_networks)]
        first = build_network(self.scenario, episode_seeds(self.scenario, split, 0).topology, data_dir)
        self.agents_per_network = first.num_nodes
        self.num_envs = self.num_networks * self.agents_per_network
        self.single_observation_space = spaces.Box(0.0, 1.0, (self.observer.table.width,), np.float32)
        self.single_action_space = spaces.Discrete(self.observer.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._slot: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Rows, dict[str, Any]]:
        """Begin an episode in every network: network e as `EntanglementEnv.reset(seed + e, options)`."""
        if seed is not None:
            require_seed("reset(seed=...)", seed)
        self._begin([None if seed is None else (int(seed) + e) % SEEDS for e in range(self.num_networks)], options)
        observations, masks = self._look()
        return observations, self._infos(masks)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Play one slot in every network.

        Raises ActionError unless `actions` is (num_envs,) integers, and before the first reset.
        """
        if self._slot is None:
            raise ActionError("no episode has begun: call reset() first")
        chosen = as_actions("actions", actions, (self.num_envs,))
        self._slot += 1
        over = self._slot >= self.max_cycles
        if not over:
            self._update_forecasts()  # of requests, which no action changes
        play = self.simulator.playing(*self.observer.decode(chosen.reshape(self.num_networks, -1)))
        observations, masks = self._look(play)
        self._illegal += self.simulator.refused
        reward = rewards(self.simulator, self.scenario).ravel()
        infos = self._infos(masks)
        if over:
            for name, metric in (("delivery_rate", delivery_rate), ("contention", contention)):
                of_networks = [metric(self.simulator, network) for network in range(self.num_networks)]
                infos[name] = np.repeat(of_networks, self.agents_per_network)
            final = {"final_obs": observations, "final_info": infos}
            final |= {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in final}
            self._begin([None] * self.num_networks, None)
            observations, masks = self._look()
            infos = self._infos(masks) | final
        return (
            observations,
            reward,
            np.zeros(self.num_envs, dtype=np.bool_),
            np.full(self.num_envs, over),
            infos,
        )

    def _begin(self, seeds: Sequence[int | None], options: dict[str, Any] | None) -> None:
        episodes = []
        for choice, seed in zip(self._choices, seeds, strict=True):
            drawn = choice.choose(seed, options)
            network = build_network(self.scenario, drawn.topology, self.data_dir)
            demand = draw_demand(self.scenario, network, drawn.demand, self.max_cycles, self.data_dir)
            episodes.append(Episode(network, demand, drawn.demand, self.max_cycles))
        self.simulator.begin(episodes)
        for forecaster, episode in zip(self.forecasters, episodes, strict=False):
            forecaster.reset(setting_of(self.scenario, episode.network, episode.demand, forecaster.clairvoyant))
        self._episodes = episodes
        self._slot = 0
        self._illegal = np.zeros((self.num_networks, self.agents_per_network), dtype=np.int64)
        self._update_forecasts()

    def _update_forecasts(self) -> None:
        self._forecast: Rows | None = None
        if self.forecasters:
            assert self._slot is not None
            forecasts = []
            for forecaster, episode in zip(self.forecasters, self._episodes, strict=True):
                forecaster.observe(NewRequests.of_slot(self.scenario, episode.network, episode.demand, self._slot))
                forecasts.append(as_forecast(forecaster.predict(), self.scenario, episode.network))
            self._forecast = np.concatenate(forecasts)

    def _look(self, *before: Call) -> tuple[Rows, NDArray[np.int8]]:
        """Observations and masks (num_envs, …) after the calls `before`, all in one go of the threads."""
        observing, observations = self.observer.observing(self._forecast)
        masking, masks = self.observer.masking()
        self.simulator.run(*before, observing, masking)
        return observations.reshape(self.num_envs, -1), masks.reshape(self.num_envs, -1)

    def _infos(self, masks: NDArray[np.int8]) -> dict[str, Any]:
        state = self.simulator.state
        return {
            "action_mask": masks,
            "illegal_actions": self._illegal.flatten(),
            "delivered": state.delivered.flatten(),
            "contended": state.contended.flatten(),
        }


def make_vec(scenario: str | Scenario = "mesh100-v0", num_envs: int = 1, **arguments: Any) -> EntanglementVectorEnv:
    """`num_envs` networks of a scenario stepped at once; arguments and overrides as on `EntanglementVectorEnv`."""
    return EntanglementVectorEnv(scenario, num_envs, **arguments)
