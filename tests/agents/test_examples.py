"""The examples of policies with a state: what they remember, whom they hear, and that they train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dpem_agents.adapters.trial import watched
from dpem_env import make_vec
from dpem_env.observations.features import FeatureTable
from dpem_env.testing import check_policy

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from dpem_agents.examples import episodes  # noqa: E402
from dpem_agents.examples.message_passing import MessagePassing  # noqa: E402
from dpem_agents.examples.recurrent import Recurrent  # noqa: E402

KINDS = [Recurrent, MessagePassing]
SLOTS = 6


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def made(kind: Any) -> tuple[Any, Any, Any, Any]:
    """A policy, where its nodes begin, and what they observe in a few slots of waiting, with masks."""
    envs = make_vec("mesh20-v0", 2)
    observations, infos = envs.reset(seed=0)
    agent = kind(envs.observer.table, envs.observer.code.num_actions)
    state = agent.begin(torch.from_numpy(envs.graph().routes))
    seen, masks = [observations], [infos["action_mask"]]
    for _ in range(SLOTS - 1):
        observations, *_, infos = envs.step(np.zeros(envs.num_envs, dtype=np.int64))
        seen.append(observations)
        masks.append(infos["action_mask"])
    return agent, state, torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(masks))


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_trains_on_legal_actions_alone_and_plays_as_a_local_policy(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "SLOTS", 20)
    with torch.enable_grad(), watched(lambda decisions: None) as plays:
        once, twice = (episodes.train(kind, episodes=count).policy for count in (1, 2))
    assert plays == {"decided": 3 * 20 * episodes.NETWORKS * 20, "illegal": 0}
    for after_one, after_two in zip(once.parameters(), twice.parameters(), strict=True):
        assert after_two.isfinite().all()
        assert not torch.equal(after_one, after_two)
    check_policy(episodes.Trained(twice), "mesh20-v0")


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_at_once_is_what_it_is_slot_by_slot(kind: Any) -> None:
    agent, state, seen, masks = made(kind)
    policy, values, last = agent(seen, masks, state)
    for slot in range(SLOTS):
        one, value, state = agent(seen[slot, None], masks[slot, None], state)
        assert torch.allclose(one.logits[0], policy.logits[slot], atol=1e-5)
        assert torch.allclose(value[0], values[slot], atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mask_forbids_has_no_probability(kind: Any) -> None:
    agent, state, seen, masks = made(kind)
    masks = masks.clone()
    masks[:, :, 5] = 0
    policy, _, _ = agent(seen, masks, state)
    assert (policy.probs[masks == 0] == 0).all()
    assert (policy.probs[masks == 1] > 0).all()


def test_the_recurrent_policy_remembers_its_own_past_and_nobody_elses() -> None:
    agent, state, seen, masks = made(Recurrent)
    other = seen.clone()
    other[0, 3] = 1.0 - other[0, 3]  # what node 3 observed at first
    policy, changed = (agent(each, masks, state)[0].logits[-1] for each in (seen, other))
    assert (policy != changed).any(dim=1).nonzero().flatten().tolist() == [3]


def test_routes_hear_each_other_where_they_share_a_node_that_is_not_their_own() -> None:
    agent, state, *_ = made(MessagePassing)
    routes = [[[0, 1, 2, -1], [0, 3, 4, 2]], [[0, 3, 5, -1], [-1, -1, -1, -1]]]  # of node 0 to peers 2 and 5
    heard = agent.begin(torch.tensor([routes]))[0]
    assert torch.equal(
        heard,
        torch.tensor([[1 / 2, 1 / 2, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2, 0], [0, 0, 0, 0]]),
    )
    assert torch.allclose(state.sum(dim=2)[state.sum(dim=2) > 0], torch.tensor(1.0))


def test_a_route_is_described_by_the_features_of_its_node_its_peer_and_itself() -> None:
    agent, _, seen, _ = made(MessagePassing)
    table: FeatureTable = make_vec("mesh20-v0").observer.table
    vertices = agent.vertices(seen).unflatten(2, (agent.peers, agent.routes))
    node, slot, peer, route = 7, 2, 1, 2
    row, block = seen[slot, node], table.node_width + peer * table.peer_width
    own = row[: table.node_width]
    of_peer = row[block : block + agent.peer_width]
    of_route = [row[block + table.offset[name] + route] for name in table.news]
    assert torch.equal(vertices[slot, node, peer, route], torch.cat((own, of_peer, torch.stack(of_route))))
