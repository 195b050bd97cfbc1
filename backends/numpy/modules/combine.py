"""Combinators in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer
from backends.numpy.modules.value import Identity, unbroadcast


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
                others = [math.prod(ys[:i] + ys[i + 1 :]) for i in range(len(ys))]
                pairs = zip(others, ys, strict=True)
                return [unbroadcast(dy * other, y.shape) for other, y in pairs]
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
        branches = {"shortcut": shortcut or Identity(), "body": body}
        super().__init__(branches, merge="add")
