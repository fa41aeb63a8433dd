"""The networks of checkpoints in numpy, to play without torch: logits from observations.

Weights carry the names that they have in `networks`. A row is an observation, and after it what else a policy is told:
the contention penalty, if it has learned to play at any.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dpem_agents.ppo.layout import Layout

F32 = NDArray[np.float32]
Weights = dict[str, F32]


def shapes(encoder: str, layout: Layout, hidden: int, nodes: int) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of the actors and critics of so many nodes by name."""
    if encoder == "per-peer":
        layers = {
            "actor.context": (layout.own + layout.of_each, hidden),
            "actor.hidden": (hidden, hidden),
            "actor.quality": (hidden, layout.conditions * layout.qualities),
            "actor.wait": (hidden, 1),
        }
        first: dict[str, tuple[int, ...]] = {"actor.peer.weight": (nodes, layout.of_each, hidden)}
        layers |= _perceptron("critic.layers", (layout.own + 2 * layout.of_each, hidden, hidden, 1))
    else:
        seen = layout.own + layout.peers * layout.width
        layers = _perceptron("actor", (seen, hidden, hidden, layout.code.num_actions))
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


def learned_logits(encoder: str, weights: Weights, layout: Layout, rows: F32) -> F32:
    """(N, actions) logits from (N, F) rows: of each row's own network, or all of the only one."""
    return per_peer_logits(weights, layout, rows) if encoder == "per-peer" else plain_logits(weights, rows)


def per_peer_logits(weights: Weights, layout: Layout, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) rows: every candidate through the same small network."""

    def linear(name: str, features: F32) -> F32:
        return features @ weights[f"actor.{name}.weight"] + weights[f"actor.{name}.bias"]

    rows = _by_node(weights, "actor.hidden.weight", matrix)
    own, each = layout.split(rows)
    candidates = each.shape[2]
    context = linear("context", np.concatenate([own, each.mean(axis=2)], axis=2))
    hidden = each.reshape(len(rows), -1, layout.of_each) @ weights["actor.peer.weight"]
    hidden = np.tanh(hidden + np.repeat(context, candidates, axis=1))
    hidden = np.tanh(linear("hidden", hidden))
    waiting = linear("wait", hidden.reshape(*rows.shape[:2], candidates, -1).mean(axis=2))
    allocating = linear("quality", hidden).reshape(*rows.shape[:2], candidates, -1)
    logits: F32 = layout.arrange(waiting, allocating)
    return logits.reshape(len(matrix), -1)


def plain_logits(weights: Weights, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) rows: all features through a multilayer perceptron."""
    features = _by_node(weights, "actor.0.weight", matrix)
    for layer in range(3):
        features = features @ weights[f"actor.{layer}.weight"] + weights[f"actor.{layer}.bias"]
        features = np.tanh(features) if layer < 2 else features
    return features.reshape(len(matrix), -1)


def _by_node(weights: Weights, name: str, matrix: F32) -> F32:
    """(S, rows, F): the rows of each network of a stack of S, which is one of all nodes or one of each."""
    return matrix.reshape(len(weights[name]), -1, matrix.shape[1])
