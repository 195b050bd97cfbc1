"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends.keras._common import (
    layer,
    rule,
)
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    return layer(node, "Dropout", node.form.rate)
