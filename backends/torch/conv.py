"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._rules import each, leaps
from backends._transforms import in_first, out_first
from backends.torch._common import before, last_first, rule, symmetric
from blocks._spec import Node
from blocks.conv import Conv, ConvTranspose


@rule(Conv, kernel=("weight", out_first), bias="bias")
def conv(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    pads = node.resolved["padding"]
    if "moved" in node.resolved and leaps(node, node.in_spec.channels):
        ends = node.resolved["unreached"]
        pads = tuple((low, high - end) for (low, high), end in zip(pads, ends, strict=True))
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


@rule(ConvTranspose, kernel=("weight", in_first), bias="bias")
def conv_transpose(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    crop = node.resolved["crop"]
    more = tuple(low - high for low, high in crop)
    limits = map(max, block.stride, block.dilation)
    ends: dict[str, Any]
    apart = any(more) and "moved" in node.resolved and leaps(node, block.features)
    if not apart and all(0 <= cells < limit for cells, limit in zip(more, limits, strict=True)):
        name, padding = f"nn.ConvTranspose{rank}d", optional(each(before(crop)), 0)
        ends = {"padding": padding, "output_padding": optional(each(more), 0)}
    else:
        pads = tuple((-low, -high) for low, high in crop)
        name, ends = f"CroppedConvTranspose{rank}d", {"pads": last_first(pads)}
    return call(
        name,
        node.in_spec.channels,
        block.features,
        kernel_size=each(block.kernel_size),
        stride=optional(each(block.stride), 1),
        **ends,
        dilation=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        bias=optional(block.use_bias, True),
    )
