"""A TorchRL environment of arrays: every agent of every network is one of its batch of sub-environments.

pip install dpem-env torch torchrl, then: python torchrl_env.py
"""

from __future__ import annotations

import time

import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import ActionMask, EnvBase, TransformedEnv
from torchrl.envs.utils import check_env_specs

from dpem_env import EntanglementVectorEnv, make_vec

SLOTS = 400


class EntanglementTorchEnv(EnvBase):
    """`envs` with ``batch_size = [num_envs]``: observation, action_mask, action, reward; all are done together."""

    def __init__(self, envs: EntanglementVectorEnv) -> None:
        n, actions = envs.num_envs, int(envs.single_action_space.n)
        super().__init__(batch_size=[n])
        self.envs, self._first_seed, self._begun = envs, None, None
        self.observation_spec = Composite(
            observation=Bounded(0.0, 1.0, (n, *envs.single_observation_space.shape)),
            action_mask=Binary(shape=(n, actions), dtype=torch.bool),
            shape=(n,),
        )
        self.action_spec, self.reward_spec = Categorical(actions, shape=(n,)), Unbounded((n, 1))
        flags = {name: Binary(shape=(n, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=(n,))

    def _set_seed(self, seed):
        self._first_seed, self._begun = seed, None

    def _reset(self, tensordict, **_):
        begun, self._begun = self._begun, None
        if begun is None:
            begun = self._observed(*self.envs.reset(seed=self._first_seed))
            self._first_seed = None
        return begun

    def _step(self, tensordict):
        observations, rewards, terminations, truncations, infos = self.envs.step(tensordict["action"].numpy())
        # The step that truncates has begun the next episode: that one is for reset, the final observation for now.
        self._begun = self._observed(observations, infos) if truncations.all() else None
        result = self._observed(infos.get("final_obs", observations), infos)
        result["reward"] = torch.from_numpy(rewards).float().unsqueeze(-1)
        result["terminated"] = torch.from_numpy(terminations).unsqueeze(-1)
        result["truncated"] = torch.from_numpy(truncations).unsqueeze(-1)
        result["done"] = result["truncated"].clone()
        return result

    def _observed(self, observations, infos):
        masks = torch.from_numpy(infos["action_mask"]).bool()
        return TensorDict({"observation": torch.from_numpy(observations), "action_mask": masks}, self.batch_size)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the fastest at these sizes
    env = TransformedEnv(EntanglementTorchEnv(make_vec("mesh100-v0", 8)), ActionMask())
    check_env_specs(env)
    env.set_seed(0)
    start = time.perf_counter()
    played = env.rollout(SLOTS)  # random legal actions
    speed = played.numel() / (time.perf_counter() - start)
    print(f"{speed:,.0f} frames/s, of which a good part goes into drawing random legal actions")
