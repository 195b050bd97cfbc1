"""Attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import call, optional
from backends._transforms import out_first, same, share
from backends.torch._common import rule
from blocks._spec import Node
from blocks.attention import MultiHeadAttention

PROJECTIONS = ("query", "key", "value")


def stock(node: Node) -> bool:
    """Whether torch's own layer has these sizes: its heads are as large as query and output."""
    block, found = node.form, node.resolved
    size = found["sizes"][0]
    whole = size == block.num_heads * found["head_size"] == node.out_spec.shape[-1]
    return whole and found["num_kv_heads"] == block.num_heads


def kernel(name: str) -> Callable[[Node], Any]:
    """Where the kernel of a projection lives: torch packs three of one size into one."""

    def target(node: Node) -> Any:
        if not stock(node):
            return f"{name[0]}_proj.weight", out_first
        if len(set(node.resolved["sizes"])) > 1:
            return f"{name[0]}_proj_weight", out_first
        return "in_proj_weight", out_first, share(PROJECTIONS.index(name), 3)

    return target


def bias(name: str) -> Callable[[Node], Any]:
    def target(node: Node) -> Any:
        packed = "in_proj_bias", same, share(PROJECTIONS.index(name), 3)
        return packed if stock(node) else f"{name[0]}_proj.bias"

    return target


@rule(
    MultiHeadAttention,
    query_kernel=kernel("query"),
    query_bias=bias("query"),
    key_kernel=kernel("key"),
    key_bias=bias("key"),
    value_kernel=kernel("value"),
    value_bias=bias("value"),
    out_kernel=("out_proj.weight", out_first),
    out_bias="out_proj.bias",
)
def multi_head_attention(node: Node) -> Any:
    block, found = node.form, node.resolved
    query, key, value = found["sizes"]
    options = {
        "kdim": optional(None if key == query else key, None),
        "vdim": optional(None if value == query else value, None),
        "bias": optional(block.use_bias, True),
        "causal": optional(block.causal, False),
        "mask": optional(block.mask, False),
    }
    if stock(node):
        return call("MultiheadAttention", query, block.num_heads, **options)
    return call(
        "GroupedQueryAttention",
        query,
        node.out_spec.shape[-1],
        num_heads=block.num_heads,
        num_kv_heads=found["num_kv_heads"],
        head_dim=found["head_size"],
        **options,
    )
