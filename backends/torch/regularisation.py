"""Regularisation."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._rules import shared_dropout
from backends.torch._common import rule
from blocks._spec import Node
from blocks.regularisation import Dropout


@rule(Dropout)
def dropout(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedDropout", node.form.rate, **shared_dropout(node))
    block, rank = node.form, node.in_spec.rank
    whole = block.whole_channels and rank > 1  # Dropout1d takes a batch of vectors for one example
    name = f"nn.Dropout{rank - 1}d" if whole else "nn.Dropout"
    return call(name, p=optional(block.rate, 0.5))
