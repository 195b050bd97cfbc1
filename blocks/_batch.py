"""What goes into a model: arrays of the dtypes and shapes that its network was inferred for."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks._errors import FieldError, ShapeError
from blocks._infer import again
from blocks._spec import Node, ValueSpec, array_dtype, is_float, leaves, map_value, shapes


def batch(node: Node, x: Any) -> tuple[Any, Node]:
    """A batch in the node's dtype, and the node at the batch's own sizes.

    Raises `ShapeError` if the batch does not fit the network's input, also where an axis may have
    any length but a block inside needs more.
    """
    inputs = fitted(x, node.in_spec, "the network", None)
    if all(None not in spec.shape for spec in leaves(node.in_spec)):
        return inputs, node
    sized = map_value(lambda array, spec: spec.with_shape(array.shape[1:]), inputs, node.in_spec)
    return inputs, again(node, sized)


def fitted(value: Any, spec: ValueSpec, what: str, size: int | None) -> Any:
    """Arrays of the spec's dtype, all with one batch size."""
    if isinstance(spec, tuple) != isinstance(value, tuple) or (
        isinstance(spec, tuple) and len(spec) != len(value)
    ):
        got = f"a tuple of {len(value)}" if isinstance(value, tuple) else "one array"
        wanted = f"a tuple of {len(spec)}" if isinstance(spec, tuple) else "one array"
        raise ShapeError(f"{what} takes {wanted}, got {got}.")

    def fit(spec: Any, value: Any) -> np.ndarray:
        array = as_array(value, what)
        if array.dtype.kind not in "iub" and not is_float(array):
            raise FieldError(f"{what} takes numbers, got dtype {array.dtype}.")
        sizes = zip(spec.shape, array.shape[1:], strict=False)
        if array.ndim != spec.rank + 1 or any(n not in (None, m) for n, m in sizes):
            raise ShapeError(batch_fact(spec, array.shape, what))
        check_numbers(array, spec, what)
        return array.astype(array_dtype(spec.dtype), copy=False)

    arrays = map_value(fit, spec, value)
    sizes = {len(a) for a in leaves(arrays)} | ({size} if size is not None else set())
    if len(sizes) > 1:
        raise ShapeError(f"{what} needs one batch size, got {sorted(sizes)}.")
    return arrays


def check_numbers(array: np.ndarray, spec: Any, what: str) -> None:
    """Refuse floats as integers, integers out of bounds, and others than 0 and 1 as booleans."""
    if is_float(spec) or not array.size:
        return
    if is_float(array):
        words = "booleans" if spec.dtype == "bool" else "integers"
        raise FieldError(f"{what} takes {words}, got dtype {array.dtype}.")
    below = 2 if spec.dtype == "bool" else spec.below
    if below is not None and not 0 <= array.min() <= array.max() < below:
        raise FieldError(
            f"{what} takes integers from 0 to {below - 1}, got {array.min()} to {array.max()}."
        )


def as_array(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # torch's, for a tensor that has a gradient
        raise FieldError(f"{what} takes an array of numbers, got {type(value).__name__}.") from None


def batch_fact(spec: Any, shape: tuple[int, ...], what: str) -> str:
    """What is wrong with a batch, and the commonest cause."""
    wanted = "(batch, " + ", ".join("any" if n is None else str(n) for n in spec.shape) + ")"
    fact = f"{what} takes an array {wanted.replace(', )', ',)')}, got {shape}."
    swapped = {"channels_last": "channels_first", "channels_first": "channels_last"}
    if shape == spec.shape:
        return f"{fact}\n  The batch axis is missing: write x[None] for a batch of one."
    other = spec.in_layout(swapped[spec.layout])
    if shape[1:] == other.shape != spec.shape:
        return f"{fact}\n  This looks like {swapped[spec.layout]}; the network is {spec.layout}."
    return f"{fact}\n  Bring the batch to {shapes(spec)} after its first axis."
