"""Pooling."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends.flax._common import padding, partial, rule
from blocks._spec import Node
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "nnx.max_pool")


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    counted = optional(node.form.count_include_pad, True)
    return pool(node, "nnx.avg_pool", count_include_pad=counted)


def pool(node: Node, function: str, **options: Any) -> Any:
    block = node.form
    pads = optional(padding(node), "VALID")
    return partial(
        function,
        window_shape=block.kernel_size,
        strides=block.stride,
        padding=pads,
        **options,
    )


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return partial("jnp.mean", axis=tuple(range(1, node.in_spec.rank)))


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return partial("largest", axes=tuple(range(1, node.in_spec.rank)))


@rule(AdaptiveAvgPool)
def adaptive_avg_pool(node: Node) -> Any:
    sizes = list(zip(node.in_spec.spatial, node.form.output_size, strict=True))
    if any(old % new for old, new in sizes):
        return partial("adaptive_avg_pool", output_size=node.form.output_size)
    window = tuple(old // new for old, new in sizes)
    return partial("nnx.avg_pool", window_shape=window, strides=window)
