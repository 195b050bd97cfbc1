"""Parameters in canonical form: a flat dict from path to array, drawn and checked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from blocks._errors import ParamError, did_you_mean
from blocks._spec import Node, array_dtype, is_float
from blocks.initializers import drawn

Params: TypeAlias = dict[str, np.ndarray]


def init(node: Node, seed: int = 0) -> Params:
    """First parameters of a network, the same for every backend.

    Every parameter has a generator of its own, made from the seed and its path, so inserting a
    block does not change its neighbours.

    Returns:
        Canonical path to array, in the node's dtype.

    >>> import blocks as bl
    >>> params = bl.init(bl.infer(bl.Dense(4), (3,)), seed=1)
    >>> {path: array.shape for path, array in params.items()}
    {'kernel': (3, 4), 'bias': (4,)}
    """
    return {
        path: drawn(spec.init, generator(seed, path), spec.shape, array_dtype(spec.dtype))
        for path, spec in node.param_specs().items()
    }


def generator(seed: int, path: str) -> np.random.Generator:
    """The random numbers that belong to a seed and a path."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(path.encode())))


def count(node: Node, *, trainable: bool | None = None) -> int:
    """Number of parameters, shared ones once; all, or only those that are (not) trainable."""
    return sum(
        spec.size
        for spec in node.param_specs().values()
        if trainable is None or spec.trainable is trainable
    )


def check_params(node: Node, params: Mapping[str, Any]) -> Params:
    """The parameters as arrays of the node's dtype; raises `ParamError` with every mismatch."""
    if not isinstance(params, Mapping):
        raise ParamError(f"parameters are a dict from path to array, got {type(params).__name__}.")
    specs = node.param_specs()
    wrong = []
    arrays = {}
    for path, spec in specs.items():
        if path not in params:
            wrong.append(f"{path}: missing, expected {spec.shape}.")
            continue
        array = np.asarray(params[path])
        if array.dtype.kind not in "iu" and not is_float(array):
            wrong.append(f"{path}: expected numbers, got dtype {array.dtype}.")
        elif array.shape != spec.shape:
            wrong.append(f"{path}: expected {spec.shape}, got {array.shape}.{hint(array, spec)}")
        else:
            arrays[path] = array.astype(array_dtype(spec.dtype), copy=False)
    known = [path for path in specs if path not in params] or list(specs)
    wrong += [
        f"{path}: unknown.{did_you_mean(path, known)}" for path in params if path not in specs
    ]
    if wrong:
        verb = "parameter does" if len(wrong) == 1 else "parameters do"
        raise ParamError(f"{len(wrong)} {verb} not fit.\n  " + "\n  ".join(wrong))
    return arrays


def hint(array: np.ndarray, spec: Any) -> str:
    if array.ndim == 2 and array.shape == spec.shape[::-1]:
        return " Canonical kernels are (in, out); this looks transposed."
    if array.ndim > 2 and array.shape == (*spec.shape[:-3:-1], *spec.shape[:-2]):
        return " Canonical kernels are (*window, in, out); this looks like (out, in, *window)."
    return ""
