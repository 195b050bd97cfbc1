"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, call, optional
from backends._rules import dropped_together, shared_dropout
from backends.flax._common import rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedDropout", node.form.rate, **shared_dropout(node))
    axes = optional(dropped_together(node), ())
    return call("nnx.Dropout", node.form.rate, broadcast_dims=axes, rngs=Name("rngs"))
