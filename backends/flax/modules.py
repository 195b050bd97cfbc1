"""What flax needs beside its own layers. A printed listing holds those that it uses."""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def flatten(x):
    """All axes but the batch in one."""
    return x.reshape(x.shape[0], -1)


def identity(*x):
    """The input; nnx.Sequential hands a tuple over as several arguments."""
    return x if len(x) > 1 else x[0]


def select(*x, index):
    """One member of a tuple."""
    return x[index]


def leaky_relu(x, slope):
    """nnx.leaky_relu with the slope, not 1, as its gradient at 0."""
    return jnp.where(x > 0, x, slope * x)


def hard_tanh(x):
    """nnx.hard_tanh with gradient 0, not 1, at both ends."""
    return jnp.where(x >= 1, 1, jnp.where(x <= -1, -1, x))


def tanh_shrink(x):
    return x - jnp.tanh(x)


def soft_shrink(x, threshold):
    return jnp.where(jnp.abs(x) > threshold, x - jnp.sign(x) * threshold, 0)


def hard_shrink(x, threshold):
    return jnp.where(jnp.abs(x) > threshold, x, 0)


def reshape(x, shape):
    """The same numbers in another shape, after the batch."""
    return x.reshape(x.shape[0], *shape)


def crop(x, crops):
    """Fewer cells at both ends of the axes after the batch."""
    for axis, (low, high) in enumerate(crops, 1):
        x = lax.slice_in_dim(x, low, x.shape[axis] - high, axis=axis)
    return x


class SeveralAxes(nnx.Module):
    """A norm over several trailing axes: nnx creates its parameters for one axis only."""

    def __init__(self, shape, **kwargs):
        super().__init__(math.prod(shape), **kwargs)
        self.rank = len(shape)

    def __call__(self, x):
        rows = x.reshape(*x.shape[: x.ndim - self.rank], -1)
        return super().__call__(rows).reshape(x.shape)


class LayerNorm(SeveralAxes, nnx.LayerNorm):
    pass


class RMSNorm(SeveralAxes, nnx.RMSNorm):
    pass


class Residual(nnx.Module):
    """The input, or its shortcut, plus the body."""

    def __init__(self, body, shortcut=None):
        self.shortcut = shortcut
        self.body = body

    def __call__(self, x):
        around = x if self.shortcut is None else self.shortcut(x)
        return around + self.body(x)


def merged(outputs, merge, axis):
    if merge == "add":
        return reduce(jnp.add, outputs)
    if merge == "multiply":
        return reduce(jnp.multiply, outputs)
    if merge == "mean":
        return reduce(jnp.add, outputs) / len(outputs)
    if merge == "max":
        return reduce(jnp.maximum, outputs)
    if merge == "concat":
        return jnp.concatenate(outputs, axis)
    if merge == "stack":
        return jnp.stack(outputs, axis)
    return tuple(outputs)


class MergedResidual(Residual):
    """The input, or its shortcut, merged with the body in any way; x may be a tuple."""

    def __init__(self, body, shortcut=None, *, merge, axis=-1):
        super().__init__(body, shortcut)
        self.merge = merge
        self.axis = axis

    def __call__(self, *x):
        around = x[0] if self.shortcut is None else self.shortcut(*x)
        return merged([around, self.body(*x)], self.merge, self.axis)


class Parallel(nnx.Module):
    """Every branch receives the same input, and their outputs are merged."""

    def __init__(self, branches, merge, axis=-1):
        self.branches = nnx.List(branches)
        self.merge = merge
        self.axis = axis

    def __call__(self, *x):
        return merged([branch(*x) for branch in self.branches], self.merge, self.axis)


class Constant(nnx.Variable):
    """An array that is saved with the model but has no gradient."""


class Custom(nnx.Module):
    """Code of one's own on parameters and constants."""

    def __init__(self, params=None, constants=None, dtype=None, **fields):
        for name, value in (params or {}).items():
            setattr(self, name, nnx.Param(value))
        for name, value in (constants or {}).items():
            setattr(self, name, Constant(value))
        for name, value in fields.items():
            setattr(self, name, value)
        self.arrays = (*(params or {}), *(constants or {}))
        self.dtype = dtype

    def __call__(self, *x):
        arrays = {name: getattr(self, name)[...] for name in self.arrays}
        if self.dtype is not None:
            arrays = {name: value.astype(self.dtype) for name, value in arrays.items()}
        return self.compute(x if len(x) > 1 else x[0], **arrays)


def normal(rngs, shape, mean, std, dtype=None):
    return mean + std * jax.random.normal(rngs.params(), shape, dtype)


def uniform(rngs, shape, low, high, dtype=None):
    return jax.random.uniform(rngs.params(), shape, dtype, low, high)


def orthogonal(rngs, shape, gain, dtype=None):
    return nnx.initializers.orthogonal(gain)(rngs.params(), shape, dtype)
