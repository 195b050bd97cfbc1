"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    block, x = node.form, node.in_spec
    axes = tuple(axis + 1 for axis in x.spatial_axes) if block.whole_channels else ()
    return call("Dropout", block.rate, axes=optional(axes, ()), rng=RNG)
