"""The neutral operations in JAX's words; functions of our own where its arguments differ."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax


def _argmax(x, axis):
    return jnp.argmax(x, axis).astype("int32")


def _argmin(x, axis):
    return jnp.argmin(x, axis).astype("int32")


def _zeros(shape, like):
    return jnp.zeros(shape, like.dtype)


def _ones(shape, like):
    return jnp.ones(shape, like.dtype)


def _full(shape, value, like):
    return jnp.full(shape, value, like.dtype)


def _eye(rows, columns, like):
    return jnp.eye(rows, columns, dtype=like.dtype)


def _arange(stop, like):
    return jnp.arange(stop, dtype=like.dtype)


def _take(x, indices, axis):
    """jnp.take wants no list."""
    return jnp.take(x, jnp.asarray(indices), axis)


def _while_loop(goes_on, body, value, limit):
    """A loop of known length, so that it has a gradient; nothing happens after its end."""

    def step(_, value):
        return lax.cond(goes_on(value), body, lambda value: value, value)

    return lax.fori_loop(0, limit, step, value)


SAME = (
    *("abs", "sign", "square", "sqrt", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
    *(
        "floor",
        "ceil",
        "round",
        "isfinite",
        "isnan",
        "logical_not",
        "zeros_like",
        "ones_like",
    ),
    *("sum", "mean", "prod", "max", "min", "var", "std", "any", "all"),
    *(
        "logaddexp",
        "arctan2",
        "logical_and",
        "logical_or",
        "maximum",
        "minimum",
        "power",
    ),
    *("where", "clip", "cumsum", "matmul", "einsum", "tensordot"),
    *(
        "shape",
        "reshape",
        "transpose",
        "swapaxes",
        "moveaxis",
        "expand_dims",
        "squeeze",
    ),
    *(
        "broadcast_to",
        "concatenate",
        "stack",
        "split",
        "flip",
        "roll",
        "repeat",
        "tile",
    ),
    *("pad", "tril", "triu", "full_like", "astype"),
)
OTHER = {
    "sigmoid": "nnx.sigmoid",
    "softmax": "nnx.softmax",
    "stop_gradient": "lax.stop_gradient",
    "cond": "lax.cond",
}
OWN = (
    *(
        "argmax",
        "argmin",
        "zeros",
        "ones",
        "full",
        "eye",
        "arange",
        "take",
        "while_loop",
    ),
)
WORDS = {name: f"jnp.{name}" for name in SAME} | {name: f"_{name}" for name in OWN} | OTHER
