"""Pooling."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from backends._expression import call, optional
from backends._rules import each
from backends.keras._common import (
    LAST,
    Join,
    Op,
    layer,
    native_padding,
    op,
    pipe,
    refuse_in_3d,
    rule,
    zero_padding,
)
from blocks._spec import Node
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    native = native_padding(node)
    if native:
        return pool(node, "MaxPooling", native)
    pads = ((0, 0), *node.resolved["padding"], (0, 0))
    outside = op("pad", pad_width=pads, constant_values=call("float", "-inf"))
    return pipe(outside, pool(node, "MaxPooling", "valid"))


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    native = native_padding(node)
    # Keras's torch engine averages over the padded cells of "same" too.
    leaves_out = native == "same" and keras.backend.backend() != "torch"
    if native == "valid" or (leaves_out and not node.form.count_include_pad):
        return pool(node, "AveragePooling", native)
    pads = node.resolved["padding"]
    mean = pipe(zero_padding(node, pads), pool(node, "AveragePooling", "valid"))
    if node.form.count_include_pad:
        return mean
    # the mean over all cells, divided by the share of real cells
    real = pipe(
        op("ones_like"),
        zero_padding(node, pads, "-pad-real"),
        pool(node, "AveragePooling", "valid", suffix="-real"),
    )
    return Join(("mean", "real"), (mean, real), Op(call("ops.divide"), spread=True))


def pool(node: Node, function: str, padding: Any, suffix: str = "") -> Any:
    return windows(node, function, node.form.kernel_size, node.form.stride, padding, suffix)


def windows(
    node: Node, function: str, kernel: Any, stride: Any, padding: str = "valid", suffix: str = ""
) -> Any:
    refuse_in_3d(node)
    return layer(
        node,
        f"{function}{len(kernel)}D",
        each(kernel),
        strides=optional(each(stride), each(kernel)),
        padding=optional(padding, "valid"),
        suffix=suffix,
        **LAST,
    )


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return layer(node, f"GlobalAveragePooling{node.in_spec.rank - 1}D", **LAST)


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return layer(node, f"GlobalMaxPooling{node.in_spec.rank - 1}D", **LAST)


@rule(AdaptiveAvgPool)
def adaptive_avg_pool(node: Node) -> Any:
    """By plain pools. Keras's own layer gives NaN for 7 windows where JAX compiles it, and cannot
    be traced by TensorFlow for one.
    """
    sizes = list(zip(node.in_spec.spatial, node.form.output_size, strict=True))
    if all(n % m == 0 for n, m in sizes):
        window = tuple(n // m for n, m in sizes)
        return windows(node, "AveragePooling", window, window)
    return pipe(*(means(node, axis, n, m) for axis, (n, m) in enumerate(sizes) if n != m))


def means(node: Node, axis: int, n: int, m: int) -> Any:
    """m windows along one axis: all of either size that they have, then those at their places."""
    starts = np.arange(m) * n // m
    sizes = -(-np.arange(1, m + 1) * n // m) - starts
    small, big = int(sizes.min()), int(sizes.max())
    ones = (1,) * len(node.in_spec.spatial)

    def pool(size: int) -> Any:
        window = (*ones[:axis], size, *ones[axis + 1 :])
        return windows(node, "AveragePooling", window, ones, suffix=f"-axis-{axis}-of-{size}")

    if small == big:
        return pipe(pool(small), op("take", indices=starts.tolist(), axis=axis + 1))
    join = layer(node, "Concatenate", axis=axis + 1, suffix=f"-axis-{axis}")
    places = starts + (sizes == big) * (n - small + 1)
    both = Join(("small", "big"), (pool(small), pool(big)), join)
    return pipe(both, op("take", indices=places.tolist(), axis=axis + 1))
