"""Normalisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.torch._common import rule
from blocks._spec import Node
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm


@rule(BatchNorm, scale="weight", bias="bias", mean="running_mean", var="running_var")
def batch_norm(node: Node) -> Any:
    block = node.form
    rank = max(1, node.in_spec.rank - 1)
    affine = block.use_scale or block.use_bias
    return call(
        f"BatchNorm{rank}d",
        node.in_spec.channels,
        eps=optional(block.epsilon, 1e-5),
        momentum=optional(round(1 - block.decay, 12), 0.1),
        affine=optional(affine, True),
        bias=optional(block.use_bias or not affine, True),
        scale=optional(block.use_scale or not affine, True),
    )


@rule(LayerNorm, scale="weight", bias="bias")
def layer_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    bias_only = block.use_bias and not block.use_scale
    return call(
        "BiasOnlyLayerNorm" if bias_only else "nn.LayerNorm",
        shape,
        eps=optional(block.epsilon, 1e-5),
        elementwise_affine=optional(block.use_scale or block.use_bias, True),
        bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="weight", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    name = "GroupNorm" if "moved" in node.resolved else "nn.GroupNorm"
    return call(
        "BiasOnlyGroupNorm" if block.use_bias and not block.use_scale else name,
        block.groups,
        node.in_spec.channels,
        eps=optional(block.epsilon, 1e-5),
        affine=optional(block.use_scale or block.use_bias, True),
        bias=optional(block.use_bias, True),
    )


@rule(RMSNorm, scale="weight")
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    affine = optional(block.use_scale, True)
    return call("nn.RMSNorm", shape, eps=block.epsilon, elementwise_affine=affine)
