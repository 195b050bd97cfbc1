"""Attention."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.attention import MultiHeadAttention


@rule(
    MultiHeadAttention,
    query_kernel="query.kernel",
    query_bias="query.bias",
    key_kernel="key.kernel",
    key_bias="key.bias",
    value_kernel="value.kernel",
    value_bias="value.bias",
    out_kernel="out.kernel",
    out_bias="out.bias",
)
def multi_head_attention(node: Node) -> Any:
    block, found = node.form, node.resolved
    return call(
        "MultiHeadAttention",
        found["sizes"],
        node.out_spec.shape[-1],
        num_heads=block.num_heads,
        head_size=found["head_size"],
        num_kv_heads=found["num_kv_heads"],
        causal=optional(block.causal, False),
        mask=optional(block.mask, False),
        use_bias=optional(block.use_bias, True),
        rng=RNG,
    )
