"""Combinators."""

from __future__ import annotations

from typing import Any

from torch import nn

from backends._expression import Each, Star, call, optional
from backends._rules import listed
from backends.torch import modules
from backends.torch._common import rule
from blocks._errors import UnsupportedError, place
from blocks._spec import Node
from blocks.combine import Parallel, Repeat, Residual, Sequential


@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    if isinstance(listed(children), list):
        return call("nn.Sequential", *children.values())
    check_names(node, children)
    return call("nn.Sequential", call("OrderedDict", list(children.items())))


def check_names(node: Node, children: dict[str, Any]) -> None:
    """Refuse names that torch's modules, or ours, have for something else."""
    own: Any = modules.Parallel
    parents = own([], merge="tuple"), nn.Sequential()
    for name in children:
        if any(hasattr(parent, name) for parent in parents):
            raise UnsupportedError(
                f"torch cannot name a child {name!r} {place(node.path)}: its modules have an "
                "attribute of that name.\n  Give the child another name."
            )


@rule(Repeat)
def repeat(node: Node, children: dict[str, Any]) -> Any:
    return call("nn.Sequential", Star(Each(children["0"], node.form.times)))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    if node.form.merge == "add":
        shortcut = optional(children.get("shortcut"), None)
        return call("Residual", children["body"], shortcut=shortcut)
    around = {"shortcut": children.get("shortcut", call("nn.Identity"))}
    return merged(node, around | {"body": children["body"]})


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    check_names(node, children)
    return merged(node, listed(children))


def merged(node: Node, branches: Any) -> Any:
    dim = node.resolved.get("axis", 0) + 1
    return call("Parallel", branches, merge=node.form.merge, dim=optional(dim, 1))
