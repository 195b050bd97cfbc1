"""Linear blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends.keras._common import (
    layer,
    rule,
)
from blocks._spec import Node
from blocks.linear import Dense, Embedding


@rule(Dense, kernel="kernel", bias="bias")
def dense(node: Node) -> Any:
    return layer(node, "Dense", node.form.features, use_bias=optional(node.form.use_bias, True))


@rule(Embedding, embedding="embeddings")
def embedding(node: Node) -> Any:
    return layer(node, "Embedding", node.form.num_embeddings, node.form.features)
