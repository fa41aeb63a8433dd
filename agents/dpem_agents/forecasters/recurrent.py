"""Recurrent forecasters: every node runs a network of its own over the requests for each of its peers.

    y_t = RNN(h_t, x_t)

x_t are the logarithms of 1 + the slot's count, of 1 + the node's count over all peers, and the pair's size (how its
scale compares with the node's others). y_t are the expected counts of the slots t + 1 … t + K, scale · softplus(W·h +
b): with small weights about the pair's mean rate. Cells are those of PyTorch, gates in its order (GRU: Cho et al. 2014
with the reset gate after the matrix product; LSTM: Hochreiter & Schmidhuber 1997; RNN: Elman 1990). All that a node
knows of an episode is its hidden state. Inference is compiled and needs no torch.
"""

from __future__ import annotations

from math import factorial, log
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpem_agents.checkpoints import Arrays
from dpem_agents.forecasters.checkpoint import INPUTS, Learned
from dpem_env.demand.forecast import F64, ForecastSetting, NewRequests
from dpem_env.support.compiled import Entry, cached, inlined

F32 = NDArray[np.float32]
ONE, TWO = np.float32(1.0), np.float32(2.0)
LARGEST = np.float32(87.0)  # of exponents: float32 holds e to the 88th
LOG2_E = np.float32(1.0 / log(2.0))
LN2 = np.float32(355.0 / 512.0)  # with few digits, so that whole multiples of it are exact
LN2_REST = np.float32(log(2.0) - 355.0 / 512.0)
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)  # of float32
CELLS = ("gru", "lstm", "rnn")  # in the order of `advance`
WEIGHTS = ("input", "recurrent", "input_bias", "recurrent_bias", "output", "output_bias")


class RecurrentForecaster(Learned):
    """Forecasts with the weights of a checkpoint of `dpem_agents.forecasters.training`, whatever its cell."""

    models: ClassVar[tuple[str, ...]] = CELLS

    def reset(self, setting: ForecastSetting) -> None:
        """Forget all requests: hidden states are zero."""
        self.setting = setting
        self.learned = self.checkpoint.of(setting)
        self._use(self.learned)
        nodes, places = setting.peers.shape
        self._inputs = inputs_of(np.zeros((1, nodes, places)), self.learned["size"])[0]
        self._hidden = np.zeros((nodes, places, self.checkpoint.hidden), dtype=np.float32)
        self._memory = np.zeros_like(self._hidden)  # of an LSTM

    def observe(self, requests: NewRequests) -> None:
        """One step of every node's network."""
        self._advance(self.setting.counts(requests))

    def predict(self, lead: int = 0) -> F64:
        """What the hidden states say of the slots ahead."""
        steps = self.steps(self.setting, lead)
        answering = (np.take(part, steps, axis=-1) for part in self._weights[4:])
        forecast = np.empty((*self.setting.peers.shape, self.setting.horizon), dtype=np.float32)
        _read_out(self._hidden, *answering, self._scale, forecast)
        return forecast.astype(np.float64)

    def _use(self, arrays: Arrays) -> None:
        """Take weights: copies, since compiled code takes writable arrays."""
        self._weights = tuple(np.array(arrays[name], dtype=np.float32, order="C") for name in WEIGHTS)
        self._scale = np.array(arrays["scale"], dtype=np.float32, order="C")
        self._gates = np.zeros((2, self._weights[0].shape[2]), dtype=np.float32)

    def _advance(self, counts: F64) -> None:
        self._inputs[:, :, 0] = np.log1p(counts)
        self._inputs[:, :, 1] = np.log1p(counts.sum(axis=1))[:, None]
        cell = CELLS.index(self.checkpoint.model)
        _advance(cell, self._inputs, *self._weights[:4], self._hidden, self._memory, *self._gates)


class GRU(RecurrentForecaster):
    """Gated recurrent units."""

    models: ClassVar[tuple[str, ...]] = ("gru",)


class LSTM(RecurrentForecaster):
    """Long short-term memory."""

    models: ClassVar[tuple[str, ...]] = ("lstm",)


class VanillaRNN(RecurrentForecaster):
    """Tanh units."""

    models: ClassVar[tuple[str, ...]] = ("rnn",)


def inputs_of(counts: NDArray[np.generic], size: F32) -> F32:
    """(T, N, D, inputs) what the cells are fed in T slots, from (T, N, D) counts."""
    inputs = np.empty((*counts.shape, INPUTS), dtype=np.float32)
    inputs[..., 0] = np.log1p(counts, dtype=np.float32)
    inputs[..., 1] = np.log1p(counts.sum(axis=2, dtype=np.float32))[:, :, None]
    inputs[..., 2] = size
    return inputs


# As `entry`, but without its questions whether a divisor is 0, which keep loops from doing several numbers at once.
vectorised = cached(_nrt=False, nogil=True, error_model="numpy")
# The functions of libraries are calls, one number at a time; these are sums and products, of which compiled loops do
# several at once. Their errors are those of rounding (tested against the libraries').
TAYLOR = tuple(np.float32(1.0 / factorial(k)) for k in range(8))
ATANH = tuple(np.float32(2.0 / (2 * k + 1)) for k in range(8))


@inlined
def exponential(x):
    """e^x, up to e^±87: 2^n·e^r with |r| <= ln(2)/2, the latter by its series."""
    x = min(max(x, -LARGEST), LARGEST)
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = x - n * LN2 - n * LN2_REST
    series = TAYLOR[6] + r * TAYLOR[7]
    series = TAYLOR[4] + r * (TAYLOR[5] + r * series)
    series = ONE + r * (ONE + r * (TAYLOR[2] + r * (TAYLOR[3] + r * series)))
    power = (np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS
    return series * np.int32(power).view(np.float32)


@inlined
def softplus(x):
    """ln(1 + e^x) = max(x, 0) + 2·artanh(z) with z = y/(2 + y), y = e^-|x|, the latter by its series."""
    y = exponential(-abs(x))
    z = y / (TWO + y)
    square = z * z
    series = ATANH[5] + square * (ATANH[6] + square * ATANH[7])
    series = ATANH[3] + square * (ATANH[4] + square * series)
    return max(x, np.float32(0.0)) + z * (TWO + square * (ATANH[1] + square * (ATANH[2] + square * series)))


@inlined
def sigmoid(x):
    """Logistic function."""
    return ONE / (ONE + exponential(-x))


@inlined
def tangent(x):
    """Hyperbolic tangent."""
    return TWO / (ONE + exponential(-TWO * x)) - ONE


@vectorised
def advance(cell, inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """One step of all cells, in place. `given` and `kept` are room for the gates' sums over inputs and hidden state."""
    nodes, places, units = hidden.shape
    gates = w_input.shape[2]
    for i in range(nodes):
        for d in range(places):
            for g in range(gates):
                given[g] = b_input[i, g]
                kept[g] = b_recurrent[i, g]
            for j in range(inputs.shape[2]):
                value = inputs[i, d, j]
                if value != 0:
                    for g in range(gates):
                        given[g] += value * w_input[i, j, g]
            for j in range(units):
                value = hidden[i, d, j]
                for g in range(gates):
                    kept[g] += value * w_recurrent[i, j, g]
            if cell == 0:  # gru: reset, update, new
                for u in range(units):
                    reset = sigmoid(given[u] + kept[u])
                    update = sigmoid(given[units + u] + kept[units + u])
                    new = tangent(given[2 * units + u] + reset * kept[2 * units + u])
                    hidden[i, d, u] = new + update * (hidden[i, d, u] - new)
            elif cell == 1:  # lstm: input, forget, cell, output
                for u in range(units):
                    take = sigmoid(given[u] + kept[u])
                    keep = sigmoid(given[units + u] + kept[units + u])
                    new = tangent(given[2 * units + u] + kept[2 * units + u])
                    show = sigmoid(given[3 * units + u] + kept[3 * units + u])
                    memory[i, d, u] = keep * memory[i, d, u] + take * new
                    hidden[i, d, u] = show * tangent(memory[i, d, u])
            else:
                for u in range(units):
                    hidden[i, d, u] = tangent(given[u] + kept[u])


@vectorised
def read_out(hidden, weights, bias, scale, forecast):
    """scale · softplus(hidden·weights + bias) of every step ahead."""
    nodes, places, units = hidden.shape
    for i in range(nodes):
        for d in range(places):
            for h in range(forecast.shape[2]):
                forecast[i, d, h] = bias[i, h]
            for u in range(units):
                for h in range(forecast.shape[2]):
                    forecast[i, d, h] += hidden[i, d, u] * weights[i, u, h]
            for h in range(forecast.shape[2]):
                forecast[i, d, h] = scale[i, d] * softplus(forecast[i, d, h])


_advance, _read_out = Entry(advance), Entry(read_out)
