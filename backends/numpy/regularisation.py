"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._rules import dropped_together, shared_dropout
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedDropout", node.form.rate, **shared_dropout(node))
    return call("Dropout", node.form.rate, axes=optional(dropped_together(node), ()), rng=RNG)
