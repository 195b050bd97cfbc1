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
        self.params = {name: array for name, array in params.items() if array is not None}
        self.grads = {}
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
        """(value, gradient) of every parameter."""
        return [
            (array, layer.grads[name])
            for layer in self.layers()
            for name, array in layer.params.items()
        ]

    def zero_grad(self):
        for layer in self.layers():
            layer.grads = {name: np.zeros_like(p) for name, p in layer.params.items()}

    def add_grad(self, name, gradient):
        if name in self.params:
            self.grads[name] += gradient

    def forward(self, x, training):
        raise NotImplementedError

    def backward(self, dy):
        raise NotImplementedError


def glorot(rng, shape):
    """Uniform numbers of variance 2 / (fan_in + fan_out), for a kernel (*window, in, out)."""
    fans = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
    return rng.uniform(-1, 1, shape) * math.sqrt(6 / fans)


def batch_sum(a):
    """The sum over all axes but the last, in float64: NumPy adds rows one by one."""
    return a.reshape(-1, a.shape[-1]).sum(0, dtype=np.float64).astype(a.dtype)


# linear


class Dense(Layer):
    """y = x @ kernel + bias"""

    def __init__(self, inputs, features, use_bias=True, *, rng):
        kernel = glorot(rng, (inputs, features))
        super().__init__(kernel=kernel, bias=np.zeros(features) if use_bias else None)

    def forward(self, x, training):
        self.saved.append(x)
        y = x @ self.params["kernel"]
        return y + self.params["bias"] if "bias" in self.params else y

    def backward(self, dy):
        x = self.saved.pop()
        rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        self.add_grad("kernel", rows.T @ dys)
        self.add_grad("bias", batch_sum(dy))
        return dy @ self.params["kernel"].T


# conv


def pad(x, padding, value=0.0):
    """Pad the axes between batch and channels."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def unpad(x, padding):
    """Cut off what `pad` added."""
    middle = (slice(low, n - high) for (low, high), n in zip(padding, x.shape[1:-1], strict=True))
    return x[(slice(None), *middle)]


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


# pool


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

    def __init__(self, kernel_size, stride, padding, count_include_pad=False, channel_axis=-1):
        super().__init__()
        self.window = kernel_size, stride, (1,) * len(kernel_size)
        self.padding = padding
        self.count_include_pad = count_include_pad
        self.channel_axis = channel_axis

    def forward(self, x, training):
        x = np.moveaxis(x, self.channel_axis, -1)
        real = np.ones((1, *x.shape[1:-1], 1), x.dtype)
        x, real = pad(x, self.padding), pad(real, self.padding, float(self.count_include_pad))
        seen = [seen for _, seen in offsets(x.shape[1:-1], *self.window)]
        counts = sum(real[cells] for cells in seen)
        self.saved.append((x.shape, counts))
        return np.moveaxis(sum(x[cells] for cells in seen) / counts, -1, self.channel_axis)

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


# norm


class BatchNorm(Layer):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, over batch and spatial axes"""

    def __init__(self, channels, epsilon, decay, use_scale=True, use_bias=True, channel_axis=-1):
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
                self.state[name] = self.decay * self.state[name] + (1 - self.decay) * new
        else:
            mean, var = self.state["mean"], self.state["var"]
        std = np.sqrt(var + self.epsilon)
        z = (x - mean) / std
        self.saved.append((z, std, training))
        y = z * self.params.get("scale", 1) + self.params.get("bias", 0)
        return np.moveaxis(y, -1, self.channel_axis)

    def backward(self, dy):
        (z, std, training), dy = self.saved.pop(), np.moveaxis(dy, self.channel_axis, -1)
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

    def __init__(self, channels, groups, epsilon, use_scale=True, use_bias=True, channel_axis=-1):
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
        y = z.reshape(x.shape) * self.params.get("scale", 1) + self.params.get("bias", 0)
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


# activation


class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) along an axis"""

    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def forward(self, x, training):
        y = np.exp(x - x.max(self.axis, keepdims=True))
        y /= y.sum(self.axis, keepdims=True)
        self.saved.append(y)
        return y

    def backward(self, dy):
        y = self.saved.pop()
        return y * (dy - (dy * y).sum(self.axis, keepdims=True))


class LogSoftmax(Softmax):
    """y = x - log(sum(exp(x))) along an axis"""

    def forward(self, x, training):
        x = x - x.max(self.axis, keepdims=True)
        y = x - np.log(np.exp(x).sum(self.axis, keepdims=True))
        self.saved.append(y)
        return y

    def backward(self, dy):
        y = self.saved.pop()
        return dy - np.exp(y) * dy.sum(self.axis, keepdims=True)


class Elementwise(Layer):
    """A function of each number alone: y = f(x), dx = dy * f'(x)."""

    def forward(self, x, training):
        self.saved.append(x)
        return self.function(x)

    def backward(self, dy):
        return dy * self.derivative(self.saved.pop())


class ReLU(Elementwise):
    def function(self, x):
        return np.maximum(x, 0)

    def derivative(self, x):
        return x > 0


class ReLU6(Elementwise):
    def function(self, x):
        return np.clip(x, 0, 6)

    def derivative(self, x):
        return (x > 0) & (x < 6)


class LeakyReLU(Elementwise):
    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def function(self, x):
        return np.where(x > 0, x, self.slope * x)

    def derivative(self, x):
        return np.where(x > 0, 1, self.slope).astype(x.dtype)


class ELU(Elementwise):
    def __init__(self, alpha):
        super().__init__()
        self.alpha = alpha

    def function(self, x):
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def derivative(self, x):
        return np.where(x > 0, 1, self.alpha * np.exp(np.minimum(x, 0))).astype(x.dtype)


class SELU(ELU):
    scale = 1.0507009873554805

    def __init__(self):
        super().__init__(1.6732632423543772)

    def function(self, x):
        return self.scale * super().function(x)

    def derivative(self, x):
        return self.scale * super().derivative(x)


class CELU(ELU):
    def function(self, x):
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def derivative(self, x):
        return np.where(x > 0, 1, np.exp(np.minimum(x, 0) / self.alpha)).astype(x.dtype)


def erf(x):
    """The error function, number by number."""
    return np.vectorize(math.erf, otypes=[float])(x).astype(x.dtype)


class GELU(Elementwise):
    def phi(self, x):
        """The normal distribution function."""
        return (1 + erf(x / math.sqrt(2))) / 2

    def function(self, x):
        return x * self.phi(x)

    def derivative(self, x):
        return self.phi(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


class TanhGELU(Elementwise):
    def inner(self, x):
        return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)

    def function(self, x):
        return x * (1 + np.tanh(self.inner(x))) / 2

    def derivative(self, x):
        t = np.tanh(self.inner(x))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return (1 + t) / 2 + x * (1 - t**2) * slope / 2


class Sigmoid(Elementwise):
    def function(self, x):
        return (1 + np.tanh(x / 2)) / 2

    def derivative(self, x):
        return (1 - np.tanh(x / 2) ** 2) / 4


class LogSigmoid(Elementwise):
    def function(self, x):
        return -np.logaddexp(0, -x)

    def derivative(self, x):
        return (1 - np.tanh(x / 2)) / 2


class SiLU(Sigmoid):
    def function(self, x):
        return x * super().function(x)

    def derivative(self, x):
        return super().function(x) + x * super().derivative(x)


class Tanh(Elementwise):
    def function(self, x):
        return np.tanh(x)

    def derivative(self, x):
        return 1 - np.tanh(x) ** 2


class Softplus(Elementwise):
    def function(self, x):
        return np.logaddexp(x, 0)

    def derivative(self, x):
        return (1 + np.tanh(x / 2)) / 2


class Mish(Softplus):
    def function(self, x):
        return x * np.tanh(super().function(x))

    def derivative(self, x):
        t = np.tanh(super().function(x))
        return t + x * (1 - t**2) * super().derivative(x)


class Softsign(Elementwise):
    def function(self, x):
        return x / (1 + np.abs(x))

    def derivative(self, x):
        return 1 / (1 + np.abs(x)) ** 2


class HardSigmoid(Elementwise):
    def function(self, x):
        return np.clip(x + 3, 0, 6) / 6

    def derivative(self, x):
        return ((x > -3) & (x < 3)) / x.dtype.type(6)


class HardSiLU(HardSigmoid):
    def function(self, x):
        return x * super().function(x)

    def derivative(self, x):
        return super().function(x) + x * super().derivative(x)


class HardTanh(Elementwise):
    def function(self, x):
        return np.clip(x, -1, 1)

    def derivative(self, x):
        return (x > -1) & (x < 1)


class TanhShrink(Elementwise):
    def function(self, x):
        return x - np.tanh(x)

    def derivative(self, x):
        return np.tanh(x) ** 2


class Shrink(Elementwise):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def derivative(self, x):
        return np.abs(x) > self.threshold


class SoftShrink(Shrink):
    def function(self, x):
        return np.sign(x) * np.maximum(np.abs(x) - self.threshold, 0)


class HardShrink(Shrink):
    def function(self, x):
        return x * self.derivative(x)


# regularisation


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


# shape


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


# value


class Identity(Layer):
    """The input."""

    def forward(self, x, training):
        return x

    def backward(self, dy):
        return dy


# combine


class Group(Layer):
    """Layers with names: positions, or the keys of a dict."""

    def __init__(self, children):
        super().__init__()
        named = children.items() if isinstance(children, dict) else enumerate(children)
        self.children = {str(name): child for name, child in named}


class Sequential(Group):
    """One layer after the other."""

    def forward(self, x, training):
        for layer in self.children.values():
            x = layer.forward(x, training)
        return x

    def backward(self, dy):
        for layer in reversed(self.children.values()):
            dy = layer.backward(dy)
        return dy


def total(values):
    """The sum of arrays, or of tuples of arrays, member by member."""
    first, *others = values
    for other in others:
        if isinstance(first, tuple):
            first = tuple(total(pair) for pair in zip(first, other, strict=True))
        else:
            first = first + other
    return first


class Parallel(Group):
    """Every branch receives the same input, and their outputs are merged."""

    def __init__(self, children, merge, axis=1):
        super().__init__(children)
        self.merge = merge
        self.axis = axis

    def forward(self, x, training):
        ys = [layer.forward(x, training) for layer in self.children.values()]
        self.saved.append(ys)
        match self.merge:
            case "add":
                return total(ys)
            case "multiply":
                return math.prod(ys)
            case "mean":
                return total(ys) / len(ys)
            case "max":
                return np.max(ys, axis=0)
            case "concat":
                return np.concatenate(ys, self.axis)
            case "stack":
                return np.stack(ys, self.axis)
        return tuple(ys)

    def split(self, dy, ys):
        """The gradient of each branch's output."""
        match self.merge:
            case "add":
                return [dy] * len(ys)
            case "multiply":
                return [dy * math.prod(ys[:i] + ys[i + 1 :]) for i in range(len(ys))]
            case "mean":
                return [dy / len(ys)] * len(ys)
            case "max":
                wins = np.equal(ys, np.max(ys, axis=0))
                return list(dy * wins / wins.sum(0, dtype=dy.dtype))
            case "concat":
                ends = np.cumsum([y.shape[self.axis] for y in ys])
                return np.split(dy, ends[:-1], self.axis)
            case "stack":
                return list(np.moveaxis(dy, self.axis, 0))
        return list(dy)

    def backward(self, dy):
        dys = self.split(dy, self.saved.pop())
        branches = list(zip(self.children.values(), dys, strict=True))
        # last in, first out: a layer shared by two branches was called last by the later one
        return total([layer.backward(part) for layer, part in reversed(branches)])


class Residual(Parallel):
    """The input, or its shortcut, plus the body."""

    def __init__(self, body, shortcut=None):
        super().__init__({"shortcut": shortcut or Identity(), "body": body}, merge="add")
