"""Combinators."""

from __future__ import annotations

from typing import Any

from backends._expression import Each, call, optional
from backends._rules import listed
from backends.numpy._common import rule
from blocks._spec import Node
from blocks.combine import Parallel, Repeat, Residual, Sequential


@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return call("Sequential", listed(children))


@rule(Repeat)
def repeat(node: Node, children: dict[str, Any]) -> Any:
    return call("Sequential", Each(children["0"], node.form.times))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    if node.form.merge == "add":
        shortcut = optional(children.get("shortcut"), None)
        return call("Residual", children["body"], shortcut=shortcut)
    around = {"shortcut": children.get("shortcut", call("Identity"))}
    return merged(node, around | {"body": children["body"]})


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, listed(children))


def merged(node: Node, branches: Any) -> Any:
    axis = node.resolved.get("axis", 0) + 1
    return call("Parallel", branches, merge=node.form.merge, axis=optional(axis, 1))
