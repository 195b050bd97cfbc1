"""Which repetitions are alike, so that a backend may write or run them as a loop."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from blocks._spec import Node, ValueSpec, map_value
from blocks._stack import SHALLOW, run
from blocks.combine import Repeat, Sequential
from blocks.custom import Custom


def unrolled(node: Node) -> Node:
    """The same tree, in which every `Repeat` whose repetitions differ is a `Sequential`."""
    if not any(isinstance(n.form, Repeat) for n in node.walk()):
        return node

    def rebuilt(node: Node) -> Generator[Any, Any, Node]:
        children = []
        for child in node.children:
            children.append((yield rebuilt(child)))
        node = replace(node, children=tuple(children))
        if isinstance(node.form, Repeat) and not alike(node):
            return replace(node, block=Sequential(), form=Sequential())
        return node

    return run(rebuilt(node))


def alike(node: Node) -> bool:
    """Whether the repetitions differ in the numbers of their parameters alone.

    Shared blocks, and streams of shared draws, have their own place in each; a Custom block may
    branch on values, which a compiled loop cannot. Very deep ones cannot be written in one piece.
    """
    first = node.children[0]
    return (
        keeps_sizes(node)
        and first.levels() <= SHALLOW
        and not any(
            n.shared or "key" in n.resolved or isinstance(n.form, Custom) for n in first.walk()
        )
    )


def keeps_sizes(node: Node) -> bool:
    """Whether every repetition hands on a value of the sizes that it was given."""
    values = {sizes(v) for child in node.children for v in (child.in_spec, child.out_spec)}
    return len(values) == 1


def sizes(value: ValueSpec) -> Any:
    """Shape and dtype of each tensor; a vector has either layout."""
    return map_value(lambda spec: (spec.shape, spec.dtype), value)
