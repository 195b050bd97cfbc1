"""Where the order of a flattened image matters to parameters, and how to change it.

A vector that was an image has its numbers in the order of the layout that it was flattened in. What
takes such a vector has rows in that order, and what makes a vector that becomes an image has
columns in it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blocks._block import Combinator
from blocks._spec import Node, join, leaves, map_value
from blocks._stack import run
from blocks.attention import MultiHeadAttention
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.recurrent import Recurrent
from blocks.regularisation import Dropout
from blocks.shape import Flatten, Reshape
from blocks.value import Select

Changes = dict[str, dict[int, np.ndarray]]
NORMS = (BatchNorm, LayerNorm, RMSNorm, GroupNorm)
SEQUENTIAL = (Recurrent, MultiHeadAttention)  # they have their features last in every framework


@dataclass(frozen=True)
class Trace:
    """What is known of a value.

    Attributes:
        image: whether its axes are those of an image, which a framework may hold in another order.
        order: for each number of the vector where the foreign model has it; None for the same.
        makers: parameters, with the axis along which they make this vector; None if others than
            the next block see it too.
    """

    image: bool = False
    order: Any = None
    makers: tuple[tuple[str, int], ...] | None = ()


def reorderings(node: Node, foreign: str) -> tuple[Changes, list[str]]:
    """For each parameter the axes to reorder, with the order, and what cannot be reordered.

    Args:
        node: the network.
        foreign: the layout in which the other model flattens.
    """
    layout = leaves(node.in_spec)[0].layout
    if layout == foreign:
        return {}, []
    walk = Walk(layout)
    start = map_value(lambda spec: Trace(image=spec.rank > 2), node.in_spec)
    end = run(walk.passed(node, start))
    if any(trace.order is not None for trace in leaves(end)):
        walk.problems.append(
            "the output is a flattened image in another order; import into a network of the "
            "foreign layout."
        )
    return walk.changes, walk.problems


class Walk:
    """Follows values through a network."""

    def __init__(self, layout: str):
        self.layout = layout
        self.changes: Changes = {}
        self.problems: list[str] = []

    def passed(self, node: Node, x: Any) -> Generator[Any, Any, Any]:
        """What is known of the output."""
        if not isinstance(node.form, Combinator):
            return self.leaf(node, x)
        if node.form.flow != "fork":
            for child in node.children:
                x = yield self.passed(child, x)
            return x
        inside = map_value(lambda trace: replace(trace, makers=None), x)
        outputs = [x] if getattr(node.form, "shortcut", 0) is None else []
        for child in node.children:
            outputs.append((yield self.passed(child, inside)))
        return self.merged(node, outputs)

    def merged(self, node: Node, outputs: list[Any]) -> Any:
        if isinstance(node.out_spec, tuple):
            return tuple(outputs) if len(outputs) == len(node.out_spec) else plain(node.out_spec)
        traces = [leaf for output in outputs for leaf in leaves(output)]
        image = any(trace.image for trace in traces) and node.out_spec.rank > 1
        makers = joined(traces) if node.form.merge != "concat" else None
        if all(trace.order is None for trace in traces):
            return Trace(image, None, makers)
        if node.form.merge == "concat" and node.out_spec.rank == 1:
            sizes = [child.out_spec.shape[0] for child in node.children]
            if len(sizes) < len(traces):
                sizes = [node.in_spec.shape[0], *sizes]
            parts, start = [], 0
            for trace, size in zip(traces, sizes, strict=True):
                parts.append(start + (np.arange(size) if trace.order is None else trace.order))
                start += size
            return Trace(False, np.concatenate(parts), None)
        first = traces[0].order
        if any(t.order is None or not np.array_equal(t.order, first) for t in traces):
            self.problems.append(f"{node.path}: merges vectors in different orders.")
        return Trace(image, first, makers)

    def leaf(self, node: Node, x: Any) -> Any:
        form, out = node.form, node.out_spec
        if isinstance(form, Select):
            return x[form.index]
        if isinstance(x, tuple) or isinstance(out, tuple):
            if any(trace.order is not None for trace in leaves(x)):
                self.refuse(node)
            return plain(out)
        vector = isinstance(form, (Flatten, Reshape)) and out.rank == 1 < node.in_spec.rank
        if vector and x.image:
            return Trace(order=flat_order(node.in_spec), makers=None)
        if isinstance(form, Reshape) and x.image and mixed(node):
            self.refuse(node)
        if isinstance(form, Reshape) and node.in_spec.rank == 1 and out.rank > 2:
            self.unflattened(node, x)
            return Trace(image=True)
        if form.layout_role == "elementwise" or isinstance(form, Dropout):
            return x
        if isinstance(form, NORMS) and out.rank == 1:
            return self.norm(node, x)
        if isinstance(form, Dense):
            if x.order is not None:
                self.change(join(node.home, "kernel"), 0, x.order)
            makers = [(join(node.home, name), -1) for name in node.params]
            return Trace(image=x.image and out.rank > 1, makers=tuple(makers))
        if x.order is not None:
            self.refuse(node)
        spatial = form.layout_role == "spatial" and out.rank > 1
        kept = x.image and out.rank == node.in_spec.rank and not isinstance(form, SEQUENTIAL)
        return Trace(image=spatial or kept or out.rank > 2)

    def norm(self, node: Node, x: Trace) -> Trace:
        paths = [join(node.home, name) for name in node.params]
        if x.order is not None:
            if isinstance(node.form, GroupNorm):
                self.refuse(node)
            for path in paths:
                self.change(path, 0, x.order)
        made = None if x.makers is None else (*x.makers, *((path, -1) for path in paths))
        return replace(x, makers=made)

    def unflattened(self, node: Node, x: Trace) -> None:
        order = flat_order(node.out_spec)
        if order is None:
            return
        if x.makers is None:
            self.refuse(node)
            return
        for path, _ in x.makers:
            self.change(path, -1, order)

    def refuse(self, node: Node) -> None:
        name = type(node.block).__name__
        self.problems.append(
            f"{name} at {node.path!r} sees an image as a vector in an order that cannot be changed "
            "in its parameters; import into a network of the foreign layout."
        )

    def change(self, path: str, axis: int, order: Any) -> None:
        self.changes.setdefault(path, {})[axis] = order


def plain(value: Any) -> Any:
    return map_value(lambda spec: Trace(image=spec.rank > 2), value)


def joined(traces: list[Trace]) -> Any:
    """All that made the vectors of a sum."""
    if any(trace.makers is None for trace in traces):
        return None
    return tuple(maker for trace in traces for maker in trace.makers or ())


def mixed(node: Node) -> bool:
    """Whether an image gets other axes that mix its channels with its positions."""
    axis = -1 if node.in_spec.layout == "channels_last" else 0
    kept = node.in_spec.shape[axis] == node.out_spec.shape[axis]
    return not kept and flat_order(node.in_spec) is not None


def flat_order(spec: Any) -> Any:
    """For each number of a flattened image, where the other layout has it; None if it is alike."""
    sizes = spec.shape
    if None in sizes or spec.channels in (1, math.prod(sizes)):
        return None
    axis = spec.channel_axis
    last = spec.layout == "channels_last"
    there = (axis, *spec.spatial_axes) if last else (*spec.spatial_axes, axis)
    # positions of the other layout, brought into the order of this one
    other = np.arange(math.prod(sizes)).reshape([sizes[a] for a in there])
    return np.transpose(other, np.argsort(there)).reshape(-1)
