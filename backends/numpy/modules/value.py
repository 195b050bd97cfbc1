"""Values in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer, Stream


class Identity(Layer):
    """The input."""

    def forward(self, x, training):
        return x

    def backward(self, dy):
        return dy


class Select(Layer):
    """One member of a tuple; the others get gradient 0."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def forward(self, x, training):
        self.saved.append(x)
        return x[self.index]

    def backward(self, dy):
        x = self.saved.pop()
        return tuple(dy if i == self.index else zeros(a) for i, a in enumerate(x))


def zeros(x):
    """Zeros like a value, member by member."""
    return tuple(map(zeros, x)) if isinstance(x, tuple) else np.zeros(x.shape)


def unbroadcast(dy, shape):
    """The gradient of an array of `shape` that was broadcast to dy's shape."""
    dy = dy.sum(tuple(range(dy.ndim - len(shape))))
    return dy.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


class Parameter(Layer):
    """y = x + value, x * value, or value followed by x"""

    def __init__(self, shape, merge, trainable=True):
        super().__init__(value=np.zeros(shape) if trainable else None)
        if not trainable:
            self.state = {"value": np.zeros(shape)}
        self.merge = merge

    def forward(self, x, training):
        value = self.params.get("value", self.state.get("value"))
        self.saved.append((x, value))
        match self.merge:
            case "add":
                return x + value
            case "multiply":
                return x * value
        rows = np.broadcast_to(value, (len(x), *value.shape))
        return np.concatenate([rows, x], axis=1)

    def backward(self, dy):
        x, value = self.saved.pop()
        match self.merge:
            case "add":
                dx, dvalue = dy, dy
            case "multiply":
                dx, dvalue = dy * value, dy * x
            case _:
                dx, dvalue = dy[:, len(value) :], dy[:, : len(value)]
        self.add_grad("value", unbroadcast(dvalue, value.shape))
        return dx


class Sample(Layer):
    """y = mean + exp(log_variance / 2) * noise in training, y = mean in evaluation"""

    def __init__(self, *, rng):
        super().__init__()
        self.rng = rng

    def noise(self, shape, dtype):
        return self.rng.normal(size=shape).astype(dtype)

    def forward(self, x, training):
        mean, log_variance = x
        spread = 0.0
        if training:
            spread = np.exp(log_variance / 2) * self.noise(mean.shape, mean.dtype)
        self.saved.append(spread)
        return mean + spread

    def backward(self, dy):
        return dy, dy * self.saved.pop() / 2


class SharedSample(Stream, Sample):
    """A sample whose draws are the same on every backend."""

    def __init__(self, key):
        super().__init__(rng=None)
        self.key, self.calls = key, 0

    def noise(self, shape, dtype):
        a, b = self.bits(shape)
        u, v = ((a >> 9) + 0.5) / 2**23, (b >> 9) / 2**23
        return (np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v)).astype(dtype)
