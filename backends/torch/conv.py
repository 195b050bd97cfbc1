"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._rules import each, out_first
from backends.torch._common import before, last_first, rule, symmetric
from blocks._spec import Node
from blocks.conv import Conv


@rule(Conv, kernel=("weight", out_first), bias="bias")
def conv(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    pads = node.resolved["padding"]
    padding: dict[str, Any]
    if symmetric(pads):
        name, padding = f"nn.Conv{rank}d", {"padding": optional(each(before(pads)), 0)}
    elif node.resolved["same"] and set(block.stride) == {1}:
        name, padding = f"nn.Conv{rank}d", {"padding": "same"}
    else:
        name, padding = f"PaddedConv{rank}d", {"pads": last_first(pads)}
    return call(
        name,
        node.in_spec.channels,
        block.features,
        kernel_size=each(block.kernel_size),
        stride=optional(each(block.stride), 1),
        **padding,
        dilation=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        bias=optional(block.use_bias, True),
    )
