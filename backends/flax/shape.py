"""Shapes."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, optional
from backends.flax._common import partial, rule
from blocks._spec import Node
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample


@rule(Flatten)
def flatten(node: Node) -> Any:
    return Name("flatten")


@rule(Permute)
def permute(node: Node) -> Any:
    return partial("jnp.transpose", axes=(0, *(axis + 1 for axis in node.form.axes)))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return partial("reshape", shape=node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    value = {"constant_values": block.value} if block.mode == "constant" else {}
    pads = ((0, 0), *block.pads)
    return partial("jnp.pad", pad_width=pads, mode=optional(block.mode, "constant"), **value)


@rule(Crop)
def crop(node: Node) -> Any:
    return partial("crop", crops=node.form.crops)


@rule(Upsample)
def upsample(node: Node) -> Any:
    block = node.form
    target = {"size": block.size} if block.size else {"scale": block.scale}
    return partial(f"{block.mode}_upsample", **target)
