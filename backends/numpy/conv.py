"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import RNG, channel_axis, rule
from blocks._spec import Node
from blocks.conv import Conv, ConvTranspose


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block = node.form
    return call(
        "Conv",
        node.in_spec.channels,
        block.features,
        kernel_size=block.kernel_size,
        stride=block.stride,
        padding=node.resolved["padding"],
        dilation=block.dilation,
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
        rng=RNG,
    )


@rule(ConvTranspose, kernel="kernel", bias="bias")
def conv_transpose(node: Node) -> Any:
    block = node.form
    return call(
        "ConvTranspose",
        node.in_spec.channels,
        block.features,
        kernel_size=block.kernel_size,
        stride=block.stride,
        crop=node.resolved["crop"],
        dilation=block.dilation,
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
        rng=RNG,
    )
