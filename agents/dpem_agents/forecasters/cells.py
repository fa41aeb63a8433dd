"""The recurrent networks in PyTorch, which learning needs: same cells and weights as `recurrent`, with gradients.

The networks of all nodes run side by side in arrays whose first axis is the node. No number of one ever meets one of
another, so the gradient of the sum of the nodes' losses is each node's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dpem_agents.checkpoints import Arrays
from dpem_agents.forecasters.checkpoint import shapes
from dpem_agents.forecasters.recurrent import inputs_of
from dpem_agents.libraries import pytorch

STRIDE = 4  # slots between those whose forecasts are scored: neighbours say nearly the same
CLIP = 1.0  # norm of a node's gradient
LONGEST_MEMORY = 100.0  # slots, at the start
MEAN = math.log(math.e - 1.0)  # softplus of this is 1
LEAST = 1e-6  # of the scale, added to what is forecast: no request is infinitely surprising


def initial(cell: str, hidden: int, horizon: int, nodes: int, draws: np.random.Generator) -> Arrays:
    """Weights to start from: forecasts are near the mean rates, units remember 1 to 100 slots."""
    weights = {
        name: (draws.uniform(-1.0, 1.0, (nodes, *shape)) / math.sqrt(hidden)).astype(np.float32)
        for name, shape in shapes(cell, hidden, horizon).items()
    }
    weights["input_bias"][:] = weights["recurrent_bias"][:] = 0.0
    weights["output"] *= 0.1
    weights["output_bias"][:] = MEAN
    if cell != "rnn":  # chrono initialisation (Tallec & Ollivier 2018, eq. 16) of the gate that keeps: the second
        memory = draws.uniform(2.0, LONGEST_MEMORY, (nodes, hidden))
        weights["input_bias"][:, hidden : 2 * hidden] = np.log(memory - 1.0)
    return weights


class Batch:
    """A (B, T + K, N, D) window of counts as tensors; of its T first slots the K next are forecast."""

    def __init__(
        self, window: NDArray[Any], scale: NDArray[np.float32], size: NDArray[np.float32], horizon: int
    ) -> None:
        torch = pytorch()
        self.segments, length, self.nodes, self.places = window.shape
        slots = length - horizon
        self.scored = list(range((slots - 1) % STRIDE, slots, STRIDE))
        inputs = np.stack([inputs_of(segment[:slots], size) for segment in window], axis=2)  # (T, N, B, D, inputs)
        self.inputs = torch.from_numpy(inputs).flatten(2, 3)
        ahead = sliding_window_view(window[:, 1:], horizon, axis=1)[:, self.scored]  # (B, scored, N, D, K)
        came = np.ascontiguousarray(ahead.transpose(2, 1, 0, 3, 4), dtype=np.float32)
        self.came = torch.from_numpy(came).flatten(1, 2)  # (N, scored·B, D, K)
        self.scale = torch.from_numpy(scale.copy())


def loss(cell: str, weights: dict[str, Any], batch: Batch, state: Any = None) -> tuple[Any, Any]:
    """(N,) every node's loss on its rows of a batch, and the state to go on from, without its gradients.

    The loss is the Poisson likelihood of the counts that came, less what no weight changes, per slot and in units of
    the node's mean count: Σ over its peers of (forecast - count · ln forecast) / Σ scale.
    """
    torch = pytorch()
    if state is None:
        units = weights["output"].shape[1]
        state = (torch.zeros(batch.nodes, batch.segments * batch.places, units),) * 2
    hidden, state = unroll(cell, weights, batch.inputs, state)
    shown = torch.stack([hidden[t] for t in batch.scored], dim=1).flatten(1, 2)  # (N, scored·B·D, units)
    link = torch.baddbmm(weights["output_bias"][:, None], shown, weights["output"])
    relative = torch.nn.functional.softplus(link).unflatten(1, (-1, batch.places))  # to the scale
    surprise = batch.scale[:, None, :, None] * relative - batch.came * torch.log(relative + LEAST)
    mean_count = batch.scale.sum(dim=1).clamp(min=LEAST)
    return surprise.mean(dim=(1, 3)).sum(dim=1) / mean_count, state


def unroll(cell: str, weights: dict[str, Any], inputs: Any, state: Any) -> tuple[list[Any], Any]:
    """Hidden states after each slot of (T, N, rows, inputs), and the last state, without its gradients."""
    torch = pytorch()
    hidden, memory = state
    units = hidden.shape[2]
    shown = []
    for given in inputs:
        a = torch.baddbmm(weights["input_bias"][:, None], given, weights["input"])
        b = torch.baddbmm(weights["recurrent_bias"][:, None], hidden, weights["recurrent"])
        if cell == "gru":
            reset, update = torch.sigmoid(a[..., : 2 * units] + b[..., : 2 * units]).chunk(2, dim=2)
            new = torch.tanh(torch.addcmul(a[..., 2 * units :], reset, b[..., 2 * units :]))
            hidden = torch.lerp(new, hidden, update)
        elif cell == "lstm":
            take, keep, new, show = (a + b).chunk(4, dim=2)
            memory = torch.sigmoid(keep) * memory + torch.sigmoid(take) * torch.tanh(new)
            hidden = torch.sigmoid(show) * torch.tanh(memory)
        else:
            hidden = torch.tanh(a + b)
        shown.append(hidden)
    return shown, (hidden.detach(), memory.detach())


def clip(weights: dict[str, Any]) -> None:
    """Shorten each node's gradient to norm CLIP."""
    squares = sum(weight.grad.square().flatten(1).sum(dim=1) for weight in weights.values())
    factor = CLIP / squares.sqrt().clamp(min=CLIP)
    for weight in weights.values():
        weight.grad *= factor.reshape(-1, *(1,) * (weight.dim() - 1))
