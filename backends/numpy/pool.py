"""Pooling."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import channel_axis, rule
from blocks._spec import Node
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "MaxPool")


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    return pool(node, "AvgPool", count_include_pad=optional(node.form.count_include_pad, False))


def pool(node: Node, name: str, **options: Any) -> Any:
    block, padding = node.form, node.resolved["padding"]
    axis = channel_axis(node)
    return call(name, block.kernel_size, block.stride, padding, **options, channel_axis=axis)


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return call("GlobalAvgPool", channel_axis=channel_axis(node))


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return call("GlobalMaxPool", channel_axis=channel_axis(node))


@rule(AdaptiveAvgPool)
def adaptive_avg_pool(node: Node) -> Any:
    return call("AdaptiveAvgPool", node.form.output_size, channel_axis=channel_axis(node))
