"""The neutral operations in Keras's words; functions of our own where its arguments differ."""

from __future__ import annotations

from keras import ops


def _zeros(shape, like):
    return ops.zeros(shape, dtype=like.dtype)


def _ones(shape, like):
    return ops.ones(shape, dtype=like.dtype)


def _full(shape, value, like):
    return ops.full(shape, value, dtype=like.dtype)


def _eye(rows, columns, like):
    return ops.eye(rows, columns, dtype=like.dtype)


def _arange(stop, like):
    return ops.arange(stop, dtype=like.dtype)


def _argmax(x, axis):
    return ops.cast(ops.argmax(x, axis), "int32")


def _argmin(x, axis):
    return ops.cast(ops.argmin(x, axis), "int32")


def _cond(decides, yes, no, *operands):
    """ops.cond takes no operands."""
    return ops.cond(decides, lambda: yes(*operands), lambda: no(*operands))


def _while_loop(goes_on, body, value, limit):
    """A loop of known length, so that JAX has a gradient; nothing happens after its end."""

    def step(_, value):
        return _cond(goes_on(value), body, lambda value: value, value)

    return ops.fori_loop(0, limit, step, value)


SAME = (
    *("abs", "sign", "square", "sqrt", "exp", "expm1", "log", "log1p", "sigmoid"),
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
    *("where", "clip", "cumsum", "softmax", "matmul", "einsum", "tensordot"),
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
        "take",
        "repeat",
        "tile",
    ),
    *("pad", "tril", "triu", "full_like", "stop_gradient"),
)
OWN = (
    "zeros",
    "ones",
    "full",
    "eye",
    "arange",
    "argmax",
    "argmin",
    "cond",
    "while_loop",
)
OTHER = {"astype": "ops.cast"}
WORDS = {name: f"ops.{name}" for name in SAME} | {name: f"_{name}" for name in OWN} | OTHER
