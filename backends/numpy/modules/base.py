"""The reference layers: every block in plain NumPy, with an explicit forward and backward.

`forward` keeps what `backward` needs; `backward` takes the gradient of the output, adds to the
gradients of the parameters and returns the gradient of the input. Calls and their backwards pair up
last in, first out, so a layer may be used several times in one pass.
"""

from __future__ import annotations

import math

import numpy as np


class Layer:
    """The base: parameters with their gradients, running state, and layers inside."""

    def __init__(self, **params):
        self.params = {name: a for name, a in params.items() if a is not None}
        self.grads = {}
        self.frozen = set()
        self.state = {}
        self.children = {}
        self.saved = []
        self.zero_grad()

    def __call__(self, x, training=False):
        for layer in self.layers():
            layer.saved.clear()
        return self.forward(x, training)

    def layers(self):
        """The layer and all inside it, shared ones once."""
        found, todo = {}, [self]
        while todo:
            layer = todo.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                todo.extend(reversed(layer.children.values()))
        return list(found.values())

    def param(self):
        """(value, gradient) of every parameter that is not frozen."""
        return [
            (array, layer.grads[name])
            for layer in self.layers()
            for name, array in layer.params.items()
            if name not in layer.frozen
        ]

    def zero_grad(self):
        for layer in self.layers():
            params = layer.params.items()
            layer.grads = {name: np.zeros(a.shape, a.dtype) for name, a in params}

    def add_grad(self, name, gradient):
        if name in self.params:
            self.grads[name] += gradient

    def forward(self, x, training):
        raise NotImplementedError

    def backward(self, dy):
        raise NotImplementedError


def glorot(rng, shape):
    """Uniform numbers of variance 2 / (fan_in + fan_out), for a kernel (*window, in, out)."""
    bound = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return rng.uniform(-bound, bound, shape)


def batch_sum(a):
    """The sum over all axes but the last, in float64: NumPy adds rows one by one."""
    return a.reshape(-1, a.shape[-1]).sum(0, dtype=np.float64).astype(a.dtype)


def pad(x, padding, value=0.0):
    """Pad the axes between batch and channels."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def unpad(x, padding):
    """Cut off what `pad` added."""
    pairs = zip(padding, x.shape[1:-1], strict=True)
    return x[(slice(None), *(slice(low, n - high) for (low, high), n in pairs))]


class AlongAxes(Layer):
    """y = matrix(n, m) @ x along each spatial axis in turn, from its n cells to m"""

    def __init__(self, size=None, scale=None, channel_axis=-1):
        super().__init__()
        self.size = size
        self.scale = scale
        self.channel_axis = channel_axis

    def matrix(self, n, m):
        raise NotImplementedError

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        old = x.shape[1:-1]
        new = self.size or [n * times for n, times in zip(old, self.scale, strict=True)]
        sizes = zip(old, new, strict=True)
        matrices = [self.matrix(n, m).astype(x.dtype) for n, m in sizes]
        self.saved.append(matrices)
        for axis, matrix in enumerate(matrices, 1):
            x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
        return np.moveaxis(x, -1, self.channel_axis)

    def backward(self, dy):
        matrices, dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
        for axis, matrix in enumerate(matrices, 1):
            dy = np.moveaxis(np.tensordot(matrix.T, dy, (1, axis)), 0, axis)
        return np.moveaxis(dy, -1, self.channel_axis)


def offsets(shape, kernel_size, stride, dilation):
    """For each cell of a window that slides over padded axes, the slices that it sees."""
    steps = list(zip(shape, kernel_size, stride, dilation, strict=True))
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in steps]
    for cell in np.ndindex(*kernel_size):
        starts = [i * d for i, (_, _, _, d) in zip(cell, steps, strict=True)]
        slices = [
            slice(start, start + (size - 1) * s + 1, s)
            for start, size, (_, _, s, _) in zip(starts, sizes, steps, strict=True)
        ]
        yield cell, (slice(None), *slices)


ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key, places, calls):
    """Two words of 32 random bits for each place: Threefry-2x32, 20 rounds (Salmon et al. 2011)."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    a, b = places + keys[0], np.full_like(places, calls) + keys[1]
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            a = (a + b) & 0xFFFFFFFF
            b = b & 0xFFFFFFFF
            b = ((b << turn | b >> (32 - turn)) & 0xFFFFFFFF) ^ a
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + i + 1
    return a & 0xFFFFFFFF, b & 0xFFFFFFFF


class Stream:
    """Random bits for each element, the same on every backend; a mixin of layers.

    They have a `key`, and count their `calls`.
    """

    def bits(self, shape):
        places = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        self.calls += 1
        return threefry(self.key, places, self.calls - 1)
