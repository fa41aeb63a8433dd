"""The networks of checkpoints in numpy, to play without torch: logits from observations.

Weights carry the names that they have in `networks`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpem_env.features import NODE_FEATURES

F32 = NDArray[np.float32]
Weights = dict[str, F32]

OWN = len(NODE_FEATURES)  # columns of a node's own features


def shapes(encoder: str, interface: dict[str, int], hidden: int, stacked: int) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of the actor by name; `interface` as in a checkpoint, plain networks are `stacked`."""
    peers, block = interface["peers per node"], interface["features per peer"]
    if encoder == "per-peer":
        linear = {
            "context": (hidden, OWN + block),
            "hidden": (hidden, hidden),
            "quality": (interface["qualities"], hidden),
            "wait": (1, hidden),
        }
        named: dict[str, tuple[int, ...]] = {f"actor.{name}.weight": size for name, size in linear.items()}
        named |= {f"actor.{name}.bias": size[:1] for name, size in linear.items()}
        return named | {"actor.peer.weight": (hidden, block)}
    widths = (OWN + peers * block, hidden, hidden, 1 + peers * interface["qualities"])
    named = {f"actor.{layer}.weight": (stacked, *widths[layer : layer + 2]) for layer in range(3)}
    return named | {f"actor.{layer}.bias": (stacked, 1, widths[layer + 1]) for layer in range(3)}


def per_peer_logits(weights: Weights, peers: int, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) observations: every peer through the same small network."""

    def linear(name: str, features: F32) -> F32:
        return features @ weights[f"actor.{name}.weight"].T + weights[f"actor.{name}.bias"]

    blocks = matrix[:, OWN:].reshape(len(matrix), peers, -1)
    context = linear("context", np.concatenate([matrix[:, :OWN], blocks.mean(axis=1)], axis=1))
    hidden = np.tanh(blocks @ weights["actor.peer.weight"].T + context[:, None])
    hidden = np.tanh(linear("hidden", hidden))
    allocating = linear("quality", hidden).reshape(len(matrix), -1)
    return np.concatenate([linear("wait", hidden.mean(axis=1)), allocating], axis=1)


def plain_logits(weights: Weights, matrix: F32) -> F32:
    """(N, actions) logits from (N, F) observations: every node through its own network, or all through the only one."""
    features = matrix[:, None]
    for layer in range(3):
        features = features @ weights[f"actor.{layer}.weight"] + weights[f"actor.{layer}.bias"]
        features = np.tanh(features) if layer < 2 else features
    return features[:, 0]
