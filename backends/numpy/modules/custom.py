"""Blocks that users write, in NumPy: the backward comes from autograd."""

from __future__ import annotations

import math
import warnings

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp

from backends.numpy.modules.base import Layer


class Custom(Layer):
    """y = compute(x, **params, **constants)"""

    def __init__(self, params=None, constants=None, **fields):
        super().__init__(**(params or {}))
        self.state = constants or {}
        for name, value in fields.items():
            setattr(self, name, value)

    def compute(self, x, **arrays):
        raise NotImplementedError

    def forward(self, x, training):
        self.saved.append(x)
        return self.compute(x, **self.params, **self.state)

    def backward(self, dy):
        x = self.saved.pop()
        inputs = members(x)
        floats = [i for i, a in enumerate(inputs) if a.dtype.kind == "f"]

        def total(numbers, params):
            arrays = list(inputs)
            for i, number in zip(floats, numbers, strict=True):
                arrays[i] = number
            y = self.compute(rebuilt(x, iter(arrays)), **params, **self.state)
            pairs = zip(members(dy), members(y), strict=True)
            return sum(anp.sum(a * b) for a, b in pairs)

        with warnings.catch_warnings():  # the output need not depend on the input
            warnings.filterwarnings("ignore", "Output seems independent of input")
            back, _ = make_vjp(total, (0, 1))([inputs[i] for i in floats], self.params)
        numbers, params = back(1.0)
        for name, gradient in params.items():
            self.add_grad(name, gradient)
        grads = [np.zeros(a.shape) for a in inputs]
        for i, gradient in zip(floats, numbers, strict=True):
            grads[i] = gradient.astype(inputs[i].dtype)
        return rebuilt(x, iter(grads))


def members(value):
    """The arrays of a value, in order."""
    if not isinstance(value, tuple):
        return [value]
    return [a for v in value for a in members(v)]


def rebuilt(value, arrays):
    """A value of the same form from other arrays."""
    if isinstance(value, tuple):
        return tuple(rebuilt(v, arrays) for v in value)
    return next(arrays)


def orthogonal(rng, shape, gain):
    """A matrix with orthonormal rows or columns, times the gain; all axes but the last are rows."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, _ = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    return gain * (q if rows >= columns else q.T).reshape(shape)
