"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._rules import Bind, each
from backends._transforms import turned_around
from backends.flax._common import layer, padding, rule
from blocks._spec import Node
from blocks.conv import Conv, ConvTranspose


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.Conv",
        node.in_spec.channels,
        block.features,
        kernel_size=block.kernel_size,
        strides=optional(each(block.stride), 1),
        padding=padding(node),
        kernel_dilation=optional(each(block.dilation), 1),
        feature_group_count=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
    )


def turned_kernel(node: Node) -> Bind:
    return Bind("kernel", turned_around(node.form.groups))


@rule(ConvTranspose, kernel=turned_kernel, bias="bias")
def conv_transpose(node: Node) -> Any:
    block, name = node.form, node.resolved["name"]
    pads = node.resolved["padding"]
    window: dict[str, Any] = {"kernel_size": block.kernel_size}
    gaps = {"kernel_dilation": optional(each(block.dilation), 1)}
    bias = {"use_bias": optional(block.use_bias, True)}
    sizes = node.in_spec.channels, block.features
    if block.groups == 1:
        ends = {
            "strides": optional(each(block.stride), 1),
            "padding": name.upper() if name else pads,
        }
        return layer(node, "nnx.ConvTranspose", *sizes, **window, **ends, **gaps, **bias)
    groups = {"input_dilation": each(block.stride), "feature_group_count": block.groups}
    return layer(node, "nnx.Conv", *sizes, **window, padding=pads, **groups, **gaps, **bias)
