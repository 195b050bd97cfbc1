"""Blocks written as einops patterns."""

from __future__ import annotations

from typing import Any

from backends._expression import Name
from backends.flax._common import layer, partial, rule
from blocks._spec import Node
from blocks.pattern import EinMix, Rearrange, Reduce


@rule(Rearrange)
def rearrange(node: Node) -> Any:
    block = node.form
    return partial("einops.rearrange", pattern=block.pattern, **dict(block.axes_lengths))


@rule(Reduce)
def reduce(node: Node) -> Any:
    block = node.form
    # a function may stand for the reduction's name
    own = {"max": Name("largest"), "min": Name("smallest")}
    how = {"pattern": block.pattern, "reduction": own.get(block.reduction, block.reduction)}
    return partial("einops.reduce", **how, **dict(block.axes_lengths))


@rule(EinMix, kernel="kernel", bias="bias")
def ein_mix(node: Node) -> Any:
    block = node.form
    bias = [block.bias_shape] if block.bias_shape else []
    shapes = block.weight_shape, *bias
    return layer(node, "EinMix", block.pattern, *shapes, **node.resolved["lengths"])
