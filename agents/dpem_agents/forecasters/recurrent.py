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
from typing import Any, ClassVar

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
CELLS = ("gru", "lstm", "rnn")
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
        self._inputs = np.zeros((INPUTS, places, nodes), dtype=np.float32)
        self._inputs[2] = self.learned["size"].T
        self._hidden = np.zeros((places, self.checkpoint.hidden, nodes), dtype=np.float32)
        self._memory = np.zeros_like(self._hidden)  # of an LSTM

    def observe(self, requests: NewRequests) -> None:
        """One step of every node's network."""
        self._advance(self.setting.counts(requests))

    def predict(self, lead: int = 0) -> F64:
        """What the hidden states say of the slots ahead; beyond the last that was learned, what they say of that."""
        (nodes, places), horizon, learned = self.setting.peers.shape, self.setting.horizon, self.checkpoint.horizon
        first = min(lead, learned - 1)
        relative = np.empty((min(horizon, learned - first), nodes), dtype=np.float32)
        forecast = np.empty((nodes, places, horizon))
        _read_out(self._hidden, *self._side_by_side[4:], first, relative, forecast)
        return forecast

    def _use(self, arrays: Arrays) -> None:
        """Take weights: copies, in the order of compiled code, in which nodes lie side by side."""
        self._weights = tuple(np.array(arrays[name], dtype=np.float32) for name in WEIGHTS)
        self._side_by_side = tuple(_nodes_last(array) for array in (*self._weights, arrays["scale"]))
        self._gates = np.zeros((2, *self._side_by_side[2].shape), dtype=np.float32)

    def _advance(self, counts: F64) -> None:
        self._inputs[0] = np.log1p(counts).T
        self._inputs[1] = np.log1p(counts.sum(axis=1))
        advance = ADVANCE[self.checkpoint.model]
        advance(self._inputs, *self._side_by_side[:4], self._hidden, self._memory, *self._gates)


class GRU(RecurrentForecaster):
    """Gated recurrent units."""

    models: ClassVar[tuple[str, ...]] = ("gru",)


class LSTM(RecurrentForecaster):
    """Long short-term memory."""

    models: ClassVar[tuple[str, ...]] = ("lstm",)


class VanillaRNN(RecurrentForecaster):
    """Tanh units."""

    models: ClassVar[tuple[str, ...]] = ("rnn",)


def _nodes_last(array: NDArray[np.floating[Any]]) -> F32:
    return np.array(np.moveaxis(array, 0, -1), dtype=np.float32, order="C")


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


# N nodes lie side by side in all that follows, so that a loop over them is long, and does eight of them at once.
@inlined
def sum_up(d, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept):
    """The gates' sums over the inputs, and over the hidden states, of the peers at place d: (gates, N) each."""
    for g in range(given.shape[0]):
        for i in range(given.shape[1]):
            first = b_input[g, i] + inputs[0, d, i] * w_input[0, g, i]
            given[g, i] = first + inputs[1, d, i] * w_input[1, g, i] + inputs[2, d, i] * w_input[2, g, i]
        weigh_units(d, g, hidden, w_recurrent, b_recurrent, kept[g])


@inlined
def weigh_units(d, g, hidden, weights, bias, sums):
    """sums_i = bias_gi + Σ_j hidden_dji·weight_jgi, one j after the other; sums are loaded for four at a time."""
    units, nodes = hidden.shape[1:]
    for i in range(nodes):
        sums[i] = bias[g, i]
    for j in range(0, units - 3, 4):
        for i in range(nodes):
            half = sums[i] + hidden[d, j, i] * weights[j, g, i] + hidden[d, j + 1, i] * weights[j + 1, g, i]
            half = half + hidden[d, j + 2, i] * weights[j + 2, g, i]
            sums[i] = half + hidden[d, j + 3, i] * weights[j + 3, g, i]
    for j in range(units - units % 4, units):
        for i in range(nodes):
            sums[i] += hidden[d, j, i] * weights[j, g, i]


# One step of all cells, in place; `given` and `kept` are room for what `sum_up` finds.
@vectorised
def advance_gru(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """Gates: reset, update, new."""
    places, units, nodes = hidden.shape
    for d in range(places):
        sum_up(d, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for u in range(units):
            for i in range(nodes):
                reset = sigmoid(given[u, i] + kept[u, i])
                update = sigmoid(given[units + u, i] + kept[units + u, i])
                new = tangent(given[2 * units + u, i] + reset * kept[2 * units + u, i])
                hidden[d, u, i] = new + update * (hidden[d, u, i] - new)


@vectorised
def advance_lstm(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """Gates: input, forget, cell, output."""
    places, units, nodes = hidden.shape
    for d in range(places):
        sum_up(d, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for u in range(units):
            for i in range(nodes):
                take = sigmoid(given[u, i] + kept[u, i])
                keep = sigmoid(given[units + u, i] + kept[units + u, i])
                new = tangent(given[2 * units + u, i] + kept[2 * units + u, i])
                show = sigmoid(given[3 * units + u, i] + kept[3 * units + u, i])
                memory[d, u, i] = keep * memory[d, u, i] + take * new
                hidden[d, u, i] = show * tangent(memory[d, u, i])


@vectorised
def advance_rnn(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """No gates."""
    places, units, nodes = hidden.shape
    for d in range(places):
        sum_up(d, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for u in range(units):
            for i in range(nodes):
                hidden[d, u, i] = tangent(given[u, i] + kept[u, i])


@vectorised
def read_out(hidden, weights, bias, scale, first, relative, forecast):
    """scale · softplus(hidden·weights + bias) of every step ahead, from the learned one of number `first` on.

    `relative` is room for the steps that were learned; those behind them are what the last of them is.
    """
    places, _, nodes = hidden.shape
    answered = relative.shape[0]
    for d in range(places):
        for h in range(answered):
            weigh_units(d, first + h, hidden, weights, bias, relative[h])
            for i in range(nodes):
                relative[h, i] = scale[d, i] * softplus(relative[h, i])
        for i in range(nodes):
            for h in range(answered):
                forecast[i, d, h] = relative[h, i]
            for h in range(answered, forecast.shape[2]):
                forecast[i, d, h] = relative[answered - 1, i]


ADVANCE = {"gru": Entry(advance_gru), "lstm": Entry(advance_lstm), "rnn": Entry(advance_rnn)}
_read_out = Entry(read_out)
