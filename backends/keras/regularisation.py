"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._rules import shared_dropout
from backends.keras._common import LAST, layer, own_layer, rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return own_layer(node, "SharedDropout", node.form.rate, **shared_dropout(node))
    block, rank = node.form, node.in_spec.rank
    if not block.whole_channels or rank == 1:
        return layer(node, "Dropout", block.rate)
    last = LAST if rank > 2 else {}  # SpatialDropout1D knows no other format
    return layer(node, f"SpatialDropout{rank - 1}D", block.rate, **last)
