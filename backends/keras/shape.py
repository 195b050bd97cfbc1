"""Shapes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from backends._expression import call, optional
from backends._rules import each
from backends.keras._common import (
    LAST,
    Join,
    Op,
    layer,
    op,
    pipe,
    rule,
    sized,
    taken,
)
from blocks._spec import Node
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample


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


@rule(Upsample)
def upsample(node: Node) -> Any:
    block, rank = node.form, node.in_spec.rank - 1
    if block.mode == "nearest" and block.scale:
        last = LAST if rank > 1 else {}  # UpSampling1D knows no other format
        return layer(node, f"UpSampling{rank}D", each(block.scale), **last)
    if block.mode == "nearest":
        sizes = sized(node, node.out_spec.shape)
        return taken(node, [(2 * np.arange(m) + 1) * n // (2 * m) for n, m in sizes])
    # TensorFlow resizes in float32 whatever the dtype
    exact = node.dtype == "float32" or keras.backend.backend() != "tensorflow"
    if rank == 2 and exact and block.scale:
        return layer(node, "UpSampling2D", each(block.scale), interpolation="bilinear", **LAST)
    if rank == 2 and exact:
        defaults = {"interpolation": optional("bilinear", "bilinear"), **LAST}
        return op("image.resize", size=block.size, antialias=optional(False, False), **defaults)
    axes = enumerate(sized(node, node.out_spec.shape), 1)
    return pipe(*(interpolated(node, axis, *sizes) for axis, sizes in axes if len(set(sizes)) > 1))


def interpolated(node: Node, axis: int, n: int, m: int) -> Any:
    """Linear interpolation along an axis of n cells to m."""
    centres = np.clip(((2 * np.arange(m) + 1) * n - m) / (2 * m), 0, n - 1)
    low, high = np.floor(centres).astype(int), np.ceil(centres).astype(int)

    def share(cells: Any, weights: Any) -> Any:
        column = weights.reshape(-1, *(1,) * (node.in_spec.rank - axis)).tolist()
        weight = call("ops.convert_to_tensor", column, dtype=node.dtype)
        return pipe(op("take", indices=cells.tolist(), axis=axis), op("multiply", x2=weight))

    shares = share(low, 1 - (centres - low)), share(high, centres - low)
    return Join(("low", "high"), shares, Op(call("ops.add"), spread=True))
