"""Convolution in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer, batch_sum, glorot, offsets, pad, unpad


class Grouped(Layer):
    """What both convolutions share: channels in groups that do not see each other."""

    def split(self, x):
        """(..., channels) -> (groups, cells, channels of a group)"""
        cells, channels = math.prod(x.shape[:-1]), x.shape[-1]
        return x.reshape(cells, self.groups, channels // self.groups).swapaxes(0, 1)

    def join(self, x, shape):
        """(groups, cells, channels of a group) -> (..., channels)"""
        return x.swapaxes(0, 1).reshape(*shape[:-1], x.shape[0] * x.shape[-1])


class Conv(Grouped):
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


class ConvTranspose(Grouped):
    """y[p * stride + k * dilation] += x[p] @ kernel[k], group by group; then cropped, and + bias"""

    def __init__(
        self,
        inputs,
        features,
        kernel_size,
        stride,
        crop,
        dilation,
        groups=1,
        use_bias=True,
        channel_axis=-1,
        *,
        rng,
    ):
        kernel = glorot(rng, (*kernel_size, inputs, features // groups))
        super().__init__(kernel=kernel, bias=np.zeros(features) if use_bias else None)
        self.more = [(0, max(-high, 0)) for _, high in crop]
        self.less = [(low, max(high, 0)) for low, high in crop]
        self.window = kernel_size, stride, dilation
        self.groups = groups
        self.channel_axis = channel_axis

    def kernels(self):
        """The kernel as (*window, groups, in of a group, out of a group)."""
        kernel = self.params["kernel"]
        return kernel.reshape(*kernel.shape[:-2], self.groups, -1, kernel.shape[-1])

    def full(self, shape):
        """Spatial sizes of the result before it is cropped."""
        axes = zip(shape[1:-1], *self.window, strict=True)
        return [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in axes]

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        self.saved.append(x)
        kernels, xs = self.kernels(), self.split(x)
        sizes = self.full(x.shape)
        y = np.zeros((len(x), *sizes, self.groups * kernels.shape[-1]), x.dtype)
        for cell, seen in offsets(sizes, *self.window):
            y[seen] += self.join(xs @ kernels[cell], x.shape)
        y = unpad(pad(y, self.more), self.less)
        y = y + self.params["bias"] if "bias" in self.params else y
        return np.moveaxis(y, -1, self.channel_axis)

    def backward(self, dy):
        x, dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        self.add_grad("bias", batch_sum(dy))
        dy = unpad(pad(dy, self.less), self.more)
        dx, kernels, xs = 0, self.kernels(), self.split(x)
        for cell, seen in offsets(dy.shape[1:-1], *self.window):
            dys = self.split(dy[seen])
            dkernel = xs.swapaxes(1, 2) @ dys
            self.grads["kernel"][cell] += dkernel.reshape(-1, dkernel.shape[-1])
            dx = dx + self.join(dys @ kernels[cell].swapaxes(1, 2), x.shape)
        return np.moveaxis(dx, -1, self.channel_axis)
