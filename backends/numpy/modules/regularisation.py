"""Regularisation in NumPy."""

from __future__ import annotations

from backends.numpy.modules.base import Layer, Stream


class Dropout(Layer):
    """y = x * keep / (1 - rate) in training, y = x in evaluation; `keep` is one along `axes`"""

    def __init__(self, rate, axes=(), *, rng):
        super().__init__()
        self.rate = rate
        self.axes = axes
        self.rng = rng

    def forward(self, x, training):
        keep = 1.0
        if training:
            drawn = [1 if axis in self.axes else n for axis, n in enumerate(x.shape)]
            keep = self.keeps(drawn).astype(x.dtype) / (1 - self.rate)
        self.saved.append(keep)
        return x * keep

    def keeps(self, shape):
        return self.rng.random(shape) >= self.rate

    def backward(self, dy):
        return dy * self.saved.pop()


class SharedDropout(Stream, Dropout):
    """Dropout whose draws are the same on every backend."""

    def __init__(self, rate, key, axes=()):
        super().__init__(rate, axes, rng=None)
        self.key, self.calls = key, 0

    def keeps(self, shape):
        return self.bits(shape)[0] >> 8 >= round(self.rate * 2**24)
