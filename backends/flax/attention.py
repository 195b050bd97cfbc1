"""Attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import Name, optional
from backends._rules import each_projection, heads
from backends.flax._common import layer, rule
from blocks._spec import Node
from blocks.attention import MultiHeadAttention


def projection(name: str, kind: str) -> Callable[[Node], Any]:
    return lambda node: (f"{name}.{kind}", heads(node, name, kind))


@rule(MultiHeadAttention, **each_projection(projection))
def multi_head_attention(node: Node) -> Any:
    block, found = node.form, node.resolved
    query, key, value = found["sizes"]
    total, features = block.num_heads * found["head_size"], node.out_spec.shape[-1]
    kv_heads = found["num_kv_heads"]
    options: dict[str, Any] = {
        "qkv_features": optional(None if total == query else total, None),
        "out_features": optional(None if features == query else features, None),
        "num_kv_heads": optional(None if kv_heads == block.num_heads else kv_heads, None),
        "in_kv_features": optional(None if key == query else key, None),
        "use_bias": optional(block.use_bias, True),
    }
    if block.causal or block.mask or key != value:
        options |= {
            "in_value_features": optional(None if value == key else value, None),
            "causal": optional(block.causal, False),
            "mask": optional(block.mask, False),
        }
        return layer(node, "MultiHeadAttention", block.num_heads, query, **options)
    # JAX's own has its softmax in float32, and no backward for float16 on a CPU
    own = Name("nnx.dot_product_attention" if node.dtype == "float32" else "attention")
    options["attention_fn"] = optional(own, Name("nnx.dot_product_attention"))
    return layer(node, "nnx.MultiHeadAttention", block.num_heads, query, decode=False, **options)
