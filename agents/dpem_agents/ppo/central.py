"""Learned central control: the networks of `NodeVecEnv` under one controller each, which sees all of it, δ late."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.central import CentralEnv
from dpem_env.scenarios import Scenario, Split
from dpem_env.support.seeding import SEEDS

Rows = NDArray[np.float32]


class CentralNetworks:
    """Several `CentralEnv` as one vector environment of nodes, with the part of `EntanglementVectorEnv` that learns.

    Row e·N + i is what the controller of network e sees of node i, remote features as of its view; action i is its
    command for the node. Rewards are the nodes' own, so that central control learns from the very signal that nodes do.
    """

    render_mode = None  # Stable-Baselines3 asks

    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        num_networks: int = 1,
        *,
        delay: float = 0.0,
        split: Split = "train",
        forecaster: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        max_cycles: int | None = None,
    ) -> None:
        self.controllers = [
            CentralEnv(
                scenario, delay=delay, split=split, forecaster=forecaster, data_dir=data_dir, max_cycles=max_cycles
            )
            for _ in range(num_networks)
        ]
        first = self.controllers[0]
        self.scenario = first.scenario
        self.agents_per_network = len(first.action_space.nvec)
        self.num_envs = num_networks * self.agents_per_network
        self.single_observation_space, self.single_action_space = first.node_observation_space, first.action_space[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Rows, dict[str, Any]]:
        """Begin an episode in every network: network e as `CentralEnv.reset(seed + e, options)`."""
        seeds = [None if seed is None else (seed + e) % SEEDS for e in range(len(self.controllers))]
        return _together([each.reset(seed=s, options=options) for each, s in zip(self.controllers, seeds, strict=True)])

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Play one slot in every network; what ends begins anew, as in `EntanglementVectorEnv`."""
        chosen = actions.reshape(len(self.controllers), -1)
        played = [each.step(commands) for each, commands in zip(self.controllers, chosen, strict=True)]
        over = played[0][3]
        observations, infos = _together([(slot[0], slot[4]) for slot in played])
        rewards = infos["delivered"] - self.scenario.reward.contention_penalty * infos["contended"]
        if over:
            final = {"final_obs": observations, "final_info": infos}
            observations, infos = self.reset()
            infos |= final
        return observations, rewards, np.zeros(self.num_envs, np.bool_), np.full(self.num_envs, over), infos

    def close(self) -> None:
        """Close the networks."""
        for controller in self.controllers:
            controller.close()


def _together(returned: list[tuple[Rows, dict[str, Any]]]) -> tuple[Rows, dict[str, Any]]:
    """Rows of all nodes; infos of nodes as one row each, of networks as one entry each."""
    observations = np.concatenate([observation for observation, _ in returned])
    infos = {name: np.concatenate([np.atleast_1d(info[name]) for _, info in returned]) for name in returned[0][1]}
    return observations, infos
