"""Combinators."""

from __future__ import annotations

from typing import Any

from backends._expression import Lambda, Name, call, optional
from backends._rules import own_axis
from backends.flax._common import module, rule
from blocks._spec import Node
from blocks.combine import Parallel, Repeat, Residual, Sequential


@rule(Sequential, child="layers.{index}")
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return call("nnx.Sequential", *children.values())


@rule(Repeat, child="block", stacked=True)
def repeat(node: Node, children: dict[str, Any]) -> Any:
    make = Lambda("rngs", module(children["0"]))
    return call("Repeat", make, node.form.times, rngs=Name("rngs"))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    shortcut = optional(children.get("shortcut"), None)
    if node.form.merge == "add" and not isinstance(node.in_spec, tuple):
        return call("Residual", children["body"], shortcut=shortcut)
    return call("MergedResidual", children["body"], shortcut=shortcut, **merge(node))


@rule(Parallel, child="branches.{index}")
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return call("Parallel", list(children.values()), **merge(node))


def merge(node: Node) -> dict[str, Any]:
    """How outputs are merged; the last axis is -1, as Flax users write it."""
    axis = own_axis(node) if "axis" in node.resolved else -1
    return {"merge": node.form.merge, "axis": optional(axis, -1)}
