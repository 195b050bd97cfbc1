"""The neutral array operations that a `Custom` block's `forward` is given as `ops`.

Arithmetic, comparisons, indices and slices come by Python's operators, sizes by `x.shape`.
Everything else is a function below, with NumPy's name and one meaning on every backend. An
argument before "/" is given by position; `axis` counts from 0 or, negative, from the end.

What to know beside NumPy: reductions are of floats (`any` and `all` of booleans), `var` and `std`
are biased as there, `argmax` and `argmin` give int32. `where`, `maximum`, `minimum` and `power`
take a number in the place of one array, not of all. New arrays take dtype and device from `like`,
an array at hand. `split` makes equal parts, `pad` pads with 0, `take` counts from 0. Where a
function has a kink or a tie, its gradient is the framework's own.

`cond(decides, yes, no, *operands)` is `yes(*operands)` or `no(*operands)`, both of one shape and
dtype. `while_loop(goes_on, body, value, limit)` is `value = body(value)` while `goes_on(value)`,
at most `limit` times; `value` is an array or a tuple. Both work where Python's own branches
cannot: under jit, torch.compile and in Keras's graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks._errors import FieldError, did_you_mean

UNARY = (
    *("abs", "sign", "square", "sqrt", "exp", "expm1", "log", "log1p", "sigmoid"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
    *("floor", "ceil", "round", "isfinite", "isnan", "logical_not", "stop_gradient"),
    *("zeros_like", "ones_like"),
)
REDUCTIONS = ("sum", "mean", "prod", "max", "min", "var", "std", "any", "all")

# Name to signature.
OPS: dict[str, str] = (
    dict.fromkeys(UNARY, "(x, /)")
    | dict.fromkeys(REDUCTIONS, "(x, /, axis=None, *, keepdims=False)")
    | dict.fromkeys(("logaddexp", "arctan2", "logical_and", "logical_or"), "(a, b, /)")
    # these take numbers beside an array
    | dict.fromkeys(("maximum", "minimum", "power"), "(a, b, /)")
    | {
        "where": "(condition, a, b, /)",
        "clip": "(x, low, high, /)",
        "argmax": "(x, /, axis)",
        "argmin": "(x, /, axis)",
        "cumsum": "(x, /, axis)",
        "softmax": "(x, /, axis=-1)",
        # products
        "matmul": "(a, b, /)",
        "einsum": "(subscripts, /, *arrays)",
        "tensordot": "(a, b, axes, /)",
        # shapes
        "shape": "(x, /)",
        "reshape": "(x, shape, /)",
        "transpose": "(x, axes, /)",
        "swapaxes": "(x, first, second, /)",
        "moveaxis": "(x, source, destination, /)",
        "expand_dims": "(x, /, axis)",
        "squeeze": "(x, /, axis)",
        "broadcast_to": "(x, shape, /)",
        "concatenate": "(arrays, /, axis=0)",
        "stack": "(arrays, /, axis=0)",
        "split": "(x, parts, /, axis=0)",
        "flip": "(x, /, axis)",
        "roll": "(x, shift, /, axis)",
        "take": "(x, indices, /, axis)",
        "repeat": "(x, times, /, axis)",
        "tile": "(x, times, /)",
        "pad": "(x, pairs, /)",
        "tril": "(x, offset, /)",
        "triu": "(x, offset, /)",
        # new arrays
        "zeros": "(shape, /, like)",
        "ones": "(shape, /, like)",
        "full": "(shape, value, /, like)",
        "full_like": "(x, value, /)",
        "eye": "(rows, columns, /, like)",
        "arange": "(stop, /, like)",
        "astype": "(x, dtype, /)",  # the dtype of another array, "int32" or "bool"
        # control that frameworks can compile: the first argument decides
        "cond": "(decides, yes, no, /, *operands)",
        "while_loop": "(goes_on, body, value, limit, /)",
    }
)


class Ops:
    """The operations of one backend, by their neutral names."""

    def __init__(self, functions: Mapping[str, Any]):
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for these
            raise AttributeError(name)
        raise unknown(name)


def unknown(name: str) -> FieldError:
    """The refusal of a name that is none of `OPS`."""
    return FieldError(
        f"ops has no {name!r}.{did_you_mean(name, OPS)} See blocks/_ops.py for what it has."
    )
