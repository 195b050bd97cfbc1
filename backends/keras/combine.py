"""Combinators."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._rules import own_axis
from backends.keras._common import (
    Join,
    Pipe,
    layer,
    op,
    rule,
)
from blocks._spec import Node
from blocks.combine import Parallel, Repeat, Residual, Sequential


@rule(Repeat)
@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return Pipe(tuple(children.values()))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, {"shortcut": children.get("shortcut", Pipe())} | children)


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, children)


MERGES = {"add": "Add", "multiply": "Multiply", "mean": "Average", "max": "Maximum"}


def merged(node: Node, children: dict[str, Any]) -> Any:
    names = tuple(name if name.isidentifier() else f"branch_{name}" for name in children)
    branches, merge = tuple(children.values()), node.form.merge
    if len(branches) == 1 and merge not in ("stack", "tuple"):
        return branches[0]  # Keras's merges refuse a single value
    if merge == "tuple":
        return Join(names, branches, None)
    if merge == "stack":
        return Join(names, branches, op("stack", axis=node.resolved["axis"] + 1))
    if merge == "concat":
        merge_layer = layer(node, "Concatenate", axis=optional(own_axis(node), -1))
        return Join(names, branches, merge_layer)
    return Join(names, branches, layer(node, MERGES[merge]))
