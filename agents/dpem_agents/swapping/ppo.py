"""PPO of swaps with Stable-Baselines3, which masks what is illegal: one agent for the chain, or one policy for relays.

Relays share a policy, which sees where they stand. Every slot costs the same until the delivery, without discount, as
in `q_learning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dpem_agents.libraries import agents_extra
from dpem_agents.swapping.chains import Chains, Masks, Rows, Seen
from dpem_agents.swapping.views import View
from dpem_baselines.swap_chain import SwapChain
from dpem_env.observations.features import FeatureTable

with agents_extra():
    from sb3_contrib import MaskablePPO
    from stable_baselines3.common.utils import ConstantSchedule
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

COUNT = 256  # chains side by side
COST = 0.1  # of a slot: returns of a few units
SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "n_epochs": 4,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}
RATE, ENTROPY = 2e-3, 0.03  # learning rate and bonus of entropy at first; both fall to none in a straight line
MINIBATCHES = 8


def inputs_of(view: View, rows: Rows) -> NDArray[np.float32]:
    """(chains · agents, width) what agents see, every number as a one among zeros, and which agent it is."""
    numbers = view.numbers(rows)
    known = [np.eye(count, dtype=np.float32)[numbers[..., place]] for place, count in enumerate(view.ranges)]
    who = np.broadcast_to(np.eye(view.agents, dtype=np.float32), (len(rows), view.agents, view.agents))
    return np.concatenate([*known, who], axis=-1).reshape(len(rows) * view.agents, -1)


def masks_of(view: View, masks: Masks) -> NDArray[np.bool_]:
    """(chains · agents, 2 · relays of each) whether waiting and swapping are legal."""
    may = view.may_swap(masks)
    return np.stack([np.ones_like(may), may], axis=-1).reshape(len(masks) * view.agents, -1)


class ChainsVecEnv(VecEnv):
    """Chains for Stable-Baselines3: a sub-environment is an agent of a chain; an episode ends with the delivery."""

    render_mode = None

    def __init__(self, chains: Chains, view: View) -> None:
        self.chains, self.view = chains, view
        width = int(view.ranges.sum()) + view.agents
        actions = spaces.MultiDiscrete([2] * (view.relays // view.agents))
        super().__init__(COUNT * view.agents, spaces.Box(0.0, 1.0, (width,), np.float32), actions)

    def reset(self) -> NDArray[np.float32]:
        """The chains as they are: they go on."""
        return self._shown(self.chains.look())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the slot that `step_wait` plays."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play a slot."""
        seen = self.chains.play(self.view.choices(self._actions.reshape(COUNT, -1)))
        over = np.repeat(seen.delivered, self.view.agents)
        rewards = np.full(self.num_envs, -COST, dtype=np.float32)
        rows = self._shown(seen)
        infos: list[dict[str, Any]] = [
            {"terminal_observation": row} if end else {} for row, end in zip(rows, over, strict=True)
        ]
        return rows, rewards, over, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """What is legal now."""
        return self._masks

    def _shown(self, seen: Seen) -> NDArray[np.float32]:
        self._masks = masks_of(self.view, seen.masks)
        return inputs_of(self.view, seen.rows)

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """That of all."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """There is nothing to set."""
        raise NotImplementedError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Masks, a row per sub-environment."""
        return list(getattr(self, method_name)(*args, **kwargs))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """None is."""
        return [False for _ in self._get_indices(indices)]


class PpoLearning:
    """One agent that decides for all relays ("joint"), or one policy that every relay follows."""

    def __init__(self, chain: SwapChain, sees: str, table: FeatureTable, seed: int) -> None:
        self.chain, self.view, self.seed = chain, View(sees, table), seed

    def learn(self, slots: int, reports: int) -> Iterator[int]:
        """Play so many slots, of all chains together; yields what was played `reports` times on the way."""
        steps = SETTINGS["n_steps"]
        rollouts = slots // (COUNT * steps)
        env = ChainsVecEnv(Chains(self.chain, COUNT, rollouts * steps + 1, self.seed), self.view)
        batch = env.num_envs * steps // MINIBATCHES
        self.model = MaskablePPO("MlpPolicy", env, RATE, batch_size=batch, seed=self.seed, **SETTINGS)
        for rollout in range(rollouts):
            left = 1.0 - rollout / rollouts
            self.model.lr_schedule = ConstantSchedule(RATE * left)
            self.model.ent_coef = ENTROPY * left
            self.model.learn(env.num_envs * steps, reset_num_timesteps=False)
            if (rollout + 1) * reports // rollouts > rollout * reports // rollouts:
                yield (rollout + 1) * COUNT * steps

    def decide(self, rows: Rows, masks: Masks) -> NDArray[np.int64]:
        """The choices that the policy holds best."""
        shown, legal = inputs_of(self.view, rows), masks_of(self.view, masks)
        swapping, _ = self.model.predict(shown, deterministic=True, action_masks=legal)
        return self.view.choices(swapping.reshape(len(rows), -1))
