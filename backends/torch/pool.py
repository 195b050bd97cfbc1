"""Pooling."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._rules import each
from backends.torch._common import before, last_first, rule, symmetric
from blocks._spec import Node
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "nn.MaxPool", call("float", "-inf"))


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    pads, counted = node.resolved["padding"], node.form.count_include_pad
    if not counted and not pools_natively(node):
        name = f"PaddedAvgPool{len(pads)}d"
        return call(name, *window(node), pads=last_first(pads))
    return pool(node, "nn.AvgPool", 0.0, count_include_pad=optional(counted, True))


def pool(node: Node, name: str, outside: Any, **options: Any) -> Any:
    """A stock pool, after a pad with `outside` where torch's own padding cannot do it."""
    pads = node.resolved["padding"]
    rank = len(pads)
    if pools_natively(node):
        padding = optional(each(before(pads)), 0)
        return call(f"{name}{rank}d", *window(node), padding=padding, **options)
    pad = call(f"nn.ConstantPad{rank}d", last_first(pads), outside)
    return call("nn.Sequential", pad, call(f"{name}{rank}d", *window(node)))


def pools_natively(node: Node) -> bool:
    """Torch pads both ends of an axis alike, by at most half the window."""
    pads = node.resolved["padding"]
    sizes = zip(before(pads), node.form.kernel_size, strict=True)
    return symmetric(pads) and all(2 * pad <= kernel for pad, kernel in sizes)


def window(node: Node) -> list[Any]:
    """Window and stride as torch's pools take them; the stride is the window unless given."""
    kernel, stride = node.form.kernel_size, node.form.stride
    return [each(kernel)] if stride == kernel else [each(kernel), each(stride)]


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return global_pool(node, "nn.AdaptiveAvgPool")


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return global_pool(node, "nn.AdaptiveMaxPool")


def global_pool(node: Node, name: str) -> Any:
    pool = call(f"{name}{node.in_spec.rank - 1}d", 1)
    return call("nn.Sequential", pool, call("nn.Flatten"))


@rule(AdaptiveAvgPool)
def adaptive_avg_pool(node: Node) -> Any:
    size = node.form.output_size
    return call(f"nn.AdaptiveAvgPool{len(size)}d", each(size))
