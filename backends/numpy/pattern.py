"""Blocks written as einops patterns."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.pattern import EinMix, Rearrange, Reduce


@rule(Rearrange)
def rearrange(node: Node) -> Any:
    return call("Rearrange", node.form.pattern, **dict(node.form.axes_lengths))


@rule(Reduce)
def reduce(node: Node) -> Any:
    rows, lengths = node.resolved["rows"], node.resolved["lengths"]
    return call("Reduce", rows, node.form.reduction, **lengths)


@rule(EinMix, kernel="kernel", bias="bias")
def ein_mix(node: Node) -> Any:
    block = node.form
    bias = [block.bias_shape] if block.bias_shape else []
    lengths = node.resolved["lengths"]
    return call("EinMix", block.pattern, block.weight_shape, *bias, rng=RNG, **lengths)
