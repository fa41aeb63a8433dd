"""What nodes share: learned parameters of the policy, by name, as flat vectors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ppo_models import draw_weights, learner
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from dpem_agents.federated import POLICY_BODY, POLICY_HEAD, WHOLE_POLICY, SharedSpec
from dpem_env import scenarios
from dpem_env.support.errors import DpemError

CHAIN = scenarios.get("chain3-v0", slots=24)


def cart_pole(algorithm: Any = PPO, **policy_options: Any) -> Any:
    options = {"net_arch": [4, 4], **policy_options}
    return algorithm("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs=options, seed=0, device="cpu")


class Extractor(BaseFeaturesExtractor):
    """Shared by actor and critic, with all that must not trip a spec: a buffer, a scalar and frozen weights."""

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        super().__init__(space, features_dim=4)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.whole = nn.Parameter(torch.arange(3), requires_grad=False)
        self.layer = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    def forward(self, observations: Tensor) -> Tensor:
        return self.layer(observations) * self.scale


def values(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}


def changed_names(model: Any, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in values(model).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_by_default_the_last_layer_of_the_policy_is_shared(algorithm: Any) -> None:
    spec = SharedSpec.from_sb3(cart_pole(algorithm))
    assert spec.names == ("action_net.bias", "action_net.weight")
    assert spec.shapes == ((2,), (2, 4))
    assert spec.size == 10


def test_the_whole_policy_leaves_out_every_layer_of_the_critic() -> None:
    spec = SharedSpec.from_sb3(cart_pole(), include=WHOLE_POLICY)
    layers = {name.rpartition(".")[0] for name in spec.names}
    assert layers == {"action_net", "mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2"}
    head, body = (SharedSpec.from_sb3(cart_pole(), include=part).names for part in (POLICY_HEAD, POLICY_BODY))
    assert sorted(head + body) == list(spec.names)


def test_a_vector_goes_in_and_out_unchanged_and_touches_nothing_else() -> None:
    model = cart_pole()
    model.learn(8)  # so that the optimiser has a state
    spec, before = SharedSpec.from_sb3(model), values(model)
    moments = {name: state["exp_avg"].clone() for name, state in enumerate(model.policy.optimizer.state.values())}
    vector = np.linspace(-1.0, 1.0, spec.size).astype(np.float32)
    spec.set(model, vector)
    assert np.array_equal(spec.get(model), vector)
    assert changed_names(model, before) == set(spec.names)
    np.testing.assert_array_equal(values(model)["action_net.weight"].flatten(), vector[2:])
    after = [state["exp_avg"] for state in model.policy.optimizer.state.values()]
    assert len(after) > 0
    assert all(torch.equal(moments[name], moment) for name, moment in enumerate(after))


def test_a_shared_extractor_counts_once_and_without_buffers_or_frozen_weights() -> None:
    model = cart_pole(features_extractor_class=Extractor)
    spec = SharedSpec.from_sb3(model, include=("*",))
    assert sum(name.endswith("extractor.layer.weight") for name in model.policy.state_dict()) == 3  # the trap
    assert [name for name in spec.names if "features" in name] == [
        "features_extractor.layer.bias",
        "features_extractor.layer.weight",
        "features_extractor.scale",
    ]
    assert spec.size == sum(p.numel() for p in model.policy.parameters() if p.requires_grad)


def test_a_parameter_without_dimensions_is_one_entry_of_the_vector() -> None:
    model = cart_pole(features_extractor_class=Extractor)
    spec = SharedSpec.from_sb3(model, include=("features_extractor.scale", "action_net.bias"))
    assert spec.shapes == ((2,), ())
    spec.set(model, [1.0, 2.0, 3.0])
    assert model.policy.features_extractor.scale.item() == 3.0
    assert spec.get(model).tolist() == [1.0, 2.0, 3.0]


def test_the_order_is_that_of_names_whatever_the_order_of_layers() -> None:
    layers = {"action_net": nn.Linear(3, 2), "log": nn.Linear(1, 1), "body": nn.Linear(2, 3)}
    one, other = (
        SimpleNamespace(policy=nn.ModuleDict({name: layers[name] for name in order}))
        for order in (("action_net", "log", "body"), ("body", "action_net", "log"))
    )
    assert list(one.policy.state_dict()) != list(other.policy.state_dict())
    specs = [SharedSpec.from_sb3(model, include=("*",)) for model in (one, other)]
    assert specs[0] == specs[1]
    assert np.array_equal(specs[0].get(one), specs[0].get(other))


def test_each_node_of_a_stack_shares_its_own_weights(tmp_path: Path) -> None:
    made = learner(CHAIN, "independent", tmp_path, encoder="plain")
    draw_weights(made)
    for include in (POLICY_HEAD, WHOLE_POLICY):
        spec = SharedSpec.from_stack(made.model, include)
        named = dict(made.model.policy.named_parameters())
        shared = spec.get_all(made.model)
        assert shared.shape == (made.nodes, spec.size)
        for node in range(made.nodes):
            own = np.concatenate([named[name][node].detach().numpy().ravel() for name in spec.names])
            assert np.array_equal(shared[node], own)
    assert all("actor" in name for name in spec.names)
    assert len(spec.names) == 6


def test_the_head_of_a_stack_and_of_a_policy_per_peer_is_what_makes_the_logits(tmp_path: Path) -> None:
    plain = learner(CHAIN, "independent", tmp_path, encoder="plain").model
    actions = plain.action_space.n
    assert SharedSpec.from_stack(plain).shapes == ((1, actions), (8, actions))
    stack = learner(CHAIN, "independent", tmp_path, encoder="per-peer").model
    qualities = CHAIN.control.qualities
    assert SharedSpec.from_stack(stack).shapes == ((1, qualities), (8, qualities), (1, 1), (8, 1))
    shared = learner(CHAIN, "shared", tmp_path).model
    spec = SharedSpec.from_sb3(shared)
    assert spec.size == SharedSpec.from_stack(stack).size
    networks = shared.policy.mlp_extractor
    seen = networks.read(torch.ones(1, 1, *shared.observation_space.shape))
    before = networks.actor(*seen)
    spec.set(shared, np.zeros(spec.size))
    after = networks.actor(*seen)
    assert before.any()
    assert not after.any()


def test_a_stack_takes_one_vector_for_all_or_one_for_each(tmp_path: Path) -> None:
    model = learner(CHAIN, "independent", tmp_path).model
    spec, before = SharedSpec.from_stack(model), values(model)
    assert spec.nodes is not None
    rows = np.random.default_rng(0).normal(size=(spec.nodes, spec.size)).astype(np.float32)
    spec.set_all(model, rows)
    assert np.array_equal(spec.get_all(model), rows)
    spec.set_all(model, rows[0])
    assert np.array_equal(spec.get_all(model), np.tile(rows[0], (spec.nodes, 1)))
    assert changed_names(model, before) == set(spec.names)


def test_patterns_choose_and_leave_out() -> None:
    model = cart_pole()
    spec = SharedSpec.from_sb3(model, include=("*policy_net*", "action_net.*"), exclude=("*.bias",))
    assert spec.names == ("action_net.weight", "mlp_extractor.policy_net.0.weight", "mlp_extractor.policy_net.2.weight")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("actor.*",)}, "include and exclude leave none of the learned parameters: action_net.bias"),
        ({"exclude": ("action_nett.*",)}, r"exclude pattern 'action_nett\.\*' matches none"),
        ({"include": "action_net.*"}, "expected a list of patterns"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DpemError, match=message):
        SharedSpec.from_sb3(cart_pole(), **options)


def test_a_spec_is_for_models_like_the_one_it_was_made_of(tmp_path: Path) -> None:
    model, stack = cart_pole(), learner(CHAIN, "independent", tmp_path).model
    spec, stacked = SharedSpec.from_sb3(model), SharedSpec.from_stack(stack)
    with pytest.raises(DpemError, match=r"action_net\.weight has shape \(2, 8\) in this model, but \(2, 4\)"):
        spec.get(cart_pole(net_arch=[8]))
    with pytest.raises(DpemError, match=r"action_net\.bias has shape None"):
        spec.get(stack)
    with pytest.raises(DpemError, match=r"shape \(11,\); expected \(10,\)"):
        spec.set(model, np.zeros(11))
    with pytest.raises(DpemError, match=r"expected \(\d+,\) or \(3, \d+\)"):
        stacked.set_all(stack, np.zeros((1, stacked.size)))
    for wrong in (lambda: SharedSpec.from_sb3(stack), lambda: spec.get_all(model)):
        with pytest.raises(DpemError, match=r"from_stack|use get and set"):
            wrong()
    for wrong in (lambda: SharedSpec.from_stack(model), lambda: stacked.get(stack)):
        with pytest.raises(DpemError, match=r"from_sb3|use get_all and set_all"):
            wrong()
