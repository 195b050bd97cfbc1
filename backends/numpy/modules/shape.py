"""Shapes in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import AlongAxes, Layer


class Flatten(Layer):
    """All axes but the batch in one."""

    def forward(self, x, training):
        self.saved.append(x.shape)
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dy):
        return dy.reshape(self.saved.pop())


class Permute(Layer):
    """The axes in another order."""

    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x, training):
        return x.transpose(self.axes)

    def backward(self, dy):
        return dy.transpose(np.argsort(self.axes))


class Reshape(Layer):
    """The same numbers in another shape, after the batch."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, x, training):
        self.saved.append(x.shape)
        return x.reshape(len(x), *self.shape)

    def backward(self, dy):
        return dy.reshape(self.saved.pop())


class ConstantPad(Layer):
    """More cells of one value at both ends of the axes after the batch."""

    def __init__(self, pads, value):
        super().__init__()
        self.pads = ((0, 0), *pads)
        self.value = value

    def forward(self, x, training):
        return np.pad(x, self.pads, constant_values=self.value)

    def backward(self, dy):
        ends = zip(self.pads, dy.shape, strict=True)
        return dy[tuple(slice(low, n - high) for (low, high), n in ends)]


class EdgePad(Layer):
    """More cells, reflected or repeated from the edges; each gives its gradient to its source."""

    def __init__(self, pads, mode):
        super().__init__()
        self.pads = pads
        self.mode = mode

    def sources(self, shape):
        """For each axis, the cell that each new cell is taken from."""
        sizes = zip(shape[1:], self.pads, strict=True)
        return [np.pad(np.arange(n), pair, mode=self.mode) for n, pair in sizes]

    def forward(self, x, training):
        self.saved.append(x.shape)
        for axis, cells in enumerate(self.sources(x.shape), 1):
            x = x.take(cells, axis)
        return x

    def backward(self, dy):
        shape = self.saved.pop()
        for axis, cells in enumerate(self.sources(shape), 1):
            moved = np.moveaxis(dy, axis, 0)
            dx = np.zeros((shape[axis], *moved.shape[1:]), dy.dtype)
            np.add.at(dx, cells, moved)
            dy = np.moveaxis(dx, 0, axis)
        return dy


class Crop(Layer):
    """Fewer cells at both ends of the axes after the batch."""

    def __init__(self, crops):
        super().__init__()
        self.crops = ((0, 0), *crops)

    def forward(self, x, training):
        ends = zip(self.crops, x.shape, strict=True)
        return x[tuple(slice(low, n - high) for (low, high), n in ends)]

    def backward(self, dy):
        return np.pad(dy, self.crops)


class NearestUpsample(AlongAxes):
    """y[i] = x[floor((i + 1/2) * n / m)] along each axis"""

    def matrix(self, n, m):
        return np.eye(n)[(2 * np.arange(m) + 1) * n // (2 * m)]


class LinearUpsample(AlongAxes):
    """y[i] = (1 - w) * x[j] + w * x[j + 1], j + w = (i + 1/2) * n / m - 1/2, along each axis"""

    def matrix(self, n, m):
        centres = ((2 * np.arange(m) + 1) * n - m) / (2 * m)
        centres = np.clip(centres, 0, n - 1)[:, None]
        return np.maximum(1 - np.abs(centres - np.arange(n)), 0)
