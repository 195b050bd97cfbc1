"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.torch._common import rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedDropout", node.form.rate, key=node.resolved["key"])
    return call("nn.Dropout", p=optional(node.form.rate, 0.5))
