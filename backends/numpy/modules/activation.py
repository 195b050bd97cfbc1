"""Activations in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer


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
