"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, call, optional
from backends.flax._common import rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    block, rank = node.form, node.in_spec.rank
    axes = tuple(range(1, rank)) if block.whole_channels else ()
    return call("nnx.Dropout", block.rate, broadcast_dims=optional(axes, ()), rngs=Name("rngs"))
