"""The networks of checkpoints in numpy, to play without torch: logits from observations.

Weights carry the names that they have in `networks`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.observations.features import NODE_FEATURES
from dpem_env.simulator.actions import ActionCode

F32 = NDArray[np.float32]
Weights = dict[str, F32]

OWN = len(NODE_FEATURES)  # columns of a node's own features


def shapes(encoder: str, interface: dict[str, Any], hidden: int, nodes: int) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of the actors and critics of so many nodes by name; `interface` as in a checkpoint."""
    peers, block, qualities = (interface[name] for name in ("peers per node", "features per peer", "qualities"))
    if encoder == "per-peer":
        layers = {
            "actor.context": (OWN + block, hidden),
            "actor.hidden": (hidden, hidden),
            "actor.quality": (hidden, qualities),
            "actor.wait": (hidden, 1),
        }
        first: dict[str, tuple[int, ...]] = {"actor.peer.weight": (nodes, block, hidden)}
        layers |= _perceptron("critic.layers", (OWN + 2 * block, hidden, hidden, 1))
    else:
        seen = OWN + peers * block
        layers = _perceptron("actor", (seen, hidden, hidden, ActionCode(peers, qualities).num_actions))
        layers |= _perceptron("critic", (seen, hidden, hidden, 1))
        first = {}
    weights = {f"{name}.weight": (nodes, *size) for name, size in layers.items()}
    return first | weights | {f"{name}.bias": (nodes, 1, outputs) for name, (_, outputs) in layers.items()}


def _perceptron(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    return {f"{name}.{layer}": size for layer, size in enumerate(pairwise(widths))}


def of_nodes(weights: Weights, nodes: NDArray[np.int64]) -> Weights:
    """The networks of these nodes, one for each; the only one of a stack of one is everybody's."""
    stack = len(next(iter(weights.values())))
    if stack == 1 or np.array_equal(nodes, np.arange(stack)):
        return weights
    return {name: weight[nodes] for name, weight in weights.items()}


def learned_logits(encoder: str, weights: Weights, peers: int, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) observations: of each row's own network, or all of the only one."""
    return per_peer_logits(weights, peers, matrix) if encoder == "per-peer" else plain_logits(weights, matrix)


def per_peer_logits(weights: Weights, peers: int, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) observations: every peer through the same small network."""

    def linear(name: str, features: F32) -> F32:
        return features @ weights[f"actor.{name}.weight"] + weights[f"actor.{name}.bias"]

    rows = _by_node(weights, "actor.hidden.weight", matrix)
    own, blocks = rows[:, :, :OWN], rows[:, :, OWN:].reshape(*rows.shape[:2], peers, -1)
    context = linear("context", np.concatenate([own, blocks.mean(axis=2)], axis=2))
    each = blocks.reshape(len(rows), -1, blocks.shape[3]) @ weights["actor.peer.weight"]
    hidden = np.tanh(each + np.repeat(context, peers, axis=1))
    hidden = np.tanh(linear("hidden", hidden))
    waiting = linear("wait", hidden.reshape(*rows.shape[:2], peers, -1).mean(axis=2))
    allocating = linear("quality", hidden)
    return np.concatenate([waiting.reshape(len(matrix), -1), allocating.reshape(len(matrix), -1)], axis=1)


def plain_logits(weights: Weights, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) observations: all features through a multilayer perceptron."""
    features = _by_node(weights, "actor.0.weight", matrix)
    for layer in range(3):
        features = features @ weights[f"actor.{layer}.weight"] + weights[f"actor.{layer}.bias"]
        features = np.tanh(features) if layer < 2 else features
    return features.reshape(len(matrix), -1)


def _by_node(weights: Weights, name: str, matrix: F32) -> F32:
    """(S, rows, F): the rows of each network of a stack of S, which is one of all nodes or one of each."""
    return matrix.reshape(len(weights[name]), -1, matrix.shape[1])
