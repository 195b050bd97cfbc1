"""Shapes."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import channel_axis, rule
from blocks._spec import Node
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample


@rule(Flatten)
def flatten(node: Node) -> Any:
    return call("Flatten")


@rule(Permute)
def permute(node: Node) -> Any:
    return call("Permute", 0, *(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return call("Reshape", node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    if block.mode == "constant":
        return call("ConstantPad", block.pads, block.value)
    return call("EdgePad", block.pads, block.mode)


@rule(Crop)
def crop(node: Node) -> Any:
    return call("Crop", node.form.crops)


@rule(Upsample)
def upsample(node: Node) -> Any:
    block = node.form
    return call(
        f"{block.mode.capitalize()}Upsample",
        size=optional(block.size, None),
        scale=optional(block.scale, None),
        channel_axis=channel_axis(node),
    )
