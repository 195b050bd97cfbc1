"""Normalisation."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._transforms import flat
from backends.flax._common import layer, rule
from blocks._spec import Node
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm


@rule(BatchNorm, scale="scale", bias="bias", mean="mean", var="var")
def batch_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.BatchNorm",
        node.in_spec.channels,
        momentum=optional(block.decay, 0.99),
        epsilon=optional(block.epsilon, 1e-5),
        use_fast_variance=False,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(LayerNorm, scale=("scale", flat), bias=("bias", flat))
def layer_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "LayerNorm",
        node.in_spec.shape[-len(block.axes) :],
        epsilon=optional(block.epsilon, 1e-6),
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="scale", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.GroupNorm",
        node.in_spec.channels,
        num_groups=optional(block.groups, 32),
        epsilon=optional(block.epsilon, 1e-6),
        use_fast_variance=False,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(RMSNorm, scale=("scale", flat))
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    several = len(shape) > 1
    return layer(
        node,
        "RMSNorm" if several else "nnx.RMSNorm",
        shape if several else shape[0],
        epsilon=optional(block.epsilon, 1e-6),
        use_scale=optional(block.use_scale, True),
    )
