"""Linear blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.linear import Dense, Embedding


@rule(Dense, kernel="kernel", bias="bias")
def dense(node: Node) -> Any:
    use_bias = optional(node.form.use_bias, True)
    return call("Dense", node.in_spec.shape[-1], node.form.features, use_bias=use_bias, rng=RNG)


@rule(Embedding, embedding="embedding")
def embedding(node: Node) -> Any:
    return call("Embedding", node.form.num_embeddings, node.form.features, rng=RNG)
