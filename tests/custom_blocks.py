"""Blocks as users write them, for the table: parameters, constants, control flow, tuples."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

import blocks as bl
from blocks.initializers import Init

HALF = 0.5
PAIR = (1.0, -2.0)


class Gated(bl.Custom):
    """A Dense layer, squashed a few times, leaking below 0."""

    features: int = 4
    steps: int = 3
    use_bias: bool = True
    kernel_init: Init = "glorot_uniform"

    def param_specs(self, x):
        specs = {"kernel": bl.ParamSpec((x.shape[-1], self.features), self.kernel_init)}
        if self.use_bias:
            specs["bias"] = bl.ParamSpec((self.features,), "normal")
        return specs

    def out_spec(self, x):
        return x.with_shape((*x.shape[:-1], self.features))

    def forward(self, ops, x, kernel, bias=None):
        y = ops.matmul(x, kernel)
        if bias is not None:
            y = y + bias
        for _ in range(self.steps):
            y = ops.tanh(y)
        return ops.where(y > 0, y, 0.1 * y)


class Bounded(bl.Custom):
    """A Dense layer whose kernel is squashed if it is large: it branches on a value."""

    limit: float = 0.01

    def param_specs(self, x):
        return {"kernel": bl.ParamSpec((x.shape[-1], 2), "he_normal")}

    def out_spec(self, x):
        return x.with_shape((*x.shape[:-1], 2))

    def forward(self, ops, x, kernel):
        largest = ops.max(ops.abs(kernel))
        if largest > self.limit:
            kernel = ops.tanh(kernel)
        return ops.matmul(x, kernel)


class FixedHidden(bl.Custom):
    """Random weights that never change, a layer used twice, and a loop on values.

    After "Dive into Deep Learning", section 6.1, but each example is halved for itself.
    """

    hidden: int = 6
    bound: float = 1.0

    def param_specs(self, x):
        size = x.shape[-1]
        return {
            "fixed": bl.ParamSpec((size, self.hidden), "uniform", trainable=False),
            "kernel": bl.ParamSpec((self.hidden, self.hidden), "glorot_normal"),
            "bias": bl.ParamSpec((self.hidden,), "zeros"),
        }

    def out_spec(self, x):
        return x.with_shape((*x.shape[:-1], self.hidden))

    def layer(self, ops, x, kernel, bias):
        return ops.maximum(ops.matmul(x, kernel) + bias, 0)

    def forward(self, ops, x, fixed, kernel, bias):
        x = ops.tanh(ops.matmul(x, fixed) + 1)
        x = self.layer(ops, x, kernel, bias)
        x = self.layer(ops, x, kernel, bias=bias)
        large = norm(ops, x) > self.bound
        while ops.any(large):
            x = ops.where(large, x / 2, x)
            large = norm(ops, x) > self.bound
        return x


def norm(ops: Any, x: Any) -> Any:
    """The sum of the sizes along the last axis."""
    return ops.sum(ops.abs(x), axis=-1, keepdims=True)


class Either(bl.Custom):
    """One of two computations, by the sign of a parameter, in a form that can be compiled."""

    shift: float = -1.0

    def param_specs(self, x):
        return {"gate": bl.ParamSpec((), "ones")}

    def forward(self, ops, x, gate):
        def up(x, gate):
            return x * gate

        return ops.cond(
            gate + self.shift > -HALF, up, lambda x, gate: ops.exp(-x * x) + gate, x, gate
        )


class Halved(bl.Custom):
    """Halves each row until it is small, in a form that can be compiled; at most `limit` times."""

    limit: int = 6
    bound: float = 0.7

    def forward(self, ops, x):
        def large(x):
            return ops.max(ops.abs(x), axis=-1, keepdims=True) > self.bound

        return ops.while_loop(
            lambda x: ops.any(large(x)),
            lambda x: ops.where(large(x), x / 2, x),
            x,
            self.limit,
        )


class Bilinear(bl.Custom):
    """y[o] = a @ kernel[o] @ b, for a tuple of vectors."""

    features: int = 4

    def param_specs(self, x):
        a, b = x
        return {"kernel": bl.ParamSpec((self.features, a.shape[-1], b.shape[-1]), "normal")}

    def out_spec(self, x):
        return x[0].with_shape((self.features,))

    def forward(self, ops, x, kernel):
        a, b = x
        return ops.einsum("bi,oij,bj->bo", a, kernel, b)


class Moments(bl.Custom):
    """Mean and spread along an axis of any length, as a tuple."""

    spread: str = "std"
    power: int = 2

    def out_spec(self, x):
        return (x.with_shape(x.shape[1:]), x.with_shape(x.shape[1:]))

    @property
    def epsilon(self):
        return 10 ** (-self.power)

    @staticmethod
    def mean_along(ops, x):
        return ops.mean(x, axis=1)

    def forward(self, ops, x):
        mean = self.mean_along(ops, x)
        spread = ops.var(x, axis=1)
        if self.spread == "std":
            spread = ops.sqrt(spread + self.epsilon)
        return mean, spread


class Positions(bl.Custom):
    """Adds sines of the position to a sequence of any length (Vaswani et al. 2017)."""

    base: float = 100.0
    offsets: tuple[float, ...] = (0.0, 0.5)

    scale = 1.5

    def waves(self, ops, x, offset):
        where = ops.arange(x.shape[1], like=x) + offset
        rates = [self.base ** (-i / x.shape[2]) for i in range(x.shape[2])]
        return ops.stack([ops.sin(where * rate + math.pi / 4) for rate in rates], axis=-1)

    def forward(self, ops, x):
        waves = [self.waves(ops, x, offset) for offset in self.offsets]
        slope = float(np.sqrt(2.0)) * PAIR[0]
        return x + slope * self.scale * reduce(lambda a, b: a + b, waves)
