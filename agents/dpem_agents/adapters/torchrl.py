"""TorchRL on arrays, the fast way: an environment whose batch are the agents of several networks, and TorchRL's PPO."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from dpem_env import EntanglementVectorEnv, make_vec

LIBRARY, MASKS = "torchrl", "MaskedCategorical on action_mask"
NETWORKS, SLOTS, EPOCHS, MINIBATCHES, LEARNING_RATE, GRADIENT_NORM = 8, 128, 4, 4, 3e-3, 0.5


class EntanglementTorchEnv(EnvBase):
    """`envs` with ``batch_size = [num_envs]``: observation, action_mask, action, reward; all are done together."""

    def __init__(self, envs: EntanglementVectorEnv) -> None:
        n, actions = envs.num_envs, int(envs.single_action_space.n)
        super().__init__(batch_size=[n])
        self.envs, self._first_seed, self._begun = envs, None, None
        observation = Bounded(0.0, 1.0, (n, *envs.single_observation_space.shape))
        mask = Binary(shape=(n, actions), dtype=torch.bool)
        self.observation_spec = Composite(observation=observation, action_mask=mask, shape=(n,))
        self.action_spec, self.reward_spec = Categorical(actions, shape=(n,)), Unbounded((n, 1))
        flags = {name: Binary(shape=(n, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=(n,))

    def _set_seed(self, seed):
        self._first_seed, self._begun = seed, None

    def _reset(self, tensordict, **_):
        begun = self._begun or self.envs.reset(seed=self._first_seed)
        self._begun = self._first_seed = None
        return self._observed(*begun)

    def _step(self, tensordict):
        observations, rewards, terminations, truncations, infos = self.envs.step(tensordict["action"].numpy())
        # The step that truncates has begun the next episode: that one is for reset, the final observation for now.
        self._begun = (observations, infos) if truncations.all() else None
        result = self._observed(infos.get("final_obs", observations), infos)
        flags = {"done": truncations, "terminated": terminations, "truncated": truncations.copy()}
        for name, column in {"reward": rewards.astype("float32"), **flags}.items():
            result[name] = torch.from_numpy(column).unsqueeze(-1)
        return result

    def _observed(self, observations, infos):
        masks = torch.from_numpy(infos["action_mask"]).bool()
        return TensorDict({"observation": torch.from_numpy(observations), "action_mask": masks}, self.batch_size)


def train(scenario: str = "star8-v0", timesteps: int = 300_000, seed: int = 0, **arguments):
    """Returns the actor: from observations and masks to the most likely legal actions."""
    torch.manual_seed(seed)
    env = EntanglementTorchEnv(make_vec(scenario, NETWORKS, **arguments))
    env.set_seed(seed)
    inputs, widths = env.observation_spec["observation"].shape[-1], (env.action_spec.n, 1)
    logits, value = (MLP(inputs, width, depth=2, num_cells=64, activation_class=nn.Tanh) for width in widths)
    logits[-1].bias.data[0] = 4.0  # waits at first, mostly: random allocations flood the network
    keys = {"in_keys": {"logits": "logits", "mask": "action_mask"}, "distribution_class": MaskedCategorical}
    policy = ProbabilisticActor(TensorDictModule(logits, ["observation"], ["logits"]), return_log_prob=True, **keys)
    critic = ValueOperator(value, ["observation"])
    gae, loss = GAE(gamma=0.95, lmbda=0.9, value_network=critic), ClipPPOLoss(policy, critic, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), LEARNING_RATE)
    for data in Collector(env, policy, frames_per_batch=SLOTS * env.numel(), total_frames=timesteps):
        with torch.no_grad():
            rows = gae(data).reshape(-1)
        for batch in (rows[part] for _ in range(EPOCHS) for part in torch.randperm(len(rows)).chunk(MINIBATCHES)):
            optimizer.zero_grad()
            sum(part for name, part in loss(batch).items() if name.startswith("loss_")).backward()
            nn.utils.clip_grad_norm_(loss.parameters(), GRADIENT_NORM)
            optimizer.step()
    tensor = torch.from_numpy
    return lambda seen, masks: MaskedCategorical(logits(tensor(seen)), mask=tensor(masks).bool()).mode.numpy()
