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


def adaptive_avg_pool(x, output_size):
    """Means of as many windows as are asked for; they overlap where sizes do not divide."""
    for axis, m in enumerate(output_size, 1):
        n = x.shape[axis]
        bounds = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        means = [lax.slice_in_dim(x, low, high, axis=axis).mean(axis) for low, high in bounds]
        x = jnp.stack(means, axis)
    return x


def new_sizes(x, scale, size):
    return size or [n * times for n, times in zip(x.shape[1:-1], scale, strict=True)]


def nearest_upsample(x, scale=None, size=None):
    """The old cell at the centre of each new one, in integers, as floats miss it for some sizes."""
    for axis, m in enumerate(new_sizes(x, scale, size), 1):
        x = jnp.take(x, (2 * jnp.arange(m) + 1) * x.shape[axis] // (2 * m), axis)
    return x


def linear_upsample(x, scale=None, size=None):
    """Linear interpolation between the centres of the old cells, along each axis."""
    shape = (x.shape[0], *new_sizes(x, scale, size), x.shape[-1])
    return jax.image.resize(x, shape, "linear", antialias=False)


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
    """The input, or its shortcut, merged with the body in another way than by adding."""

    def __init__(self, body, shortcut=None, *, merge, axis=-1):
        super().__init__(body, shortcut)
        self.merge = merge
        self.axis = axis

    def __call__(self, x):
        around = x if self.shortcut is None else self.shortcut(x)
        return merged([around, self.body(x)], self.merge, self.axis)


class Parallel(nnx.Module):
    """Every branch receives the same input, and their outputs are merged."""

    def __init__(self, branches, merge, axis=-1):
        self.branches = nnx.List(branches)
        self.merge = merge
        self.axis = axis

    def __call__(self, *x):
        return merged([branch(*x) for branch in self.branches], self.merge, self.axis)
