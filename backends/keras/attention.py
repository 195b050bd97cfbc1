"""Attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import call, optional
from backends._rules import each_projection, heads
from backends.keras._common import Flow, Item, Op, layer, op, rule
from blocks._spec import Node
from blocks.attention import MultiHeadAttention


def grouped(node: Node) -> bool:
    """Whether heads share keys and values."""
    return node.resolved["num_kv_heads"] != node.form.num_heads


def stock(node: Node) -> bool:
    """Whether Keras has a layer for it: with groups, only for one size of query, value, output."""
    query, _, value = node.resolved["sizes"]
    return not grouped(node) or query == value == node.out_spec.shape[-1]


def projection(name: str, kind: str) -> Callable[[Node], Any]:
    inside = f"_{'output' if name == 'out' else name}_dense.{kind}"

    def target(node: Node) -> Any:
        return inside if stock(node) else f"-{name}:{kind}", heads(node, name, kind)

    return target


@rule(MultiHeadAttention, **each_projection(projection))
def multi_head_attention(node: Node) -> Any:
    names = ["query", "key", "value"]
    if not isinstance(node.in_spec, tuple):
        taken, given = [], dict.fromkeys(names, "")
    else:
        count = len(node.in_spec) - node.form.mask
        given = {name: names[min(i, count - 1)] for i, name in enumerate(names)}
        names = names[:count] + ["mask"] * node.form.mask
        taken = [(name, Item(i), "") for i, name in enumerate(names)]
    return Flow((*taken, *(by_layer if stock(node) else by_hand)(node, given)))


def by_layer(node: Node, given: dict[str, str]) -> list[Any]:
    """Keras's own layer."""
    block, found = node.form, node.resolved
    size = found["head_size"]
    use_bias = optional(block.use_bias, True)
    if grouped(node):
        heads = block.num_heads, found["num_kv_heads"]
        own = layer(node, "GroupQueryAttention", size, *heads, use_bias=use_bias)
    else:
        features = node.out_spec.shape[-1]
        output_shape = optional(None if features == found["sizes"][0] else features, None)
        options: dict[str, Any] = {"use_bias": use_bias, "output_shape": output_shape}
        own = layer(node, "MultiHeadAttention", block.num_heads, size, **options)
    source: dict[str, Any] = {"query": given["query"], "value": given["value"]}
    if given["key"] != given["value"]:
        source["key"] = given["key"]
    if block.causal:
        source["use_causal_mask"] = True
    if not block.mask:
        return [("", own, source)]
    # asked for its scores, the layer gives 0 where no key is seen, not the mean of all values
    source |= {"attention_mask": "mask", "return_attention_scores": True}
    mask = "mask", op("expand_dims", axis=1), "mask"
    return [mask, ("outputs", own, source), ("", Item(0), "outputs")]


def by_hand(node: Node, given: dict[str, str]) -> list[Any]:
    """The steps of Keras's layer for groups, which has one size of query, value and output."""
    block, found = node.form, node.resolved
    heads, kv_heads, size = block.num_heads, found["num_kv_heads"], found["head_size"]

    def project(name: str, equation: str, *sizes: int) -> Any:
        bias_axes = optional(equation[-len(sizes) :] if block.use_bias else None, None)
        options = {"output_shape": (None, *sizes), "bias_axes": bias_axes}
        return layer(node, "EinsumDense", equation, **options, suffix=f"-{name}")

    def einsum(equation: str) -> Op:
        return Op(call("ops.einsum", equation), spread=True)

    repeat = op("repeat", repeats=heads // kv_heads, axis=2)
    lines = [
        ("q", project("query", "bti,ihd->bthd", heads, size), given["query"]),
        ("k", project("key", "bti,ihd->bthd", kv_heads, size), given["key"]),
        ("v", project("value", "bti,ihd->bthd", kv_heads, size), given["value"]),
        ("k", repeat, "k"),
        ("v", repeat, "v"),
        ("scores", einsum("bqhd,bkhd->bhqk"), ("q", "k")),
        ("scores", op("multiply", x2=size**-0.5), "scores"),
    ]
    weights = {"inputs": "scores"}
    if block.causal:
        lines += [("causal", op("ones_like"), "scores"), ("causal", op("tril"), "causal")]
        weights["mask"] = "causal"
    if block.mask:
        lines.append(("mask", op("expand_dims", axis=(1, 2)), "mask"))
        weights["mask"] = "mask"
    if block.mask and block.causal:
        lines.append(("mask", Op(call("ops.logical_and"), spread=True), ("mask", "causal")))
    return [
        *lines,
        ("weights", layer(node, "Softmax", suffix="-softmax"), weights),
        ("outputs", einsum("bhqk,bkhd->bqhd"), ("weights", "v")),
        ("", project("out", "bthd,hdo->bto", node.out_spec.shape[-1]), "outputs"),
    ]
