"""The rule table of keras, its steps, and what rules of several families need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from backends._expression import call, optional
from backends._rules import Rules
from blocks._errors import UnsupportedError, place
from blocks._spec import Node

rule = Rules("keras")


@dataclass(frozen=True)
class Op:
    """A function of the value, after the positional arguments that it has and before the others;
    of several values if spread.
    """

    call: Any
    spread: bool = False


@dataclass(frozen=True)
class Item:
    """One member of a tuple."""

    index: int


@dataclass(frozen=True)
class Pipe:
    """Steps one after the other."""

    steps: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Flow:
    """Steps on values with names: each line is a name, a step, and the names of what it takes.

    It takes one value, several (an Op that is spread), or values and constants by keyword; "" is
    the value that comes in. The last line makes the result.
    """

    lines: tuple[tuple[str, Any, Any], ...]


@dataclass(frozen=True)
class Join:
    """Branches that receive the same value; the layer or Op that joins them, None for a tuple."""

    names: tuple[str, ...]
    branches: tuple[Any, ...]
    merge: Any


def layer(node: Node, function: str, *args: Any, suffix: str = "", **kwargs: Any) -> Any:
    """A layer named by its path."""
    return call(f"layers.{function}", *args, **kwargs, name=layer_name(node.home) + suffix)


def own_layer(node: Node, function: str, *args: Any, **kwargs: Any) -> Any:
    """A layer of `modules.py`, named by its path."""
    return call(function, *args, **kwargs, name=layer_name(node.home))


def layer_name(path: str) -> str:
    """A path as Keras and its engines allow it: with "-" for "/".

    A "-" at the end keeps it apart from the names that Keras itself gives to operations.
    """
    name = path.replace("/", "-") or "root-block"
    taken = re.sub(r"_\d+$", "", name) in {*dir(keras.ops), "input_layer", "get_item"}
    return name + "-" if taken else name


def op(function: str, **kwargs: Any) -> Op:
    return Op(call(f"ops.{function}", **kwargs))


LAST: dict[str, Any] = {"data_format": optional("channels_last", "channels_last")}


def pipe(*steps: Any) -> Any:
    return steps[0] if len(steps) == 1 else Pipe(steps)


def native_padding(node: Node) -> str | None:
    """Padding in Keras's words, or None if it has none for it."""
    if not padded(node.resolved["padding"]):
        return "valid"
    return "same" if node.resolved["same"] else None


def padded(pads: Any) -> bool:
    return any(map(sum, pads))


def zero_padding(node: Node, pads: Any, suffix: str = "-pad") -> Any:
    sizes = pads[0] if len(pads) == 1 else pads
    return layer(node, f"ZeroPadding{len(pads)}D", sizes, suffix=suffix, **LAST)


def refuse_in_3d(node: Node) -> None:
    engine = keras.backend.backend()
    missing = node.dtype in ("float64", "float16") and engine == "tensorflow"
    if node.in_spec.rank == 4 and missing:
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)}: TensorFlow has no "
            f"3-D pooling in {node.dtype}.\n  Use dtype='float32', or KERAS_BACKEND=jax or torch."
        )


def sized(node: Node, pairs: Any) -> list[tuple[int, Any]]:
    """Size and pair of each axis; Keras must know the sizes."""
    if None in node.in_spec.shape:
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)} at any length: "
            "TensorFlow has no such operation.\n  Give the size to infer."
        )
    return list(zip(node.in_spec.shape, pairs, strict=True))


def taken(node: Node, cells: list[np.ndarray]) -> Any:
    """Cells picked along each axis that changes."""
    steps = [
        op("take", indices=picked.tolist(), axis=axis)
        for axis, (picked, size) in enumerate(zip(cells, node.in_spec.shape, strict=True), 1)
        if picked.tolist() != list(range(size))
    ]
    return pipe(*steps)
