"""Normalisation."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends.keras._common import (
    layer,
    op,
    rule,
)
from blocks._spec import Node
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm


@rule(BatchNorm, scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")
def batch_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "BatchNormalization",
        momentum=optional(block.decay, 0.99),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(LayerNorm, scale="gamma", bias="beta")
def layer_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "LayerNormalization",
        axis=optional(block.axes[0] if len(block.axes) == 1 else list(block.axes), -1),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(GroupNorm, scale="gamma", bias="beta")
def group_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "GroupNormalization",
        groups=optional(block.groups, 32),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(RMSNorm, scale="scale")
def rms_norm(node: Node) -> Any:
    block = node.form
    axes = block.axes[0] if len(block.axes) == 1 else list(block.axes)
    if not block.use_scale:
        return op("rms_normalization", axis=optional(axes, -1), epsilon=block.epsilon)
    epsilon = optional(block.epsilon, 1e-6)
    return layer(node, "RMSNormalization", axis=optional(axes, -1), epsilon=epsilon)
