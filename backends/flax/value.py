"""Values."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, call, optional
from backends.flax._common import partial, rule
from blocks._spec import Node
from blocks.value import Constant, Identity, Parameter, Sample, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return Name("identity")


@rule(Select)
def select(node: Node) -> Any:
    return partial("select", index=node.resolved["index"])


@rule(Parameter, value="value")
def parameter(node: Node) -> Any:
    return array(node)


@rule(Constant, value="value")
def constant(node: Node) -> Any:
    return array(node, kind=Name("nnx.Variable"))


def array(node: Node, **options: Any) -> Any:
    dtype = optional(Name(f"jnp.{node.param_dtype}"), Name("jnp.float32"))
    shape, merge = node.resolved["shape"], node.form.merge
    return call("Parameter", shape, merge, **options, dtype=dtype)


@rule(Sample)
def sample(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedSample", key=node.resolved["key"])
    return call("Sample", rngs=Name("rngs"))
