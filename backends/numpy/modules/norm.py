"""Normalisation in NumPy."""

from __future__ import annotations

import numpy as np

from backends.numpy.modules.base import Layer, batch_sum


class BatchNorm(Layer):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, over batch and spatial axes"""

    def __init__(
        self,
        channels,
        epsilon,
        decay,
        use_scale=True,
        use_bias=True,
        channel_axis=-1,
    ):
        super().__init__(
            scale=np.ones(channels) if use_scale else None,
            bias=np.zeros(channels) if use_bias else None,
        )
        self.state = {"mean": np.zeros(channels), "var": np.ones(channels)}
        self.epsilon = epsilon
        self.decay = decay
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        if training:
            n = x.size // x.shape[-1]
            mean = batch_sum(x) / n
            var = batch_sum((x - mean) ** 2) / n
            for name, new in (("mean", mean), ("var", var)):
                old = self.state[name]
                self.state[name] = self.decay * old + (1 - self.decay) * new
        else:
            mean, var = self.state["mean"], self.state["var"]
        std = np.sqrt(var + self.epsilon)
        z = (x - mean) / std
        self.saved.append((z, std, training))
        y = z * self.params.get("scale", 1) + self.params.get("bias", 0)
        return np.moveaxis(y, -1, self.channel_axis)

    def backward(self, dy):
        (z, std, training), dy = (
            self.saved.pop(),
            np.moveaxis(dy, self.channel_axis, -1),
        )
        self.add_grad("scale", batch_sum(dy * z))
        self.add_grad("bias", batch_sum(dy))
        dz = dy * self.params.get("scale", 1)
        if training:  # the batch's mean and variance depend on x too
            n = z.size // z.shape[-1]
            dz = dz - batch_sum(dz) / n - z * (batch_sum(dz * z) / n)
        return np.moveaxis(dz / std, -1, self.channel_axis)


class LayerNorm(Layer):
    """y = (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias, over the trailing axes"""

    def __init__(self, shape, epsilon, use_scale=True, use_bias=True):
        super().__init__(
            scale=np.ones(shape) if use_scale else None,
            bias=np.zeros(shape) if use_bias else None,
        )
        self.axes = tuple(range(-len(shape), 0))
        self.epsilon = epsilon

    def forward(self, x, training):
        centred = x - x.mean(self.axes, keepdims=True)
        std = np.sqrt((centred**2).mean(self.axes, keepdims=True) + self.epsilon)
        z = centred / std
        self.saved.append((z, std))
        return z * self.params.get("scale", 1) + self.params.get("bias", 0)

    def backward(self, dy):
        z, std = self.saved.pop()
        others = tuple(range(dy.ndim - len(self.axes)))
        self.add_grad("scale", (dy * z).sum(others))
        self.add_grad("bias", dy.sum(others))
        dz = dy * self.params.get("scale", 1)
        mean = dz.mean(self.axes, keepdims=True)
        return (dz - mean - z * (dz * z).mean(self.axes, keepdims=True)) / std


class GroupNorm(Layer):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, over spatial axes and each group"""

    def __init__(
        self,
        channels,
        groups,
        epsilon,
        use_scale=True,
        use_bias=True,
        channel_axis=-1,
    ):
        super().__init__(
            scale=np.ones(channels) if use_scale else None,
            bias=np.zeros(channels) if use_bias else None,
        )
        self.groups = groups
        self.epsilon = epsilon
        self.channel_axis = channel_axis

    def split(self, x):
        """(batch, *spatial, channels) -> (batch, cells, groups, channels of a group)"""
        return x.reshape(len(x), -1, self.groups, x.shape[-1] // self.groups)

    def mean(self, x):
        return x.mean((1, 3), keepdims=True)

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        rows = self.split(x)
        centred = rows - self.mean(rows)
        std = np.sqrt(self.mean(centred**2) + self.epsilon)
        z = centred / std
        self.saved.append((z, std))
        scale, bias = self.params.get("scale", 1), self.params.get("bias", 0)
        y = z.reshape(x.shape) * scale + bias
        return np.moveaxis(y, -1, self.channel_axis)

    def backward(self, dy):
        (z, std), dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        self.add_grad("scale", batch_sum(dy * z.reshape(dy.shape)))
        self.add_grad("bias", batch_sum(dy))
        dz = self.split(dy * self.params.get("scale", 1))
        dx = (dz - self.mean(dz) - z * self.mean(dz * z)) / std
        return np.moveaxis(dx.reshape(dy.shape), -1, self.channel_axis)


class RMSNorm(Layer):
    """y = x / sqrt(mean(x^2) + epsilon) * scale, over the trailing axes"""

    def __init__(self, shape, epsilon, use_scale=True):
        super().__init__(scale=np.ones(shape) if use_scale else None)
        self.axes = tuple(range(-len(shape), 0))
        self.epsilon = epsilon

    def forward(self, x, training):
        rms = np.sqrt((x**2).mean(self.axes, keepdims=True) + self.epsilon)
        z = x / rms
        self.saved.append((z, rms))
        return z * self.params.get("scale", 1)

    def backward(self, dy):
        z, rms = self.saved.pop()
        self.add_grad("scale", (dy * z).sum(tuple(range(dy.ndim - len(self.axes)))))
        dz = dy * self.params.get("scale", 1)
        return (dz - z * (dz * z).mean(self.axes, keepdims=True)) / rms
