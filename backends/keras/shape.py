"""Shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends._expression import optional
from backends.keras._common import (
    LAST,
    layer,
    op,
    rule,
    sized,
    taken,
)
from blocks._spec import Node
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape


@rule(Flatten)
def flatten(node: Node) -> Any:
    return layer(node, "Flatten", **LAST)


@rule(Permute)
def permute(node: Node) -> Any:
    return layer(node, "Permute", tuple(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return layer(node, "Reshape", node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    if block.mode == "edge":  # TensorFlow has no such padding
        return taken(node, [np.pad(np.arange(n), p, "edge") for n, p in sized(node, block.pads)])
    value = {"constant_values": block.value} if block.mode == "constant" else {}
    pads = ((0, 0), *block.pads)
    return op("pad", pad_width=pads, mode=optional(block.mode, "constant"), **value)


@rule(Crop)
def crop(node: Node) -> Any:
    crops = node.form.crops
    if crops[-1] == (0, 0) and 2 <= len(crops) <= 4:
        sizes = crops[0] if len(crops) == 2 else crops[:-1]
        last = LAST if len(crops) > 2 else {}  # Cropping1D knows no other format
        return layer(node, f"Cropping{len(crops) - 1}D", sizes, **last)
    return taken(node, [np.arange(n)[low : n - high] for n, (low, high) in sized(node, crops)])
