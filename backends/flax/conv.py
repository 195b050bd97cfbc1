"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._rules import each
from backends.flax._common import layer, padding, rule
from blocks._spec import Node
from blocks.conv import Conv


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
