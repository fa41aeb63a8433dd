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
        self._inputs = inputs_of(np.zeros((1, nodes, places)), self.learned["size"])[0]
        self._hidden = np.zeros((nodes, places, self.checkpoint.hidden), dtype=np.float32)
        self._memory = np.zeros_like(self._hidden)  # of an LSTM

    def observe(self, requests: NewRequests) -> None:
        """One step of every node's network."""
        self._advance(self.setting.counts(requests))

    def predict(self, lead: int = 0) -> F64:
        """What the hidden states say of the slots ahead; beyond the last that was learned, what they say of that."""
        horizon, learned = self.setting.horizon, self.checkpoint.horizon
        first = min(lead, learned - 1)
        answered = min(horizon, learned - first)
        forecast = np.empty((*self.setting.peers.shape, horizon), dtype=np.float32)
        _read_out(self._hidden, *self._weights[4:], self._scale, first, answered, self._relative, forecast)
        return forecast.astype(np.float64)

    def _use(self, arrays: Arrays) -> None:
        """Take weights: copies, since compiled code takes writable arrays."""
        self._weights = tuple(np.array(arrays[name], dtype=np.float32, order="C") for name in WEIGHTS)
        self._scale = np.array(arrays["scale"], dtype=np.float32, order="C")
        places, gates = self._scale.shape[1], self._weights[0].shape[2]
        self._gates = np.zeros((2, places, gates), dtype=np.float32)
        self._relative = np.zeros((places, self.checkpoint.horizon), dtype=np.float32)

    def _advance(self, counts: F64) -> None:
        self._inputs[:, :, 0] = np.log1p(counts)
        self._inputs[:, :, 1] = np.log1p(counts.sum(axis=1))[:, None]
        advance = ADVANCE[self.checkpoint.model]
        advance(self._inputs, *self._weights[:4], self._hidden, self._memory, *self._gates)


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


@inlined
def sum_up(i, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept):
    """The gates' sums over the inputs, and over the hidden states, of all peers of node i: (D, gates) each."""
    gates = given.shape[1]
    for d in range(given.shape[0]):
        count, others, size = inputs[i, d, 0], inputs[i, d, 1], inputs[i, d, 2]
        for g in range(gates):
            given[d, g] = b_input[i, g] + count * w_input[i, 0, g] + others * w_input[i, 1, g] + size * w_input[i, 2, g]
        weigh_units(i, d, hidden, w_recurrent, b_recurrent, kept)


@inlined
def weigh_units(i, d, hidden, weights, bias, sums):
    """sums_dg = bias_g + Σ_j hidden_j·weight_jg, one j after the other; sums are loaded for four at a time."""
    units, columns = hidden.shape[2], sums.shape[1]
    for g in range(columns):
        sums[d, g] = bias[i, g]
    for j in range(0, units - 3, 4):
        one, two, three, four = hidden[i, d, j], hidden[i, d, j + 1], hidden[i, d, j + 2], hidden[i, d, j + 3]
        for g in range(columns):
            first = sums[d, g] + one * weights[i, j, g] + two * weights[i, j + 1, g]
            sums[d, g] = first + three * weights[i, j + 2, g] + four * weights[i, j + 3, g]
    for j in range(units - units % 4, units):
        last = hidden[i, d, j]
        for g in range(columns):
            sums[d, g] += last * weights[i, j, g]


# One step of all cells, in place; `given` and `kept` are room for what `sum_up` finds.
@vectorised
def advance_gru(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """Gates: reset, update, new."""
    nodes, places, units = hidden.shape
    for i in range(nodes):
        sum_up(i, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for d in range(places):
            for u in range(units):
                reset = sigmoid(given[d, u] + kept[d, u])
                update = sigmoid(given[d, units + u] + kept[d, units + u])
                new = tangent(given[d, 2 * units + u] + reset * kept[d, 2 * units + u])
                hidden[i, d, u] = new + update * (hidden[i, d, u] - new)


@vectorised
def advance_lstm(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """Gates: input, forget, cell, output."""
    nodes, places, units = hidden.shape
    for i in range(nodes):
        sum_up(i, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for d in range(places):
            for u in range(units):
                take = sigmoid(given[d, u] + kept[d, u])
                keep = sigmoid(given[d, units + u] + kept[d, units + u])
                new = tangent(given[d, 2 * units + u] + kept[d, 2 * units + u])
                show = sigmoid(given[d, 3 * units + u] + kept[d, 3 * units + u])
                memory[i, d, u] = keep * memory[i, d, u] + take * new
                hidden[i, d, u] = show * tangent(memory[i, d, u])


@vectorised
def advance_rnn(inputs, w_input, w_recurrent, b_input, b_recurrent, hidden, memory, given, kept):
    """No gates."""
    nodes, places, units = hidden.shape
    for i in range(nodes):
        sum_up(i, inputs, w_input, b_input, hidden, w_recurrent, b_recurrent, given, kept)
        for d in range(places):
            for u in range(units):
                hidden[i, d, u] = tangent(given[d, u] + kept[d, u])


@vectorised
def read_out(hidden, weights, bias, scale, first, answered, relative, forecast):
    """scale · softplus(hidden·weights + bias) of every step ahead, from the learned one of number `first` on.

    Those behind the `answered` ones are what the last of them is. `relative` is room for the sums of all learned steps.
    """
    nodes, places, _ = hidden.shape
    for i in range(nodes):
        for d in range(places):
            weigh_units(i, d, hidden, weights, bias, relative)
        for d in range(places):
            for h in range(answered):
                forecast[i, d, h] = scale[i, d] * softplus(relative[d, first + h])
            for h in range(answered, forecast.shape[2]):
                forecast[i, d, h] = forecast[i, d, answered - 1]


ADVANCE = {"gru": Entry(advance_gru), "lstm": Entry(advance_lstm), "rnn": Entry(advance_rnn)}
_read_out = Entry(read_out)
