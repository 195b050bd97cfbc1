"""Pooling in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import AlongAxes, Layer, offsets, pad, unpad


class MaxPool(Layer):
    """The largest number of each window; the first of equals receives the gradient."""

    def __init__(self, kernel_size, stride, padding, channel_axis=-1):
        super().__init__()
        self.window = kernel_size, stride, (1,) * len(kernel_size)
        self.padding = padding
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = pad(np.moveaxis(x, self.channel_axis, -1), self.padding, -np.inf)
        cells = np.stack([x[seen] for _, seen in offsets(x.shape[1:-1], *self.window)])
        self.saved.append((x.shape, cells.argmax(0)))
        return np.moveaxis(cells.max(0), -1, self.channel_axis)

    def backward(self, dy):
        (shape, winner), dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        dx = np.zeros(shape, dy.dtype)
        for i, (_, seen) in enumerate(offsets(shape[1:-1], *self.window)):
            dx[seen] += dy * (winner == i)
        return np.moveaxis(unpad(dx, self.padding), -1, self.channel_axis)


class AvgPool(Layer):
    """The sum of each window over its number of cells, real ones or all."""

    def __init__(
        self,
        kernel_size,
        stride,
        padding,
        count_include_pad=False,
        channel_axis=-1,
    ):
        super().__init__()
        self.window = kernel_size, stride, (1,) * len(kernel_size)
        self.padding = padding
        self.count_include_pad = count_include_pad
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        real = np.ones((1, *x.shape[1:-1], 1), x.dtype)
        x, real = (
            pad(x, self.padding),
            pad(real, self.padding, float(self.count_include_pad)),
        )
        seen = [seen for _, seen in offsets(x.shape[1:-1], *self.window)]
        counts = sum(real[cells] for cells in seen)
        self.saved.append((x.shape, counts))
        means = sum(x[cells] for cells in seen) / counts
        return np.moveaxis(means, -1, self.channel_axis)

    def backward(self, dy):
        (shape, counts), dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        dx = np.zeros(shape, dy.dtype)
        for _, seen in offsets(shape[1:-1], *self.window):
            dx[seen] += dy / counts
        return np.moveaxis(unpad(dx, self.padding), -1, self.channel_axis)


class GlobalAvgPool(Layer):
    """The mean over all axes but batch and channels."""

    def __init__(self, channel_axis=-1):
        super().__init__()
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        self.saved.append(x.shape)
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    def backward(self, dy):
        shape = self.saved.pop()
        dy = dy.reshape(len(dy), *(1,) * (len(shape) - 2), -1) / math.prod(shape[1:-1])
        return np.moveaxis(np.broadcast_to(dy, shape), -1, self.channel_axis)


class GlobalMaxPool(Layer):
    """The largest number over all axes but batch and channels; the first of equals wins."""

    def __init__(self, channel_axis=-1):
        super().__init__()
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        rows = x.reshape(len(x), -1, x.shape[-1])
        self.saved.append((x.shape, rows.argmax(1)))
        return rows.max(1)

    def backward(self, dy):
        shape, winner = self.saved.pop()
        dx = np.zeros((shape[0], math.prod(shape[1:-1]), shape[-1]), dy.dtype)
        np.put_along_axis(dx, winner[:, None], dy[:, None], 1)
        return np.moveaxis(dx.reshape(shape), -1, self.channel_axis)


class AdaptiveAvgPool(AlongAxes):
    """Means of windows: row i has those of the cells from i * n / m to (i + 1) * n / m, rounded"""

    def matrix(self, n, m):
        rows, cells = np.arange(m)[:, None], np.arange(n)
        inside = (cells >= rows * n // m) & (cells < -(-(rows + 1) * n // m))
        return inside / inside.sum(1, keepdims=True)
