"""Convolution in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer, batch_sum, glorot, offsets, pad, unpad


class Conv(Layer):
    """y[p] = sum_k x[p * stride + k * dilation - before] @ kernel[k] + bias, group by group"""

    def __init__(
        self,
        inputs,
        features,
        kernel_size,
        stride,
        padding,
        dilation,
        groups=1,
        use_bias=True,
        channel_axis=-1,
        *,
        rng,
    ):
        kernel = glorot(rng, (*kernel_size, inputs // groups, features))
        super().__init__(kernel=kernel, bias=np.zeros(features) if use_bias else None)
        self.padding = padding
        self.window = kernel_size, stride, dilation
        self.groups = groups
        self.channel_axis = channel_axis

    def split(self, x):
        """(..., channels) -> (groups, cells, channels of a group)"""
        cells, channels = math.prod(x.shape[:-1]), x.shape[-1]
        return x.reshape(cells, self.groups, channels // self.groups).swapaxes(0, 1)

    def join(self, x, shape):
        """(groups, cells, channels of a group) -> (..., channels)"""
        return x.swapaxes(0, 1).reshape(*shape[:-1], x.shape[0] * x.shape[-1])

    def kernels(self):
        """The kernel as (*window, groups, in of a group, out of a group)."""
        kernel = self.params["kernel"]
        parts = kernel.reshape(*kernel.shape[:-1], self.groups, -1)
        return np.moveaxis(parts, -2, -3)

    def forward(self, x, training):
        x = pad(np.moveaxis(x, self.channel_axis, -1), self.padding)
        self.saved.append(x)
        kernels, y = self.kernels(), 0
        for cell, seen in offsets(x.shape[1:-1], *self.window):
            y = y + self.split(x[seen]) @ kernels[cell]
        y = self.join(y, x[seen].shape)
        y = y + self.params["bias"] if "bias" in self.params else y
        return np.moveaxis(y, -1, self.channel_axis)

    def backward(self, dy):
        x, dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        self.add_grad("bias", batch_sum(dy))
        dx, kernels, dys = np.zeros_like(x), self.kernels(), self.split(dy)
        for cell, seen in offsets(x.shape[1:-1], *self.window):
            dkernel = np.moveaxis(self.split(x[seen]).swapaxes(1, 2) @ dys, 0, 1)
            self.grads["kernel"][cell] += dkernel.reshape(dkernel.shape[0], -1)
            dx[seen] += self.join(dys @ kernels[cell].swapaxes(1, 2), dy.shape)
        return np.moveaxis(unpad(dx, self.padding), -1, self.channel_axis)
