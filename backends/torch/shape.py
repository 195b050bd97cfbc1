"""Shapes."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends._rules import each
from backends.torch._common import last_first, rule
from blocks._spec import Node
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample


@rule(Flatten)
def flatten(node: Node) -> Any:
    return call("nn.Flatten") if node.in_spec.shape else from_scalar((1,))


def from_scalar(shape: tuple[int | None, ...]) -> Any:
    """One number for each example as an array; nn.Flatten takes no scalars."""
    return call("nn.Unflatten", 0, (-1, *shape))


@rule(Permute)
def permute(node: Node) -> Any:
    return call("Permute", 0, *(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    flatten, shape = call("nn.Flatten"), node.out_spec.shape
    if not shape:
        return call("nn.Flatten", 0)  # one number for each example
    if not node.in_spec.shape:
        return from_scalar(shape)
    if len(shape) == 1:
        return flatten
    return call("nn.Sequential", flatten, call("nn.Unflatten", 1, shape))


@rule(Pad)
def pad(node: Node) -> Any:
    block, rank = node.form, node.in_spec.rank
    sizes = last_first(block.pads)
    if block.mode == "constant":
        return call(f"nn.ConstantPad{min(rank, 3)}d", sizes, block.value)
    if rank > 3:
        return call("AnyPad", block.pads, block.mode)
    name = {"reflect": "Reflection", "edge": "Replication"}[block.mode]
    return call(f"nn.{name}Pad{rank}d", sizes)


@rule(Crop)
def crop(node: Node) -> Any:
    return call("Crop", *node.form.crops)


@rule(Upsample)
def upsample(node: Node) -> Any:
    block = node.form
    if block.mode == "nearest" and block.size and centre_on_edge(node):
        return call("NearestUpsample", block.size)
    target = {"size": each(block.size)} if block.size else {"scale_factor": each(block.scale)}
    linear = ("linear", "bilinear", "trilinear")[node.in_spec.rank - 2]
    mode = linear if block.mode == "linear" else "nearest-exact"
    return call("nn.Upsample", **target, mode=mode)


def centre_on_edge(node: Node) -> bool:
    """Whether the centre of a new cell may be the edge of two old ones, where torch may err."""
    sizes = zip(node.in_spec.spatial, node.form.size, strict=True)
    return any(n is None or any((2 * i + 1) * n % (2 * m) == 0 for i in range(m)) for n, m in sizes)
