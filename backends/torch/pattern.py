"""Blocks written as einops patterns: einops has layers for torch."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends._transforms import rearranged
from backends.torch._common import rule
from blocks._spec import Node
from blocks.pattern import EinMix, Rearrange, Reduce


@rule(Rearrange)
def rearrange(node: Node) -> Any:
    return call("Rearrange", node.form.pattern, **dict(node.form.axes_lengths))


@rule(Reduce)
def reduce(node: Node) -> Any:
    block = node.form
    return call("Reduce", block.pattern, block.reduction, **dict(block.axes_lengths))


def spread(node: Node) -> Any:
    """The bias as einops adds it: with an axis of size 1 for each that it does not have."""
    return "bias", rearranged(node.form.bias_shape, node.resolved["bias"])


@rule(EinMix, kernel="weight", bias=spread)
def ein_mix(node: Node) -> Any:
    block = node.form
    bias = [block.bias_shape] if block.bias_shape else []
    return call("EinMix", block.pattern, block.weight_shape, *bias, **node.resolved["lengths"])
