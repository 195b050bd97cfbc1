"""Blocks written as einops patterns, in Keras's own layers.

einops' layers for Keras import TensorFlow under every engine, EinMix computes in it, and a model
with them does not reload by itself.
"""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._transforms import rearranged
from backends.keras._common import Pipe, layer, op, rule
from blocks._errors import UnsupportedError, place
from blocks._spec import Node, Shape
from blocks.pattern import EinMix, Rearrange, Reduce


@rule(Rearrange)
def rearrange(node: Node) -> Any:
    return moved(node)


@rule(Reduce)
def reduce(node: Node) -> Any:
    axes = tuple(axis + 1 for axis in node.resolved["reduced"])
    return moved(node, *([op(node.form.reduction, axis=axes)] if axes else []))


def moved(node: Node, *reduction: Any) -> Pipe:
    """Split, reduce, order, merge: those of them that change anything."""
    facts = node.resolved
    order = facts["order"]
    permute = layer(node, "Permute", tuple(axis + 1 for axis in order), suffix="-order")
    return Pipe(
        (
            *reshaped(node, node.in_spec.shape, facts["split"], "-split"),
            *reduction,
            *([permute] if order != tuple(range(len(order))) else []),
            *reshaped(node, facts["ordered"], node.out_spec.shape, "-merge"),
        )
    )


def reshaped(node: Node, before: Shape, after: Shape, suffix: str) -> list[Any]:
    """No layer, or one that makes the shape; Keras works out one size that is not known."""
    if before == after:
        return []
    if after.count(None) > 1:
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)} with several axes "
            "of any length: its Reshape works out one of them.\n  Give the others to infer."
        )
    sizes = tuple(-1 if size is None else size for size in after)
    return [layer(node, "Reshape", sizes, suffix=suffix)]


def spread(node: Node) -> Any:
    """The bias as EinsumDense adds it: from its first axis on, with a 1 where it has none."""
    axes = node.resolved["bias"].split()
    while axes[0] == "1":
        axes.pop(0)
    return "bias", rearranged(node.form.bias_shape, " ".join(axes))


@rule(EinMix, kernel="kernel", bias=spread)
def ein_mix(node: Node) -> Any:
    facts = node.resolved
    mix = layer(
        node,
        "EinsumDense",
        facts["equation"],
        facts["mixed"],
        bias_axes=optional(facts["bias_axes"] or None, None),
    )
    return Pipe(
        (
            *reshaped(node, node.in_spec.shape, facts["split"], "-split"),
            mix,
            *reshaped(node, facts["mixed"], node.out_spec.shape, "-merge"),
        )
    )
