"""Independent learners: each node learns what a learner of its own would, and nothing passes between nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ppo_models import TOPOLOGY, draw_weights, learner, masked_ppo
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from dpem_agents.ppo import rollout
from dpem_agents.ppo.decision_ppo import DecisionPPO
from dpem_agents.ppo.learner import Learner
from dpem_env import scenarios
from dpem_env.observations.features import FeatureTable

CHAIN = scenarios.get("chain3-v0", slots=24)
PLACES = (  # of a node's weights, in a model of Stable-Baselines3
    ("actor.0", "mlp_extractor.policy_net.0"),
    ("actor.1", "mlp_extractor.policy_net.2"),
    ("actor.2", "action_net"),
    ("critic.0", "mlp_extractor.value_net.0"),
    ("critic.1", "mlp_extractor.value_net.2"),
    ("critic.2", "value_net"),
)


class Nobody(BaseCallback):
    def _on_step(self) -> bool:
        return True


def weights_of(stacked: DecisionPPO, node: int) -> dict[str, Tensor]:
    """A node's weights by the names in a model of Stable-Baselines3, whose matrices lie the other way."""
    named = dict(stacked.policy.mlp_extractor.named_parameters())
    weights = {f"{theirs}.weight": named[f"{ours}.weight"][node].T for ours, theirs in PLACES}
    return weights | {f"{theirs}.bias": named[f"{ours}.bias"][node, 0] for ours, theirs in PLACES}


def collected(folder: Path, **changed: Any) -> Learner:
    """A learner with random weights that has played a rollout across the end of an episode."""
    made = learner(CHAIN, "independent", folder, slots=40, warm_start="none", **{"encoder": "plain"} | changed)
    draw_weights(made, 0.3)
    model = made.model
    _, callback = model._setup_learn(10_000, Nobody())
    model.collect_rollouts(made.env, callback, model.rollout_buffer, model.n_steps)
    return made


def separate(made: Learner, node: int, norm: float) -> MaskablePPO:
    """A usual MaskablePPO with a node's weights and its part of the rollout."""
    chosen, buffer = made.settings.hyperparameters, made.model.rollout_buffer
    places = buffer.by_node[node]
    own = learner(CHAIN, "shared", Path(made.model.logger.dir), networks=chosen.networks)  # for its spaces
    own.env.num_envs = 1
    policy = {"net_arch": [chosen.hidden, chosen.hidden]}
    model = masked_ppo("MlpPolicy", own.env, chosen, len(places), max_grad_norm=norm, policy_kwargs=policy)
    model.policy.load_state_dict(
        {name: weight.detach().clone() for name, weight in weights_of(made.model, node).items()}
    )
    model.rollout_buffer.reset()
    learned_from = {
        "observations": buffer.seen,
        "actions": buffer.actions[:, None],
        "returns": buffer.returns,
        "values": buffer.values,
        "log_probs": buffer.log_probs,
        "advantages": buffer.advantages,
        "action_masks": buffer.legal,
    }
    for name, array in learned_from.items():
        setattr(model.rollout_buffer, name, np.asarray(array)[places][:, None].copy())
    model.rollout_buffer.full = True
    return model


@pytest.mark.parametrize("norm", [0.5, 1e-3])  # the second one clips every gradient
def test_every_node_learns_what_a_learner_of_its_own_would(norm: float, tmp_path: Path) -> None:
    made = collected(tmp_path, minibatches=3, epochs=4, entropy_weight=0.01, gradient_norm=norm)
    others = [separate(made, node, norm) for node in range(made.nodes)]
    before = [weights_of(made.model, node)["action_net.weight"].detach().clone() for node in range(made.nodes)]
    for model in (made.model, *others):
        np.random.seed(7)  # noqa: NPY002 - the order of minibatches
        model.train()
    for node, model in enumerate(others):
        theirs = dict(model.policy.named_parameters())
        for name, ours in weights_of(made.model, node).items():
            torch.testing.assert_close(ours, theirs[name], atol=1e-5, rtol=0.0)
        assert (theirs["action_net.weight"] - before[node]).abs().max() > 1e-3  # they did learn


@pytest.mark.parametrize(("length", "several"), [(7, True), (100, False)])
def test_a_node_with_fewer_decisions_learns_from_these_alone(
    length: int, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "_cheapest", lambda decisions: length)  # of pieces, several of which make up a node's
    made = collected(tmp_path, minibatches=1, epochs=1, idle_forecast=1e6)
    made.model.rollout_buffer.idle[:] = False  # separate learners know decisions only
    numbers = [len(own) for own in made.model.rollout_buffer.by_node]
    assert 1 < min(numbers) < max(numbers)
    [batch] = made.model.rollout_buffer.batches(1, np.arange(max(numbers)))
    assert (len(batch.others) > 0) == several
    others = [separate(made, node, 0.5) for node in range(made.nodes)]
    for model in (made.model, *others):
        model.train()
    for node, model in enumerate(others):
        theirs = dict(model.policy.named_parameters())
        for name, ours in weights_of(made.model, node).items():
            torch.testing.assert_close(ours, theirs[name], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("encoder", ["per-peer", "plain"])
def test_every_nodes_networks_are_those_of_a_policy_of_its_own(encoder: str, tmp_path: Path) -> None:
    made = collected(tmp_path, encoder=encoder)
    stack = made.model.policy.mlp_extractor
    rows = torch.from_numpy(np.random.default_rng(0).random((6, *made.env.observation_space.shape), dtype=np.float32))
    logits, values = stack.forward_actor(rows), stack.forward_critic(rows)
    for node in range(made.nodes):
        alone = learner(CHAIN, "shared", tmp_path, encoder=encoder).model.policy.mlp_extractor
        with torch.no_grad():
            for ours, theirs in zip(stack.parameters(), alone.parameters(), strict=True):
                theirs.copy_(ours[node : node + 1])
        alone.warm_start = "none"
        own = rows[node :: made.nodes]
        torch.testing.assert_close(alone.forward_actor(own), logits[node :: made.nodes])
        torch.testing.assert_close(alone.forward_critic(own), values[node :: made.nodes])


def test_networks_that_name_routes_take_a_batch_in_which_few_decide_anything(tmp_path: Path) -> None:
    made = collected(tmp_path, encoder="per-peer", routes=True)
    rows = torch.zeros(made.nodes, 0, *made.env.observation_space.shape)
    networks = made.model.policy.mlp_extractor
    assert networks.actor(*networks.read(rows)).shape == (made.nodes, 0, made.env.action_space.n)
    assert networks.critic(*networks.read(rows)).shape == (made.nodes, 0, 1)


def test_a_rollout_is_valued_by_each_nodes_own_critic(tmp_path: Path) -> None:
    # Critics that say 1, 2, 3, … for ever: the last reward of an episode grows by γ times that of the node's own.
    made = learner(CHAIN, "independent", tmp_path, slots=40, networks=2, encoder="plain")
    critic = made.model.policy.mlp_extractor.critic
    says = np.arange(1.0, made.nodes + 1.0)
    with torch.no_grad():
        critic[-1].weight.zero_()
        critic[-1].bias[:, 0, 0] = torch.from_numpy(says)
    earned: list[Any] = []
    usual = made.env.step_wait

    def watched() -> Any:
        returned = usual()
        earned.append(returned[1].copy())
        return returned

    made.env.step_wait = watched  # type: ignore[method-assign]
    model = made.model
    _, callback = model._setup_learn(10_000, Nobody())
    model.collect_rollouts(made.env, callback, model.rollout_buffer, model.n_steps)
    buffer = model.rollout_buffer
    np.testing.assert_allclose(buffer.values, says[buffer.rows % made.nodes], rtol=1e-6)
    assert np.array_equal(buffer.rewards, earned)
    assert set(buffer.ends) == {23}
    last = slice(buffer.began[23], buffer.began[24])
    expected = earned[23] + (0.95 - 1.0) * np.tile(says, 2)
    np.testing.assert_allclose(buffer.advantages[last], expected, rtol=1e-4)


def test_all_episodes_are_on_one_topology_with_demand_of_the_training_split(tmp_path: Path) -> None:
    scenario = scenarios.get("mesh20-v0", slots=4)
    made = learner(scenario, "independent", tmp_path, networks=2)
    env: VecEnv = made.env
    seeds, peers = set(), set()
    env.reset()
    for _ in range(5):
        for episode in made.env.envs.simulator.episodes:
            assert episode is not None
            seeds.add(scenario.split_of(episode.seed))
            peers.add(episode.network.peers.tobytes())
        for _ in range(4):
            env.step(np.zeros(env.num_envs, dtype=np.int64))
    assert seeds == {"train"}
    assert len(peers) == 1
    assert made.settings.topology_seed == TOPOLOGY


def test_a_saved_stack_is_loaded_by_stable_baselines_alone(tmp_path: Path) -> None:
    made = collected(tmp_path)
    made.model.save(tmp_path / "model.zip")
    loaded = DecisionPPO.load(tmp_path / "model.zip", env=made.env)
    observations = made.env.reset()
    assert np.array_equal(*(m.predict(observations, deterministic=True)[0] for m in (made.model, loaded)))


def test_weights_of_hidden_features_are_never_learned(tmp_path: Path) -> None:
    made = collected(tmp_path, hidden_blocks=("progress", "topology"))
    layers = [made.model.policy.mlp_extractor.actor[0].weight, made.model.policy.mlp_extractor.critic[0].weight]
    before = [layer.detach().clone() for layer in layers]
    made.model.train()
    visible = torch.from_numpy(FeatureTable(CHAIN).hiding(("progress", "topology"))) == 1
    for layer, old in zip(layers, before, strict=True):
        assert torch.equal(layer[:, ~visible], old[:, ~visible])
        assert not torch.equal(layer[:, visible], old[:, visible])
