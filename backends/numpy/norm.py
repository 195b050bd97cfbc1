"""Normalisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import channel_axis, rule
from blocks._spec import Node
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm


@rule(BatchNorm, scale="scale", bias="bias", mean="mean", var="var")
def batch_norm(node: Node) -> Any:
    block = node.form
    return call(
        "BatchNorm",
        node.in_spec.channels,
        epsilon=block.epsilon,
        decay=block.decay,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
    )


@rule(LayerNorm, scale="scale", bias="bias")
def layer_norm(node: Node) -> Any:
    block = node.form
    return call(
        "LayerNorm",
        node.in_spec.shape[-len(block.axes) :],
        epsilon=block.epsilon,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="scale", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    return call(
        "GroupNorm",
        node.in_spec.channels,
        block.groups,
        epsilon=block.epsilon,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
    )


@rule(RMSNorm, scale="scale")
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    use_scale = optional(block.use_scale, True)
    return call("RMSNorm", shape, epsilon=block.epsilon, use_scale=use_scale)
