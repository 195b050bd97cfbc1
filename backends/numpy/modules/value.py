"""Values in NumPy."""

from __future__ import annotations

import numpy as np

from backends.numpy.modules.base import Layer


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
