"""Values."""

from __future__ import annotations

import math
from typing import Any

from backends._expression import call
from backends._transforms import one_row
from backends.keras._common import Item, Join, Op, Pipe, layer, op, own_layer, pipe, rule
from blocks._spec import Node
from blocks.value import Constant, Identity, Parameter, Sample, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return Pipe()


@rule(Select)
def select(node: Node) -> Any:
    return Item(node.resolved["index"])


# A functional model has no layer that only holds an array: it is the one row of an Embedding.


@rule(Parameter, value=("embeddings", one_row))
def parameter(node: Node) -> Any:
    return array(node)


@rule(Constant, value=("embeddings", one_row))
def constant(node: Node) -> Any:
    return array(node, trainable=False)


def array(node: Node, **options: Any) -> Any:
    """The input, and for each example the array, merged."""
    rank, shape = node.in_spec.rank, node.resolved["shape"]
    value = pipe(
        op("zeros_like", dtype="int32"),
        op("max", axis=tuple(range(1, rank + 1))),
        layer(node, "Embedding", 1, math.prod(shape), **options),
        op("reshape", newshape=(-1, *(1,) * (rank - len(shape)), *shape)),
    )
    if node.form.merge == "prepend":
        return Join(("value", "x"), (value, Pipe()), op("concatenate", axis=1))
    merge = Op(call(f"ops.{node.form.merge}"), spread=True)
    return Join(("value", "x"), (value, Pipe()), merge)


@rule(Sample)
def sample(node: Node) -> Any:
    """GaussianNoise is 0 in evaluation."""
    if "key" in node.resolved:
        return own_layer(node, "SharedSample", key=node.resolved["key"])
    noise = pipe(op("zeros_like"), layer(node, "GaussianNoise", 1.0))
    scale = pipe(op("multiply", x2=0.5), op("exp"))
    spread = Join(("scale", "noise"), (scale, noise), Op(call("ops.multiply"), spread=True))
    return Join(("mean", "spread"), (Item(0), pipe(Item(1), spread)), Op(call("ops.add"), True))
