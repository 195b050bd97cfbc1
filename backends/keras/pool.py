"""Pooling."""

from __future__ import annotations

from typing import Any

import keras

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
    refuse_float64_in_3d,
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
    kernel, stride = node.form.kernel_size, node.form.stride
    refuse_float64_in_3d(node)
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
    refuse_float64_in_3d(node)
    size = node.form.output_size
    return layer(node, f"AdaptiveAveragePooling{len(size)}D", each(size), **LAST)
