"""The neutral operations in the words of autograd, which is NumPy with gradients."""

from __future__ import annotations

import autograd.numpy as anp
from autograd.tracer import getval


def _sigmoid(x):
    return anp.exp(-anp.logaddexp(0, -x))


def _softmax(x, axis=-1):
    e = anp.exp(x - getval(anp.max(x, axis, keepdims=True)))
    return e / anp.sum(e, axis, keepdims=True)


def _stop_gradient(x):
    return getval(x)


def _argmax(x, axis):
    return anp.argmax(x, axis).astype("int32")


def _argmin(x, axis):
    return anp.argmin(x, axis).astype("int32")


def _flip(x, axis):
    """By slices: autograd has no gradient of np.flip."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    axes = [axis % x.ndim for axis in axes]
    return x[tuple(slice(None, None, -1 if i in axes else 1) for i in range(x.ndim))]


def _take(x, indices, axis):
    """By an index: autograd has no gradient of np.take."""
    return x[(slice(None),) * (axis % x.ndim) + (anp.asarray(indices),)]


def _repeat(x, times, axis):
    """autograd's gradient is wrong for a negative axis."""
    return anp.repeat(x, times, axis % x.ndim)


def _pad(x, pairs):
    return anp.pad(x, pairs, "constant")


def _zeros(shape, like):
    return anp.zeros(shape, like.dtype)


def _ones(shape, like):
    return anp.ones(shape, like.dtype)


def _full(shape, value, like):
    """By a product: the value may have a gradient."""
    return anp.ones(shape, like.dtype) * value


def _full_like(x, value):
    return anp.ones(x.shape, x.dtype) * value


def _eye(rows, columns, like):
    return anp.eye(rows, columns, dtype=like.dtype)


def _arange(stop, like):
    return anp.arange(stop, dtype=like.dtype)


def _astype(x, dtype):
    return x.astype(dtype)


def _cond(decides, yes, no, *operands):
    return yes(*operands) if decides else no(*operands)


def _while_loop(goes_on, body, value, limit):
    for _ in range(limit):
        if not goes_on(value):
            break
        value = body(value)
    return value


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
    *("broadcast_to", "concatenate", "stack", "split", "roll", "tile", "tril", "triu"),
)
OWN = (
    *(
        "sigmoid",
        "softmax",
        "stop_gradient",
        "argmax",
        "argmin",
        "flip",
        "take",
        "repeat",
        "pad",
    ),
    *(
        "zeros",
        "ones",
        "full",
        "full_like",
        "eye",
        "arange",
        "astype",
        "cond",
        "while_loop",
    ),
)
WORDS = {name: f"anp.{name}" for name in SAME} | {name: f"_{name}" for name in OWN}
