"""Regularisation in NumPy."""

from __future__ import annotations

from backends.numpy.modules.base import Layer


class Dropout(Layer):
    """y = x * keep / (1 - rate) in training, y = x in evaluation"""

    def __init__(self, rate, *, rng):
        super().__init__()
        self.rate = rate
        self.rng = rng

    def forward(self, x, training):
        keep = 1.0
        if training:
            keep = (self.rng.random(x.shape) >= self.rate).astype(x.dtype) / (1 - self.rate)
        self.saved.append(keep)
        return x * keep

    def backward(self, dy):
        return dy * self.saved.pop()
