"""Blocks written as einops patterns, in NumPy."""

from __future__ import annotations

import math

import einops
import numpy as np

from backends.numpy.modules.base import Layer


class Rearrange(Layer):
    """The same numbers elsewhere; each gradient goes back to where its number came from."""

    def __init__(self, pattern, **axes_lengths):
        super().__init__()
        self.pattern = pattern
        self.axes_lengths = axes_lengths

    def forward(self, x, training):
        self.saved.append(x.shape)
        return einops.rearrange(x, self.pattern, **self.axes_lengths)

    def backward(self, dy):
        batch, *sizes = self.saved.pop()
        cells = np.arange(math.prod(sizes)).reshape(1, *sizes)
        places = einops.rearrange(cells, self.pattern, **self.axes_lengths)
        dx = np.empty((batch, cells.size), dy.dtype)
        dx[:, places.reshape(-1)] = dy.reshape(batch, -1)
        return dx.reshape(batch, *sizes)


class Reduce(Layer):
    """A rearrangement that brings what is reduced into the last axis; then that axis is reduced.

    The first of equals receives the gradient of a maximum or a minimum.
    """

    def __init__(self, rows, reduction, **axes_lengths):
        super().__init__()
        self.children = {"rows": Rearrange(rows, **axes_lengths)}
        self.reduction = reduction

    def forward(self, x, training):
        rows = self.children["rows"].forward(x, training)
        self.saved.append(rows)
        return getattr(rows, self.reduction)(-1)

    def backward(self, dy):
        rows = self.saved.pop()
        drows = dy[..., None] * getattr(self, self.reduction)(rows)
        return self.children["rows"].backward(drows)

    # How each number of a row moves what comes of the row.

    def sum(self, rows):
        return np.ones_like(rows)

    def mean(self, rows):
        return np.ones_like(rows) / rows.shape[-1]

    def max(self, rows):
        return np.arange(rows.shape[-1]) == rows.argmax(-1)[..., None]

    def min(self, rows):
        return np.arange(rows.shape[-1]) == rows.argmin(-1)[..., None]

    def prod(self, rows):
        """The product of the others: of all before it and all after it."""
        ones = np.ones_like(rows[..., :1])
        before = np.cumprod(np.concatenate([ones, rows[..., :-1]], -1), -1)
        after = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], -1), -1)[..., ::-1]
        return before * after


def bare(side):
    """The axes of one side of a pattern, without brackets and axes of size 1."""
    axes = side.replace("(", " ").replace(")", " ").split()
    return [axis for axis in axes if axis != "1"]


def spread(axes, kept):
    """The axes with a 1 in place of those that are not kept."""
    return " ".join(axis if axis in kept else "1" for axis in axes)


class EinMix(Layer):
    """y = rearrange(einsum(rearrange(x), kernel) + bias)"""

    def __init__(self, pattern, weight_shape, bias_shape=None, *, rng, **axes_lengths):
        left, right = pattern.split("->")
        self.inputs, self.weights, self.outputs = (
            bare(left),
            weight_shape.split(),
            bare(right),
        )
        self.biases = bias_shape.split() if bias_shape else []
        summed = [axis for axis in self.weights if axis not in self.outputs]
        fan_in = math.prod(axes_lengths[axis] for axis in summed)
        bound = math.sqrt(3 / fan_in)
        bias = np.zeros([axes_lengths[axis] for axis in self.biases])
        super().__init__(
            kernel=rng.uniform(-bound, bound, [axes_lengths[a] for a in self.weights]),
            bias=bias if bias_shape else None,
        )
        lengths = {axis: n for axis, n in axes_lengths.items() if axis in self.inputs}
        self.children = {
            "split": Rearrange(f"{left} -> {' '.join(self.inputs)}", **lengths),
            "merge": Rearrange(f"{' '.join(self.outputs)} -> {right}"),
        }

    def forward(self, x, training):
        x = self.children["split"].forward(x, training)
        self.saved.append(x)
        y = mix(x, self.inputs, self.params["kernel"], self.weights, self.outputs)
        if self.biases:
            named = [axis for axis in self.outputs if axis != "..."]
            added = f"{' '.join(self.biases)} -> {spread(named, self.biases)}"
            y = y + einops.rearrange(self.params["bias"], added)
        return self.children["merge"].forward(y, training)

    def backward(self, dy):
        dy, x = self.children["merge"].backward(dy), self.saved.pop()
        summed = f"{' '.join(self.outputs)} -> {' '.join(self.biases)}"
        self.add_grad("bias", einops.reduce(dy, summed, "sum"))
        both = *merged(x, self.inputs), *merged(dy, self.outputs)
        self.add_grad("kernel", mix(*both, self.weights))
        # an axis that was only summed over gives its gradient to all its numbers
        others = *self.outputs, *self.weights
        seen = [axis for axis in self.inputs if axis in others]
        dx = mix(dy, self.outputs, self.params["kernel"], self.weights, seen)
        dx = einops.rearrange(dx, f"{' '.join(seen)} -> {spread(self.inputs, seen)}")
        return self.children["split"].backward(np.broadcast_to(dx, x.shape))


def mix(a, a_axes, b, b_axes, axes):
    """The einsum of two arrays, with names for axes."""
    pattern = f"{' '.join(a_axes)}, {' '.join(b_axes)} -> {' '.join(axes)}"
    return einops.einsum(a, b, pattern)


def merged(a, axes):
    """The axes behind "..." in one, which has a name; einsum cannot sum over "..." itself."""
    one = " ".join(axes).replace("...", "(...)")
    a = einops.rearrange(a, f"{' '.join(axes)} -> {one}")
    return a, one.replace("(...)", "_").split()
