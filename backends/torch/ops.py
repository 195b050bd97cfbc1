"""The neutral operations in torch's words; functions of our own where its arguments differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def _like(a, b):
    """Both as tensors: one of them may be a number."""
    like = a if torch.is_tensor(a) else b
    return [torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in (a, b)]


def _maximum(a, b):
    return torch.maximum(*_like(a, b))


def _minimum(a, b):
    return torch.minimum(*_like(a, b))


def _sum(x, axis=None, *, keepdims=False):
    return torch.sum(x, axis, keepdim=keepdims)


def _mean(x, axis=None, *, keepdims=False):
    return torch.mean(x, axis, keepdim=keepdims)


def _prod(x, axis=None, *, keepdims=False):
    """torch.prod takes one axis."""
    if axis is None:
        axis = tuple(range(-x.dim(), 0))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for axis in axes:
        x = torch.prod(x, axis, keepdim=True)
    return x if keepdims else x.squeeze(tuple(axes))


def _max(x, axis=None, *, keepdims=False):
    return torch.amax(x, () if axis is None else axis, keepdim=keepdims)


def _min(x, axis=None, *, keepdims=False):
    return torch.amin(x, () if axis is None else axis, keepdim=keepdims)


def _var(x, axis=None, *, keepdims=False):
    return torch.var(x, axis, correction=0, keepdim=keepdims)


def _std(x, axis=None, *, keepdims=False):
    return torch.std(x, axis, correction=0, keepdim=keepdims)


def _any(x, axis=None, *, keepdims=False):
    return torch.any(x, axis, keepdim=keepdims)


def _all(x, axis=None, *, keepdims=False):
    return torch.all(x, axis, keepdim=keepdims)


def _argmax(x, axis):
    return torch.argmax(x, axis).int()


def _argmin(x, axis):
    return torch.argmin(x, axis).int()


def _softmax(x, axis=-1):
    return torch.softmax(x, axis)


def _shape(x):
    return tuple(x.shape)


def _flip(x, axis):
    return torch.flip(x, axis if isinstance(axis, tuple) else (axis,))


def _roll(x, shift, axis):
    return torch.roll(x, shift, axis)


def _take(x, indices, axis):
    indices = torch.as_tensor(indices, device=x.device)
    cells = torch.index_select(x, axis, indices.flatten())
    axis = axis % x.dim()
    return cells.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _pad(x, pairs):
    """F.pad takes the last axis first."""
    return F.pad(x, [size for pair in reversed(pairs) for size in pair])


def _zeros(shape, like):
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _ones(shape, like):
    return torch.ones(shape, dtype=like.dtype, device=like.device)


def _full(shape, value, like):
    return torch.full(shape, value, dtype=like.dtype, device=like.device)


def _eye(rows, columns, like):
    return torch.eye(rows, columns, dtype=like.dtype, device=like.device)


def _arange(stop, like):
    return torch.arange(stop, dtype=like.dtype, device=like.device)


def _astype(x, dtype):
    return x.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def _stop_gradient(x):
    return x.detach()


def _copies(value):
    return tuple(map(_copies, value)) if isinstance(value, tuple) else value.clone()


def _cond(decides, yes, no, *operands):
    """torch.cond where it compiles; its branches may not hand on what they were given."""
    if not torch.compiler.is_compiling():
        return yes(*operands) if decides else no(*operands)
    branches = [lambda *v: _copies(yes(*v)), lambda *v: _copies(no(*v))]
    return torch.cond(decides, *branches, operands)


def _while_loop(goes_on, body, value, limit):
    for _ in range(limit):
        if not torch.compiler.is_compiling() and not goes_on(value):
            break
        value = _cond(goes_on(value), body, lambda value: value, value)
    return value


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
    *("logaddexp", "arctan2", "logical_and", "logical_or", "where", "clip"),
    *("matmul", "einsum", "tensordot", "reshape", "swapaxes", "moveaxis"),
    *("broadcast_to", "concatenate", "stack", "squeeze", "cumsum", "tile"),
    *("tril", "triu", "full_like"),
)
OTHER = {
    "power": "torch.pow",
    "transpose": "torch.permute",
    "expand_dims": "torch.unsqueeze",
    "split": "torch.tensor_split",
    "repeat": "torch.repeat_interleave",
}
OWN = (
    *("maximum", "minimum", "stop_gradient", "argmax", "argmin", "softmax"),
    *("sum", "mean", "prod", "max", "min", "var", "std", "any", "all"),
    *("shape", "flip", "roll", "take", "pad"),
    *("zeros", "ones", "full", "eye", "arange", "astype", "cond", "while_loop"),
)
WORDS = {name: f"torch.{name}" for name in SAME} | {name: f"_{name}" for name in OWN} | OTHER
