"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends.keras._common import layer, own_layer, rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return own_layer(node, "SharedDropout", node.form.rate, key=node.resolved["key"])
    return layer(node, "Dropout", node.form.rate)
