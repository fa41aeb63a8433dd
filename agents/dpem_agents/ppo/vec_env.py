"""Networks as Stable-Baselines3 wants them: a `VecEnv` whose sub-environments are nodes × networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dpem_agents.libraries import agents_extra
from dpem_agents.ppo.layout import told
from dpem_env.envs.metrics import CONTENDED
from dpem_env.envs.session import as_actions
from dpem_env.envs.vector import make_vec
from dpem_env.scenarios import Scenario
from dpem_env.support.errors import ActionError
from dpem_env.support.seeding import stream_key

with agents_extra():
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn


class Position(NamedTuple):
    """Where a `NodeVecEnv` stands: enough to bring another one there."""

    rounds: int  # episodes begun since the seeded ones, in every network
    actions: NDArray[np.int64]  # (slots, num_envs) played in the running episodes


class NodeVecEnv(VecEnv):
    """Several networks of a scenario stepped at once: sub-environment e·N + i is node i of network e.

    **Observation, action, reward** of a sub-environment are those of `EntanglementEnv`; rewards are float32.
    ``env_method("action_masks")`` returns the masks that MaskablePPO asks for.

    **Episodes.** A reset plays the next episode of the split, ``train`` unless told otherwise; after `seed(s)` network
    e begins with the (s + e)-th. All sub-environments end together and never terminate: their infos then say
    ``TimeLimit.truncated`` and hold the ``terminal_observation``, from which PPO bootstraps, and ``episode``, the
    return and length that its logs show. All other infos are one empty dictionary.

    **Contention penalty.** `contention_penalty` is the β of the rewards, a number or (num_envs,); it starts as the
    scenario's and may be set at any time. With `penalties`, two numbers, every network has its own in every episode,
    between the two, evenly in logarithms over networks, or with `one_penalty` the scenario's; a last column of the
    observations tells where. Rewards count `penalty_share` of it, 1 unless it is set; `scaled`, they are divided by 1 +
    what they count.

    `contention` is the share of resources that were contended, added up over all slots since it was set to 0.

    **Central control.** With a `delay` (s) one controller per network commands its nodes; observations are then those
    of `CentralEnv`, and its nodes the sub-environments.

    **Arguments** as for `dpem_env.make_vec`.
    """

    def __init__(
        self,
        scenario: str | Scenario = "mesh100-v0",
        num_networks: int = 1,
        *,
        delay: float | None = None,
        penalties: tuple[float, ...] = (),
        one_penalty: bool = False,
        scaled: bool = False,
        **arguments: Any,
    ) -> None:
        central = {} if delay is None else {"control": "central", "delay": delay}
        self.envs = make_vec(scenario, num_networks, **central, **arguments)
        self.contention_penalty: float | NDArray[np.float64] = self.envs.scenario.reward.contention_penalty
        self.penalties, self.one_penalty, self.penalty_share, self.scaled = penalties, one_penalty, 1.0, scaled
        self.contention = 0.0
        self.finished: dict[str, float] = {}  # metrics of the episodes that ended last, means over networks
        width = self.envs.observer.table.width + (1 if penalties else 0)
        space = spaces.Box(0.0, 1.0, (width,), np.float32)
        super().__init__(self.envs.num_envs, space, self.envs.single_action_space)

    def reset(self) -> NDArray[np.float32]:
        """Begin the next episode in every network, or the one that `seed` has named."""
        seed = self._seeds[0]
        self._rounds = 0 if seed is not None else self._rounds + 1
        self._seed = self._seed if seed is None else seed
        observations, infos = self.envs.reset(seed=seed, options=self._options[0])
        self._begin(infos)
        self._reset_seeds()
        self._reset_options()
        return self._telling(observations)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take the (num_envs,) actions of the slot that `step_wait` plays."""
        self._actions = np.array(as_actions("actions", actions, (self.num_envs,)))

    def step_wait(self) -> VecEnvStepReturn:
        """Play the slot in every network."""
        observations, _, _, over, infos = self.envs.step(self._actions)
        self._played.append(self._actions)
        truncated = bool(over[0])
        last = infos["final_info"] if truncated else infos
        self._count(float(np.mean(last["contention"])) * len(self._played) if truncated else self._contended)
        penalty = self.penalty_share * self.contention_penalty
        rewards = (last["earned"] - penalty * last["contended"]).astype(np.float32)
        self._earned += rewards
        if self.scaled:
            rewards = (rewards / (1.0 + penalty)).astype(np.float32)
        if not truncated:
            self._masks = infos["action_mask"]
            return self._telling(observations), rewards, over, [{}] * self.num_envs
        self.finished = {name: float(np.mean(last[name])) for name in ("delivery_rate", "contention")}
        self.finished["reward"] = float(np.mean(self._earned))
        ends: list[dict[str, Any]] = [
            {
                "TimeLimit.truncated": True,
                "terminal_observation": observation,
                "episode": {"r": float(earned), "l": len(self._played)},
            }
            for observation, earned in zip(self._telling(infos["final_obs"]), self._earned, strict=True)
        ]
        self._rounds += 1
        self._begin(infos)
        return self._telling(observations), rewards, over, ends

    def action_masks(self) -> NDArray[np.int8]:
        """(num_envs, actions) 1 where an action is legal now."""
        if self._masks is None:
            raise ActionError("no episode has begun: call reset() first")
        return self._masks

    def position(self) -> Position:
        """Where the networks stand since the last seeded reset."""
        return Position(self._rounds, np.array(self._played, dtype=np.int64).reshape(-1, self.num_envs))

    def go_to(self, seed: int, position: Position) -> NDArray[np.float32]:
        """Go through the episodes from `seed` on to the position; returns the observations there."""
        self.seed(seed)
        observations: Any = self.reset()
        for _ in range(position.rounds):
            observations = self.reset()
        for actions in position.actions:
            observations = self.step(actions)[0]
        rows: NDArray[np.float32] = observations
        return rows

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the method of the networks returns; of action_masks one row per sub-environment."""
        if method_name == "action_masks":
            return [self.action_masks()[i] for i in self._get_indices(indices)]
        returned = self.get_attr(method_name, 0)[0](*method_args, **method_kwargs)
        return [returned for _ in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of this object or of the networks, once per sub-environment."""
        owner = self if hasattr(self, attr_name) else self.envs
        return [getattr(owner, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute for all sub-environments; ActionError for some only, as they have nothing of their own."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ActionError(f"{attr_name} can be set for all sub-environments only: leave out indices")
        setattr(self if hasattr(self, attr_name) else self.envs, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No sub-environment is: there is no object for it."""
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Close the networks."""
        self.envs.close()

    def _begin(self, infos: dict[str, Any]) -> None:
        self._masks = infos["action_mask"]
        self._played: list[NDArray[np.int64]] = []
        self._earned = np.zeros(self.num_envs)
        self._counted = 0.0
        if self.penalties and not self.one_penalty:
            self.contention_penalty = self._drawn()

    def _count(self, contended: float) -> None:
        """A slot after which so many of the resources, over all there are, were contended in the running episodes."""
        self.contention += contended - self._counted
        self._counted = contended

    @property
    def _contended(self) -> float:
        return float(self.envs.simulator.state.tally[:, CONTENDED].sum()) / (3 * self.num_envs)

    def _drawn(self) -> NDArray[np.float64]:
        """(num_envs,) contention penalties of the running episodes: one network in each of as many equal parts."""
        networks, (smaller, larger) = self.envs.num_networks, self.penalties
        draws = np.random.default_rng(int(stream_key("contention penalties", self._seed, self._rounds)))
        place = (draws.permutation(networks) + draws.random(networks)) / networks
        return np.repeat(smaller * (larger / smaller) ** place, self.envs.agents_per_network)

    def _telling(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows with what they tell beside observations."""
        if not self.penalties:
            return observations
        penalty = np.broadcast_to(np.asarray(self.contention_penalty), (self.num_envs,))
        return np.concatenate([observations, told(self.penalties, penalty)], axis=1)

    _rounds, _seed = -1, 0  # none has begun
    _masks: NDArray[np.int8] | None = None
