"""Regularisation in NumPy."""

from __future__ import annotations

from backends.numpy.modules.base import Layer, Stream


class Dropout(Layer):
    """y = x * keep / (1 - rate) in training, y = x in evaluation"""

    def __init__(self, rate, *, rng):
        super().__init__()
        self.rate = rate
        self.rng = rng

    def forward(self, x, training):
        keep = 1.0
        if training:
            keep = self.keeps(x.shape).astype(x.dtype) / (1 - self.rate)
        self.saved.append(keep)
        return x * keep

    def keeps(self, shape):
        return self.rng.random(shape) >= self.rate

    def backward(self, dy):
        return dy * self.saved.pop()


class SharedDropout(Stream, Dropout):
    """Dropout whose draws are the same on every backend."""

    def __init__(self, rate, key):
        super().__init__(rate, rng=None)
        self.key = key

    def keeps(self, shape):
        return self.bits(shape)[0] >> 8 >= round(self.rate * 2**24)
