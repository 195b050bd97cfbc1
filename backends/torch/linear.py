"""Linear blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._transforms import out_first
from backends.torch._common import rule
from blocks._spec import Node
from blocks.linear import Dense, Embedding


@rule(Dense, kernel=("weight", out_first), bias="bias")
def dense(node: Node) -> Any:
    bias = optional(node.form.use_bias, True)
    return call("nn.Linear", node.in_spec.shape[-1], node.form.features, bias=bias)


@rule(Embedding, embedding="weight")
def embedding(node: Node) -> Any:
    return call("nn.Embedding", node.form.num_embeddings, node.form.features)
