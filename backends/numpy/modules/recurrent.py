"""Recurrent layers in NumPy."""

from __future__ import annotations

import numpy as np

from backends.numpy.modules.base import Layer, batch_sum, glorot


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


class Recurrent(Layer):
    """Steps along axis 1: h, ... = step(x[t] @ kernel + bias, h @ recurrent_kernel, h, ...)

    A subclass defines `step`, which returns the next states and what `step_back` needs. With
    gradients of the next states, that returns those of step's arguments: of both sums, and of the
    states where they are used directly.
    """

    gates = 1  # parts of the last axis of the kernels
    states = 1  # arrays that one step hands to the next; the first is the output

    def __init__(
        self,
        inputs,
        features,
        return_sequences=False,
        bidirectional=False,
        use_bias=True,
        *,
        rng,
    ):
        self.directions = [("", 1), ("backward_", -1)][: 1 + bidirectional]
        self.features = features
        self.return_sequences = return_sequences
        width = self.gates * features
        params = {}
        for prefix, _ in self.directions:
            params[prefix + "kernel"] = glorot(rng, (inputs, width))
            params[prefix + "recurrent_kernel"] = glorot(rng, (features, width))
            params[prefix + "bias"] = np.zeros(width) if use_bias else None
        super().__init__(**params)

    def forward(self, x, training):
        both = self.directions
        outputs = [(self.run(x[:, ::way], prefix), way) for prefix, way in both]
        if self.return_sequences:
            return np.concatenate([h[:, ::way] for h, way in outputs], -1)
        return np.concatenate([h[:, -1] for h, way in outputs], -1)

    def run(self, x, prefix):
        """The outputs of all steps."""
        sums = x @ self.params[prefix + "kernel"]
        if prefix + "bias" in self.params:
            sums = sums + self.params[prefix + "bias"]
        recurrent = self.params[prefix + "recurrent_kernel"]
        states = (np.zeros((len(x), self.features), x.dtype),) * self.states
        outputs, kept = [states[0]], []
        for t in range(x.shape[1]):
            states, keep = self.step(sums[:, t], states[0] @ recurrent, *states)
            outputs.append(states[0])
            kept.append(keep)
        h = np.stack(outputs, 1)
        self.saved.append((x, h[:, :-1], kept))
        return h[:, 1:]

    def backward(self, dy):
        dx = 0
        parts = np.split(dy, len(self.directions), -1)
        pairs = list(zip(self.directions, parts, strict=True))
        for (prefix, way), dh in reversed(pairs):
            dh = dh[:, ::way] if dh.ndim == 3 else dh
            dx = dx + self.run_back(dh, prefix)[:, ::way]
        return dx

    def run_back(self, dh, prefix):
        """The gradient of x, from that of all outputs, or of the last one."""
        x, h, kept = self.saved.pop()
        if dh.ndim == 2:
            last, dh = dh, np.zeros_like(h)
            dh[:, -1] = last
        kernel = self.params[prefix + "kernel"]
        recurrent = self.params[prefix + "recurrent_kernel"]
        dinputs = np.zeros((*h.shape[:2], kernel.shape[1]), h.dtype)
        drecurrents = np.zeros_like(dinputs)
        dstates = [np.zeros_like(h[:, 0])] * self.states
        for t in reversed(range(x.shape[1])):
            dstates[0] = dstates[0] + dh[:, t]
            found = self.step_back(kept[t], *dstates)
            dinputs[:, t], drecurrents[:, t], dstates = found
            dstates[0] = dstates[0] + drecurrents[:, t] @ recurrent.T
        self.add_grad(prefix + "kernel", rows(x).T @ rows(dinputs))
        self.add_grad(prefix + "recurrent_kernel", rows(h).T @ rows(drecurrents))
        self.add_grad(prefix + "bias", batch_sum(dinputs))
        return dinputs @ kernel.T

    def step(self, a, b, *states):
        raise NotImplementedError

    def step_back(self, kept, *dstates):
        raise NotImplementedError


def rows(x):
    """Batch and time in one axis."""
    return x.reshape(-1, x.shape[-1])


class SimpleRNN(Recurrent):
    """h' = tanh(a + b), or relu"""

    def __init__(self, *args, activation="tanh", **kwargs):
        super().__init__(*args, **kwargs)
        self.activation = activation

    def step(self, a, b, h):
        after = np.tanh(a + b) if self.activation == "tanh" else np.maximum(a + b, 0)
        return (after,), after

    def step_back(self, after, dh):
        d = dh * (1 - after**2 if self.activation == "tanh" else after > 0)
        return d, d, [np.zeros_like(dh)]


class LSTM(Recurrent):
    """c' = sigmoid(f) * c + sigmoid(i) * tanh(g), h' = sigmoid(o) * tanh(c'); i, f, g, o = a + b"""

    gates = 4
    states = 2

    def step(self, a, b, h, c):
        i, f, g, o = np.split(a + b, 4, -1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        after = f * c + i * g
        return (o * np.tanh(after), after), (i, f, g, o, c, after)

    def step_back(self, kept, dh, dc):
        i, f, g, o, c, after = kept
        y = np.tanh(after)
        dc = dc + dh * o * (1 - y**2)
        gates = [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g**2),
            dh * y * o * (1 - o),
        ]
        d = np.concatenate(gates, -1)
        return d, d, [np.zeros_like(dh), dc * f]


class GRU(Recurrent):
    """h' = (1 - z) * tanh(a_n + r * b_n) + z * h; r, z = sigmoid(a_r + b_r), sigmoid(a_z + b_z)"""

    gates = 3

    def step(self, a, b, h):
        (ar, az, an), (br, bz, bn) = np.split(a, 3, -1), np.split(b, 3, -1)
        r, z = sigmoid(ar + br), sigmoid(az + bz)
        n = np.tanh(an + r * bn)
        return ((1 - z) * n + z * h,), (r, z, n, bn, h)

    def step_back(self, kept, dh):
        r, z, n, bn, h = kept
        dn = dh * (1 - z) * (1 - n**2)
        dr = dn * bn * r * (1 - r)
        dz = dh * (h - n) * z * (1 - z)
        return (
            np.concatenate([dr, dz, dn], -1),
            np.concatenate([dr, dz, dn * r], -1),
            [dh * z],
        )
